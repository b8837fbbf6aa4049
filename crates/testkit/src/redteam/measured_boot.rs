//! The events that booting an installation leaves, in the order in which hardware and software measure them.
//!
//! Modelled on logs of real boots: EDK II with shim, GRUB 2.06 and 2.12, systemd-boot, systemd-stub and the stub of
//! Linux 6.1.

use super::event::BootEvent;
use super::installation::{BootPath, FirmwareStyle, GrubStep, Installation};
use crate::machine::EventType;
use crate::machine::uefi::{self, GLOBAL_VARIABLE, IMAGE_SECURITY, SHIM};

impl Installation {
    /// Every event of its boot, up to where the firmware's log ends.
    pub fn boot_events(&self) -> Vec<BootEvent> {
        let mut events = Vec::new();
        self.firmware(&mut events);
        self.secure_boot_variables(&mut events);
        self.end_of_firmware(&mut events);
        self.shim(&mut events);
        if let Some(image) = &self.first_image {
            self.trust_by_db(&mut events, &self.shim_signer);
            events.push(load("\\EFI\\tools\\shell.efi", image));
        }
        match self.path {
            _ if self.is_started_directly => self.stub(&mut events),
            BootPath::Grub206 | BootPath::Grub212 => self.grub(&mut events),
            BootPath::SystemdBoot => self.systemd_boot(&mut events),
            BootPath::Stub => self.stub(&mut events),
            BootPath::UnifiedKernel => self.unified_kernel(&mut events),
        }
        if self.style != FirmwareStyle::Terse {
            events.push(BootEvent::new(5, EventType::Action, b"Exit Boot Services Invocation"));
            events.push(BootEvent::new(5, EventType::Action, b"Exit Boot Services Returned with Success"));
        }
        events
    }

    /// The locality that the firmware starts the TPM from.
    pub fn locality(&self) -> u8 {
        if self.style == FirmwareStyle::Server { 3 } else { 0 }
    }

    fn firmware(&self, events: &mut Vec<BootEvent>) {
        if self.locality() != 0 {
            let data = [b"StartupLocality\0".as_slice(), &[self.locality()]].concat();
            events.push(BootEvent::new(0, EventType::NoAction, &data));
        }
        let version = [uefi::utf16(&self.firmware_version), vec![0, 0]].concat();
        events.push(BootEvent::new(0, EventType::CrtmVersion, &version));
        for (part, base, length) in [(0u8, 0x82_0000u64, 0xe_0000u64), (1, 0x90_0000, 0xc0_0000)] {
            let blob = [base.to_le_bytes(), length.to_le_bytes()].concat();
            let code = [self.firmware_code.as_slice(), &[part]].concat();
            events.push(BootEvent::measuring(0, EventType::FirmwareBlob, &blob, &code));
        }
        for driver in &self.option_roms {
            let data = uefi::image_load("\\driver", driver.len());
            events.push(BootEvent::measuring(2, EventType::BootServicesDriver, &data, driver));
        }
        if self.style == FirmwareStyle::Server {
            let tables = b"where the SMBIOS tables are";
            events.push(BootEvent::measuring(1, EventType::HandoffTables, tables, b"SMBIOS tables"));
            events.push(BootEvent::new(6, EventType::CompactHash, b"a maker's own"));
        }
    }

    fn secure_boot_variables(&self, events: &mut Vec<BootEvent>) {
        for warning in &self.warnings {
            events.push(BootEvent::new(7, EventType::Action, warning.as_bytes()));
        }
        let digests: Vec<_> =
            self.dbx.iter().map(|image| crate::Bank::Sha256.hash(image.as_bytes())).collect();
        let variables = [
            (GLOBAL_VARIABLE, "SecureBoot", vec![u8::from(self.secure_boot)]),
            (GLOBAL_VARIABLE, "PK", self.pk.clone()),
            (GLOBAL_VARIABLE, "KEK", self.kek.clone()),
            (IMAGE_SECURITY, "db", self.db.clone()),
            (IMAGE_SECURITY, "dbx", [uefi::digest_list(&digests), self.dbx_certificates.clone()].concat()),
        ];
        for (vendor, name, data) in variables {
            let data = uefi::variable(vendor, name, &data);
            events.push(BootEvent::new(7, EventType::VariableDriverConfig, &data));
        }
        if self.style != FirmwareStyle::Server {
            events.push(separator(7));
        }
    }

    fn end_of_firmware(&self, events: &mut Vec<BootEvent>) {
        let option = uefi::load_option("debian", SHIM_PATH);
        for (name, data) in [("BootOrder", vec![1, 0]), ("Boot0001", option)] {
            let event = uefi::variable(GLOBAL_VARIABLE, name, &data);
            events.push(BootEvent::measuring(1, EventType::VariableBoot, &event, &data));
        }
        if self.style != FirmwareStyle::Terse {
            events.push(BootEvent::new(4, EventType::Action, b"Calling EFI Application from Boot Option"));
        }
        events.extend((0..=6).map(separator));
        if self.style == FirmwareStyle::Server {
            events.push(separator(7));
        }
        events.push(BootEvent::new(5, EventType::Gpt, b"EFI PART and two partitions"));
    }

    fn trust_by_db(&self, events: &mut Vec<BootEvent>, certificate: &[u8]) {
        let authority = authority(IMAGE_SECURITY, "db", &uefi::signature_data(certificate));
        if self.secure_boot && !events.contains(&authority) {
            events.push(authority);
        }
    }

    fn shim(&self, events: &mut Vec<BootEvent>) {
        self.trust_by_db(events, &self.shim_signer);
        events.push(load(SHIM_PATH, &self.shim));
        let mut list = |name: &str, contents: &[u8]| {
            events.push(BootEvent::measuring(14, EventType::Ipl, &terminated(name), contents));
        };
        list("MokList", &self.mok_list);
        list("MokListX", &[0]);
        if self.mok_insecure {
            list("MokSBState", &[1]);
        }
        events.push(authority(SHIM, "SbatLevel", self.sbat_level.as_bytes()));
        events.push(BootEvent::measuring(14, EventType::Ipl, &terminated("MokListTrusted"), &[1]));
        if self.secure_boot && !self.mok_insecure {
            events.push(authority(SHIM, "MokListRT", &uefi::signature_data(&self.kernel_signer)));
        }
    }

    fn grub(&self, events: &mut Vec<BootEvent>) {
        events.push(load("\\EFI\\debian\\grubx64.efi", &self.loader));
        for step in &self.grub {
            self.grub_step(step, events);
        }
        let image = format!("/vmlinuz-{}", self.release);
        if let Some(other) = &self.chainloaded {
            events.push(command(&format!("chainloader {image} {other}")));
            events.push(file(&image, &self.kernel));
            events.push(load("", &self.kernel));
            events.push(load(&image, &self.kernel));
            self.started(other, events);
        } else if self.path == BootPath::Grub212 {
            self.started(&format!("{image} {}", self.line), events);
        }
    }

    fn grub_step(&self, step: &GrubStep, events: &mut Vec<BootEvent>) {
        match step {
            GrubStep::Menu(path) => {
                events.push(command(&format!("source {path}")));
                events.push(file(path, &[path.as_bytes(), &self.loader_config].concat()));
                events.push(command("set timeout=0"));
            }
            GrubStep::Search(path, contents) => {
                events.push(command(&format!("search --no-floppy --set=root --file {path}")));
                events.push(file(&format!("(hd0,gpt2){path}"), contents));
            }
            GrubStep::Command(text, contents) => {
                events.push(command(text));
                events.push(file(text.rsplit(' ').next().unwrap_or_default(), contents));
            }
            GrubStep::Module(contents) => {
                events.push(file("(hd0,gpt2)/boot/grub/x86_64-efi/linux.mod", contents));
            }
            GrubStep::Kernel => self.grub_kernel(events),
            GrubStep::Ramdisk => {
                let path = format!("/initrd.img-{}", self.release);
                events.push(command(&format!("initrd {path}")));
                events.push(file(&path, &self.initrd));
            }
        }
    }

    fn grub_kernel(&self, events: &mut Vec<BootEvent>) {
        let image = format!("/vmlinuz-{}", self.release);
        let line = format!("{image} {}", self.line);
        events.push(command(&format!("{} {line}", self.load_command)));
        events.push(file(&image, &self.kernel));
        // shim verifies and measures the kernel, and so does GRUB; without Secure Boot, GRUB 2.12 asks nobody.
        let starts = if self.secure_boot || self.path == BootPath::Grub206 { 2 } else { 0 };
        for _ in 0..starts {
            events.push(load("", &self.kernel));
        }
        events.push(grub_text("kernel_cmdline", &line));
    }

    /// What the kernel's stub measures of what it was given.
    fn started(&self, line: &str, events: &mut Vec<BootEvent>) {
        if self.is_stub_measuring {
            events.push(load_options(line));
            events.push(stub_initrd(&self.initrd));
        }
    }

    fn systemd_boot(&self, events: &mut Vec<BootEvent>) {
        events.push(load("\\EFI\\systemd\\systemd-bootx64.efi", &self.loader));
        events.push(load("\\linux", &self.kernel));
        let line = wide(&self.line);
        events.push(BootEvent::new(12, EventType::Ipl, &line));
        self.started(&self.line, events);
    }

    fn stub(&self, events: &mut Vec<BootEvent>) {
        events.push(load("\\linux", &self.kernel));
        events.push(load("\\linux", &self.kernel));
        self.started(&self.line, events);
    }

    fn unified_kernel(&self, events: &mut Vec<BootEvent>) {
        let sections: [(&str, &[u8]); 6] = [
            (".linux", &self.kernel),
            (".osrel", b"ID=debian"),
            (".cmdline", self.line.as_bytes()),
            (".initrd", &self.initrd),
            (".uname", self.release.as_bytes()),
            (".sbat", b"sbat,1"),
        ];
        let image: Vec<u8> = sections.iter().flat_map(|(_, contents)| contents.to_vec()).collect();
        events.push(load("\\EFI\\Linux\\linux.efi", &image));
        for (name, contents) in sections {
            events.push(BootEvent::new(11, EventType::Ipl, &terminated(name)));
            events.push(BootEvent::measuring(11, EventType::Ipl, &terminated(name), contents));
        }
        for addon in &self.addons {
            events.push(BootEvent::new(12, EventType::Ipl, &wide(addon)));
        }
        for contents in &self.credentials {
            let name = b"credentials\0";
            events.push(BootEvent::measuring(12, EventType::Ipl, name, contents));
        }
        for contents in &self.extensions {
            let name = b"system extensions\0";
            events.push(BootEvent::measuring(13, EventType::Ipl, name, contents));
        }
        events.push(load("", &self.kernel));
        let line: Vec<&str> = std::iter::once(&self.line).chain(&self.addons).map(String::as_str).collect();
        self.started(&line.join(" "), events);
    }
}

fn separator(pcr: u32) -> BootEvent {
    BootEvent::new(pcr, EventType::Separator, &[0; 4])
}

fn authority(vendor: uefi::Guid, name: &str, data: &[u8]) -> BootEvent {
    BootEvent::new(7, EventType::VariableAuthority, &uefi::variable(vendor, name, data))
}

/// The Authenticode digest of an image stands for its contents.
fn load(path: &str, image: &[u8]) -> BootEvent {
    let data = uefi::image_load(path, image.len());
    BootEvent::measuring(4, EventType::BootServicesApplication, &data, image)
}

/// GRUB hashes the text after the prefix, without the final NUL.
fn grub_text(prefix: &str, text: &str) -> BootEvent {
    BootEvent::measuring(8, EventType::Ipl, &terminated(&format!("{prefix}: {text}")), text.as_bytes())
}

fn command(text: &str) -> BootEvent {
    grub_text("grub_cmd", text)
}

fn file(name: &str, contents: &[u8]) -> BootEvent {
    BootEvent::measuring(9, EventType::Ipl, &terminated(name), contents)
}

/// The kernel's stub (drivers/firmware/efi/libstub): a tag, a length, and what it measured.
fn tagged(tag: u32, name: &str, measured: &[u8]) -> BootEvent {
    let name = terminated(name);
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let data = [tag.to_le_bytes().as_slice(), &length.to_le_bytes(), &name].concat();
    BootEvent::measuring(9, EventType::EventTag, &data, measured)
}

fn load_options(line: &str) -> BootEvent {
    tagged(0x8f3b_22ed, "LOADED_IMAGE::LoadOptions", &wide(line))
}

fn stub_initrd(initrd: &[u8]) -> BootEvent {
    tagged(0x8f3b_22ec, "Linux initrd", initrd)
}

/// UTF-16 with its NUL, as EFI hands lines over.
fn wide(line: &str) -> Vec<u8> {
    [uefi::utf16(line), vec![0, 0]].concat()
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

const SHIM_PATH: &str = "\\EFI\\debian\\shimx64.efi";
