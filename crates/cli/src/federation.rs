//! `assay federation`: other trust domains that workloads here are to believe.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_identity::{Bundle, TrustDomain};
use assay_wire::console::federation::{
    Ended, Endpoint, Federation, Federations, Refreshed, Relate, SetBundle,
};
use clap::Subcommand;
use serde_json::Value;

use crate::bounded;
use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay federation`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Have the bundle of another trust domain be fetched from now on.
    Create {
        /// Its name.
        trust_domain: String,
        #[command(flatten)]
        from: Place,
        /// The bundle to begin with: a document, or certificates in PEM. Where the endpoint shows an ID of the same trust domain
        /// there has to be one.
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
    },
    /// Have it be fetched from somewhere else, or known by another ID.
    Update {
        /// Its name.
        trust_domain: String,
        #[command(flatten)]
        from: Place,
        /// The bundle to go on with.
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
    },
    /// Every other trust domain, how fetching its bundle goes, and how many entries federate with it.
    List,
    /// Another trust domain, with its bundle.
    Show {
        /// Its name.
        trust_domain: String,
    },
    /// Stop fetching its bundle. The bundle that is there stays.
    Delete {
        /// Its name.
        trust_domain: String,
    },
    /// Fetch its bundle now.
    Refresh {
        /// Its name.
        trust_domain: String,
    },
    /// Set its bundle by hand, whatever there was.
    SetBundle {
        /// Its name.
        trust_domain: String,
        /// A document, or certificates in PEM; - reads standard input.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Forget its bundle: nobody of it is believed any more.
    RemoveBundle {
        /// Its name.
        trust_domain: String,
        /// What becomes of the entries that federate with it.
        #[arg(long, value_enum, default_value_t = Federating::Refuse)]
        entries: Federating,
    },
}

/// Where a bundle is found.
#[derive(clap::Args)]
struct Place {
    /// The https URL of the bundle.
    #[arg(long)]
    url: String,
    /// The SPIFFE ID that the endpoint shows (`https_spiffe`); without it, it is known as the web knows it (`https_web`).
    #[arg(long, value_name = "ID")]
    endpoint_spiffe_id: Option<String>,
}

/// What becomes of entries.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Federating {
    /// Nothing happens while there are any.
    Refuse,
    /// They are removed, and what they gave is withdrawn.
    Remove,
    /// They stay and federate with it no longer.
    Dissociate,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let Args { asking, verb } = args;
    let (client, json) = (asking.console.client()?, asking.json);
    let path = |name: &str, rest: &str| format!("/v1/federations/{}{rest}", segment(plain(name)));
    match verb {
        Verb::Create { trust_domain, from, bundle } => {
            let relate = relate(&trust_domain, from, bundle.as_deref())?;
            output::answer(&client.post("/v1/federations", &relate)?, json, print_one)
        }
        Verb::Update { trust_domain, from, bundle } => {
            let relate = relate(&trust_domain, from, bundle.as_deref())?;
            output::answer(&client.put(&path(&trust_domain, ""), &relate)?, json, print_one)
        }
        Verb::List => output::answer(&client.get("/v1/federations")?, json, print_all),
        Verb::Show { trust_domain } => {
            output::answer(&client.get(&path(&trust_domain, ""))?, json, print_one)
        }
        Verb::Delete { trust_domain } => {
            output::answer(&client.delete(&path(&trust_domain, ""))?, json, |Ended { trust_domain }| {
                output::out!("the bundle of {} is not fetched any more", output::shown(trust_domain));
            })
        }
        Verb::Refresh { trust_domain } => {
            let refreshed = client.post(&path(&trust_domain, "/refresh"), &Value::Null)?;
            output::answer(&refreshed, json, |Refreshed { trust_domain, changed }| {
                let what = if *changed { "is another now" } else { "is as it was" };
                output::out!("the bundle of {} {what}", output::shown(trust_domain));
            })
        }
        Verb::SetBundle { trust_domain, file } => {
            let set = SetBundle { bundle: document(&trust_domain, &file)? };
            output::answer(&client.put(&path(&trust_domain, "/bundle"), &set)?, json, print_one)
        }
        Verb::RemoveBundle { trust_domain, entries } => {
            let entries = match entries {
                Federating::Refuse => "refuse",
                Federating::Remove => "remove",
                Federating::Dissociate => "dissociate",
            };
            let ended = client.delete(&path(&trust_domain, &format!("/bundle?entries={entries}")))?;
            output::answer(&ended, json, |Ended { trust_domain }| {
                output::out!("there is no bundle of {} any more", output::shown(trust_domain));
            })
        }
    }
}

/// A name, which may be written as an ID.
fn plain(name: &str) -> &str {
    name.strip_prefix("spiffe://").unwrap_or(name)
}

fn relate(trust_domain: &str, from: Place, bundle: Option<&Path>) -> Result<Relate> {
    let Place { url, endpoint_spiffe_id } = from;
    Ok(Relate {
        trust_domain: plain(trust_domain).to_owned(),
        endpoint: Endpoint { url, endpoint_spiffe_id },
        bundle: bundle.map(|file| document(trust_domain, file)).transpose()?,
    })
}

/// A bundle document; certificates in PEM are made one.
fn document(trust_domain: &str, file: &Path) -> Result<Value> {
    let bytes = bounded::read_or_stdin(file, BUNDLE_BYTES_MAX).context("the bundle cannot be read")?;
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return serde_json::from_slice(&bytes).context("the bundle is no JSON");
    }
    let trust_domain = TrustDomain::parse(plain(trust_domain))?;
    let bundle = Bundle::from_pem(trust_domain, &bytes)
        .context("the bundle is neither a document nor certificates in PEM of that trust domain")?;
    if bundle.authorities().next().is_none() {
        bail!("there is no certificate in {}", file.display());
    }
    Ok(serde_json::from_str(&bundle.to_jwks(0, REFRESH_HINT_SECONDS))?)
}

fn print_all(Federations { federations }: &Federations) {
    if federations.is_empty() {
        output::out!(
            "This trust domain federates with nobody; assay federation create has a bundle fetched."
        );
        return;
    }
    let rows = federations.iter().map(|one| {
        vec![
            output::shown(&one.trust_domain),
            profile(one),
            one.x509_authorities.to_string(),
            one.jwt_authorities.to_string(),
            one.sequence.to_string(),
            state(one),
            one.entries.to_string(),
        ]
    });
    let header = ["trust domain", "endpoint", "x509", "jwt", "number", "fetched", "entries"];
    output::out!("{}", output::table(&header, rows));
}

fn print_one(one: &Federation) {
    output::out!("{}", output::shown(&one.trust_domain));
    match &one.endpoint {
        Some(Endpoint { url, endpoint_spiffe_id }) => {
            output::out!("  endpoint     {}", output::shown(url));
            match endpoint_spiffe_id {
                Some(id) => output::out!("  profile      https_spiffe, shows {}", output::shown(id)),
                None => output::out!("  profile      https_web"),
            }
            output::out!("  fetched      {}", state(one));
        }
        None => output::out!("  endpoint     none: its bundle is set by hand"),
    }
    output::out!("  authorities  {} for X.509, {} for tokens", one.x509_authorities, one.jwt_authorities);
    output::out!("  number       {}, since {}", one.sequence, output::when(one.changed_at));
    output::out!("  entries      {} federate with it", one.entries);
}

fn profile(one: &Federation) -> String {
    match &one.endpoint {
        None => "by hand".to_owned(),
        Some(Endpoint { endpoint_spiffe_id: None, .. }) => "https_web".to_owned(),
        Some(_) => "https_spiffe".to_owned(),
    }
}

fn state(one: &Federation) -> String {
    match (&one.endpoint, &one.failure, one.fetched_at) {
        (None, ..) => "-".to_owned(),
        (_, Some(failure), _) => format!("no: {}", output::shown(failure)),
        (_, None, Some(at)) => output::when(at),
        (_, None, None) => "not yet".to_owned(),
    }
}

const BUNDLE_BYTES_MAX: u64 = 1 << 20;
/// What is set by hand is fetched by nobody.
const REFRESH_HINT_SECONDS: u64 = 300;
