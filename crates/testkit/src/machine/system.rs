//! What a machine boots, and the measurements each part makes of the next.

use super::boot_log::{BootLog, EventType};
use super::uefi::{self, DISTRIBUTION_CA, GLOBAL_VARIABLE, IMAGE_SECURITY, PLATFORM_CA, SHIM};
use crate::Bank;

/// An installed system, from firmware to programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The firmware's version.
    pub firmware: String,
    /// Whether the firmware checks signatures.
    pub secure_boot: bool,
    /// The images that the firmware forbids (dbx), by what is in them.
    pub revoked: Vec<String>,
    /// The boot loader.
    pub boot_loader: String,
    /// What shim's MokList holds.
    pub mok_list: Vec<u8>,
    /// The kernel's version.
    pub kernel: String,
    /// The kernel's command line, after the image.
    pub command_line: String,
    /// What runs while it starts.
    pub programs: Vec<Program>,
}

/// A file that is measured when it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: String,
    /// What it is.
    pub contents: Vec<u8>,
}

impl Default for System {
    /// A small server with Secure Boot on.
    fn default() -> Self {
        System {
            firmware: "Example Firmware 2026.05".into(),
            secure_boot: true,
            revoked: vec!["a boot loader with a known hole".into()],
            boot_loader: "GRUB 2.12".into(),
            mok_list: uefi::certificate_list(&DISTRIBUTION_CA),
            kernel: "6.12.9-amd64".into(),
            command_line: "root=/dev/vda2 ro quiet ima_policy=tcb ima_template=ima-sig ima_hash=sha256"
                .into(),
            programs: PROGRAMS.iter().map(|path| Program::release(path)).collect(),
        }
    }
}

impl Program {
    /// A program of the distribution: any file whose contents everybody agrees on.
    pub fn release(path: &str) -> Program {
        Program { path: path.into(), contents: format!("{path} of the release").into_bytes() }
    }
}

impl System {
    /// The log that booting it leaves, with digests for these banks.
    pub fn boot_log(&self, banks: &[Bank]) -> BootLog {
        let mut log = BootLog::new(banks);
        self.firmware(&mut log);
        self.secure_boot_variables(&mut log);
        boot_options(&mut log);
        self.shim(&mut log);
        self.grub_and_kernel(&mut log);
        log
    }

    fn firmware(&self, log: &mut BootLog) {
        log.event(0, EventType::CrtmVersion, &[uefi::utf16(&self.firmware), vec![0, 0]].concat());
        for (part, base, length) in [("PEI", 0x82_0000u64, 0xe_0000u64), ("DXE", 0x90_0000, 0xc0_0000)] {
            let blob = [base.to_le_bytes(), length.to_le_bytes()].concat();
            let contents = format!("{part} volume of {}", self.firmware);
            log.event_measuring(0, EventType::FirmwareBlob, &blob, contents.as_bytes());
        }
    }

    fn secure_boot_variables(&self, log: &mut BootLog) {
        let keys = uefi::certificate_list(&PLATFORM_CA);
        let revoked: Vec<_> = self.revoked.iter().map(|image| Bank::Sha256.hash(image.as_bytes())).collect();
        let forbidden = uefi::digest_list(&revoked);
        let variables = [
            (GLOBAL_VARIABLE, "SecureBoot", vec![u8::from(self.secure_boot)]),
            (GLOBAL_VARIABLE, "PK", keys.clone()),
            (GLOBAL_VARIABLE, "KEK", keys.clone()),
            (IMAGE_SECURITY, "db", keys),
            (IMAGE_SECURITY, "dbx", forbidden),
        ];
        for (vendor, name, data) in variables {
            log.event(7, EventType::VariableDriverConfig, &uefi::variable(vendor, name, &data));
        }
        log.event(7, EventType::Separator, &[0; 4]);
    }

    fn shim(&self, log: &mut BootLog) {
        log.event(4, EventType::Action, b"Calling EFI Application from Boot Option");
        for pcr in 0..=6 {
            log.event(pcr, EventType::Separator, &[0; 4]);
        }
        if self.secure_boot {
            let allowed_by = uefi::signature_data(&PLATFORM_CA);
            let authority = uefi::variable(IMAGE_SECURITY, "db", &allowed_by);
            log.event(7, EventType::VariableAuthority, &authority);
        }
        load(log, SHIM_PATH, b"shim 15.8");
        // shim measures the variable's contents; the event only names it.
        for (name, contents) in [("MokList", self.mok_list.as_slice()), ("MokListX", &[0])] {
            log.event_measuring(14, EventType::Ipl, &terminated(name), contents);
        }
        if self.secure_boot {
            let sbat = uefi::variable(SHIM, "SbatLevel", b"sbat,1,2025021800\nshim,4\ngrub,5\n");
            log.event(7, EventType::VariableAuthority, &sbat);
            let allowed_by = uefi::signature_data(&DISTRIBUTION_CA);
            log.event(7, EventType::VariableAuthority, &uefi::variable(SHIM, "MokListRT", &allowed_by));
        }
    }

    fn grub_and_kernel(&self, log: &mut BootLog) {
        load(log, GRUB_PATH, self.boot_loader.as_bytes());
        let System { kernel, command_line, .. } = self;
        let configuration = "(hd0,gpt1)/EFI/debian/grub.cfg";
        grub_text(log, "grub_cmd", &format!("source {configuration}"));
        log.event_measuring(9, EventType::Ipl, &terminated(configuration), b"set timeout=0");
        grub_text(log, "grub_cmd", "set timeout=0");
        grub_text(log, "grub_cmd", &format!("linux /vmlinuz-{kernel} {command_line}"));
        let image = format!("Linux {kernel}");
        log.event_measuring(9, EventType::Ipl, &terminated(&format!("/vmlinuz-{kernel}")), image.as_bytes());
        load(log, "", image.as_bytes());
        grub_text(log, "kernel_cmdline", &format!("/vmlinuz-{kernel} {command_line}"));
        let ramdisk = format!("/initrd.img-{kernel}");
        grub_text(log, "grub_cmd", &format!("initrd {ramdisk}"));
        log.event_measuring(9, EventType::Ipl, &terminated(&ramdisk), ramdisk.as_bytes());
        log.event(5, EventType::Action, b"Exit Boot Services Invocation");
        log.event(5, EventType::Action, b"Exit Boot Services Returned with Success");
    }
}

fn boot_options(log: &mut BootLog) {
    let options =
        [("BootOrder", 1u16.to_le_bytes().to_vec()), ("Boot0001", uefi::load_option("debian", SHIM_PATH))];
    for (name, data) in options {
        // The digest is of the data alone, unlike that of the variables in PCR 7.
        let event = uefi::variable(GLOBAL_VARIABLE, name, &data);
        log.event_measuring(1, EventType::VariableBoot, &event, &data);
    }
}

/// The Authenticode digest of an image stands for its contents.
fn load(log: &mut BootLog, path: &str, image: &[u8]) {
    let event = uefi::image_load(path, image.len());
    log.event_measuring(4, EventType::BootServicesApplication, &event, image);
}

/// GRUB hashes the text after the prefix, without the final NUL.
fn grub_text(log: &mut BootLog, prefix: &str, text: &str) {
    log.event_measuring(8, EventType::Ipl, &terminated(&format!("{prefix}: {text}")), text.as_bytes());
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

const SHIM_PATH: &str = "\\EFI\\debian\\shimx64.efi";
const GRUB_PATH: &str = "\\EFI\\debian\\grubx64.efi";
const PROGRAMS: [&str; 16] = [
    "/init",
    "/usr/bin/busybox",
    "/usr/lib/systemd/systemd",
    "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/systemd/systemd-journald",
    "/usr/lib/systemd/systemd-udevd",
    "/usr/lib/systemd/systemd-networkd",
    "/usr/bin/dbus-daemon",
    "/usr/bin/kmod",
    "/usr/sbin/sshd",
    "/usr/bin/bash",
    "/usr/bin/mount",
    "/usr/sbin/cron",
    "/usr/bin/assay-agent",
    "/opt/app/bin/sensor-gateway",
];
