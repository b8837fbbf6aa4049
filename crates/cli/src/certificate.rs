//! `assay certificate`: which certificates were issued, how each stands, and what signs them.

use anyhow::Result;
use assay_wire::console::certificate::{Authorities, Certificate, Certificates};
use clap::{Subcommand, ValueEnum};

use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay certificate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Certificates, those that end first before the others; without a state, those that have not ended.
    List(Which),
    /// What signs them, how long it still does, and the revocation list in force.
    Authorities,
}

#[derive(clap::Args)]
struct Which {
    /// A serial number in hex, or eight digits and more of its beginning.
    #[arg(long)]
    serial: Option<String>,
    /// Whom they name.
    #[arg(long)]
    spiffe_id: Option<String>,
    /// The device that carries them.
    #[arg(long)]
    device: Option<String>,
    /// How they stand.
    #[arg(long)]
    state: Option<State>,
    /// Those that end within so many days.
    #[arg(long)]
    days: Option<u32>,
    /// How many at most, 1 to 1,000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Where to go on, as an earlier list said.
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// Good.
    Standing,
    /// Taken back before its end.
    Withdrawn,
    /// Over.
    Ended,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Args { asking, verb } = args;
    let (client, json) = (asking.console.client()?, asking.json);
    match verb {
        Verb::List(which) => output::answer(&client.get(&which.path())?, json, print_certificates),
        Verb::Authorities => output::answer(&client.get("/v1/authorities")?, json, print_authorities),
    }
}

impl Which {
    fn path(&self) -> String {
        let state = self.state.and_then(|state| Some(state.to_possible_value()?.get_name().to_owned()));
        let said = [
            ("serial", self.serial.clone()),
            ("spiffe_id", self.spiffe_id.clone()),
            ("device", self.device.clone()),
            ("state", state),
            ("days", self.days.map(|days| days.to_string())),
            ("limit", Some(self.limit.to_string())),
            ("cursor", self.cursor.clone()),
        ];
        let said = said.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
        format!("/v1/certificates?{}", said.collect::<Vec<_>>().join("&"))
    }
}

fn print_certificates(Certificates { certificates, next }: &Certificates) {
    if certificates.is_empty() {
        output::out!("No certificate is there that this would mean.");
    } else {
        let rows = certificates.iter().map(|certificate: &Certificate| {
            vec![
                output::shown(&certificate.spiffe_id),
                output::shown(&certificate.kind),
                output::shown(&certificate.state),
                output::when(certificate.not_after),
                output::maybe(&certificate.device_name),
                output::shown(&certificate.serial),
            ]
        });
        output::out!("{}", output::table(&["for", "kind", "state", "ends", "device", "serial"], rows));
    }
    if let Some(next) = next {
        output::out!("More: --cursor {}", output::shown(next));
    }
}

fn print_authorities(Authorities { authorities, revocation_list: list }: &Authorities) {
    let rows = authorities.iter().map(|authority| {
        vec![output::shown(&authority.name), output::shown(&authority.stage), output::when(authority.until)]
    });
    output::out!("{}", output::table(&["authority", "life", "ends"], rows));
    output::out!(
        "\nrevocation list {}, with {} certificates in {} bytes, to be used until {}",
        list.number,
        list.entries,
        list.bytes,
        output::when(list.until)
    );
}
