//! What each kind of policy closes: the property holds for these changes, whatever is said about them.

use assay_testkit::redteam::{BootPath, Deviation, Installation};

use super::fleet::PolicyKind;

/// Whether a machine on which somebody made this change must never be affirmed under such a policy.
pub fn is_closed(kind: PolicyKind, good: &Installation, deviation: Deviation) -> bool {
    let closed: &[Deviation] = match kind {
        // PCR values leave nothing open of the PCRs that are learned.
        PolicyKind::Values => {
            return !matches!(deviation, Deviation::Credential | Deviation::Extension);
        }
        PolicyKind::Rules => &[Deviation::KernelOfMachineOwner],
        PolicyKind::Typed => &[Deviation::KernelOfMachineOwner, Deviation::RevocationsReplaced],
        PolicyKind::Signers => &[Deviation::KernelOfMachineOwner, Deviation::RevocationsReplaced],
    };
    match deviation {
        // What the firmware says of itself, what Secure Boot is set to, and files, every policy here demands.
        Deviation::FirmwareVersion
        | Deviation::ProtectionOff
        | Deviation::SecureBootOff
        | Deviation::RevocationTakenOut
        | Deviation::ShimOfOtherSigner
        | Deviation::CommandLineByOtherCommand
        | Deviation::UnknownProgram
        | Deviation::AlteredProgram => true,
        // Of the stub's line only the digest is measured.
        Deviation::CommandLine => good.path != BootPath::Stub,
        // A unified kernel's ramdisk is in the image that is listed.
        Deviation::Initrd => kind == PolicyKind::Typed && good.path == BootPath::UnifiedKernel,
        Deviation::BootLoader | Deviation::ImageInserted => kind == PolicyKind::Typed,
        // Without Secure Boot, GRUB 2.12 measures the kernel as a file alone.
        Deviation::Kernel => {
            kind == PolicyKind::Typed && (good.secure_boot || good.path != BootPath::Grub212)
        }
        _ => closed.contains(&deviation),
    }
}
