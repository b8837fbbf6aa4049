//! `assay device`: look at devices, explain what was found, vouch for them, label, revoke and approve.

mod approve;
mod list;
mod pending;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

pub use approve::approval;

use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay device`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Devices with their trust state, in the order of their names.
    List(list::Which),
    /// One device. Name it by name, SPIFFE ID, or the hash in it or its start.
    Show {
        /// The device.
        device: String,
    },
    /// Why a device is what it is: every finding of its last appraisal, what changed since it was last
    /// good, its grants and its history.
    Explain {
        /// The device.
        device: String,
    },
    /// The results on record, newest first, each with its number: `assay appraise --stored` judges it again.
    Results {
        /// The device.
        device: String,
    },
    /// The last result as a signed token (EAR), for whoever relies on the device: `assay ear verify` checks it.
    Ear {
        /// The device.
        device: String,
        /// What the relying party gave so that it knows the token for a fresh one: 8 to 88 characters of base64url.
        #[arg(long)]
        nonce: Option<String>,
    },
    /// Say something about a device that policies are assigned by. It is appraised again if another one judges it then.
    Label {
        /// The device.
        device: String,
        /// A label, such as site=paris.
        #[arg(value_name = "KEY=VALUE", required_unless_present = "remove")]
        labels: Vec<String>,
        /// A key to say nothing about any more (may be repeated).
        #[arg(long, value_name = "KEY")]
        remove: Vec<String>,
        /// Even if the device would fall by the policy that judges it then.
        #[arg(long)]
        force: bool,
    },
    /// Call a device something else. It keeps that name, whatever it calls itself when it enrolls again.
    Rename {
        /// The device.
        device: String,
        /// The name, which no other device has.
        name: String,
    },
    /// Devices that were never here: those that wait to be admitted, and what was said of others that did not enroll yet.
    Pending,
    /// Let a device enroll that waits for it. Look at what it showed first: `assay device pending`.
    Admit {
        /// The device: its hash or its start, its SPIFFE ID, or what it calls itself if no other that waits does.
        device: String,
    },
    /// Keep a device out that waits to be admitted; `assay device admit` lets it in after all.
    Deny {
        /// The device: its hash or its start, its SPIFFE ID, or what it calls itself if no other that waits does.
        device: String,
        /// Why; it is recorded.
        #[arg(long)]
        reason: String,
    },
    /// End a device's identity: every grant is withdrawn now, and it cannot attest again.
    Revoke {
        /// The device.
        device: String,
        /// Why; it is recorded and told to the device.
        #[arg(long)]
        reason: String,
    },
    /// Put a device in another's place: it takes over name, labels and entries, and the other is revoked.
    Replace {
        /// The device that is replaced.
        old: String,
        /// The device in its place, enrolled: with the new TPM, or the new machine.
        new: String,
        /// Even if the new device would fall by the policy that judges it then.
        #[arg(long)]
        force: bool,
    },
    /// Take a revoked device back: it has to enroll again, and is judged as if it were new.
    Readmit {
        /// The device.
        device: String,
    },
    /// Accept what the last appraisal refused: the files it named go into the policy, as a new version; with --boot the
    /// boot does, as a whole.
    Approve {
        /// The device.
        device: String,
        /// Only this file (may be repeated); otherwise every file that was refused.
        #[arg(long = "file")]
        files: Vec<String>,
        /// What was refused of the boot as well: the kernel, its command line, PCR values and events.
        #[arg(long)]
        boot: bool,
        /// Do not ask; without a terminal nobody can be asked.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    let client = args.asking.console.client()?;
    let (answer, print): (Value, fn(&Value)) = match &args.verb {
        Verb::List(which) => (list::list(&client, which)?, list::print),
        Verb::Show { device } => (client.get(&path(device, ""))?, print_device),
        Verb::Explain { device } => (client.get(&path(device, "/explain"))?, print_explanation),
        Verb::Results { device } => {
            (client.get(&format!("/v1/results?device={}", segment(device)))?, print_results)
        }
        Verb::Ear { device, nonce } => (client.get(&ear_path(device, nonce.as_deref()))?, print_ear),
        Verb::Label { device, labels, remove, force } => {
            let body = json!({ "set": labels, "remove": remove, "force": force });
            (client.post(&path(device, "/labels"), &body)?, print_device)
        }
        Verb::Rename { device, name } => {
            (client.post(&path(device, "/name"), &json!({ "name": name }))?, print_device)
        }
        Verb::Pending => (client.get("/v1/pending")?, pending::print),
        Verb::Admit { device } => {
            (client.post(&pending::path(device, "admit"), &json!({}))?, pending::print_said)
        }
        Verb::Deny { device, reason } => {
            let body = json!({ "reason": reason });
            (client.post(&pending::path(device, "deny"), &body)?, pending::print_said)
        }
        Verb::Revoke { device, reason } => {
            (client.post(&path(device, "/revoke"), &json!({ "reason": reason }))?, print_device)
        }
        Verb::Replace { old, new, force } => {
            let body = json!({ "by": new, "force": force });
            (client.post(&path(old, "/replace"), &body)?, print_replaced)
        }
        Verb::Readmit { device } => (client.post(&path(device, "/readmit"), &json!({}))?, print_device),
        Verb::Approve { device, files, boot, yes } => {
            (approve::approve(&client, device, (files, *boot), *yes)?, approve::print)
        }
    };
    if args.asking.json {
        return output::json(&answer);
    }
    print(&answer);
    Ok(())
}

fn path(device: &str, rest: &str) -> String {
    format!("/v1/devices/{}{rest}", segment(device))
}

fn ear_path(device: &str, nonce: Option<&str>) -> String {
    let query = nonce.map(|nonce| format!("?nonce={}", segment(nonce))).unwrap_or_default();
    path(device, "/ear") + &query
}

fn print_ear(answer: &Value) {
    output::out!("{}", output::text(answer, "ear"));
}

fn print_results(answer: &Value) {
    let rows = output::list(answer, "results").iter().map(|result| {
        let findings = output::list(result, "findings");
        let first = findings.first().map(|finding| output::text(finding, "message")).unwrap_or_default();
        let kept = result.get("evidence_kept").and_then(Value::as_bool).unwrap_or_default();
        vec![
            output::text(result, "id"),
            output::time(result, "at"),
            output::text(result, "tier"),
            output::text(result, "policy"),
            if kept { "kept" } else { "-" }.to_owned(),
            first,
        ]
    });
    output::out!(
        "{}",
        output::table(&["result", "time", "tier", "policy", "evidence", "first finding"], rows)
    );
}

fn print_device(answer: &Value) {
    let device = answer.get("device").unwrap_or(answer);
    for (title, value) in [
        ("device", output::text(device, "name")),
        ("id", output::text(device, "id")),
        ("status", output::text(device, "status")),
        ("since", output::time(device, "since")),
        ("tier", output::text(device, "tier")),
        ("reason", output::text(device, "reason")),
        ("evidence", output::time(device, "evidence_at")),
        ("valid until", output::time(device, "valid_until")),
        ("policy", output::text(device, "policy")),
        ("in force", output::text(device, "policy_in_force")),
        ("labels", labels(device)),
        ("attached", output::text(device, "attached")),
        ("clock", clock(device)),
        ("svids", output::text(device, "svids")),
    ] {
        output::out!("{title:12} {value}");
    }
}

/// How far its clock is off, and what comes of it.
fn clock(device: &Value) -> String {
    match (device.get("clock").and_then(Value::as_str), device.get("clock_offset_seconds")) {
        (Some(_), _) => output::text(device, "clock"),
        (None, Some(Value::Number(seconds))) => format!("as the server's, to {seconds} s"),
        (None, _) => "-".to_owned(),
    }
}

fn print_replaced(answer: &Value) {
    print_device(answer);
    if let Some(old) = answer.get("replaced") {
        let (entries, name) = (output::text(answer, "entries"), output::text(old, "name"));
        output::out!("{:12} {}, which is revoked and called {name} now", "replaced", output::text(old, "id"));
        output::out!("{:12} {entries} taken over", "entries");
    }
}

/// As they are given.
fn labels(device: &Value) -> String {
    let labels = device.get("labels").and_then(Value::as_object).into_iter().flatten();
    let labels: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if labels.is_empty() { "-".to_owned() } else { labels.join(",") }
}

fn print_explanation(answer: &Value) {
    print_device(answer);
    if let Some(endorsement) = answer.get("endorsement") {
        print_endorsement(endorsement);
    }
    print_findings(output::list(answer, "findings"));
    let changes = output::list(answer, "changes");
    if !changes.is_empty() {
        output::out!("\nChanged since its evidence was last good:");
    }
    for change in changes {
        output::out!("{:16} {}", output::text(change, "cause"), output::text(change, "message"));
    }
    let grants = output::list(answer, "grants");
    if !grants.is_empty() {
        let rows = grants.iter().map(|grant| {
            vec![
                output::text(grant, "spiffe_id"),
                output::text(grant, "serial"),
                output::time(grant, "not_after"),
                output::time(grant, "withdrawn_at"),
            ]
        });
        output::out!("\n{}", output::table(&["grant", "serial", "until", "withdrawn"], rows));
    }
    let events = output::list(answer, "events");
    if !events.is_empty() {
        let rows = events.iter().map(|event| {
            vec![output::time(event, "at"), output::text(event, "kind"), output::text(event, "detail")]
        });
        output::out!("\n{}", output::table(&["time", "event", "detail"], rows));
    }
}

fn print_endorsement(endorsement: &Value) {
    output::out!("{:12} {}", "ek sha256", output::text(endorsement, "ek_sha256"));
    for (title, part, detail) in
        [("ek by", "certificate", "manufacturer"), ("identity by", "identity", "serial")]
    {
        if let Some(part) = endorsement.get(part).filter(|part| part.is_object()) {
            output::out!("{title:12} {} ({})", output::text(part, "issuer"), output::text(part, detail));
        }
    }
    for failure in output::list(endorsement, "failures") {
        output::out!("{:12} {}", "not by", failure.as_str().unwrap_or_default());
    }
}

fn print_findings(findings: &[Value]) {
    if findings.is_empty() {
        output::out!("\nNo findings: everything the policy asks for was there.");
        return;
    }
    output::out!("");
    for finding in findings {
        output::out!(
            "{:16} {:20} {}",
            output::text(finding, "tier"),
            output::text(finding, "check"),
            output::text(finding, "message")
        );
    }
}
