//! The TPM itself: its keys, its counters, its firmware.

use assay_evidence::verify::Claims;

use super::{Cause, Change};
use crate::words::{self, counted};

/// Compares what the quotes say beside PCRs.
pub(super) fn compare(before: &Claims, after: &Claims) -> Vec<Change> {
    // TPM 2.0 Part 1, 36.7: counters and firmware version are obfuscated by a value of the key, so that those which
    // another key signed cannot be compared.
    if before.ak_name() != after.ak_name() {
        let message = "Another attestation key signed, so the device was enrolled again since, or this is another device. \
                       The TPM's counters and firmware version cannot be compared."
            .to_owned();
        let names = [before, after].map(|claims| claims.ak_name().to_hex());
        let [old, new] = names;
        return vec![Change::new(Cause::AttestationKey, Vec::new(), message).between(old, new)];
    }
    [counters(before, after), firmware(before, after)].into_iter().flatten().collect()
}

fn counters(before: &Claims, after: &Claims) -> Option<Change> {
    let (old, new) = (before.clock(), after.clock());
    let (cause, from, to) = if old.reset_count == new.reset_count {
        (Cause::Resume, old.restart_count, new.restart_count)
    } else {
        (Cause::Boot, old.reset_count, new.reset_count)
    };
    let message = match (cause, to.checked_sub(from)) {
        (_, Some(0)) => return None,
        (Cause::Boot, Some(times)) => format!(
            "The device was started again: the TPM was reset {} since ({from} to {to}).",
            counted(times, "time")
        ),
        (_, Some(times)) => format!(
            "The device was resumed or its TPM restarted {} within this boot ({from} to {to}).",
            counted(times, "time")
        ),
        (_, None) => format!(
            "The TPM's counter went back, from {from} to {to}: the TPM was cleared or replaced, or this evidence is the older \
             one."
        ),
    };
    Some(Change::new(cause, Vec::new(), message).between(from.to_string(), to.to_string()))
}

fn firmware(before: &Claims, after: &Claims) -> Option<Change> {
    let [old, new] = [before.firmware_version(), after.firmware_version()].map(words::tpm_firmware);
    if before.firmware_version() == after.firmware_version() {
        return None;
    }
    let message = format!(
        "The TPM's own firmware went from {old} to {new}. If nobody updated it, ask the maker of the device what that \
         version is."
    );
    Some(Change::new(Cause::TpmFirmware, Vec::new(), message).between(old, new))
}
