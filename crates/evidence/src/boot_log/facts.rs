//! What a log that replays says about the boot.
//!
//! Only data that a digest covers becomes a fact. Types, names and paths that no digest covers are
//! kept as remarks for people, in fields called `remark`, and nothing may be granted on their word.
//! What runs after the firmware can extend PCRs further, so that the lists may have grown at their end;
//! nothing can be taken out of them. Demand that all of a list is known, never that something is in it.

use super::coverage::{GRUB_COMMAND_PCR, SEPARATOR_ERROR};
use super::remark::{image_path, remark};
use super::secure_boot::{self, separators};
use super::unified_kernel::{Section, sections};
use super::variable::{Variable, utf16};
use super::{BootLog, Coverage, Event, EventType, Guid, Signature, SignatureKind};
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
    /// Variables of that configuration that were measured again, so that the first value is not the last word.
    pub remeasured: Vec<String>,
    /// What the images that ran were trusted by (PCR 7, before and after the separator), in order.
    pub authorities: Vec<Authority>,
    /// What firmware says in PCR 7 in words, such as that it left a protection off.
    pub statements: Vec<Statement>,
    /// Whether shim says that its own checks of images are switched off (MokSBState, in PCR 7 or 14).
    pub is_shim_validation_off: bool,
    /// Events of PCR 7 that are none of the above: their digest covers nothing that we can read.
    pub unexplained_in_pcr7: Vec<usize>,
    /// The images that the firmware started, in order: everything in PCR 4 that is no short text,
    /// whatever the log calls it.
    pub boot_applications: Vec<Image>,
    /// Texts that a boot loader measured, in their order in each PCR: commands that GRUB ran and command lines that it
    /// gave a kernel (PCR 8, where only a label tells which is which), and what systemd-boot and systemd-stub gave one
    /// (PCR 12).
    pub loader_texts: Vec<LoaderText>,
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
    /// The event that measured what is forbidden.
    pub dbx_event: usize,
}

/// A text that a boot loader measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderText {
    /// The event.
    pub event: usize,
    /// Where it was measured.
    pub pcr: PcrIndex,
    /// The text, without a label.
    pub text: String,
}

/// Something that firmware says in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The event.
    pub event: usize,
    /// What it says, printable.
    pub text: String,
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

impl Authority {
    /// Whether it says how shim checks instead of by what: its SBAT level, and whether the kernel trusts its keys too.
    pub fn is_setting(&self) -> bool {
        self.vendor == Guid::SHIM_LOCK && SHIM_SETTINGS.contains(&self.variable.as_str())
    }
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

/// What the log says, by the digests of `bank`. Worth what the replay in that bank is worth.
pub fn facts(log: &BootLog<'_>, bank: HashAlgorithm) -> BootFacts {
    let mut facts = BootFacts::new(bank);
    let closes = separators(bank);
    let mut pcr11 = Vec::new();
    let mut boot_orders = false;
    for (event, pcr, digest) in extends(log, bank) {
        let covered = match event.coverage(bank) {
            Coverage::Covered(bytes) => Some(bytes),
            Coverage::Elsewhere | Coverage::Broken => None,
        };
        if pcr.get() == FIRMWARE_PCR {
            facts.is_firmware_done |= closes.contains(&digest);
        }
        if pcr.get() == SECTIONS_PCR {
            pcr11.push((event, digest));
        }
        match (separator(pcr, &digest), event.event_type(), covered) {
            (Some(_), ..) if is_boot_order(event, pcr) => boot_orders = true,
            (Some(data), ..) => facts.add_separator(pcr, &data),
            (None, EventType::SEPARATOR, Some(data)) if data.len() == SEPARATOR_BYTES => {
                facts.add_separator(pcr, data);
            }
            _ => facts.add(event, pcr, digest, covered),
        }
    }
    // What ends PCR 1 is there once: if nothing else did, it was this.
    if boot_orders && !facts.separators.iter().any(|pcr| pcr.get() == BOOT_VARIABLES_PCR) {
        facts.error_separators.extend(PcrIndex::new(u32::from(BOOT_VARIABLES_PCR)));
    }
    let record = secure_boot::read(log, bank);
    facts.secure_boot = record.variables;
    facts.remeasured = record.remeasured;
    facts.authorities = record.authorities;
    facts.statements = record.statements;
    facts.is_shim_validation_off = record.is_shim_validation_off || facts.mok_states_off();
    facts.unexplained_in_pcr7 = record.unexplained;
    facts.sbat_level = record.sbat_level;
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
            remeasured: Vec::new(),
            authorities: Vec::new(),
            statements: Vec::new(),
            is_shim_validation_off: false,
            unexplained_in_pcr7: Vec::new(),
            boot_applications: Vec::new(),
            loader_texts: Vec::new(),
            loaded: Vec::new(),
            unified_kernel: Vec::new(),
            mok: Vec::new(),
            sbat_level: None,
            separators: Vec::new(),
            error_separators: Vec::new(),
            unexplained_pcrs: Vec::new(),
            is_firmware_done: false,
        }
    }

    /// Whether PCR 14 says that shim's checks are off. shim measures its states there by their data alone: 1 of MokListTrusted
    /// is how it should be, 1 of MokSBState is not, and only a label says which it is. So the label that accuses is
    /// believed, and a second 1 as well: there is only one that is innocent.
    fn mok_states_off(&self) -> bool {
        let on = self.bank.hash(&[&[1]]);
        let mut states = self.mok.iter().filter(|item| item.digest == on);
        states.clone().any(|item| item.remark == "MokSBState") || states.nth(1).is_some()
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
        self.loader_texts.retain(|text| is_kept(&text.pcr));
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
            (GRUB_COMMAND_PCR | CREDENTIALS_PCR, Some(data)) => match loader_text(pcr, data) {
                Some(text) => self.loader_texts.push(LoaderText { event: event.number(), pcr, text }),
                None => self.loaded.push(item()),
            },
            (8 | 9 | 11 | 12 | 13, _) => self.loaded.push(item()),
            (14, _) => self.mok.push(item()),
            _ => {}
        }
    }
}

/// What a separator of the firmware's measured, by its digest: a label could hide that it reports an error.
fn separator(pcr: PcrIndex, digest: &Digest) -> Option<[u8; SEPARATOR_BYTES]> {
    let known = [[0; SEPARATOR_BYTES], [0xff; SEPARATOR_BYTES], [1, 0, 0, 0]];
    let is_firmware = pcr.get() <= FIRMWARE_PCR_LAST;
    known.into_iter().find(|data| is_firmware && digest.algorithm().hash(&[data]) == *digest)
}

/// Whether the log says that a machine starts entry 1 first and then entry 0. Firmware measures the data of that variable alone,
/// which is what an error is reported with. The label is not believed by itself.
fn is_boot_order(event: &Event<'_>, pcr: PcrIndex) -> bool {
    let is_labelled =
        matches!(event.event_type(), EventType::EFI_VARIABLE_BOOT | EventType::EFI_VARIABLE_BOOT2);
    pcr.get() == BOOT_VARIABLES_PCR
        && is_labelled
        && Variable::parse(event.data()).is_ok_and(|variable| {
            variable.is(Guid::GLOBAL_VARIABLE, "BootOrder") && variable.data == SEPARATOR_ERROR
        })
}

/// What GRUB measures as UTF-8, and systemd-boot and systemd-stub as UTF-16 with its NUL. A text that is neither could be
/// shown in one way alone, and two that the kernel tells apart would be the same: it is none.
fn loader_text(pcr: PcrIndex, data: &[u8]) -> Option<String> {
    if pcr.get() == GRUB_COMMAND_PCR {
        return String::from_utf8(data.to_vec()).ok();
    }
    let (units, rest) = data.as_chunks();
    let text: String = char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)))
        .collect::<Result<_, _>>()
        .ok()?;
    rest.is_empty().then(|| text.strip_suffix('\0').unwrap_or(&text).to_owned())
}

/// UTF-16 or ASCII text where that is what it is, else hex.
pub(super) fn version(data: &[u8]) -> String {
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

/// TCG PC Client Platform Firmware Profile, 2.3.4: 0 to 7 are the firmware's.
const FIRMWARE_PCR_LAST: u8 = 7;
/// Where the firmware measures itself.
const FIRMWARE_PCR: u8 = 0;
/// Where it measures what it starts in which order.
const BOOT_VARIABLES_PCR: u8 = 1;
/// Where systemd-stub measures its sections, what configures the kernel, and what extends the system.
const SECTIONS_PCR: u8 = 11;
const CREDENTIALS_PCR: u8 = 12;
const EXTENSIONS_PCR: u8 = 13;
const SEPARATOR_BYTES: usize = 4;
/// shim, mok.c: measured into PCR 7 though they vouch for no image.
const SHIM_SETTINGS: [&str; 2] = ["SbatLevel", "MokListTrusted"];
/// Bytes of a covered text in the PCRs of images: the longest action string has 47, the shortest image
/// that firmware would start some 300.
const TEXT_BYTES_MAX: usize = 128;
