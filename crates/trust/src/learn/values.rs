//! Learning the PCR values of a boot, and the kernel's line.

use assay_evidence::boot_log::BootClaims;
use assay_evidence::verify::Claims;
use assay_evidence::{HashAlgorithm, PcrIndex};

use crate::policy::{Alternative, BootSection, Demand, Pcr, PcrSection};

/// The boot that these claims show: every PCR of it that stays as it is, and what its log says.
pub(super) fn boot(claims: &Claims) -> Alternative {
    let mut pcr = PcrSection::default();
    for index in LEARNED_PCRS.into_iter().filter_map(PcrIndex::new) {
        if let Some(value) =
            claims.boot_pcr(HashAlgorithm::Sha256, index).filter(|_| is_stable(claims, index))
        {
            pcr.allow(index, *value);
        }
    }
    for (bank, index) in super::banks::beside(claims, HashAlgorithm::Sha256) {
        if let Some(value) = claims.boot_pcr(bank, index) {
            pcr.allow(index, *value);
        }
    }
    let mut boot = match claims.boot() {
        Some(measured) => section(measured, &pcr),
        None => BootSection {
            event_log: Demand::Optional,
            secure_boot: Demand::Optional,
            ..BootSection::default()
        },
    };
    boot.banks = super::banks::active(claims);
    Alternative { pcr, boot }
}

fn section(measured: &BootClaims, pcr: &PcrSection) -> BootSection {
    let facts = measured.facts();
    let is_on = facts.secure_boot.as_ref().is_some_and(|variables| variables.is_enabled);
    let lines = facts.kernel_lines().filter(|lines| !lines.is_empty());
    let mut boot = BootSection {
        secure_boot: if is_on { Demand::Required } else { Demand::Optional },
        kernel_command_lines: lines.map(|lines| lines.into_iter().map(str::to_owned).collect()),
        ..BootSection::default()
    };
    let is_pinned = |index| pcr.iter().any(|(_, pinned, _)| pinned == index);
    for event in measured.events().iter().filter(|event| is_pinned(event.pcr)) {
        let events = boot.events.entry(Pcr(event.pcr)).or_default();
        events.entry(event.digest).or_insert_with(|| event.remark.clone());
    }
    boot
}

/// Whether a PCR will have the same value after another boot that measures the same: it was quoted, and what extends it
/// while the system runs left it alone or can be told from the boot.
fn is_stable(claims: &Claims, index: PcrIndex) -> bool {
    let Some(quoted) = claims.pcrs().get(HashAlgorithm::Sha256, index) else { return false };
    let is_logged = || {
        let boot = claims.boot();
        boot.is_some_and(|boot| boot.replayed().get(HashAlgorithm::Sha256, index).is_some())
    };
    !RUN_TIME_PCRS.contains(&index.get()) || quoted.is_zero() || is_logged()
}

/// What a boot leaves behind: firmware and boot loader in 0 to 9, unified kernel images in 11 to 13, shim in 14, the
/// machine's identity in 15.
const LEARNED_PCRS: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15];
/// What systemd extends after the boot as well.
const RUN_TIME_PCRS: [u8; 4] = [11, 12, 13, 15];
