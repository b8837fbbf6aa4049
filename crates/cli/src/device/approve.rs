//! `assay device approve`: look first, say what would be accepted, ask, and send exactly that.

use std::io::IsTerminal;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::path;
use crate::console::Client;
use crate::output;

/// Looks first, and approves what was looked at: the result, its files with what was measured of each, and what differs of
/// its boot. If another result comes in between, nothing is approved.
pub(super) fn approve(client: &Client, device: &str, wanted: (&[String], bool), yes: bool) -> Result<Value> {
    let shown = client.get(&path(device, ""))?;
    let approval = approval(&shown, wanted)?;
    let (files, boot) = (output::list(&approval, "files"), output::list(&approval, "boot"));
    for file in files {
        eprintln!("approving {} {}", output::text(file, "path"), output::text(file, "digest"));
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
fn left_out(shown: &Value, approval: &Value) -> Vec<String> {
    let boot = output::list(approval, "boot");
    let files = output::list(approval, "files");
    let is_approved = |finding: &Value| {
        finding.get("accept").is_some_and(|accept| boot.contains(accept))
            || files.iter().any(|file| output::text(file, "path") == output::text(finding, "claim"))
            // Of a PCR's events the first finding names them all.
            || boot.iter().any(|accept| {
                let pcr = accept.pointer("/rule/value/pcr").and_then(Value::as_str);
                let is_events = accept.pointer("/rule/value/events").is_some();
                pcr.is_some_and(|pcr| is_events && output::text(finding, "claim") == format!("PCR {pcr} events"))
            })
    };
    let findings = output::list(shown, "findings").iter();
    let refused = findings.filter(|finding| output::text(finding, "tier") == "contraindicated");
    let left = refused.filter(|finding| !is_approved(finding));
    left.map(|finding| {
        let why = match finding.get("accept") {
            Some(_) => "not approved without --boot",
            None => "not approved",
        };
        format!("{why}: {}", output::text(finding, "message"))
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
pub fn approval(shown: &Value, (files, boot): (&[String], bool)) -> Result<Value> {
    let findings = output::list(shown, "findings").iter();
    let refused: Vec<Value> = findings
        .filter(|finding| output::text(finding, "check") == "ima-policy")
        .map(|finding| json!({ "path": finding.get("claim"), "digest": finding.get("found") }))
        .collect();
    let is_named = |file: &Value, name: &String| output::text(file, "path") == *name;
    if let Some(unknown) = files.iter().find(|name| !refused.iter().any(|file| is_named(file, name))) {
        bail!(
            "{unknown} is not among the files that the last appraisal refused: assay device explain shows them"
        );
    }
    let named = |file: &Value| files.is_empty() || files.iter().any(|name| is_named(file, name));
    let files: Vec<Value> = refused.into_iter().filter(named).collect();
    let boot = if boot { acceptable(shown)? } else { Vec::new() };
    Ok(json!({ "result": shown.get("result"), "files": files, "boot": boot }))
}

/// What findings offer of the boot, each once.
fn acceptable(shown: &Value) -> Result<Vec<Value>> {
    let mut rules: Vec<Value> = Vec::new();
    for accept in output::list(shown, "findings").iter().filter_map(|finding| finding.get("accept")) {
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
pub(super) fn print(answer: &Value) {
    let approved = output::list(answer, "approved");
    for file in approved {
        output::out!("approved {} {}", output::text(file, "path"), output::text(file, "digest"));
    }
    let boot = output::list(answer, "boot");
    for accept in boot {
        output::out!("approved {}", measured(accept));
    }
    if approved.is_empty() && boot.is_empty() {
        output::out!("approved: the device is trusted with its next good evidence");
    }
    if let Some(policy) = answer.get("policy").filter(|policy| policy.is_object()) {
        output::out!("policy {} version {}", output::text(policy, "name"), output::text(policy, "version"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_approved_as_it_was_measured_and_only_when_asked_for() {
        let line =
            json!({ "boot": 0, "rule": { "field": "boot.kernel_command_lines", "value": "/k ro\u{1b}[2J" } });
        let events = json!({ "boot": 0, "rule": { "field": "boot.sequence",
            "value": { "pcr": "9", "events": ["sha256:aa", "file"] } } });
        let of = |claim: &str, accept: Option<&Value>| json!({ "tier": "contraindicated", "check": "boot-policy", "claim": claim, "accept": accept, "message": claim });
        let mut findings =
            vec![of("kernel command line", Some(&line)), of("PCR 9 events", Some(&events)), of("dbx", None)];
        findings[2].as_object_mut().unwrap().remove("accept");
        let shown = json!({ "result": 7, "findings": findings });
        let nothing = approval(&shown, (&[], false)).unwrap();
        assert_eq!(output::list(&nothing, "boot").len(), 0);
        assert_eq!(left_out(&shown, &nothing).len(), 3);
        let boot = approval(&shown, (&[], true)).unwrap();
        assert_eq!(output::list(&boot, "boot"), [line.clone(), events.clone()]);
        assert_eq!(left_out(&shown, &boot), ["not approved: dbx"]);
        assert_eq!(measured(&line), "boot.kernel_command_lines /k ro\\u{1b}[2J");
        assert_eq!(measured(&events), "boot.sequence 9 = [sha256:aa, file]");
    }

    #[test]
    fn finding_6_an_approval_names_what_was_looked_at_and_waits_for_a_yes() {
        let shown = json!({ "result": 7, "findings": [
            { "check": "ima-policy", "claim": "/opt/a", "found": "sha256:aa" },
            { "check": "ima-policy", "claim": "/opt/b", "found": "sha256:bb" },
            { "check": "pcr", "claim": "4", "found": "sha256:cc" },
        ]});
        let both = approval(&shown, (&[], false)).unwrap();
        assert_eq!(both.get("result"), Some(&json!(7)));
        assert_eq!(output::list(&both, "files").len(), 2);
        let one = approval(&shown, (&["/opt/b".to_owned()], false)).unwrap();
        assert_eq!(one.get("files"), Some(&json!([{ "path": "/opt/b", "digest": "sha256:bb" }])));
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
