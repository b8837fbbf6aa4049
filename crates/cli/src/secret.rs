//! `assay secret`: what devices are given for as long as they are trusted.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use assay_identity::secret::SECRET_BYTES_MAX;
use assay_wire::console::secret::{
    Assign, Content, Held, Holder, Meant, Put, Revoked, Rotate, Secret, Secrets,
};
use clap::Subcommand;
use data_encoding::BASE64;

use crate::bounded;
use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay secret`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Put a secret in: bytes of a file, which devices find under its name.
    Put {
        /// What it is called: 1 to 64 lower-case letters, digits, dots, dashes and underscores.
        name: String,
        /// The file with what is secret; - reads it from standard input.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// It is a program, which devices run that allow it.
        #[arg(long)]
        autorun: bool,
        #[command(flatten)]
        whom: Option<Whom>,
    },
    /// Say for which devices a secret is. Whoever has it and is not meant any more loses it.
    Assign {
        /// The secret.
        name: String,
        #[command(flatten)]
        whom: Option<Whom>,
        /// For nobody.
        #[arg(long, conflicts_with_all = ["to", "everyone", "policy"])]
        nobody: bool,
    },
    /// Every secret, for whom it is, and how many devices have it.
    List,
    /// A secret and which devices have it.
    Show {
        /// The secret.
        name: String,
    },
    /// Give a secret another content. Whoever has it is given the new one.
    Rotate {
        /// The secret.
        name: String,
        /// The file with what is secret now; - reads it from standard input.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// End a secret: it is removed here, and from every device that has it.
    Revoke {
        /// The secret.
        name: String,
    },
}

/// Which devices.
#[derive(clap::Args)]
#[group(required = false, multiple = true)]
struct Whom {
    /// Devices with these labels, such as site=paris,tier=edge.
    #[arg(long, value_name = "LABELS", conflicts_with = "everyone")]
    to: Option<String>,
    /// Every device.
    #[arg(long)]
    everyone: bool,
    /// Of these, devices that the policy of this name judges.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

impl Whom {
    fn meant(self) -> Result<Meant> {
        match self {
            Whom { to: Some(labels), policy, .. } => Ok(Meant { labels, policy }),
            Whom { to: None, everyone: true, policy } => Ok(Meant { labels: String::new(), policy }),
            Whom { to: None, everyone: false, .. } => {
                bail!("--policy narrows down which devices are meant: say --to LABELS or --everyone as well")
            }
        }
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Args { asking, verb } = args;
    let (client, json) = (asking.console.client()?, asking.json);
    let path = |name: &str, rest: &str| format!("/v1/secrets/{}{rest}", segment(name));
    match verb {
        Verb::Put { name, file, autorun, whom } => {
            let to = whom.map(Whom::meant).transpose()?;
            let put = Put { name, content: content(&file)?, autorun, to };
            output::answer(&client.post("/v1/secrets", &put)?, json, |secret: &Secret| {
                output::out!("{} is there: {}", output::shown(&secret.name), whom_it_is_for(secret));
            })
        }
        Verb::Assign { name, whom, nobody } => {
            let to = match (whom, nobody) {
                (Some(whom), false) => Some(whom.meant()?),
                (None, true) => None,
                _ => bail!("say which devices are meant: --to LABELS, --everyone or --nobody"),
            };
            output::answer(&client.post(&path(&name, "/assign"), &Assign { to })?, json, |held: &Held| {
                output::out!("{} is {}", output::shown(&held.secret.name), whom_it_is_for(&held.secret));
            })
        }
        Verb::List => output::answer(&client.get("/v1/secrets")?, json, print_secrets),
        Verb::Show { name } => output::answer(&client.get(&path(&name, ""))?, json, print_held),
        Verb::Rotate { name, file } => {
            let rotate = Rotate { content: content(&file)? };
            output::answer(&client.post(&path(&name, "/rotate"), &rotate)?, json, |secret: &Secret| {
                output::out!("{} has version {} now", output::shown(&secret.name), secret.version);
            })
        }
        Verb::Revoke { name } => {
            output::answer(&client.delete(&path(&name, ""))?, json, |Revoked { name, devices }| {
                output::out!("{} is no more; {devices} devices had it", output::shown(name));
            })
        }
    }
}

fn content(file: &std::path::Path) -> Result<Content> {
    let bytes = bounded::read_or_stdin(file, SECRET_BYTES_MAX as u64).context("the secret cannot be read")?;
    Ok(Content(BASE64.encode(&bytes)))
}

fn whom_it_is_for(secret: &Secret) -> String {
    match &secret.to {
        None => "for nobody; assay secret assign says for whom".to_owned(),
        Some(Meant { labels, policy }) => {
            let whom =
                if labels.is_empty() { "every device".to_owned() } else { format!("devices with {labels}") };
            let judged = policy.as_ref().map(|policy| format!(" that {policy} judges")).unwrap_or_default();
            output::shown(&format!("for {whom}{judged}"))
        }
    }
}

fn print_secrets(Secrets { secrets }: &Secrets) {
    if secrets.is_empty() {
        output::out!("There is no secret. assay secret put NAME --file FILE --to LABELS puts one in.");
        return;
    }
    let rows = secrets.iter().map(|secret| {
        let Secret { name, version, bytes, autorun, changed_at, devices, .. } = secret;
        let kind = if *autorun { "program" } else { "file" };
        let numbers = [version, bytes, devices].map(ToString::to_string);
        let [version, bytes, devices] = numbers;
        let whom = whom_it_is_for(secret);
        vec![output::shown(name), version, kind.to_owned(), bytes, whom, devices, output::when(*changed_at)]
    });
    let titles = ["secret", "version", "kind", "bytes", "for whom", "devices that have it", "changed"];
    output::out!("{}", output::table(&titles, rows));
}

fn print_held(Held { secret, held_by }: &Held) {
    output::out!(
        "{} version {}, {} bytes, {}",
        output::shown(&secret.name),
        secret.version,
        secret.bytes,
        whom_it_is_for(secret)
    );
    if held_by.is_empty() {
        output::out!("No device has it.");
        return;
    }
    let rows = held_by.iter().map(|Holder { device, version, since }| {
        vec![output::shown(device), version.to_string(), output::when(*since)]
    });
    output::out!("{}", output::table(&["device", "version", "since"], rows));
}
