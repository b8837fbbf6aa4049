//! What is installed on a machine, and so what each part of it measures of the next.

use crate::machine::uefi::{self, DISTRIBUTION_CA, OTHER_CA, PLATFORM_CA, REVOKED_CA};
use crate::{Bank, Program};

/// How a machine gets from its firmware to its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BootPath {
    /// shim and GRUB 2.06, which enters the kernel behind its EFI stub: the stub measures nothing.
    Grub206,
    /// shim and GRUB 2.12, whose kernel's stub measures its line and initrd.
    Grub212,
    /// shim and systemd-boot, which measures the line as well.
    SystemdBoot,
    /// shim alone, which starts the kernel's stub.
    Stub,
    /// shim and a unified kernel image.
    UnifiedKernel,
}

/// How a firmware words and orders its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FirmwareStyle {
    /// As EDK II does in a virtual machine.
    Edk2,
    /// As a server's firmware does: version as text, tables, a network card's driver, separators all at the end.
    Server,
    /// A firmware that says nothing about what it does, only what it measures.
    Terse,
}

/// What GRUB does, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrubStep {
    /// Reads a menu, and runs what is in it.
    Menu(&'static str),
    /// Looks on which disk a file is, and reads it for that.
    Search(String, Vec<u8>),
    /// Runs a command that reads a file.
    Command(String, Vec<u8>),
    /// Loads a module of its own from the disk, without a command.
    Module(Vec<u8>),
    /// Loads the kernel.
    Kernel,
    /// Loads the initial ramdisk.
    Ramdisk,
}

/// A machine as it is installed. Every field is something that is measured when it boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// How it boots.
    pub path: BootPath,
    /// How its firmware writes.
    pub style: FirmwareStyle,
    /// The banks that its TPM has.
    pub banks: Vec<Bank>,
    /// The banks that its firmware and its kernel extend.
    pub measured_banks: Vec<Bank>,
    /// The version that the firmware states.
    pub firmware_version: String,
    /// The firmware's code.
    pub firmware_code: Vec<u8>,
    /// Drivers from option ROMs, by what is in them.
    pub option_roms: Vec<Vec<u8>>,
    /// What the firmware says of its own protection in PCR 7.
    pub warnings: Vec<&'static str>,
    /// Whether Secure Boot is on.
    pub secure_boot: bool,
    /// The platform key.
    pub pk: Vec<u8>,
    /// The key exchange keys, as a signature list.
    pub kek: Vec<u8>,
    /// What is allowed, as signature lists.
    pub db: Vec<u8>,
    /// What is forbidden, by what is in it.
    pub dbx: Vec<String>,
    /// By whom nothing may be signed, as signature lists.
    pub dbx_certificates: Vec<u8>,
    /// The certificate by which the firmware trusts shim.
    pub shim_signer: Vec<u8>,
    /// shim.
    pub shim: Vec<u8>,
    /// What shim enforces.
    pub sbat_level: String,
    /// shim's own list of trusted keys.
    pub mok_list: Vec<u8>,
    /// Whether shim was told to check nothing.
    pub mok_insecure: bool,
    /// An image that is started before the boot loader.
    pub first_image: Option<Vec<u8>>,
    /// The boot loader, where there is one.
    pub loader: Vec<u8>,
    /// The boot loader's configuration.
    pub loader_config: Vec<u8>,
    /// What GRUB does.
    pub grub: Vec<GrubStep>,
    /// The command that loads the kernel.
    pub load_command: &'static str,
    /// The certificate by which shim trusts boot loader and kernel.
    pub kernel_signer: Vec<u8>,
    /// The kernel's release.
    pub release: String,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// What the kernel is told.
    pub line: String,
    /// What GRUB starts after it loaded that kernel: the same image by its stub, with this line.
    pub chainloaded: Option<String>,
    /// Whether shim starts the kernel itself, without a boot loader.
    pub is_started_directly: bool,
    /// Whether the kernel's stub measures what it was given, as it does since Linux 5.18.
    pub is_stub_measuring: bool,
    /// The initial ramdisk.
    pub initrd: Vec<u8>,
    /// Command lines of add-ons to a unified kernel.
    pub addons: Vec<String>,
    /// Credentials for a unified kernel.
    pub credentials: Vec<Vec<u8>>,
    /// System extensions for a unified kernel.
    pub extensions: Vec<Vec<u8>>,
    /// What runs then.
    pub programs: Vec<Program>,
}

impl Installation {
    /// A good machine.
    pub fn new(path: BootPath, style: FirmwareStyle, secure_boot: bool) -> Installation {
        let release = "6.1.0-55-amd64";
        let kernel = program(&format!("Linux {release}"));
        Installation {
            path,
            style,
            banks: vec![Bank::Sha256],
            measured_banks: vec![Bank::Sha256],
            firmware_version: "Example Firmware 1.22".into(),
            firmware_code: program("firmware code of 1.22"),
            option_roms: match style {
                FirmwareStyle::Server => vec![program("driver of a network card")],
                FirmwareStyle::Edk2 | FirmwareStyle::Terse => Vec::new(),
            },
            warnings: Vec::new(),
            secure_boot,
            pk: uefi::certificate_list(&PLATFORM_CA),
            kek: uefi::certificate_list(&PLATFORM_CA),
            db: [uefi::certificate_list(&PLATFORM_CA), uefi::certificate_list(&OTHER_CA)].concat(),
            dbx: vec!["a boot loader with a known hole".into(), "another".into(), "a third".into()],
            dbx_certificates: uefi::certificate_list(&REVOKED_CA),
            shim_signer: PLATFORM_CA.clone(),
            shim: program("shim 15.8"),
            sbat_level: "sbat,1,2025021800\nshim,4\ngrub,5\n".into(),
            mok_list: uefi::certificate_list(&DISTRIBUTION_CA),
            mok_insecure: false,
            first_image: None,
            loader: program(&format!("boot loader of {path:?}")),
            loader_config: b"set timeout=0".to_vec(),
            grub: vec![
                GrubStep::Menu("(hd0,gpt1)/EFI/debian/grub.cfg"),
                GrubStep::Menu("(hd0,gpt2)/boot/grub/grub.cfg"),
                GrubStep::Search(format!("/vmlinuz-{release}"), kernel.clone()),
                GrubStep::Kernel,
                GrubStep::Ramdisk,
            ],
            load_command: "linux",
            kernel_signer: DISTRIBUTION_CA.clone(),
            release: release.into(),
            kernel,
            line: "root=/dev/vda2 ro quiet ima_policy=tcb ima_template=ima-sig ima_hash=sha256".into(),
            chainloaded: None,
            is_started_directly: false,
            is_stub_measuring: true,
            initrd: program(&format!("initrd of {release}")),
            addons: Vec::new(),
            credentials: Vec::new(),
            extensions: Vec::new(),
            programs: PROGRAMS.iter().map(|path| Program::release(path)).collect(),
        }
    }

    /// The same with these banks, all of which are extended.
    #[must_use]
    pub fn with_banks(mut self, banks: &[Bank]) -> Installation {
        self.banks = banks.to_vec();
        self.measured_banks = banks.to_vec();
        self
    }
}

/// What stands for code: longer than any text that a log holds, as the shortest image that firmware starts is.
pub(super) fn program(name: &str) -> Vec<u8> {
    let mut contents = name.as_bytes().to_vec();
    contents.resize(PROGRAM_BYTES, b'.');
    contents
}

const PROGRAM_BYTES: usize = 400;
const PROGRAMS: [&str; 5] = [
    "/init",
    "/usr/lib/systemd/systemd",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/bin/bash",
    "/usr/bin/assay-agent",
];
