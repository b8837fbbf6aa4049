//! How far a policy covers each row, and what that means.

use super::view::View;
use super::{Cover, Covered, Row};
use crate::policy::{Demand, EndorsementKind};

impl View<'_> {
    pub(super) fn covered(self, row: Row) -> Covered {
        match row {
            Row::FirmwareCode => self.firmware_code(),
            Row::PcrBanks => self.pcr_banks(),
            Row::FirmwareSettings => self.firmware_settings(),
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

    fn pcr_banks(self) -> Covered {
        let row = Row::PcrBanks;
        match &self.boot.boot.banks {
            None => open(
                row,
                "whoever sets up the firmware turns banks on: each active one has to show the same boot, but a firmware that \
                 leaves one empty leaves its digests to whoever is root",
            ),
            Some(banks) if banks.iter().all(|bank| self.is_firmware_known(bank.0)) => pinned(
                row,
                "only these banks are active, and firmware is known in each that it measures into",
            ),
            Some(_) => ruled(row, "only these banks are active, and each shows the same boot"),
        }
    }

    fn firmware_settings(self) -> Covered {
        let row = Row::FirmwareSettings;
        match self.pcrs(&[1, 3, 5, 6]) {
            Cover::Pinned => {
                pinned(row, "only the set-up, boot order and partitions that were measured before")
            }
            Cover::Ruled => {
                ruled(row, "set-up, boot order and partitions as the sequences of PCRs 1, 3, 5 and 6 say")
            }
            Cover::Open => open(
                row,
                "whoever is at the device changes set-up options, boot order and partitions: what starts then is what the \
                 rows below judge, and protections that the firmware has options for may be off unless PCR 7 says so",
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
            Cover::Ruled | Cover::Open if self.lists_revocations() && self.is_secure_boot_known() => {
                ruled(row, "dbx holds every listed entry")
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
            Cover::Open if !is_listed && self.boot.boot.signers.is_some() => open(
                row,
                "anything by the signers may start first, in any order: the firmware can be told to start the kernel itself",
            ),
            Cover::Open if !is_listed => {
                open(row, "any boot loader passes, and what it says of what it starts is its own word")
            }
            Cover::Ruled if !self.leaves_open_kernels_alone() => open(
                row,
                "an image before the kernel may be any, and what it says of what it starts is its own word",
            ),
            _ if !self.are_modules_known() => open(
                row,
                "without Secure Boot, GRUB loads modules of anybody from the disk, which PCR 9 shows and nothing judges",
            ),
            Cover::Pinned => pinned(row, "only the boot loaders that were measured before, in their order"),
            Cover::Ruled => ruled(row, "boot loaders as the sequences of PCR 4 say"),
            Cover::Open => ruled(row, "every image that was started is listed"),
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
                ruled(row, "the last image, whose file the boot loader read for it, and which is listed")
            }
            Cover::Ruled if self.is_closed(Row::SignerChain) => {
                ruled(row, "a kernel by the signers, in its place, whatever its version")
            }
            Cover::Ruled => open(row, "the last image may be any, by anybody"),
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
            _ if !self.is_anchored() => open(
                row,
                "boot loader and kernel are not both known: whoever starts the kernel in another way appends the wanted line \
                 to PCR 8 or 12 afterwards",
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
        match &self.policy.location {
            Some(location) if location.asks_for_a_receiver() => ruled(
                Row::Place,
                "telemetry from elsewhere is refused, by what a receiver on the device says, which root and radio can forge",
            ),
            Some(_) => {
                ruled(Row::Place, "telemetry that names another place is refused; the device names it itself")
            }
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

pub(super) fn open(row: Row, meaning: &'static str) -> Covered {
    Covered { row, cover: Cover::Open, meaning }
}
