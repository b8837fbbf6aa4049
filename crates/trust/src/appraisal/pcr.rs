//! PCR values, and which boot event changed them.

use std::borrow::Cow;

use assay_evidence::boot_log::{BootClaims, EventSummary};
use assay_evidence::verify::Claims;
use assay_evidence::{Check, Digest, PcrIndex};

use super::demand::{QuotedPcr, witness};
use crate::finding::{Finding, Tier};
use crate::policy::{BootRule, Pcr};
use crate::reference::BootReference;

/// Judges the quoted banks and every pinned PCR.
pub(super) fn judge(policy: &BootReference, claims: &Claims, findings: &mut Vec<Finding>) {
    if claims.is_sha1_only() {
        findings.push(weak_banks(policy));
    }
    for (bank, index, values) in policy.pcr.iter() {
        let refusal = |found: String, message: String| Finding {
            accept: None,
            check: Check::PcrPolicy,
            tier: Tier::Contraindicated,
            claim: format!("PCR {index}"),
            expected: values.iter().map(Digest::to_string).collect::<Vec<_>>().join(" or "),
            found,
            message,
        };
        let missing = || {
            let message = format!(
                "PCR {index} ({}) of the {bank} bank is not in the quote, and policy {} lists values for it: quote it, or \
                 turn that bank on.",
                meaning(index),
                policy.citation()
            );
            refusal("not quoted".to_owned(), message)
        };
        let Some(QuotedPcr(found)) = witness((claims, bank, index), findings, missing) else { continue };
        if !values.contains(&found) {
            let why = changed(policy, claims.boot().map(AsRef::as_ref), index);
            let accept = policy.acceptable(BootRule::Value { pcr: Pcr(index), value: **found });
            findings.push(Finding { accept, ..refusal(found.to_string(), why) });
        }
    }
}

fn weak_banks(policy: &BootReference) -> Finding {
    Finding {
        accept: None,
        check: Check::AlgorithmPolicy,
        tier: Tier::Contraindicated,
        claim: "PCR banks".to_owned(),
        expected: "sha256 or better".to_owned(),
        found: "sha1 alone".to_owned(),
        message: format!(
            "Only the SHA-1 bank was quoted, and policy {} believes none of it, because collisions can be made: turn on \
             the TPM's SHA-256 bank in the firmware set-up.",
            policy.citation()
        ),
    }
}

fn changed(policy: &BootReference, boot: Option<&BootClaims>, index: PcrIndex) -> String {
    let citation = policy.citation();
    let why = boot.and_then(|boot| difference(policy, boot, index));
    let why = why.unwrap_or_else(|| "No event of the boot log tells why".to_owned());
    format!(
        "PCR {index} ({}) has a value that policy {citation} does not list. {why}. If this is an update of yours, learn the \
         new value with `assay policy learn CASE_DIR -o FILE` and set it with `assay policy set FILE`, or accept this boot with \
         `assay device approve DEVICE --boot`.",
        meaning(index)
    )
}

/// What this boot has that no known one had, and the other way round. The log replayed, so the digests are what was
/// measured; what events are called is the sender's word and only helps a reader.
fn difference(policy: &BootReference, boot: &BootClaims, index: PcrIndex) -> Option<String> {
    let known = policy.boot.events.get(&Pcr(index))?;
    let comparable = known.keys().all(|digest| digest.algorithm() == boot.facts().bank);
    let measured: Vec<&EventSummary> = boot.events().iter().filter(|event| event.pcr == index).collect();
    // Nothing is known of what was measured into a PCR that the log does not explain.
    if !comparable || boot.facts().unexplained_pcrs.contains(&index) {
        return None;
    }
    let new =
        measured.iter().filter(|event| !known.contains_key(&event.digest)).map(|event| describe(boot, event));
    let gone = known.iter().filter(|(digest, _)| measured.iter().all(|event| event.digest != **digest));
    let gone = gone.map(|(_, remark)| format!("`{}`", short(remark)));
    match (some_of(new.collect()), some_of(gone.collect())) {
        (None, None) => Some("The same events were measured, in another order or number".to_owned()),
        (Some(new), None) => Some(format!("New in this boot: {new}")),
        (None, Some(gone)) => Some(format!("Missing in this boot: {gone}")),
        (Some(new), Some(gone)) => Some(format!("New in this boot: {new}; instead of: {gone}")),
    }
}

fn describe(boot: &BootClaims, event: &EventSummary) -> String {
    let facts = boot.facts();
    let dbx =
        facts.secure_boot.as_ref().filter(|_| event.remark == "dbx").map(|variables| variables.dbx.len());
    let detail = dbx.map(|entries| format!(" with {entries} entries")).unwrap_or_default();
    format!("`{}`{detail} (event {}, {})", short(&event.remark), event.number, event.digest)
}

/// A boot menu's entry is a page of text; its end tells boots apart as well as its beginning.
fn short(remark: &str) -> Cow<'_, str> {
    let characters = remark.chars().count();
    if characters <= REMARK_CHARACTERS_MAX {
        return Cow::Borrowed(remark);
    }
    let half = REMARK_CHARACTERS_MAX / 2;
    let head: String = remark.chars().take(half).collect();
    let tail: String = remark.chars().skip(characters - half).collect();
    Cow::Owned(format!("{head} … {tail}"))
}

fn some_of(mut texts: Vec<String>) -> Option<String> {
    let left = texts.len().saturating_sub(EVENTS_SHOWN_MAX);
    texts.truncate(EVENTS_SHOWN_MAX);
    let more = if left > 0 { format!(" and {left} more") } else { String::new() };
    (!texts.is_empty()).then(|| format!("{}{more}", texts.join(", ")))
}

/// What a PCR stands for (TCG PC Client Platform Firmware Profile, 2.3.4; shim and the kernel for 8 to 14).
pub(crate) fn meaning(index: PcrIndex) -> &'static str {
    match index.get() {
        0 => "firmware code",
        1 => "firmware configuration",
        2 => "option ROMs and drivers",
        3 => "configuration of option ROMs",
        4 => "boot loader and kernel images",
        5 => "boot configuration and partition table",
        6 => "what the maker measures",
        7 => "Secure Boot configuration",
        8 => "boot loader commands and kernel command line",
        9 => "files that the boot loader read",
        10 => "IMA list",
        11..=13 => "unified kernel image and its parameters",
        14 => "shim's MOK lists",
        15 => "system identity",
        16 => "debugging",
        _ => "dynamic launch or applications",
    }
}

/// Events that one sentence can bear.
const EVENTS_SHOWN_MAX: usize = 4;
/// About a line of a remark.
const REMARK_CHARACTERS_MAX: usize = 100;
