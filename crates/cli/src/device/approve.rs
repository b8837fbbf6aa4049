//! `assay device approve`: look first, say what would be accepted, ask, and send exactly that.

use std::io::IsTerminal;

use anyhow::{Result, bail};
use assay_wire::console::device::{Approve, Approved, Explanation, File, Finding};
use serde_json::Value;

use super::path;
use crate::console::Client;
use crate::output;

/// Looks first, and approves what was looked at: the result, its files with what was measured of each, and what differs of
/// its boot. If another result comes in between, nothing is approved.
pub(super) fn approve(
    client: &Client,
    device: &str,
    wanted: (&[String], bool),
    yes: bool,
) -> Result<Approved> {
    let shown: Explanation = client.get(&path(device, ""))?;
    let approval = approval(&shown, wanted)?;
    let Approve { files, boot, .. } = &approval;
    for File { path, digest } in files {
        eprintln!("approving {} {}", output::shown(path), output::shown(digest));
    }
    for rule in boot {
        eprintln!("approving {}", measured(rule));
    }
    left_out(&shown, &approval).iter().for_each(|left| eprintln!("{left}"));
    let is_something = !files.is_empty() || !boot.is_empty();
    if is_something && !yes {
        agreed(ask("Take these into the policy, on every device that it judges? [y/N] "))?;
    }
    client.post(&path(device, "/approve"), &approval)
}

/// What goes where into a policy's boot: what was measured is a device's words, and shown as such.
fn measured(accept: &Value) -> String {
    let rule = accept.get("rule").unwrap_or(&Value::Null);
    let value = rule.get("value").unwrap_or(&Value::Null);
    let shown = match value {
        Value::String(text) => text.escape_debug().to_string(),
        Value::Object(of_pcr) => {
            let pcr = output::text(value, "pcr");
            let events = of_pcr.get("events").and_then(Value::as_array);
            let texts = events.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
            match events {
                Some(_) => format!("{pcr} = [{}]", texts.join(", ")),
                None => format!("{pcr} = {}", output::text(value, "value")),
            }
        }
        other => other.to_string(),
    };
    format!("{} {shown}", output::text(rule, "field"))
}

/// What was refused and stays so: of a boot that is not accepted, and what no policy can list.
fn left_out(shown: &Explanation, Approve { files, boot, .. }: &Approve) -> Vec<String> {
    let is_approved = |finding: &Finding| {
        finding.accept.as_ref().is_some_and(|accept| boot.contains(accept))
            || files.iter().any(|file| file.path == finding.claim)
            // Of a PCR's events the first finding names them all.
            || boot.iter().any(|accept| {
                let pcr = accept.pointer("/rule/value/pcr").and_then(Value::as_str);
                let is_events = accept.pointer("/rule/value/events").is_some();
                pcr.is_some_and(|pcr| is_events && finding.claim == format!("PCR {pcr} events"))
            })
    };
    let refused = shown.findings.iter().filter(|finding| finding.tier == "contraindicated");
    let left = refused.filter(|finding| !is_approved(finding));
    left.map(|finding| {
        let why = match finding.accept {
            Some(_) => "not approved without --boot",
            None => "not approved",
        };
        format!("{why}: {}", output::shown(&finding.message))
    })
    .collect()
}

/// Asks whoever sits at the terminal; `None` if nobody does.
fn ask(question: &str) -> Option<String> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return None;
    }
    eprint!("{question}");
    let mut answer = String::new();
    input.read_line(&mut answer).ok().map(|_| answer)
}

/// Only a clear yes is one.
fn agreed(answer: Option<String>) -> Result<()> {
    match answer.as_deref().map(str::trim) {
        Some("y" | "Y" | "yes") => Ok(()),
        Some(_) => bail!("nothing was approved"),
        None => {
            bail!("nothing was approved: there is no terminal to ask at; --yes accepts what is listed above")
        }
    }
}

/// What approves the files of a device's last result, all or those named, and if wanted what it refused of the boot.
pub fn approval(shown: &Explanation, (files, boot): (&[String], bool)) -> Result<Approve> {
    let Some(result) = shown.result else {
        bail!("nothing was judged of the device yet, so there is nothing to approve")
    };
    let refused = shown.findings.iter().filter(|finding| finding.check == "ima-policy");
    let refused: Vec<File> =
        refused.map(|finding| File { path: finding.claim.clone(), digest: finding.found.clone() }).collect();
    if let Some(unknown) = files.iter().find(|name| !refused.iter().any(|file| file.path == **name)) {
        bail!(
            "{unknown} is not among the files that the last appraisal refused: assay device explain shows them"
        );
    }
    let named = |file: &File| files.is_empty() || files.contains(&file.path);
    let files = refused.into_iter().filter(named).collect();
    let boot = if boot { acceptable(shown)? } else { Vec::new() };
    Ok(Approve { result, files, boot })
}

/// What findings offer of the boot, each once.
fn acceptable(shown: &Explanation) -> Result<Vec<Value>> {
    let mut rules: Vec<Value> = Vec::new();
    for accept in shown.findings.iter().filter_map(|finding| finding.accept.as_ref()) {
        if !rules.contains(accept) {
            rules.push(accept.clone());
        }
    }
    if rules.is_empty() {
        bail!(
            "the last appraisal refused nothing of the boot that a policy could list: assay device explain shows why it fell"
        );
    }
    Ok(rules)
}

/// What was accepted.
pub(super) fn print(Approved { policy, approved, boot }: &Approved) {
    for File { path, digest } in approved {
        output::out!("approved {} {}", output::shown(path), output::shown(digest));
    }
    for accept in boot {
        output::out!("approved {}", measured(accept));
    }
    if approved.is_empty() && boot.is_empty() {
        output::out!("approved: the device is trusted with its next good evidence");
    }
    if let Some(policy) = policy {
        output::out!("policy {} version {}", output::shown(&policy.name), policy.version);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A device whose result 7 found this: check, claim, what was found, and what can be accepted.
    fn shown(findings: &[(&str, &str, &str, Option<&Value>)]) -> Explanation {
        let finding = |(check, claim, found, accept): &(&str, &str, &str, Option<&Value>)| Finding {
            check: (*check).to_owned(),
            tier: "contraindicated".to_owned(),
            claim: (*claim).to_owned(),
            expected: String::new(),
            found: (*found).to_owned(),
            message: (*claim).to_owned(),
            accept: accept.cloned(),
        };
        let findings = findings.iter().map(finding).collect();
        Explanation { result: Some(7), findings, ..Explanation::default() }
    }

    #[test]
    fn a_boot_is_approved_as_it_was_measured_and_only_when_asked_for() {
        let line =
            json!({ "boot": 0, "rule": { "field": "boot.kernel_command_lines", "value": "/k ro\u{1b}[2J" } });
        let events = json!({ "boot": 0, "rule": { "field": "boot.sequence",
            "value": { "pcr": "9", "events": ["sha256:aa", "file"] } } });
        let boot = "boot-policy";
        let shown = shown(&[
            (boot, "kernel command line", "", Some(&line)),
            (boot, "PCR 9 events", "", Some(&events)),
            (boot, "dbx", "", None),
        ]);
        let nothing = approval(&shown, (&[], false)).unwrap();
        assert_eq!(nothing.boot.len(), 0);
        assert_eq!(left_out(&shown, &nothing).len(), 3);
        let boot = approval(&shown, (&[], true)).unwrap();
        assert_eq!(boot.boot, [line.clone(), events.clone()]);
        assert_eq!(left_out(&shown, &boot), ["not approved: dbx"]);
        assert_eq!(measured(&line), "boot.kernel_command_lines /k ro\\u{1b}[2J");
        assert_eq!(measured(&events), "boot.sequence 9 = [sha256:aa, file]");
    }

    #[test]
    fn finding_6_an_approval_names_what_was_looked_at_and_waits_for_a_yes() {
        let shown = shown(&[
            ("ima-policy", "/opt/a", "sha256:aa", None),
            ("ima-policy", "/opt/b", "sha256:bb", None),
            ("pcr", "4", "sha256:cc", None),
        ]);
        let both = approval(&shown, (&[], false)).unwrap();
        assert_eq!((both.result, both.files.len()), (7, 2));
        let one = approval(&shown, (&["/opt/b".to_owned()], false)).unwrap();
        assert_eq!(one.files, [File { path: "/opt/b".to_owned(), digest: "sha256:bb".to_owned() }]);
        assert!(approval(&shown, (&["/opt/c".to_owned()], false)).is_err());
        assert!(approval(&shown, (&[], true)).is_err(), "nothing of the boot is offered");
        for answer in ["y\n", "yes", "Y"] {
            agreed(Some(answer.to_owned())).unwrap();
        }
        for answer in ["", "\n", "n", "yess", "no"] {
            assert!(agreed(Some(answer.to_owned())).is_err(), "{answer:?}");
        }
        assert!(agreed(None).unwrap_err().to_string().contains("--yes"));
    }
}
