//! `assay webhook`: who is told what happens, how far each is, and what it was not given.

use anyhow::Result;
use assay_wire::console::webhook::{Letter, Letters, SendAgain, SentAgain, Webhook, Webhooks};
use clap::Subcommand;

use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay webhook`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Every receiver of notices, and how far behind the trail it is.
    List,
    /// The notices that a receiver was not given: it refused them, or did not take them for too long.
    Letters {
        /// The receiver.
        name: String,
    },
    /// Send notices again that a receiver was not given.
    Again {
        /// The receiver.
        name: String,
        /// Only the notice about this leaf (may be repeated); otherwise all of them.
        #[arg(long = "leaf", value_name = "NUMBER")]
        leaves: Vec<u64>,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Args { asking, verb } = args;
    let (client, json) = (asking.console.client()?, asking.json);
    let path = |name: &str, rest: &str| format!("/v1/webhooks/{}/{rest}", segment(name));
    match verb {
        Verb::List => output::answer(&client.get("/v1/webhooks")?, json, print_webhooks),
        Verb::Letters { name } => output::answer(&client.get(&path(&name, "letters"))?, json, print_letters),
        Verb::Again { name, leaves } => {
            let answer = client.post(&path(&name, "again"), &SendAgain { leaves })?;
            output::answer(&answer, json, |SentAgain { again }| {
                output::out!("{again} notices are sent to {} again", output::shown(&name));
            })
        }
    }
}

fn print_webhooks(Webhooks { webhooks }: &Webhooks) {
    if webhooks.is_empty() {
        output::out!(
            "Nobody is told what happens. Name a receiver as [[webhook]] in the server's configuration."
        );
        return;
    }
    let rows = webhooks.iter().map(|Webhook { name, url, next_leaf, behind, dead_letters }| {
        let numbers = [next_leaf, behind, dead_letters].map(ToString::to_string);
        [name, url].map(|text| output::shown(text)).into_iter().chain(numbers).collect()
    });
    output::out!("{}", output::table(&["webhook", "url", "next leaf", "behind", "dead letters"], rows));
}

fn print_letters(Letters { letters }: &Letters) {
    if letters.is_empty() {
        output::out!("It was given every notice.");
        return;
    }
    let rows = letters.iter().map(|Letter { leaf, kind, subject, at, reason, again }| {
        let when = if *again { "is sent again".to_owned() } else { output::when(*at) };
        vec![leaf.to_string(), output::shown(kind), output::shown(subject), when, output::shown(reason)]
    });
    output::out!("{}", output::table(&["leaf", "kind", "about", "given up", "why"], rows));
}
