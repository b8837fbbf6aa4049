//! Firmware, its configuration, option ROMs, the partition table: PCR 0 to 3 and 5.

use assay_evidence::boot_log::{BootFacts, EventSummary, EventType};

use super::boot::{Comparison, Differences};
use super::{Cause, Change};
use crate::words;

pub(super) fn compare(comparison: &mut Comparison<'_>) {
    let code = comparison.take(|event| event.pcr.get() == CODE_PCR);
    let configuration = comparison.take(|event| event.pcr.get() == CONFIGURATION_PCR);
    if code.is_empty() {
        configuration_alone(comparison, &configuration);
    } else {
        updated(comparison, &code, &configuration);
    }
    let roms = comparison.take(|event| OPTION_ROM_PCRS.contains(&event.pcr.get()));
    if !roms.is_empty() {
        let message = format!(
            "{} changed because an option ROM, a driver or its configuration did: {}. If no card was added, removed or \
             updated, look at the device.",
            words::pcrs(&roms.pcrs()),
            comparison.new_and_gone(&roms)
        );
        explain(comparison, Cause::OptionRoms, &roms, message);
    }
    let is_table = |event: &EventSummary| {
        matches!(event.event_type, EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2)
    };
    let table = comparison.take(|event| event.pcr.get() == PARTITIONS_PCR && is_table(event));
    if !table.is_empty() {
        let message =
            "PCR 5 changed because the partition table of the boot disk did, or another disk was booted.";
        explain(comparison, Cause::PartitionTable, &table, message.to_owned());
    }
}

/// Other code in PCR 0 brings its own configuration along, so that PCR 1 is told with it.
fn updated(comparison: &mut Comparison<'_>, code: &Differences<'_>, configuration: &Differences<'_>) {
    let [old, new] = [comparison.before, comparison.after].map(|boot| version(boot.facts()));
    let mut pcrs = code.pcrs();
    pcrs.extend(configuration.pcrs());
    let events = events(&code.new);
    let subject = words::pcrs(&pcrs);
    let mut message = if old == new {
        let called = new
            .map_or_else(|| "it names no version".to_owned(), |name| format!("it still calls itself {name}"));
        format!(
            "{subject} changed because other firmware code was measured ({events}), and {called}. Some firmware measures a \
             volume as it lies in memory, which changes with its variable store; if nobody touched either, look at the device."
        )
    } else {
        let [old, new] = [old, new].map(|name| name.unwrap_or("an unnamed version"));
        format!("{subject} changed because the firmware went from {old} to {new} ({events}).")
    };
    if !configuration.is_empty() {
        let of = comparison.new_and_gone(configuration);
        message += &format!(" Its configuration changed with it: {of}.");
    }
    let items = code.new.iter().chain(&configuration.new).map(|event| event.remark.clone());
    let change = Change::new(Cause::Firmware, pcrs, message).about(items);
    let change = Change { before: old.map(str::to_owned), after: new.map(str::to_owned), ..change };
    comparison.explain(change);
}

fn configuration_alone(comparison: &mut Comparison<'_>, configuration: &Differences<'_>) {
    if configuration.is_empty() {
        return;
    }
    let message = format!(
        "PCR 1 changed because the firmware's settings or boot options did: {}.",
        comparison.new_and_gone(configuration)
    );
    explain(comparison, Cause::FirmwareConfiguration, configuration, message);
}

fn explain(comparison: &mut Comparison<'_>, cause: Cause, events: &Differences<'_>, message: String) {
    let items = events.new.iter().chain(&events.gone).map(|event| event.remark.clone());
    comparison.explain(Change::new(cause, events.pcrs(), message).about(items));
}

/// Firmware without a version measures zeros in its place.
fn version(facts: &BootFacts) -> Option<&str> {
    facts.firmware_version.as_deref().filter(|version| version.chars().any(|digit| digit != '0'))
}

fn events(events: &[&EventSummary]) -> String {
    let numbers: Vec<usize> = events.iter().map(|event| event.number).collect();
    match numbers.len() {
        0 => "events are missing".to_owned(),
        1 => format!("event {}", words::joined(&numbers)),
        _ => format!("events {}", words::joined(&numbers)),
    }
}

const CODE_PCR: u8 = 0;
const CONFIGURATION_PCR: u8 = 1;
const OPTION_ROM_PCRS: [u8; 2] = [2, 3];
const PARTITIONS_PCR: u8 = 5;
