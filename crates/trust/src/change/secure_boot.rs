//! Secure Boot and what is trusted by it: PCR 7, and shim's own lists in PCR 14.

use std::collections::BTreeSet;

use assay_evidence::boot_log::{Authority, EventSummary, EventType, Signature, SignatureKind};

use super::boot::Comparison;
use super::{Cause, Change};
use crate::words;

pub(super) fn compare(comparison: &mut Comparison<'_>) {
    switch(comparison);
    keys(comparison);
    forbidden(comparison);
    sbat_level(comparison);
    authorities(comparison);
    mok_lists(comparison);
}

/// Whether Secure Boot is on.
fn switch(comparison: &mut Comparison<'_>) {
    let events = comparison.take(|event| is_variable(event.event_type) && event.remark == "SecureBoot");
    let states = [comparison.before, comparison.after].map(|boot| {
        boot.facts()
            .secure_boot
            .as_ref()
            .map_or("unknown", |variables| if variables.is_enabled { "on" } else { "off" })
    });
    let [old, new] = states;
    if old == new {
        return;
    }
    let pcrs = events.pcrs();
    let message = match new {
        "on" => "Secure Boot is on now (PCR 7).".to_owned(),
        "off" => format!(
            "Secure Boot is off now, and was {old} before (PCR 7): the firmware starts what nobody signed. Unless this is \
             meant, turn it on in the firmware set-up and look at what was started meanwhile."
        ),
        _ => "The boot log does not show any more whether Secure Boot is on, because PCR 7 does not begin with its variables."
            .to_owned(),
    };
    comparison.explain(Change::new(Cause::SecureBoot, pcrs, message).between(old, new));
}

/// Who may change the lists, and what is allowed.
fn keys(comparison: &mut Comparison<'_>) {
    let events = comparison
        .take(|event| is_variable(event.event_type) && KEY_VARIABLES.contains(&event.remark.as_str()));
    let (Some(old), Some(new)) =
        (&comparison.before.facts().secure_boot, &comparison.after.facts().secure_boot)
    else {
        return;
    };
    let lists = [("PK", &old.pk, &new.pk), ("KEK", &old.kek, &new.kek), ("db", &old.db, &new.db)];
    let mut items = Vec::new();
    for (name, old, new) in lists {
        items.extend(only_in(new, old).map(|entry| format!("{name}: new {}", called(&entry.kind))));
        items.extend(only_in(old, new).map(|entry| format!("{name}: gone {}", called(&entry.kind))));
    }
    if items.is_empty() && events.is_empty() {
        return;
    }
    let what = if items.is_empty() { "their order".to_owned() } else { words::names(&items) };
    let message = format!(
        "PCR 7 changed because Secure Boot's keys did: {what}. Whoever holds a new key can sign what the device starts; if \
         nobody enrolled it, look at the device."
    );
    comparison.explain(Change::new(Cause::SecureBootKeys, events.pcrs(), message).about(items));
}

/// What is forbidden.
fn forbidden(comparison: &mut Comparison<'_>) {
    let events = comparison.take(|event| is_variable(event.event_type) && event.remark == "dbx");
    let (Some(old), Some(new)) =
        (&comparison.before.facts().secure_boot, &comparison.after.facts().secure_boot)
    else {
        return;
    };
    let (added, removed) = (only_in(&new.dbx, &old.dbx).count(), only_in(&old.dbx, &new.dbx).count());
    let counts = [old.dbx.len(), new.dbx.len()].map(|count| count.to_string());
    let [from, to] = counts;
    let message = match (added, removed) {
        (0, 0) if events.is_empty() => return,
        (0, 0) => {
            "PCR 7 changed because the revocation list dbx has the same entries in another order.".to_owned()
        }
        (added, 0) => format!(
            "PCR 7 changed because the revocation list dbx grew by {} ({from} to {to}).",
            words::counted_as(added, "entry", "entries")
        ),
        (added, removed) => format!(
            "PCR 7 changed because the revocation list dbx lost {}{} ({from} to {to}): the device may start \
             again what was revoked. Unless this is meant, install the firmware's Secure Boot database update (fwupdmgr \
             update).",
            words::counted_as(removed, "entry", "entries"),
            if added > 0 { format!(" and got {added}") } else { String::new() }
        ),
    };
    comparison.explain(Change::new(Cause::Dbx, events.pcrs(), message).between(from, to));
}

fn sbat_level(comparison: &mut Comparison<'_>) {
    let events = comparison.take(|event| is_authority(event.event_type) && event.remark == "SbatLevel");
    let [old, new] = [comparison.before, comparison.after].map(|boot| {
        let level =
            boot.facts().sbat_level.as_deref().map(|level| level.lines().collect::<Vec<_>>().join(" "));
        level.unwrap_or_else(|| NO_LEVEL.to_owned()).escape_debug().to_string()
    });
    if events.is_empty() || old == new {
        return;
    }
    let message = match (old.as_str(), new.as_str()) {
        (_, NO_LEVEL) => format!("PCR 7 changed because no SBAT level is enforced any more; it was `{old}`."),
        (NO_LEVEL, _) => format!("PCR 7 changed because shim enforces the SBAT level `{new}` now."),
        _ => format!("PCR 7 changed because the SBAT level that shim enforces went from `{old}` to `{new}`."),
    };
    comparison.explain(Change::new(Cause::SbatLevel, events.pcrs(), message).between(old, new));
}

fn authorities(comparison: &mut Comparison<'_>) {
    let events = comparison.take(|event| is_authority(event.event_type));
    if events.is_empty() {
        return;
    }
    let of = |authorities: &[Authority], numbers: Vec<usize>| -> Vec<String> {
        let named = authorities.iter().filter(|authority| numbers.contains(&authority.event));
        named.map(|authority| format!("{} {}", authority.variable, signature(authority))).collect()
    };
    let numbers = |events: &[&EventSummary]| events.iter().map(|event| event.number).collect();
    let new = of(&comparison.after.facts().authorities, numbers(&events.new));
    let gone = of(&comparison.before.facts().authorities, numbers(&events.gone));
    let message = match (new.is_empty(), gone.is_empty()) {
        (false, false) => format!(
            "PCR 7 changed because what was started is trusted by {}, instead of {}.",
            words::names(&new),
            words::names(&gone)
        ),
        (false, true) => {
            format!("PCR 7 changed because what was started is also trusted by {}.", words::names(&new))
        }
        (true, _) => format!(
            "PCR 7 changed because nothing that was started was trusted by {} any more.",
            words::names(&gone)
        ),
    };
    comparison
        .explain(Change::new(Cause::Authorities, events.pcrs(), message).about(new.into_iter().chain(gone)));
}

/// Shim measures the lists' contents, which the log does not hold: only that they changed can be said.
fn mok_lists(comparison: &mut Comparison<'_>) {
    let events = comparison.take(|event| event.pcr.get() == MOK_PCR);
    if events.is_empty() {
        return;
    }
    let message = format!(
        "PCR 14 changed because shim's lists of machine owner keys did: {}. `mokutil --list-enrolled` on the device shows \
         them; if nobody enrolled or removed a key, look at the device.",
        comparison.new_and_gone(&events)
    );
    let items = events.new.iter().chain(&events.gone).map(|event| event.remark.clone());
    comparison.explain(Change::new(Cause::MokLists, events.pcrs(), message).about(items));
}

fn is_variable(event_type: EventType) -> bool {
    event_type == EventType::EFI_VARIABLE_DRIVER_CONFIG
}

fn is_authority(event_type: EventType) -> bool {
    event_type == EventType::EFI_VARIABLE_AUTHORITY
}

fn only_in<'a>(one: &'a [Signature], other: &'a [Signature]) -> impl Iterator<Item = &'a Signature> {
    let other: BTreeSet<_> = other.iter().map(|entry| &entry.kind).collect();
    one.iter().filter(move |entry| !other.contains(&entry.kind))
}

fn signature(authority: &Authority) -> String {
    authority.signature.as_ref().map(called).unwrap_or_default()
}

fn called(kind: &SignatureKind) -> String {
    match kind {
        SignatureKind::Certificate { sha256, subject } if subject.is_empty() => {
            format!("certificate {sha256}")
        }
        SignatureKind::Certificate { subject, .. } => subject.clone(),
        SignatureKind::ImageDigest(digest) => format!("image {digest}"),
        SignatureKind::Other { sha256, .. } => format!("entry {sha256}"),
    }
}

const NO_LEVEL: &str = "none";
const KEY_VARIABLES: [&str; 3] = ["PK", "KEK", "db"];
const MOK_PCR: u8 = 14;
