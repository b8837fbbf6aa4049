//! What changed between two pieces of verified evidence of one device, by cause and in words.
//!
//! Both pieces replayed, so PCR values, digests of events and what a digest covers are what they are. Which event is a
//! kernel's and which an initial ramdisk's is often the log's word alone: it groups changes for a reader, and grants
//! and refuses nothing. What no cause explains is said to be unexplained. Start reading at [`describe`].

mod boot;
mod boot_chain;
mod files;
mod firmware;
mod logs;
mod platform;
mod secure_boot;

use std::fmt;

pub use self::logs::{describe_boot_logs, describe_ima_lists};
use assay_evidence::PcrIndex;
use assay_evidence::verify::Claims;
use serde::{Serialize, Serializer};

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about.
    pub cause: Cause,
    /// The PCRs that changed because of it, ascending.
    #[serde(serialize_with = "pcr_numbers")]
    pub pcrs: Vec<PcrIndex>,
    /// What it was before, where that can be said in a word or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What is concerned by name: files, events, keys; the first [`ITEMS_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// How many there are in all.
    pub count: usize,
    /// A sentence that an operator can act on.
    pub message: String,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why evidence changed, in the order in which a machine starts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Cause { $($(#[$doc])* $variant,)* }

        impl Cause {
            /// The stable, kebab-case name.
            pub fn name(self) -> &'static str {
                match self { $(Cause::$variant => $name,)* }
            }
        }
    };
}

causes! {
    /// Another attestation key signed.
    AttestationKey => "attestation-key",
    /// The TPM was reset: the device was started again.
    Boot => "boot",
    /// The TPM was restarted or resumed within one boot.
    Resume => "resume",
    /// The TPM's own firmware.
    TpmFirmware => "tpm-firmware",
    /// The firmware (PCR 0) and the configuration it measures with it (PCR 1).
    Firmware => "firmware",
    /// The firmware's configuration alone (PCR 1).
    FirmwareConfiguration => "firmware-configuration",
    /// Option ROMs, drivers and their configuration (PCR 2 and 3).
    OptionRoms => "option-roms",
    /// The partition table (PCR 5).
    PartitionTable => "partition-table",
    /// Whether Secure Boot is on (PCR 7).
    SecureBoot => "secure-boot",
    /// The platform key, the key exchange keys, or what is allowed (PCR 7).
    SecureBootKeys => "secure-boot-keys",
    /// What is forbidden (PCR 7).
    Dbx => "dbx",
    /// The SBAT level that shim enforces (PCR 7).
    SbatLevel => "sbat-level",
    /// What the started images were trusted by (PCR 7).
    Authorities => "authorities",
    /// Shim's lists of machine owner keys (PCR 14).
    MokLists => "mok-lists",
    /// Shim and boot loader (PCR 4).
    BootLoader => "boot-loader",
    /// The kernel (PCR 4, 8, 9).
    Kernel => "kernel",
    /// The unified kernel image (PCR 4, 11).
    UnifiedKernel => "unified-kernel",
    /// What the kernel was told (PCR 8, 9, 12).
    KernelCommandLine => "kernel-command-line",
    /// The initial ramdisk (PCR 9).
    InitialRamdisk => "initial-ramdisk",
    /// What the boot loader did and read (PCR 8, 9).
    BootConfiguration => "boot-configuration",
    /// Credentials and extensions that systemd-stub gave the kernel (PCR 12, 13).
    Extensions => "extensions",
    /// How far the boot had come (PCR 11).
    BootPhase => "boot-phase",
    /// Events of the boot log that no other cause is about.
    BootEvents => "boot-events",
    /// There is a boot log, or there is none any more.
    BootLog => "boot-log",
    /// A PCR of which nothing tells why it changed.
    Unexplained => "unexplained",
    /// There is an IMA list, or there is none any more.
    ImaList => "ima-list",
    /// The same was measured in another order (PCR 10).
    ImaOrder => "ima-order",
    /// Files that were not measured before (PCR 10).
    NewFiles => "new-files",
    /// Files whose content changed (PCR 10).
    ChangedFiles => "changed-files",
    /// Keys, policies and other data that the kernel measured (PCR 10).
    KernelData => "kernel-data",
    /// Files that were written while they were measured (PCR 10).
    Violations => "violations",
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

fn pcr_numbers<S: Serializer>(pcrs: &[PcrIndex], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pcrs.iter().map(|index| index.get()))
}

/// Says what changed from `before` to `after`, in the order in which a machine starts; empty if nothing did.
///
/// A PCR counts as changed where both quotes have it and a bank differs.
pub fn describe(before: &Claims, after: &Claims) -> Vec<Change> {
    let mut changes = platform::compare(before, after);
    let mut changed = changed_pcrs(before, after);
    files::compare(before, after, &mut changed, &mut changes);
    changes.extend(boot::compare(before, after, &changed));
    changes.sort_by_key(|change| change.cause);
    changes
}

fn changed_pcrs(before: &Claims, after: &Claims) -> Vec<PcrIndex> {
    let mut changed: Vec<PcrIndex> = before
        .pcrs()
        .iter()
        .filter(|(bank, index, value)| after.pcrs().get(*bank, *index).is_some_and(|now| now != *value))
        .map(|(_, index, _)| index)
        .collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

impl Change {
    fn new(cause: Cause, pcrs: Vec<PcrIndex>, message: String) -> Self {
        Change { cause, pcrs, before: None, after: None, items: Vec::new(), count: 0, message }
    }

    fn between(self, before: impl Into<String>, after: impl Into<String>) -> Self {
        Change { before: Some(before.into()), after: Some(after.into()), ..self }
    }

    fn about(self, items: impl IntoIterator<Item = String>) -> Self {
        let mut items: Vec<String> = items.into_iter().collect();
        let count = items.len();
        items.truncate(ITEMS_MAX);
        Change { items, count, ..self }
    }
}

/// Names that one change carries; its sentence has fewer.
pub const ITEMS_MAX: usize = 32;
