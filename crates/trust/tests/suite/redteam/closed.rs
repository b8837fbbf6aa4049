//! What each kind of policy closes: the property holds for these changes, whatever is said about them.

use assay_testkit::redteam::{BootPath, Deviation, Installation};
use assay_trust::policy::{Cover, Coverage, Row};

use super::fleet::{PolicyKind, shows_line};

/// Whether a machine on which somebody made this change must never be affirmed under such a policy.
pub fn is_closed(kind: PolicyKind, good: &Installation, deviation: Deviation) -> bool {
    match kind {
        // No event tells of a ramdisk where neither GRUB nor the kernel's stub measures.
        PolicyKind::Values | PolicyKind::Rules
            if !measures_initrd(good) && deviation == Deviation::Initrd =>
        {
            false
        }
        PolicyKind::Values => true,
        // A kernel by the same signer is an update, where nothing else of it is listed, as its file is that GRUB reads.
        PolicyKind::Rules => {
            deviation != Deviation::Kernel || matches!(good.path, BootPath::Grub206 | BootPath::Grub212)
        }
        PolicyKind::Kernels => {
            // Without Secure Boot, GRUB loads its own modules from wherever it is told to.
            is_closed(PolicyKind::Typed, good, deviation)
                || deviation == Deviation::Kernel
                || (deviation == Deviation::StartedDirectly && shows_line(good))
        }
        PolicyKind::Images => {
            let is_about_lines = matches!(
                deviation,
                Deviation::CommandLine | Deviation::CommandLineByOtherCommand | Deviation::StartedDirectly
            );
            !is_about_lines && is_closed(PolicyKind::Kernels, good, deviation)
        }
        PolicyKind::Typed => is_closed_by_signers(good, deviation) || is_closed_by_images(good, deviation),
        PolicyKind::Signers => is_closed_by_signers(good, deviation),
    }
}

/// What firmware, Secure Boot, signers, lines and files that are listed close.
fn is_closed_by_signers(good: &Installation, deviation: Deviation) -> bool {
    match deviation {
        Deviation::FirmwareVersion
        | Deviation::ProtectionOff
        | Deviation::SecureBootOff
        | Deviation::RevocationsReplaced
        | Deviation::RevocationTakenOut
        | Deviation::RevokedSignerTakenOut
        | Deviation::ShimOfOtherSigner
        | Deviation::KernelOfMachineOwner
        | Deviation::MokInsecure
        | Deviation::CommandLineByOtherCommand
        | Deviation::Chainloaded
        | Deviation::AcpiTable
        | Deviation::UnknownProgram
        | Deviation::AlteredProgram => true,
        // Of the stub's line only the digest is measured, for which there is no typed line.
        Deviation::CommandLine => good.path != BootPath::Stub && shows_line(good),
        _ => false,
    }
}

/// What a list of all images that are started closes beside.
fn is_closed_by_images(good: &Installation, deviation: Deviation) -> bool {
    match deviation {
        Deviation::BootLoader | Deviation::ImageInserted => true,
        // A unified kernel's ramdisk is in the image that is listed.
        Deviation::Initrd => good.path == BootPath::UnifiedKernel,
        // Without Secure Boot, GRUB 2.12 measures the kernel as a file alone.
        Deviation::Kernel | Deviation::KernelInMenusPlace => {
            good.secure_boot || good.path != BootPath::Grub212
        }
        _ => false,
    }
}

pub fn measures_initrd(good: &Installation) -> bool {
    good.is_stub_measuring
        || matches!(good.path, BootPath::Grub206 | BootPath::Grub212 | BootPath::UnifiedKernel)
}

/// The row of the coverage table that a change is about; `None` where a rule of its own speaks of it.
pub fn row_of(deviation: Deviation) -> Option<Row> {
    Some(match deviation {
        Deviation::FirmwareCode | Deviation::OptionRom => Row::FirmwareCode,
        Deviation::BankLeftEmpty => Row::PcrBanks,
        Deviation::PlatformKeys | Deviation::TrustedKey => Row::Keys,
        Deviation::RevocationsReplaced
        | Deviation::RevocationTakenOut
        | Deviation::RevokedSignerTakenOut
        | Deviation::SbatLevel => Row::Revocations,
        Deviation::BootLoader | Deviation::ImageInserted | Deviation::GrubModule => Row::BootLoader,
        Deviation::ShimOfOtherSigner => Row::SignerChain,
        Deviation::Kernel | Deviation::KernelInMenusPlace | Deviation::KernelOfMachineOwner => Row::Kernel,
        Deviation::CommandLine
        | Deviation::CommandLineByOtherCommand
        | Deviation::Chainloaded
        | Deviation::StartedDirectly => Row::CommandLine,
        Deviation::Initrd | Deviation::InitrdInMenusPlace => Row::Initrd,
        Deviation::MokListed => Row::MachineOwnerKeys,
        Deviation::Addon | Deviation::Credential | Deviation::Extension => Row::RuntimePcrs,
        Deviation::UnknownProgram | Deviation::AlteredProgram => Row::Files,
        Deviation::FirmwareVersion
        | Deviation::ProtectionOff
        | Deviation::SecureBootOff
        | Deviation::MokInsecure
        | Deviation::AcpiTable => return None,
    })
}

/// Whether the coverage table says that the change cannot pass. A kernel by the same signer and another SBAT level are
/// within what a rule of their row says.
pub fn is_claimed(coverage: &Coverage, deviation: Deviation) -> bool {
    let cover = row_of(deviation).map_or(Cover::Open, |row| coverage.cover(row));
    match deviation {
        Deviation::Kernel | Deviation::SbatLevel | Deviation::BankLeftEmpty => cover == Cover::Pinned,
        _ => cover > Cover::Open,
    }
}
