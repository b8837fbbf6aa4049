//! What a log that replays says about the boot.
//!
//! Only data that a digest covers becomes a fact. Types, names and paths that no digest covers are
//! kept as remarks for people, in fields called `remark`, and nothing may be granted on their word.
//! What runs after the firmware can extend PCRs further, so that the lists may have grown at their end;
//! nothing can be taken out of them. Demand that all of a list is known, never that something is in it.

use super::coverage::{GRUB_COMMAND_PCR, KERNEL_COMMAND_LINE};
use super::remark::{image_path, remark};
use super::unified_kernel::{Section, sections};
use super::variable::utf16;
use super::{BootLog, Coverage, Event, EventType, Guid, Signature, SignatureKind, Variable, signature_lists};
use crate::text::escaped;
use crate::{Digest, HashAlgorithm, PcrIndex};

/// The facts of one boot, by the digests of one bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFacts {
    /// The bank whose digests these facts stand on.
    pub bank: HashAlgorithm,
    /// The firmware's version (EV_S_CRTM_VERSION before the separator of PCR 0), as text where it is text, else in hex.
    pub firmware_version: Option<String>,
    /// Firmware volumes and the like in PCR 0 and 2: every measurement there that is of code.
    pub firmware: Vec<MeasuredItem>,
    /// The Secure Boot variables, or `None` where PCR 7 does not begin with them, each covered by its
    /// digest, up to the separator. Then nothing at all is known about Secure Boot.
    pub secure_boot: Option<SecureBootVariables>,
    /// What the images that ran were trusted by (PCR 7 after the separator), in order.
    pub authorities: Vec<Authority>,
    /// Events of PCR 7 that are none of the above: their digest covers nothing that we can read.
    pub unexplained_in_pcr7: Vec<usize>,
    /// The images that the firmware started, in order: everything in PCR 4 that is no short text,
    /// whatever the log calls it.
    pub boot_applications: Vec<Image>,
    /// Command lines that GRUB gave a kernel (PCR 8) or systemd-boot measured (PCR 12). GRUB's labels
    /// of command lines and commands are remarks: whoever pins one of them has to look at both lists.
    pub kernel_command_lines: Vec<String>,
    /// Commands that GRUB ran (PCR 8).
    pub grub_commands: Vec<String>,
    /// Files that GRUB or systemd-stub measured, the kernel's initrd and command line (PCR 9, 11, 13),
    /// and what in PCR 8 and 12 is no text.
    pub loaded: Vec<MeasuredItem>,
    /// The sections of the unified kernel image that was started (PCR 11), in order.
    pub unified_kernel: Vec<Section>,
    /// Shim's lists (PCR 14): digests of MokList, MokListX and others, the names as remarks.
    pub mok: Vec<MeasuredItem>,
    /// SBAT level that shim enforced, if it says so in PCR 7.
    pub sbat_level: Option<String>,
    /// PCRs that have their separator, each closing what the firmware measured before it handed over.
    pub separators: Vec<PcrIndex>,
    /// PCRs whose separator reports an error of the firmware.
    pub error_separators: Vec<PcrIndex>,
    /// PCRs that hold more than the log tells. Nothing here stands on their events, which may be inventions, and
    /// what was really measured into them is unknown.
    pub unexplained_pcrs: Vec<PcrIndex>,
    /// The PCR of each of `kernel_command_lines`.
    command_line_pcrs: Vec<PcrIndex>,
    /// Whether PCR 0 has its separator.
    is_firmware_done: bool,
}

/// The Secure Boot configuration, as PCR 7 has it before its separator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecureBootVariables {
    /// Whether Secure Boot was enforced: SecureBoot is 1. No data at all means no.
    pub is_enabled: bool,
    /// The platform key.
    pub pk: Vec<Signature>,
    /// Key exchange keys: who may change db and dbx.
    pub kek: Vec<Signature>,
    /// What is allowed.
    pub db: Vec<Signature>,
    /// What is forbidden.
    pub dbx: Vec<Signature>,
}

/// What an image was trusted by: an entry of a variable such as db or MokListRT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The event.
    pub event: usize,
    /// The variable it came from: `db`, `MokListRT`, `Shim`, `SbatLevel`.
    pub variable: String,
    /// Whose variable that is.
    pub vendor: Guid,
    /// The certificate or digest, where the data is one.
    pub signature: Option<SignatureKind>,
}

/// An image that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The event.
    pub event: usize,
    /// Authenticode digest of the image.
    pub digest: Digest,
    /// Where it is said to come from.
    pub remark: String,
}

/// Something that was measured, known by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredItem {
    /// The event.
    pub event: usize,
    /// Where it was measured.
    pub pcr: PcrIndex,
    /// What was extended.
    pub digest: Digest,
    /// What the log calls it.
    pub remark: String,
}

/// An event of PCR 7.
struct ConfigurationEvent<'log, 'a> {
    event: &'log Event<'a>,
    covered: Option<&'log [u8]>,
    /// Whether it extended what a separator extends, whatever the log calls it.
    is_separator: bool,
}

/// What the log says, by the digests of `bank`. Worth what the replay in that bank is worth.
pub fn facts(log: &BootLog<'_>, bank: HashAlgorithm) -> BootFacts {
    let mut facts = BootFacts::new(bank);
    let (mut pcr7, mut pcr11) = (Vec::new(), Vec::new());
    let separator = bank.hash(&[&SEPARATOR]);
    for (event, pcr, digest) in extends(log, bank) {
        let covered = match event.coverage(bank) {
            Coverage::Covered(bytes) => Some(bytes),
            Coverage::Elsewhere | Coverage::Broken => None,
        };
        if pcr.get() == FIRMWARE_PCR {
            facts.is_firmware_done |= digest == separator;
        }
        if pcr.get() == SECURE_BOOT_PCR {
            pcr7.push(ConfigurationEvent { event, covered, is_separator: digest == separator });
        }
        if pcr.get() == SECTIONS_PCR {
            pcr11.push((event, digest));
        }
        match (event.event_type(), covered) {
            (EventType::SEPARATOR, Some(data)) if data.len() == SEPARATOR_BYTES => {
                facts.add_separator(pcr, data);
            }
            _ => facts.add(event, pcr, digest, covered),
        }
    }
    facts.read_pcr7(&pcr7);
    facts.unified_kernel = sections(&pcr11, bank);
    facts
}

/// The events that extend a PCR of `bank`.
pub(super) fn extends<'log, 'a>(
    log: &'log BootLog<'a>,
    bank: HashAlgorithm,
) -> impl Iterator<Item = (&'log Event<'a>, PcrIndex, Digest)> {
    log.events().iter().filter_map(move |event| Some((event, event.extends()?, event.digest(bank)?)))
}

impl BootFacts {
    fn new(bank: HashAlgorithm) -> Self {
        BootFacts {
            bank,
            firmware_version: None,
            firmware: Vec::new(),
            secure_boot: None,
            authorities: Vec::new(),
            unexplained_in_pcr7: Vec::new(),
            boot_applications: Vec::new(),
            kernel_command_lines: Vec::new(),
            grub_commands: Vec::new(),
            loaded: Vec::new(),
            unified_kernel: Vec::new(),
            mok: Vec::new(),
            sbat_level: None,
            separators: Vec::new(),
            error_separators: Vec::new(),
            unexplained_pcrs: Vec::new(),
            command_line_pcrs: Vec::new(),
            is_firmware_done: false,
        }
    }

    /// What systemd-stub gave the kernel beside its command line (PCR 12): credentials, configuration extensions,
    /// add-ons. Each is known by its digest alone.
    pub fn credentials(&self) -> impl Iterator<Item = &MeasuredItem> {
        self.loaded.iter().filter(|item| item.pcr.get() == CREDENTIALS_PCR)
    }

    /// System extensions that systemd-stub gave the kernel (PCR 13), each known by its digest alone.
    pub fn system_extensions(&self) -> impl Iterator<Item = &MeasuredItem> {
        self.loaded.iter().filter(|item| item.pcr.get() == EXTENSIONS_PCR)
    }

    /// Forgets what stands on these PCRs.
    pub(super) fn drop_pcrs(&mut self, unexplained: &[PcrIndex]) {
        let is_kept = |pcr: &PcrIndex| !unexplained.contains(pcr);
        let mut pcrs = std::mem::take(&mut self.command_line_pcrs);
        let lines = std::mem::take(&mut self.kernel_command_lines).into_iter().zip(&pcrs);
        self.kernel_command_lines = lines.filter(|(_, pcr)| is_kept(pcr)).map(|(line, _)| line).collect();
        pcrs.retain(is_kept);
        self.command_line_pcrs = pcrs;
        self.loaded.retain(|item| is_kept(&item.pcr));
        self.mok.retain(|item| is_kept(&item.pcr));
        if unexplained.iter().any(|pcr| pcr.get() == SECTIONS_PCR) {
            self.unified_kernel.clear();
        }
        self.separators.retain(is_kept);
        self.error_separators.retain(is_kept);
        self.unexplained_pcrs.extend(unexplained);
        self.unexplained_pcrs.sort_unstable();
        self.unexplained_pcrs.dedup();
    }

    fn add_separator(&mut self, pcr: PcrIndex, data: &[u8]) {
        let list = match data {
            [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff] => &mut self.separators,
            _ => &mut self.error_separators,
        };
        if !list.contains(&pcr) {
            list.push(pcr);
        }
    }

    /// Sorts an event by its PCR and by whether its data is covered; its type is the sender's word and
    /// must not take it out of the list in which a reader looks for it.
    fn add(&mut self, event: &Event<'_>, pcr: PcrIndex, digest: Digest, covered: Option<&[u8]>) {
        // Who knows an image can log what its digest was computed over as the data of a covered type. It
        // would be covered, and would not be seen among the images, were it not far longer than any text.
        let is_image = covered.is_none_or(|data| data.len() > TEXT_BYTES_MAX);
        let item = || MeasuredItem { event: event.number(), pcr, digest, remark: remark(event) };
        match (pcr.get(), covered) {
            (0 | 2, _) if is_image => self.firmware.push(item()),
            // After its separator the operating system can extend PCR 0 too, with the version it should have had.
            (FIRMWARE_PCR, Some(data))
                if event.event_type() == EventType::S_CRTM_VERSION && !self.is_firmware_done =>
            {
                self.firmware_version.get_or_insert_with(|| version(data));
            }
            (4, _) if is_image => self.boot_applications.push(Image {
                event: event.number(),
                digest,
                remark: image_path(event.data()).unwrap_or_else(|| remark(event)),
            }),
            (GRUB_COMMAND_PCR, Some(text)) => {
                let text = String::from_utf8_lossy(text).into_owned();
                if event.data().starts_with(KERNEL_COMMAND_LINE) {
                    self.add_command_line(pcr, text);
                } else {
                    self.grub_commands.push(text);
                }
            }
            // systemd-boot and systemd-stub measure the command line as UTF-16 with its NUL.
            (CREDENTIALS_PCR, Some(text)) => {
                self.add_command_line(pcr, utf16(text).trim_end_matches('\0').to_owned());
            }
            (8 | 9 | 11 | 12 | 13, _) => self.loaded.push(item()),
            (14, _) => self.mok.push(item()),
            _ => {}
        }
    }

    fn add_command_line(&mut self, pcr: PcrIndex, line: String) {
        self.kernel_command_lines.push(line);
        self.command_line_pcrs.push(pcr);
    }

    /// The specification orders PCR 7: SecureBoot, PK, KEK, db, dbx, more variables, separator, and then
    /// the authorities. An attacker who booted without Secure Boot can append to PCR 7 and relabel what
    /// is there, but cannot give the digests at its beginning other data; so the configuration is what
    /// that unbroken beginning says, and nothing later counts. The separator is known by its digest: under another
    /// label, authorities would pass for configuration, and nobody would ask who they are.
    fn read_pcr7(&mut self, events: &[ConfigurationEvent<'_, '_>]) {
        let end = events.iter().position(|event| event.is_separator);
        let (before, after) = events.split_at(end.unwrap_or(events.len()));
        if end.is_some() {
            self.secure_boot = SecureBootVariables::read(before);
        }
        for ConfigurationEvent { event, covered, .. } in before {
            if covered.is_none() {
                self.unexplained_in_pcr7.push(event.number());
            }
        }
        for ConfigurationEvent { event, covered, .. } in after.iter().filter(|event| !event.is_separator) {
            let is_authority = event.event_type() == EventType::EFI_VARIABLE_AUTHORITY;
            let variable = covered.filter(|_| is_authority).and_then(|data| Variable::parse(data).ok());
            match variable {
                Some(variable) => self.add_authority(event.number(), &variable),
                None => self.unexplained_in_pcr7.push(event.number()),
            }
        }
    }

    fn add_authority(&mut self, event: usize, variable: &Variable<'_>) {
        if variable.is(Guid::SHIM_LOCK, "SbatLevel") {
            let text = String::from_utf8_lossy(variable.data).into_owned();
            self.sbat_level.get_or_insert(text);
        }
        self.authorities.push(Authority {
            event,
            variable: escaped(&variable.name).into_owned(),
            vendor: variable.vendor,
            signature: authority_signature(variable.data),
        });
    }
}

impl SecureBootVariables {
    /// Reads the events of PCR 7 before its separator; `None` unless each is covered by its digest and
    /// the first is SecureBoot.
    fn read(events: &[ConfigurationEvent<'_, '_>]) -> Option<Self> {
        let mut variables = Vec::with_capacity(events.len());
        for ConfigurationEvent { event, covered, .. } in events {
            let data = (*covered)?;
            if event.event_type() == EventType::EFI_VARIABLE_DRIVER_CONFIG {
                variables.push(Variable::parse(data).ok()?);
            } else if variables.is_empty() {
                return None;
            }
        }
        let first = variables.first().filter(|first| first.is(Guid::GLOBAL_VARIABLE, "SecureBoot"))?;
        let is_enabled = match first.data {
            [1] => true,
            [0] | [] => false,
            _ => return None,
        };
        let database = |vendor, name| {
            let mut named = variables.iter().filter(|variable| variable.is(vendor, name));
            match (named.next(), named.next()) {
                (Some(variable), None) => signature_lists(variable.data).ok(),
                _ => None,
            }
        };
        Some(SecureBootVariables {
            is_enabled,
            pk: database(Guid::GLOBAL_VARIABLE, "PK")?,
            kek: database(Guid::GLOBAL_VARIABLE, "KEK")?,
            db: database(Guid::IMAGE_SECURITY_DATABASE, "db")?,
            dbx: database(Guid::IMAGE_SECURITY_DATABASE, "dbx")?,
        })
    }
}

/// EFI_SIGNATURE_DATA with a certificate or a digest, or (shim's own) a certificate alone.
fn authority_signature(data: &[u8]) -> Option<SignatureKind> {
    let is_der = |bytes: &[u8]| bytes.starts_with(&[0x30, 0x82]);
    let owned = data.get(GUID_BYTES..).unwrap_or_default();
    match (is_der(data), is_der(owned)) {
        (true, _) => Some(SignatureKind::certificate(data)),
        (_, true) => Some(SignatureKind::certificate(owned)),
        _ => Digest::new(HashAlgorithm::Sha256, owned).map(SignatureKind::ImageDigest),
    }
}

/// UTF-16 or ASCII text where that is what it is, else hex.
fn version(data: &[u8]) -> String {
    let is_text = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    let wide = utf16(data);
    let wide = wide.trim_end_matches('\0');
    let narrow = String::from_utf8_lossy(data);
    let narrow = narrow.trim_end_matches('\0');
    match (is_text(wide), is_text(narrow)) {
        (true, _) => wide.to_owned(),
        (_, true) => narrow.to_owned(),
        _ => data_encoding::HEXLOWER.encode(data),
    }
}

/// Where the firmware measures itself.
const FIRMWARE_PCR: u8 = 0;
/// Platform Firmware Profile, 3.3.2.2: what a separator measures when nothing went wrong.
const SEPARATOR: [u8; SEPARATOR_BYTES] = [0; SEPARATOR_BYTES];
/// Where firmware and shim measure Secure Boot.
const SECURE_BOOT_PCR: u8 = 7;
/// Where systemd-stub measures its sections, what configures the kernel, and what extends the system.
const SECTIONS_PCR: u8 = 11;
const CREDENTIALS_PCR: u8 = 12;
const EXTENSIONS_PCR: u8 = 13;
const GUID_BYTES: usize = 16;
const SEPARATOR_BYTES: usize = 4;
/// Bytes of a covered text in the PCRs of images: the longest action string has 47, the shortest image
/// that firmware would start some 300.
const TEXT_BYTES_MAX: usize = 128;
