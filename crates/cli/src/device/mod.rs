//! `assay device`: look at devices, explain what was found, vouch for them, label, revoke and approve.

mod approve;
mod evidence;
mod list;
mod pending;

use anyhow::Result;
use assay_wire::console::Because;
use assay_wire::console::device::{
    Device, Ear, Endorsement, Explanation, Finding, Rename, Replace, Replacement, Results, SetLabels,
};
use clap::Subcommand;

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
    /// What its evidence says, from the firmware to the files that ran, how far the policy covers each part, and whether the
    /// result comes out the same when it is judged again.
    Evidence {
        /// The device.
        device: String,
        /// Which result: `assay device results` lists them. Without it the last whose evidence is kept.
        #[arg(long)]
        result: Option<u64>,
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
    let Args { asking, verb } = args;
    let (client, json) = (asking.console.client()?, asking.json);
    let because = |reason: &str| Because { reason: reason.to_owned() };
    match &verb {
        Verb::List(which) => output::answer(&list::list(&client, which)?, json, list::print),
        Verb::Show { device } => output::answer(&client.get(&path(device, ""))?, json, print_stand),
        Verb::Explain { device } => {
            output::answer(&client.get(&path(device, "/explain"))?, json, print_explanation)
        }
        Verb::Results { device } => {
            let answer = client.get(&format!("/v1/results?device={}", segment(device)))?;
            output::answer(&answer, json, print_results)
        }
        Verb::Evidence { device, result } => {
            output::answer(&client.get(&evidence::asked(device, *result))?, json, evidence::print)
        }
        Verb::Ear { device, nonce } => {
            let answer = client.get(&ear_path(device, nonce.as_deref()))?;
            output::answer(&answer, json, |Ear { ear }| output::out!("{ear}"))
        }
        Verb::Label { device, labels, remove, force } => {
            let body = SetLabels { set: labels.clone(), remove: remove.clone(), force: *force };
            output::answer(&client.post(&path(device, "/labels"), &body)?, json, print_stand)
        }
        Verb::Rename { device, name } => {
            let body = Rename { name: name.clone() };
            output::answer(&client.post(&path(device, "/name"), &body)?, json, print_stand)
        }
        Verb::Revoke { device, reason } => {
            output::answer(&client.post(&path(device, "/revoke"), &because(reason))?, json, print_stand)
        }
        Verb::Replace { old, new, force } => {
            let body = Replace { by: new.clone(), force: *force };
            output::answer(&client.post(&path(old, "/replace"), &body)?, json, print_replaced)
        }
        Verb::Readmit { device } => {
            output::answer(&client.post(&path(device, "/readmit"), &())?, json, print_stand)
        }
        Verb::Approve { device, files, boot, yes } => {
            let approved = approve::approve(&client, device, (files, *boot), *yes)?;
            output::answer(&approved, json, approve::print)
        }
        Verb::Pending => output::answer(&client.get("/v1/pending")?, json, pending::print),
        Verb::Admit { device } => {
            output::answer(&client.post(&pending::path(device, "admit"), &())?, json, pending::print_said)
        }
        Verb::Deny { device, reason } => {
            let answer = client.post(&pending::path(device, "deny"), &because(reason))?;
            output::answer(&answer, json, pending::print_said)
        }
    }
}

fn path(device: &str, rest: &str) -> String {
    format!("/v1/devices/{}{rest}", segment(device))
}

fn ear_path(device: &str, nonce: Option<&str>) -> String {
    let query = nonce.map(|nonce| format!("?nonce={}", segment(nonce))).unwrap_or_default();
    path(device, "/ear") + &query
}

fn print_results(answer: &Results) {
    let rows = answer.results.iter().map(|result| {
        let first = result.findings.first().map(|finding| output::shown(&finding.message));
        vec![
            result.id.to_string(),
            output::when(result.at),
            output::shown(&result.tier),
            output::shown(&result.policy),
            if result.evidence_kept { "kept" } else { "-" }.to_owned(),
            first.unwrap_or_default(),
        ]
    });
    output::out!(
        "{}",
        output::table(&["result", "time", "tier", "policy", "evidence", "first finding"], rows)
    );
}

fn print_stand(Explanation { device, .. }: &Explanation) {
    for (title, value) in [
        ("device", output::shown(&device.name)),
        ("id", output::shown(&device.id)),
        ("status", output::shown(&device.status)),
        ("since", output::when(device.since)),
        ("tier", output::shown(&device.tier)),
        ("reason", output::shown(&device.reason)),
        ("evidence", output::when(device.evidence_at)),
        ("valid until", output::when(device.valid_until)),
        ("policy", output::maybe(&device.policy)),
        ("in force", output::maybe(&device.policy_in_force)),
        ("labels", labels(device)),
        ("attached", device.attached.to_string()),
        ("clock", clock(device)),
        ("svids", device.svids.to_string()),
    ] {
        output::out!("{title:12} {value}");
    }
}

/// How far its clock is off, and what comes of it.
fn clock(device: &Device) -> String {
    match (&device.clock, device.clock_offset_seconds) {
        (Some(clock), _) => output::shown(clock),
        (None, Some(seconds)) => format!("as the server's, to {seconds} s"),
        (None, None) => "-".to_owned(),
    }
}

fn print_replaced(Replacement { now, replaced, entries }: &Replacement) {
    print_stand(now);
    let [id, name] = [&replaced.id, &replaced.name].map(|text| output::shown(text));
    output::out!("{:12} {id}, which is revoked and called {name} now", "replaced");
    output::out!("{:12} {entries} taken over", "entries");
}

/// As they are given.
fn labels(device: &Device) -> String {
    let labels: Vec<String> = device.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    output::shown(&labels.join(","))
}

fn print_explanation(answer: &Explanation) {
    print_stand(answer);
    print_endorsement(&answer.endorsement);
    print_findings(&answer.findings);
    let changes = answer.changes.as_deref().unwrap_or_default();
    if !changes.is_empty() {
        output::out!("\nChanged since its evidence was last good:");
    }
    for change in changes {
        output::out!("{:16} {}", output::shown(&change.cause), output::shown(&change.message));
    }
    if !answer.grants.is_empty() {
        let rows = answer.grants.iter().map(|grant| {
            let [id, serial] = [&grant.spiffe_id, &grant.serial].map(|text| output::shown(text));
            vec![id, serial, output::when(grant.not_after), output::when(grant.withdrawn_at)]
        });
        output::out!("\n{}", output::table(&["grant", "serial", "until", "withdrawn"], rows));
    }
    if !answer.events.is_empty() {
        let rows = answer.events.iter().map(|event| {
            vec![output::when(event.at), output::shown(&event.kind), output::shown(&event.detail)]
        });
        output::out!("\n{}", output::table(&["time", "event", "detail"], rows));
    }
}

fn print_endorsement(endorsement: &Endorsement) {
    output::out!("{:12} {}", "ek sha256", output::shown(&endorsement.ek_sha256));
    if let Some(certificate) = &endorsement.certificate {
        let (issuer, maker) = (output::shown(&certificate.issuer), output::maybe(&certificate.manufacturer));
        output::out!("{:12} {issuer} ({maker})", "ek by");
    }
    if let Some(identity) = &endorsement.identity {
        let [issuer, serial] = [&identity.issuer, &identity.serial].map(|text| output::shown(text));
        output::out!("{:12} {issuer} ({serial})", "identity by");
    }
    for failure in &endorsement.failures {
        output::out!("{:12} {}", "not by", output::shown(failure));
    }
}

fn print_findings(findings: &[Finding]) {
    if findings.is_empty() {
        output::out!("\nNo findings: everything the policy asks for was there.");
        return;
    }
    output::out!("");
    for finding in findings {
        output::out!(
            "{:16} {:20} {}",
            output::shown(&finding.tier),
            output::shown(&finding.check),
            output::shown(&finding.message)
        );
    }
}
