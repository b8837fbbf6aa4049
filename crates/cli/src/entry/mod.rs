//! `assay entry`: registration entries, which say what workload on which device gets which SPIFFE ID.

mod file;
mod list;

use std::path::PathBuf;

use anyhow::Result;
use assay_identity::Selector;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::console::{Asking, Client, segment};
use crate::output;

/// Arguments of `assay entry`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Entries, oldest first; without a filter, all.
    List(list::Which),
    /// One entry.
    Show {
        /// The entry's id.
        id: String,
    },
    /// Which device hands it out now, what keeps it from that, and which certificates stand.
    Who {
        /// The entry's id.
        id: String,
    },
    /// Entitle a workload.
    Create {
        /// The workload's SPIFFE ID.
        #[arg(long)]
        spiffe_id: String,
        /// The device it runs on: its name, SPIFFE ID or the hash in it; one that has yet to enroll is known by its ID.
        #[arg(long)]
        parent: String,
        /// A selector, type:value, such as unix:uid:1000; all of them must match.
        #[arg(long = "selector", required = true)]
        selectors: Vec<Selector>,
        /// Life of an SVID in seconds.
        #[arg(long, default_value_t = 3600)]
        ttl: u32,
        /// A DNS name in the SVID.
        #[arg(long = "dns")]
        dns_names: Vec<String>,
        /// A word to the workload, to tell its identities apart.
        #[arg(long, default_value = "")]
        hint: String,
        /// Its workloads may have messages signed in the device's name (`assay-agent sign-message`).
        #[arg(long)]
        speaks_for_node: bool,
        #[command(flatten)]
        more: More,
    },
    /// Change an entry; what is not given stays. Another name, device, selector or DNS name withdraws what it gave.
    Update {
        /// The entry's id.
        id: String,
        #[command(flatten)]
        change: Change,
    },
    /// Make entries what a file says, all or none; those that it does not name stay. JSON, YAML or TOML, SPIRE's form too.
    #[command(alias = "import")]
    Apply {
        /// The file, or - for standard input (JSON or YAML).
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// End an entitlement.
    Delete {
        /// The entry's id.
        id: String,
    },
}

/// What most entries do not say.
#[derive(clap::Args)]
struct More {
    /// It is for nodes that cannot quote, too, and of which nobody knows what they run; `false` takes that back.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    unquoted: Option<bool>,
    /// Life of a token in seconds, 300 at most; 0 says nothing.
    #[arg(long, value_name = "SECONDS")]
    jwt_ttl: Option<u32>,
    /// Another trust domain that its workloads are to believe (may be repeated): they get its bundle.
    #[arg(long, value_name = "TRUST DOMAIN")]
    federates_with: Option<Vec<String>>,
    /// When it ends by itself, in seconds since 1970; 0: never.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<u64>,
}

impl More {
    /// Puts it over what is said of an entry.
    fn over(&self, entry: &mut Value) {
        let Some(entry) = entry.as_object_mut() else { return };
        let said = [
            ("unquoted", self.unquoted.map(Value::from)),
            ("jwt_ttl_seconds", self.jwt_ttl.map(Value::from)),
            ("expires_at", self.expires_at.map(Value::from)),
            ("federates_with", self.federates_with.clone().map(Value::from)),
        ];
        entry.extend(said.into_iter().filter_map(|(member, said)| Some((member.to_owned(), said?))));
    }
}

/// What is to be another.
#[derive(clap::Args)]
struct Change {
    /// The workload's SPIFFE ID.
    #[arg(long)]
    spiffe_id: Option<String>,
    /// The device it runs on.
    #[arg(long)]
    parent: Option<String>,
    /// The selectors, in the place of those that it has.
    #[arg(long = "selector")]
    selectors: Vec<Selector>,
    /// Life of an SVID in seconds.
    #[arg(long)]
    ttl: Option<u32>,
    /// The DNS names, in the place of those that it has; "" for none.
    #[arg(long = "dns")]
    dns_names: Vec<String>,
    /// A word to the workload; "" for none.
    #[arg(long)]
    hint: Option<String>,
    /// Whether its workloads may have messages signed in the device's name.
    #[arg(long, value_name = "true|false")]
    speaks_for_node: Option<bool>,
    #[command(flatten)]
    more: More,
}

impl Change {
    /// Puts it over an entry as it is: a body for the same entry.
    fn over(&self, entry: &Value) -> Value {
        let kept = |member: &str| entry.get(member).cloned().unwrap_or_default();
        let dns_names: Vec<&String> = self.dns_names.iter().filter(|name| !name.is_empty()).collect();
        let mut changed = json!({
            "spiffe_id": self.spiffe_id.as_ref().map_or_else(|| kept("spiffe_id"), |new| json!(new)),
            "parent": self.parent.as_ref().map_or_else(|| kept("parent"), |new| json!(new)),
            "selectors": if self.selectors.is_empty() { kept("selectors") } else { json!(self.selectors) },
            "ttl_seconds": self.ttl.map_or_else(|| kept("ttl_seconds"), |new| json!(new)),
            "dns_names": if self.dns_names.is_empty() { kept("dns_names") } else { json!(dns_names) },
            "hint": self.hint.as_ref().map_or_else(|| kept("hint"), |new| json!(new)),
            "speaks_for_node": self.speaks_for_node.map_or_else(|| kept("speaks_for_node"), |new| json!(new)),
            // Whoever changed it meanwhile is not overwritten.
            "revision": kept("revision"),
        });
        for member in ["unquoted", "jwt_ttl_seconds", "expires_at", "federates_with"] {
            if let (Some(changed), Some(kept)) = (changed.as_object_mut(), entry.get(member)) {
                changed.insert(member.to_owned(), kept.clone());
            }
        }
        self.more.over(&mut changed);
        changed
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let client = args.asking.console.client()?;
    let of = |id: &str| format!("/v1/entries/{}", segment(id));
    let answer = match &args.verb {
        Verb::List(which) => list::list(&client, which)?,
        Verb::Show { id } => client.get(&of(id))?,
        Verb::Who { id } => client.get(&format!("{}/who", of(id)))?,
        Verb::Create { spiffe_id, parent, selectors, ttl, dns_names, hint, speaks_for_node, more } => {
            let mut entry = json!({
                "spiffe_id": spiffe_id, "parent": parent, "selectors": selectors,
                "ttl_seconds": ttl, "dns_names": dns_names, "hint": hint, "speaks_for_node": speaks_for_node,
            });
            more.over(&mut entry);
            client.post("/v1/entries", &entry)?
        }
        Verb::Update { id, change } => {
            let entry = client.get(&of(id))?;
            client.put(&of(id), &change.over(&entry))?
        }
        Verb::Apply { file } => apply(&client, file)?,
        Verb::Delete { id } => client.delete(&of(id))?,
    };
    if args.asking.json {
        return output::json(&answer);
    }
    match &args.verb {
        Verb::List(_) => list::print(&answer),
        Verb::Who { .. } => print_who(&answer),
        Verb::Apply { .. } => print_applied(&answer),
        Verb::Show { .. } | Verb::Create { .. } | Verb::Update { .. } => {
            output::out!("{}", list::table(std::slice::from_ref(&answer)));
        }
        Verb::Delete { .. } => {}
    }
    Ok(())
}

/// Reads a file and has the server make it so, in one transaction.
fn apply(client: &Client, path: &std::path::Path) -> Result<Value> {
    let entries = file::read(path)?;
    let mut answer: Value = client.post("/v1/entries/apply", &json!({ "entries": entries }))?;
    // The server says what became of each, in the order of the file.
    if let Some(Value::Array(applied)) = answer.get_mut("entries") {
        for (one, entry) in applied.iter_mut().zip(entries) {
            if let (Some(one), Some(spiffe_id)) = (one.as_object_mut(), entry.get("spiffe_id")) {
                one.insert("spiffe_id".to_owned(), spiffe_id.clone());
            }
        }
    }
    Ok(answer)
}

fn print_applied(answer: &Value) {
    let applied = output::list(answer, "entries");
    let columns = ["entry", "spiffe_id", "outcome"];
    let (changed, unchanged): (Vec<_>, Vec<_>) =
        applied.iter().partition(|one| output::text(one, "outcome") != "unchanged");
    if !changed.is_empty() {
        let row =
            |one: &&Value| ["id", "spiffe_id", "outcome"].map(|member| output::text(one, member)).to_vec();
        output::out!("{}", output::table(&columns, changed.iter().map(row)));
    }
    eprintln!("{} made or changed, {} as they are", changed.len(), unchanged.len());
}

fn print_who(answer: &Value) {
    let device = answer.get("device").cloned().unwrap_or_default();
    let attached = device.get("attached").and_then(Value::as_bool).unwrap_or_default();
    let lacks = answer.get("lacks").and_then(Value::as_str).unwrap_or("-");
    let row = vec![
        output::text(&device, "name"),
        output::text(&device, "status"),
        if attached { "yes" } else { "no" }.to_owned(),
        output::list(answer, "svids").len().to_string(),
        lacks.to_owned(),
    ];
    output::out!("{}", output::table(&["device", "status", "attached", "svids", "lacks"], [row]));
}
