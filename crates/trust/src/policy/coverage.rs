//! What a policy covers of a device, row by row, and what an attacker can do with the rest.
//!
//! A row is closed only if what closes it is itself anchored. What the boot loader and everything after it extends, whoever
//! boots something else can extend as well, afterwards and with the very values that are wanted: a command line that is
//! listed, or PCR 8 itself, says nothing unless it is known what started the kernel.

use std::fmt;

use assay_evidence::{Digest, HashAlgorithm};
use serde::Serialize;

use super::{Boot, Demand, EndorsementKind, Policy, Sequence, Slot};

/// What a policy covers: every row once, in the order in which a device comes up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Coverage(Vec<Covered>);

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// What it is about.
    pub row: Row,
    /// How far the policy covers it.
    pub cover: Cover,
    /// What that means; of an open row, what an attacker can do.
    pub meaning: &'static str,
}

/// Something about a device that can be covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// What the firmware and its option ROMs run.
    FirmwareCode,
    /// Secure Boot's own keys: PK, KEK and db.
    Keys,
    /// What Secure Boot no longer trusts: dbx and SBAT.
    Revocations,
    /// What starts the kernel.
    BootLoader,
    /// Who signed what started.
    SignerChain,
    /// The kernel.
    Kernel,
    /// What the kernel was told.
    CommandLine,
    /// The initial ramdisk.
    Initrd,
    /// Keys of the machine's owner, in shim.
    MachineOwnerKeys,
    /// What a unified kernel and the running system measure: PCRs 11, 12, 13 and 15.
    RuntimePcrs,
    /// Which files ran.
    Files,
    /// Who vouches for the TPM.
    Endorsement,
    /// Where the device is.
    Place,
}

/// How far a row is covered; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cover {
    /// Anything passes.
    Open,
    /// What passes is said by a rule.
    Ruled,
    /// One of a list of values, and nothing else.
    Pinned,
}

impl Coverage {
    /// What a policy covers. Of several boots that it accepts, the one that covers least counts, row by row.
    pub fn of(policy: &Policy) -> Self {
        let rows = Row::ALL.map(|row| {
            let of_boots = policy.boots().map(|boot| View { policy, boot }.covered(row));
            of_boots.min_by_key(|covered| covered.cover).unwrap_or(open(row, NOTHING_SAID))
        });
        Coverage(rows.into())
    }

    /// Every row.
    pub fn rows(&self) -> &[Covered] {
        &self.0
    }

    /// The rows that are open.
    pub fn open(&self) -> impl Iterator<Item = &Covered> {
        self.0.iter().filter(|covered| covered.cover == Cover::Open)
    }

    /// How far a row is covered.
    pub fn cover(&self, row: Row) -> Cover {
        self.0.iter().find(|covered| covered.row == row).map_or(Cover::Open, |covered| covered.cover)
    }
}

/// A policy with one of the boots that it accepts.
#[derive(Clone, Copy)]
struct View<'a> {
    policy: &'a Policy,
    boot: Boot<'a>,
}

impl View<'_> {
    fn covered(self, row: Row) -> Covered {
        match row {
            Row::FirmwareCode => self.firmware_code(),
            Row::Keys => self.keys(),
            Row::Revocations => self.revocations(),
            Row::BootLoader => self.boot_loader(),
            Row::SignerChain => self.signer_chain(),
            Row::Kernel => self.kernel(),
            Row::CommandLine => self.command_line(),
            Row::Initrd => self.initrd(),
            Row::MachineOwnerKeys => self.machine_owner_keys(),
            Row::RuntimePcrs => self.runtime_pcrs(),
            Row::Files => self.files(),
            Row::Endorsement => self.endorsement(),
            Row::Place => self.place(),
        }
    }

    /// How far the policy says of a whole PCR what it may hold. SHA-1 pins nothing.
    fn pcr(self, index: u8) -> Cover {
        let pinned = self.boot.pcr.iter().any(|(bank, pinned, values)| {
            bank != HashAlgorithm::Sha1 && pinned.get() == index && !values.is_empty()
        });
        match (pinned, self.sequences(index)) {
            (true, _) => Cover::Pinned,
            (false, Some(_)) => Cover::Ruled,
            (false, None) => Cover::Open,
        }
    }

    /// The sequences of events that a PCR may hold, where the policy lists any.
    fn sequences(&self, index: u8) -> Option<&[Sequence]> {
        let listed = self.boot.boot.sequence.iter().find(|(pcr, _)| pcr.0.get() == index);
        listed.map(|(_, sequences)| sequences.as_slice()).filter(|sequences| !sequences.is_empty())
    }

    /// The least of several PCRs.
    fn pcrs(self, indexes: &[u8]) -> Cover {
        indexes.iter().map(|index| self.pcr(*index)).min().unwrap_or(Cover::Open)
    }

    /// Whether Secure Boot was on wherever this boot is accepted.
    fn is_secure_boot_known(self) -> bool {
        self.boot.boot.secure_boot == Demand::Required
            || self.boot.boot.signers.is_some()
            || self.pcr(7) > Cover::Open
    }

    fn is_closed(self, row: Row) -> bool {
        self.covered(row).cover > Cover::Open
    }

    fn firmware_code(self) -> Covered {
        let row = Row::FirmwareCode;
        match (self.pcrs(&[0, 2]), self.pcr(0), self.boot.boot.firmware_versions.is_some()) {
            (Cover::Pinned, ..) => pinned(row, "only firmware and option ROMs that were measured before"),
            (Cover::Ruled, ..) => ruled(row, "firmware and option ROMs as the sequences of PCRs 0 and 2 say"),
            (Cover::Open, Cover::Pinned | Cover::Ruled, _) => open(
                row,
                "an option ROM or a driver that the firmware loads (PCR 2) may be any, and runs before all else",
            ),
            (Cover::Open, Cover::Open, true) => {
                open(row, "the version is a text that firmware states of itself: any code may state it")
            }
            (Cover::Open, Cover::Open, false) => open(
                row,
                "changed firmware passes, and it can measure whatever is wanted of all that follows",
            ),
        }
    }

    fn keys(self) -> Covered {
        let row = Row::Keys;
        match self.pcr(7) {
            Cover::Pinned => pinned(row, "only the PK, KEK and db that were measured before"),
            Cover::Ruled => ruled(row, "PK, KEK and db as the sequences of PCR 7 say"),
            Cover::Open => open(
                row,
                "whoever can set up the firmware puts keys of his own in the place of the maker's, and signs what he likes",
            ),
        }
    }

    fn revocations(self) -> Covered {
        let row = Row::Revocations;
        let boot = self.boot.boot;
        match self.pcr(7) {
            Cover::Pinned => pinned(row, "only the dbx and SBAT level that were measured before"),
            Cover::Ruled if self.is_pinned_by_events(7) => {
                pinned(row, "only the dbx and SBAT level that were measured before")
            }
            Cover::Ruled | Cover::Open if !boot.dbx_contains.is_empty() && self.is_secure_boot_known() => {
                ruled(row, "dbx holds every listed digest")
            }
            Cover::Open if boot.dbx_entries_min.is_some() => open(
                row,
                "entries are only counted: a dbx of as many invented digests passes, and old holes with it",
            ),
            Cover::Ruled => open(
                row,
                "SBAT levels are those that were measured before, and dbx may be any: what it alone revokes starts again",
            ),
            Cover::Open => open(row, "boot loaders with known holes pass, as long as they are signed"),
        }
    }

    fn boot_loader(self) -> Covered {
        let row = Row::BootLoader;
        let is_listed = self.boot.boot.applications.is_some();
        match self.pcr(4) {
            Cover::Pinned => pinned(row, "only the boot loaders that were measured before, in their order"),
            Cover::Ruled => ruled(row, "boot loaders as the sequences of PCR 4 say"),
            Cover::Open if is_listed => ruled(row, "every image that was started is listed"),
            Cover::Open if self.boot.boot.signers.is_some() => open(
                row,
                "anything by the signers may start first, in any order: the firmware can be told to start the kernel itself",
            ),
            Cover::Open => {
                open(row, "any boot loader passes, and what it says of what it starts is its own word")
            }
        }
    }

    fn signer_chain(self) -> Covered {
        let row = Row::SignerChain;
        match self.pcr(7) {
            Cover::Pinned => {
                pinned(row, "only images by the signers that were measured before, in their order")
            }
            Cover::Ruled => ruled(row, "signers as the sequences of PCR 7 say"),
            Cover::Open if self.boot.boot.signers.is_some() => ruled(row, "every signer is listed"),
            Cover::Open if self.boot.boot.secure_boot == Demand::Required => {
                open(row, "Secure Boot was on, and trusted whatever its keys were set to trust")
            }
            Cover::Open => open(row, "images of anybody start"),
        }
    }

    fn kernel(self) -> Covered {
        let row = Row::Kernel;
        let boot = self.boot.boot;
        match self.pcr(4) {
            Cover::Pinned => pinned(row, "only the kernels that were measured before"),
            Cover::Ruled if self.is_pinned_by_events(4) => {
                pinned(row, "only the kernels that were measured before")
            }
            Cover::Ruled if self.reads_files() => {
                ruled(row, "a kernel by the signers, whose file the boot loader read, and which is listed")
            }
            Cover::Ruled => ruled(row, "a kernel by the signers, in its place, whatever its version"),
            Cover::Open if boot.kernels.is_some() => ruled(row, "the kernel is listed"),
            Cover::Open if boot.applications.is_some() => open(
                row,
                "every image is listed, but not which of them is the kernel: a boot may end before it",
            ),
            Cover::Open if boot.signers.is_some() => open(
                row,
                "any kernel that the signers ever signed passes, with every hole that was mended since",
            ),
            Cover::Open => open(row, "any kernel passes, and the kernel writes the list of files"),
        }
    }

    /// A PCR that is extended after the firmware has handed over, by whatever was started: what was started has to be
    /// known.
    fn is_anchored(self) -> bool {
        self.is_closed(Row::BootLoader) && self.is_closed(Row::Kernel)
    }

    /// The same of a PCR in which something has to have been measured for it to say anything.
    fn measured(self, index: u8) -> Cover {
        let is_empty = self
            .boot
            .pcr
            .iter()
            .any(|(_, pinned, values)| pinned.get() == index && values.iter().any(Digest::is_zero));
        let sequences = self.sequences(index).unwrap_or_default();
        let is_empty = is_empty || sequences.iter().any(|sequence| sequence.0.is_empty());
        if is_empty { Cover::Open } else { self.pcr(index) }
    }

    /// Whether no event of a PCR's sequences is left open.
    fn is_pinned_by_events(self, index: u8) -> bool {
        self.sequences(index).is_some_and(|sequences| sequences.iter().all(Sequence::is_pinned))
    }

    /// Whether a boot loader measures the files that it reads, each of them known.
    fn reads_files(self) -> bool {
        let sequences = self.sequences(9).unwrap_or_default();
        !sequences.is_empty() && sequences.iter().all(|sequence| sequence.0.contains(&Slot::File))
    }

    fn command_line(self) -> Covered {
        let row = Row::CommandLine;
        let boot = self.boot.boot;
        let is_listed = boot.kernel_command_lines.is_some() || !boot.kernel_command_line_patterns.is_empty();
        // A kernel that brings its line within itself is told nothing, and both PCRs stay as they were.
        let of_loader = self.measured(8).max(self.measured(12)).max(self.pcrs(&[8, 12]));
        match of_loader {
            Cover::Open if !is_listed => {
                open(row, "init=/bin/sh, ima_appraise=off or lockdown=none can be added and nothing shows")
            }
            _ if !self.is_closed(Row::BootLoader) => open(
                row,
                "no boot loader is known: whoever starts the kernel in another way appends the wanted line to PCR 8 or 12 \
                 afterwards",
            ),
            Cover::Pinned => pinned(row, "only what boot loaders told kernels before"),
            Cover::Ruled if !is_listed && self.measured(9).max(self.measured(11)) == Cover::Open => open(
                row,
                "no boot loader told the kernel anything, and nothing shows what it was started with",
            ),
            Cover::Ruled if !is_listed => {
                ruled(row, "what the kernel measured of its own line, or has within itself")
            }
            Cover::Ruled | Cover::Open => ruled(row, "the command line is listed, or of a listed pattern"),
        }
    }

    fn initrd(self) -> Covered {
        let row = Row::Initrd;
        match self.measured(9).max(self.measured(11)) {
            Cover::Open => open(
                row,
                "another initial ramdisk passes, and it runs as root before any file of the system is measured",
            ),
            _ if !self.is_anchored() => open(
                row,
                "boot loader and kernel are not both known, and others can extend PCRs 9 and 11 to any value",
            ),
            Cover::Pinned => pinned(row, "only the initial ramdisks that were measured before"),
            Cover::Ruled => ruled(row, "an initial ramdisk as the sequences of PCR 9 say"),
        }
    }

    fn machine_owner_keys(self) -> Covered {
        let row = Row::MachineOwnerKeys;
        match self.pcr(14) {
            Cover::Open => open(
                row,
                "a key of one's own can be enrolled in shim, and boot loaders and kernels by it start",
            ),
            _ if !self.is_closed(Row::BootLoader) && !self.is_closed(Row::SignerChain) => open(
                row,
                "neither boot loader nor signers are known, and others can extend PCR 14 to any value",
            ),
            Cover::Pinned => pinned(row, "only the lists of keys that were measured before"),
            Cover::Ruled => ruled(row, "lists of keys as the sequences of PCR 14 say"),
        }
    }

    fn runtime_pcrs(self) -> Covered {
        let row = Row::RuntimePcrs;
        match self.pcrs(&[11, 12, 13, 15]) {
            Cover::Open => {
                open(row, "add-ons, credentials and system extensions beside a unified kernel pass unseen")
            }
            _ if !self.is_anchored() => open(
                row,
                "boot loader and kernel are not both known, and others can extend these PCRs to any value",
            ),
            Cover::Pinned => pinned(row, "only what was measured into PCRs 11, 12, 13 and 15 before"),
            Cover::Ruled => ruled(row, "PCRs 11, 12, 13 and 15 as their sequences say"),
        }
    }

    fn files(self) -> Covered {
        let row = Row::Files;
        match &self.policy.ima {
            None => open(row, "any program may have run"),
            Some(ima) if ima.list == Demand::Optional => open(row, "a device that sends no list passes"),
            Some(_) if !self.is_closed(Row::Kernel) => open(
                row,
                "the kernel writes this list, and it may be any: one that lists only what is wanted passes",
            ),
            Some(_) if !self.is_closed(Row::CommandLine) => {
                open(row, "the command line decides what the kernel measures, and it may be any")
            }
            Some(_) => ruled(
                row,
                "every file that the kernel's IMA policy has it measure; root can load another policy unless the kernel wants \
                 it signed",
            ),
        }
    }

    fn endorsement(self) -> Covered {
        let row = Row::Endorsement;
        let vendors = self.policy.endorsement.vendor.values().filter_map(|rule| rule.required);
        let kinds: Vec<EndorsementKind> = vendors.chain([self.policy.endorsement.required]).collect();
        let lists =
            |kind: &EndorsementKind| matches!(kind, EndorsementKind::Allowlist | EndorsementKind::Both);
        if kinds.contains(&EndorsementKind::DangerousNone) {
            open(row, "a program that plays a TPM passes, and with it every value that it likes")
        } else if kinds.iter().all(lists) {
            pinned(row, "only TPMs that are listed")
        } else {
            ruled(row, "the TPM's maker vouches for it, or a list")
        }
    }

    fn place(self) -> Covered {
        match self.policy.location {
            Some(_) => ruled(
                Row::Place,
                "telemetry that names another region is refused; the device names it itself",
            ),
            None => open(Row::Place, "the device may be anywhere"),
        }
    }
}

fn pinned(row: Row, meaning: &'static str) -> Covered {
    Covered { row, cover: Cover::Pinned, meaning }
}

fn ruled(row: Row, meaning: &'static str) -> Covered {
    Covered { row, cover: Cover::Ruled, meaning }
}

fn open(row: Row, meaning: &'static str) -> Covered {
    Covered { row, cover: Cover::Open, meaning }
}

impl Row {
    /// Every row, in the order of the table.
    pub const ALL: [Row; 13] = [
        Row::FirmwareCode,
        Row::Keys,
        Row::Revocations,
        Row::BootLoader,
        Row::SignerChain,
        Row::Kernel,
        Row::CommandLine,
        Row::Initrd,
        Row::MachineOwnerKeys,
        Row::RuntimePcrs,
        Row::Files,
        Row::Endorsement,
        Row::Place,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Row::FirmwareCode => "firmware code",
            Row::Keys => "Secure Boot keys",
            Row::Revocations => "revocations",
            Row::BootLoader => "boot loader",
            Row::SignerChain => "signer chain",
            Row::Kernel => "kernel",
            Row::CommandLine => "command line",
            Row::Initrd => "initial ramdisk",
            Row::MachineOwnerKeys => "machine-owner keys",
            Row::RuntimePcrs => "run-time PCRs",
            Row::Files => "files",
            Row::Endorsement => "endorsement",
            Row::Place => "place",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cover::Open => "open",
            Cover::Ruled => "ruled",
            Cover::Pinned => "pinned",
        })
    }
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Covered { row, cover, meaning } = self;
        write!(f, "{row:<19} {cover:<7} {meaning}")
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|covered| writeln!(f, "{covered}"))
    }
}

const NOTHING_SAID: &str = "nothing is said of it";

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows that a policy closes, of those that its boot and files could.
    fn check(rest: &str, expected: &[Row]) {
        let text = format!("name = \"edge\"\nversion = 1\n{}", rest.replace("AA", &"1a".repeat(32)));
        let coverage = Coverage::of(&Policy::from_toml(&text).unwrap());
        let closed = coverage.rows().iter().filter(|covered| covered.cover > Cover::Open);
        let closed: Vec<Row> =
            closed.map(|covered| covered.row).filter(|row| *row != Row::Endorsement).collect();
        assert_eq!(closed, expected, "{rest}\n{coverage}");
    }

    fn pins(indexes: &[u8]) -> String {
        let lines = indexes.iter().map(|index| format!("\"{index}\" = [\"AA\"]\n"));
        format!("[pcr.sha256]\n{}", lines.collect::<String>())
    }

    const LINES: &str = "[boot]\nkernel_command_lines = [\"/k ro\"]\n";

    #[test]
    fn each_row_is_closed_by_what_closes_it() {
        use Row::{BootLoader, FirmwareCode, Kernel, Keys, MachineOwnerKeys, Revocations, SignerChain};
        check(&pins(&[0]), &[]);
        check(&pins(&[0, 2]), &[FirmwareCode]);
        check(&pins(&[7]), &[Keys, Revocations, SignerChain]);
        check(&pins(&[4]), &[BootLoader, Kernel]);
        check(&pins(&[7, 14]), &[Keys, Revocations, SignerChain, MachineOwnerKeys]);
        check("[boot]\nfirmware_versions = [\"1\"]\nsigners = [\"sha256:AA\"]\n", &[SignerChain]);
        check(
            "[boot]\nsigners = [\"sha256:AA\"]\ndbx_contains = [\"sha256:AA\"]\n",
            &[Revocations, SignerChain],
        );
        check("[boot]\nsigners = [\"sha256:AA\"]\ndbx_entries_min = 400\n", &[SignerChain]);
        check("[boot]\napplications = [\"sha256:AA\"]\nkernels = [\"sha256:AA\"]\n", &[BootLoader, Kernel]);
    }

    #[test]
    fn what_is_extended_after_the_firmware_needs_an_anchor() {
        use Row::{BootLoader, CommandLine, Files, Initrd, Kernel};
        let files = "[ima.allow]\n\"/bin/a\" = [\"sha256:AA\"]\n";
        check(LINES, &[]);
        check(&pins(&[8, 9, 14]), &[]);
        check(files, &[]);
        check(&format!("{LINES}{files}"), &[]);
        check(&format!("{LINES}{files}{}", pins(&[4])), &[BootLoader, Kernel, CommandLine, Files]);
        check(&format!("{files}{}", pins(&[4, 8, 9])), &[BootLoader, Kernel, CommandLine, Initrd, Files]);
        check(
            &format!("{files}[ima]\nlist = \"optional\"\n{}", pins(&[4, 8])),
            &[BootLoader, Kernel, CommandLine],
        );
    }

    #[test]
    fn the_boot_that_covers_least_counts() {
        let alternative = pins(&[4]).replace("[pcr", "[[alternative]]\n[alternative.pcr");
        check(&format!("{}{alternative}", pins(&[0, 2, 4])), &[Row::BootLoader, Row::Kernel]);
    }

    #[test]
    fn sha1_and_a_software_tpm_close_nothing() {
        let text = format!(
            "name = \"edge\"\nversion = 1\n[endorsement]\nrequired = \"dangerous_none\"\n{}[pcr.sha1]\n\"4\" = [\"{}\"]\n",
            pins(&[0]).replace("AA", &"1a".repeat(32)),
            "1a".repeat(20)
        );
        let coverage = Coverage::of(&Policy::from_toml(&text).unwrap());
        assert_eq!(coverage.open().count(), Row::ALL.len(), "{coverage}");
    }
}
