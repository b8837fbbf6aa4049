//! What somebody really changed on a machine. The change is measured: honest hardware saw it before it could lie.

use super::installation::{BootPath, GrubStep, Installation, program};
use crate::machine::uefi::{self, INTRUDER_CA, OTHER_CA};
use crate::{Bank, Program};

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Deviation {
    /// Firmware code with something added; its version is the good one's.
    FirmwareCode,
    /// A driver in an option ROM.
    OptionRom,
    /// A firmware with another version.
    FirmwareVersion,
    /// The firmware says that it was left unprotected.
    ProtectionOff,
    /// Secure Boot turned off.
    SecureBootOff,
    /// Platform key and key exchange key of the intruder's own.
    PlatformKeys,
    /// The intruder's certificate among those that the firmware trusts.
    TrustedKey,
    /// As many revocations as before, all of them inventions.
    RevocationsReplaced,
    /// A revocation less.
    RevocationTakenOut,
    /// A signer that was revoked is no longer.
    RevokedSignerTakenOut,
    /// A boot loader by the same signer.
    BootLoader,
    /// A shim by another signer that the firmware trusts.
    ShimOfOtherSigner,
    /// A shim that enforces an older level of revocations.
    SbatLevel,
    /// An image by a trusted signer, started before the boot loader.
    ImageInserted,
    /// A kernel by the same signer, with a known hole.
    Kernel,
    /// The same, read where a menu is usually read, and the good one afterwards for nothing.
    KernelInMenusPlace,
    /// A kernel signed by the intruder, whose certificate is a machine-owner key.
    KernelOfMachineOwner,
    /// shim told to check nothing.
    MokInsecure,
    /// A further machine-owner key, not used yet.
    MokListed,
    /// Another command line.
    CommandLine,
    /// Another command line, loaded by a command of another name.
    CommandLineByOtherCommand,
    /// The allowed line loaded, and then the kernel's stub started with another one.
    Chainloaded,
    /// The kernel started without a boot loader, with another line.
    StartedDirectly,
    /// A module of GRUB's, which does as if nothing had happened.
    GrubModule,
    /// A table that GRUB hands to the kernel, which runs code in it.
    AcpiTable,
    /// Another initial ramdisk.
    Initrd,
    /// The same, read where a menu is usually read, and the good one afterwards for nothing.
    InitrdInMenusPlace,
    /// An add-on to the unified kernel, with a line of its own.
    Addon,
    /// A credential.
    Credential,
    /// A system extension.
    Extension,
    /// A firmware that measures into one bank of those that are active, and a kernel with a hole behind it.
    BankLeftEmpty,
    /// A program that nobody knows ran.
    UnknownProgram,
    /// A known program with other contents ran.
    AlteredProgram,
}

impl Deviation {
    /// Every change.
    pub const ALL: [Deviation; 33] = [
        Deviation::FirmwareCode,
        Deviation::OptionRom,
        Deviation::FirmwareVersion,
        Deviation::ProtectionOff,
        Deviation::SecureBootOff,
        Deviation::PlatformKeys,
        Deviation::TrustedKey,
        Deviation::RevocationsReplaced,
        Deviation::RevocationTakenOut,
        Deviation::RevokedSignerTakenOut,
        Deviation::BootLoader,
        Deviation::ShimOfOtherSigner,
        Deviation::SbatLevel,
        Deviation::ImageInserted,
        Deviation::Kernel,
        Deviation::KernelInMenusPlace,
        Deviation::KernelOfMachineOwner,
        Deviation::MokInsecure,
        Deviation::MokListed,
        Deviation::CommandLine,
        Deviation::CommandLineByOtherCommand,
        Deviation::Chainloaded,
        Deviation::StartedDirectly,
        Deviation::GrubModule,
        Deviation::AcpiTable,
        Deviation::Initrd,
        Deviation::InitrdInMenusPlace,
        Deviation::Addon,
        Deviation::Credential,
        Deviation::Extension,
        Deviation::BankLeftEmpty,
        Deviation::UnknownProgram,
        Deviation::AlteredProgram,
    ];

    /// Whether this machine can be changed so.
    pub fn applies_to(self, good: &Installation) -> bool {
        let is_grub = matches!(good.path, BootPath::Grub206 | BootPath::Grub212);
        match self {
            Deviation::SecureBootOff
            | Deviation::TrustedKey
            | Deviation::PlatformKeys
            | Deviation::RevocationsReplaced
            | Deviation::RevocationTakenOut
            | Deviation::RevokedSignerTakenOut
            | Deviation::ShimOfOtherSigner
            | Deviation::KernelOfMachineOwner
            | Deviation::MokInsecure => good.secure_boot,
            Deviation::BootLoader => {
                matches!(good.path, BootPath::Grub206 | BootPath::Grub212 | BootPath::SystemdBoot)
            }
            Deviation::CommandLine => good.path != BootPath::UnifiedKernel,
            Deviation::CommandLineByOtherCommand
            | Deviation::Chainloaded
            | Deviation::AcpiTable
            | Deviation::KernelInMenusPlace
            | Deviation::InitrdInMenusPlace => is_grub,
            // Secure Boot has GRUB load none.
            Deviation::GrubModule => is_grub && !good.secure_boot,
            Deviation::StartedDirectly => is_grub || good.path == BootPath::SystemdBoot,
            Deviation::Addon | Deviation::Credential | Deviation::Extension => {
                good.path == BootPath::UnifiedKernel
            }
            _ => true,
        }
    }

    /// Whether the intruder's code decides what the kernel measures: PCR 10 is his then.
    pub fn rules_the_kernel(self) -> bool {
        !matches!(
            self,
            Deviation::FirmwareVersion
                | Deviation::ProtectionOff
                | Deviation::RevocationTakenOut
                | Deviation::RevokedSignerTakenOut
                | Deviation::MokListed
                | Deviation::Initrd
                | Deviation::InitrdInMenusPlace
                | Deviation::Credential
                | Deviation::Extension
                | Deviation::UnknownProgram
                | Deviation::AlteredProgram
        )
    }

    /// Changes the machine.
    pub fn apply(self, machine: &mut Installation) {
        match self {
            Deviation::FirmwareCode => machine.firmware_code.extend_from_slice(b" and an implant"),
            Deviation::OptionRom => machine.option_roms.push(program("a driver with an implant")),
            Deviation::FirmwareVersion => machine.firmware_version.push_str("-old"),
            Deviation::ProtectionOff => machine.warnings.push("DMA Protection Disabled"),
            Deviation::SecureBootOff => machine.secure_boot = false,
            Deviation::PlatformKeys => {
                machine.pk = uefi::certificate_list(&INTRUDER_CA);
                machine.kek = uefi::certificate_list(&INTRUDER_CA);
            }
            Deviation::TrustedKey => machine.db.extend(uefi::certificate_list(&INTRUDER_CA)),
            Deviation::RevocationsReplaced => {
                machine.dbx.iter_mut().for_each(|image| image.insert_str(0, "not "));
            }
            Deviation::RevocationTakenOut => drop(machine.dbx.pop()),
            Deviation::RevokedSignerTakenOut => machine.dbx_certificates.clear(),
            Deviation::BootLoader => machine.loader.extend_from_slice(b" with a hole"),
            Deviation::ShimOfOtherSigner => {
                machine.shim.extend_from_slice(b" of another");
                machine.shim_signer.clone_from(&OTHER_CA);
            }
            Deviation::SbatLevel => machine.sbat_level = "sbat,1,2021030218\n".into(),
            Deviation::ImageInserted => machine.first_image = Some(program("a shell that may do anything")),
            Deviation::Kernel => machine.kernel.extend_from_slice(b" with a hole"),
            Deviation::KernelInMenusPlace => {
                let search =
                    GrubStep::Search(format!("/vmlinuz-{}", machine.release), machine.kernel.clone());
                machine.kernel.extend_from_slice(b" with a hole");
                replace_steps(
                    machine,
                    vec![MENU, GrubStep::Kernel, search.clone(), search, GrubStep::Ramdisk],
                );
            }
            Deviation::KernelOfMachineOwner => {
                machine.kernel.extend_from_slice(b" of the intruder");
                machine.mok_list.extend(uefi::certificate_list(&INTRUDER_CA));
                machine.kernel_signer.clone_from(&INTRUDER_CA);
            }
            Deviation::MokInsecure => machine.mok_insecure = true,
            Deviation::MokListed => machine.mok_list.extend(uefi::certificate_list(&INTRUDER_CA)),
            Deviation::CommandLine => machine.line = EVIL_LINE.into(),
            Deviation::CommandLineByOtherCommand => {
                machine.line = EVIL_LINE.into();
                machine.load_command = "linuxefi";
            }
            Deviation::Chainloaded => machine.chainloaded = Some(EVIL_LINE.into()),
            Deviation::StartedDirectly => {
                machine.line = EVIL_LINE.into();
                machine.is_started_directly = true;
            }
            Deviation::GrubModule => {
                machine.grub.insert(1, GrubStep::Module(program("a module that starts what it likes")));
            }
            Deviation::AcpiTable => {
                let table = GrubStep::Command("acpi /evil.aml".into(), b"a table with code".to_vec());
                machine.grub.insert(2, table);
            }
            Deviation::Initrd => machine.initrd.extend_from_slice(b" with an implant"),
            Deviation::InitrdInMenusPlace => {
                let search = |path: &str, contents: &[u8]| {
                    GrubStep::Search(format!("/{path}-{}", machine.release), contents.to_vec())
                };
                let kernel = search("vmlinuz", &machine.kernel);
                let initrd = search("initrd.img", &machine.initrd);
                machine.initrd.extend_from_slice(b" with an implant");
                replace_steps(
                    machine,
                    vec![GrubStep::Kernel, GrubStep::Ramdisk, kernel.clone(), kernel, initrd],
                );
            }
            Deviation::Addon => machine.addons.push("init=/bin/sh".into()),
            Deviation::Credential => machine.credentials.push(b"a unit that runs a shell".to_vec()),
            Deviation::Extension => machine.extensions.push(b"evil.raw".to_vec()),
            Deviation::BankLeftEmpty => {
                leave_banks_empty(machine);
                machine.kernel.extend_from_slice(b" with a hole");
            }
            Deviation::UnknownProgram => {
                let contents = b"a program that nobody knows".to_vec();
                machine.programs.push(Program { path: "/tmp/unknown".into(), contents });
            }
            Deviation::AlteredProgram => {
                machine.programs.iter_mut().take(1).for_each(|program| program.contents.push(0));
            }
        }
    }
}

/// One bank is measured into, the weakest there can be: it is turned on beside a single one, where set-up allows that, and
/// else the firmware is another.
fn leave_banks_empty(machine: &mut Installation) {
    match machine.banks.as_slice() {
        [_] if !machine.banks.contains(&Bank::Sha1) => machine.banks.insert(0, Bank::Sha1),
        _ => machine.firmware_code.extend_from_slice(b" of before"),
    }
    machine.measured_banks = machine.banks.iter().take(1).copied().collect();
}

/// GRUB does these steps, and what else was changed about it before them.
fn replace_steps(machine: &mut Installation, steps: Vec<GrubStep>) {
    machine.grub.retain(|step| matches!(step, GrubStep::Command(..) | GrubStep::Module(_)));
    machine.grub.extend(steps);
}

/// Another init, and a kernel that does not measure.
const EVIL_LINE: &str = "root=/dev/vda2 ro init=/bin/sh initcall_blacklist=init_ima";
const MENU: GrubStep = GrubStep::Menu("(hd0,gpt1)/EFI/debian/grub.cfg");
