//! `assay token`, `assay whoami`: who may do what on the console, by tokens that name them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_wire::console::access::{CreateToken, Created, Ended, People, Person, Token, Tokens, Whoami};
use clap::{Subcommand, ValueEnum};

use crate::console::{Asking, segment};
use crate::{output, service};

/// Arguments of `assay token`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a token, which is shown this once. With the first admin's, the one in operator.token ends but on the server's machine.
    Create {
        /// What the trail calls whoever shows it: 1 to 48 lower-case letters, digits, dashes, dots and underscores.
        name: String,
        /// What it may do.
        #[arg(long)]
        role: Role,
        /// Only devices with these labels, such as site=paris.
        #[arg(long, value_name = "LABELS", default_value = "")]
        scope: String,
        /// How long it is good for, 90 days at most.
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=90))]
        days: u64,
        /// A file for it, for its owner alone, instead of the terminal.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Every token, what it may do, until when, and when it was used last.
    List,
    /// End a token, at once.
    Revoke {
        /// Which.
        name: String,
    },
    /// Everybody who ever signed in through the provider, as what, and when last.
    People,
}

/// What somebody may do.
#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Look at everything that is no secret.
    Viewer,
    /// Beside that, decide over devices, entries, secrets and tasks.
    Operator,
    /// Beside looking, say what is demanded of devices.
    PolicyAuthor,
    /// All of it, and who else may do what.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::PolicyAuthor => "policy-author",
            Role::Admin => "admin",
        }
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Args { asking, verb } = args;
    let (client, json) = (asking.console.client()?, asking.json);
    match verb {
        Verb::Create { name, role, scope, days, out } => {
            let new = CreateToken { name, role: role.name().to_owned(), scope, seconds: days * 86_400 };
            let created: Created = client.post("/v1/tokens", &new)?;
            match out {
                Some(file) => {
                    service::replace(&file, format!("{}\n", created.shown).as_bytes(), 0o600)
                        .with_context(|| format!("{} cannot be written", file.display()))?;
                    output::answer(&created.token, json, |token: &Token| {
                        output::out!(
                            "the token of {} is in {} until {}",
                            token.name,
                            file.display(),
                            token.expires_at
                        );
                    })
                }
                None => output::answer(&created, json, |Created { token, shown }| {
                    eprintln!(
                        "token/{} is {} until {}; it is shown this once:",
                        token.name, token.role, token.expires_at
                    );
                    output::out!("{shown}");
                }),
            }
        }
        Verb::List => output::answer(&client.get("/v1/tokens")?, json, print_tokens),
        Verb::Revoke { name } => {
            let ended = client.delete(&format!("/v1/tokens/{}", segment(&name)))?;
            output::answer(&ended, json, |Ended { name }| {
                output::out!("{} is worth nothing any more", output::shown(name))
            })
        }
        Verb::People => output::answer(&client.get("/v1/people")?, json, print_people),
    }
}

/// Says who asks.
pub fn whoami(asking: &Asking) -> Result<()> {
    output::answer(
        &asking.console.client()?.get("/v1/whoami")?,
        asking.json,
        |Whoami { name, role, scope }| {
            let devices = if scope.is_empty() { String::new() } else { format!(", of devices with {scope}") };
            output::out!("{}: {role}{}", output::shown(name), output::shown(&devices));
        },
    )
}

fn print_tokens(Tokens { tokens }: &Tokens) {
    if tokens.is_empty() {
        output::out!("There is no token. assay token create NAME --role ROLE makes one.");
        return;
    }
    let rows = tokens.iter().map(|token| {
        let Token { name, role, scope, created_by, expires_at, revoked_at, used_at, .. } = token;
        let ends = match revoked_at {
            Some(at) => format!("revoked {}", output::when(*at)),
            None => output::when(*expires_at),
        };
        let texts = [name, role, scope, created_by].map(|text| output::shown(text));
        let [name, role, scope, created_by] = texts;
        vec![name, role, scope, created_by, ends, output::when(*used_at)]
    });
    let titles = ["token", "role", "devices with", "made by", "ends", "last used"];
    output::out!("{}", output::table(&titles, rows));
}

fn print_people(People { people }: &People) {
    if people.is_empty() {
        output::out!("Nobody has signed in through a provider.");
        return;
    }
    let rows = people.iter().map(|person| {
        let Person { name, issuer, role, scope, last_at, .. } = person;
        let [name, role, scope, issuer] = [name, role, scope, issuer].map(|text| output::shown(text));
        vec![name, role, scope, issuer, output::when(*last_at)]
    });
    output::out!("{}", output::table(&["person", "role", "devices with", "vouched for by", "last"], rows));
}
