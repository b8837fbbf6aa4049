//! What a policy covers of a device, row by row, and what an attacker can do with the rest.
//!
//! A row is closed only if what closes it is itself anchored. What the boot loader and everything after it extends, whoever
//! boots something else can extend as well, afterwards and with the very values that are wanted: a command line that is
//! listed, or PCR 8 itself, says nothing unless it is known what started the kernel.

mod rows;
mod view;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::rows::open;
use self::view::View;
use super::Policy;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// What the firmware and its option ROMs run.
    FirmwareCode,
    /// Into which PCR banks the firmware measures.
    PcrBanks,
    /// How the firmware is set up, in what order it boots, how the disk is divided: PCRs 1, 3, 5 and 6.
    FirmwareSettings,
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

impl Row {
    /// Every row, in the order of the table.
    pub const ALL: [Row; 15] = [
        Row::FirmwareCode,
        Row::PcrBanks,
        Row::FirmwareSettings,
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
            Row::PcrBanks => "PCR banks",
            Row::FirmwareSettings => "firmware settings",
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
    fn places_that_nothing_judges_close_nothing() {
        use Row::{BootLoader, FirmwareCode, FirmwareSettings, Kernel, SignerChain};
        let sequences = |lists: &[(u8, &str)]| {
            let lines = lists.iter().map(|(pcr, slots)| format!("{pcr} = [[{slots}]]\n"));
            format!("[boot.sequence]\n{}", lines.collect::<String>())
        };
        check(&sequences(&[(0, "\"sha256:AA\""), (2, "\"sha256:AA\"")]), &[FirmwareCode]);
        check(&sequences(&[(0, "\"sha256:AA\", \"*1\""), (2, "\"sha256:AA\"")]), &[]);
        check(&sequences(&[(8, "\"*1\", \"*2\""), (12, "\"*1\""), (14, "\"*1\"")]), &[]);
        check(&pins(&[1, 3, 5, 6]), &[FirmwareSettings]);
        check(&pins(&[1, 3, 5]), &[]);
        // The last image is left to its signer, and an earlier one to nobody.
        let signers = "[boot]\nsigners = [\"sha256:AA\"]\n";
        let kernel = sequences(&[(4, "\"sha256:AA\", \"*1\", \"*1\"")]);
        check(&kernel, &[BootLoader]);
        check(&format!("{signers}{kernel}"), &[BootLoader, SignerChain, Kernel]);
        let loader = sequences(&[(4, "\"*1\", \"sha256:AA\"")]);
        check(&format!("{signers}{loader}"), &[SignerChain, Kernel]);
    }

    /// Without Secure Boot, GRUB's own modules are code from the disk.
    #[test]
    fn modules_of_grub_are_code() {
        use Row::{BootLoader, Initrd, Kernel};
        let off = "[boot]\nsecure_boot = \"optional\"\n";
        let images = "applications = [\"sha256:AA\"]\nkernels = [\"sha256:AA\"]\n";
        check(&format!("{off}{images}"), &[Kernel]);
        check(&format!("{off}{images}{}", pins(&[9])), &[BootLoader, Kernel, Initrd]);
        check(&format!("{off}{images}[boot.sequence]\n8 = [[]]\n"), &[BootLoader, Kernel]);
        check(&format!("[boot]\n{images}"), &[BootLoader, Kernel]);
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
