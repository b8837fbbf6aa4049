//! Writes the kernel's runtime measurement list with the `ima-sig` template, in both of its forms.

use data_encoding::HEXLOWER;

use crate::Bank;
use crate::pcrs::{Measurement, Pcrs};

/// One line of an IMA list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaEntry {
    pcr: u32,
    path: String,
    digest: Vec<u8>,
    violation: bool,
}

/// A whole list kept in memory, for devices without a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImaList {
    entries: Vec<ImaEntry>,
    binary: Vec<u8>,
    starts: Vec<usize>,
}

impl ImaEntry {
    /// A file that was run or read.
    pub fn file(path: &str, contents: &[u8]) -> ImaEntry {
        ImaEntry { pcr: PCR, path: kernel_path(path), digest: Bank::Sha256.hash(contents), violation: false }
    }

    /// The first entry: what the PCRs said when the kernel took over.
    pub fn boot_aggregate(pcrs: &Pcrs) -> ImaEntry {
        // Kernel 5.10 and later: PCRs 0 to 9, in the bank of IMA's own hash.
        let values: Vec<_> = (0..=9).flat_map(|pcr| pcrs.value(Bank::Sha256, pcr).to_vec()).collect();
        ImaEntry {
            pcr: PCR,
            path: "boot_aggregate".into(),
            digest: Bank::Sha256.hash(&values),
            violation: false,
        }
    }

    /// A file that was written while it was measured, so that no digest can be told.
    pub fn violation(path: &str) -> ImaEntry {
        ImaEntry { pcr: PCR, path: kernel_path(path), digest: vec![0; Bank::Sha256.size()], violation: true }
    }

    /// The same measured into another PCR, as a rule with `pcr=` of the kernel's IMA policy has it.
    pub fn into_pcr(self, pcr: u32) -> ImaEntry {
        ImaEntry { pcr, ..self }
    }

    /// The file's path, as the kernel writes it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The SHA-256 of the file.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// The entry as it stands in `binary_runtime_measurements`.
    pub fn binary(&self) -> Vec<u8> {
        let mut entry = self.pcr.to_le_bytes().to_vec();
        entry.extend_from_slice(&self.template_digest());
        field(&mut entry, TEMPLATE.as_bytes());
        field(&mut entry, &self.template_data());
        entry
    }

    /// The entry as it stands in `ascii_runtime_measurements`, with its newline.
    pub fn ascii_line(&self) -> String {
        let template_digest = HEXLOWER.encode(&self.template_digest());
        let digest = HEXLOWER.encode(&self.digest);
        // The last field, the signature, is empty; the kernel still writes the space before it.
        format!("{} {template_digest} {TEMPLATE} sha256:{digest} {} \n", self.pcr, self.path)
    }

    /// What the kernel extends for it.
    pub fn measurement(&self, banks: &[Bank]) -> Measurement {
        if self.violation {
            let ones = banks.iter().map(|bank| (*bank, vec![0xff; bank.size()]));
            return Measurement { pcr: self.pcr, digests: ones.collect() };
        }
        Measurement::of(banks, self.pcr, &self.template_data())
    }

    fn template_digest(&self) -> Vec<u8> {
        if self.violation { vec![0; Bank::Sha1.size()] } else { Bank::Sha1.hash(&self.template_data()) }
    }

    fn template_data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        field(&mut data, &[b"sha256:\0", self.digest.as_slice()].concat());
        field(&mut data, &[self.path.as_bytes(), b"\0"].concat());
        field(&mut data, &[]);
        data
    }
}

impl ImaList {
    /// The entries in order.
    pub fn entries(&self) -> &[ImaEntry] {
        &self.entries
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, entry: ImaEntry) {
        self.starts.push(self.binary.len());
        self.binary.extend(entry.binary());
        self.entries.push(entry);
    }

    /// The list in binary form, from an entry on.
    pub fn binary_from(&self, first: usize) -> &[u8] {
        let start = self.starts.get(first).copied().unwrap_or(self.binary.len());
        self.binary.get(start..).unwrap_or_default()
    }

    /// The list in ASCII form, from an entry on.
    pub fn ascii_from(&self, first: usize) -> String {
        self.entries.iter().skip(first).map(ImaEntry::ascii_line).collect()
    }
}

fn field(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(value);
}

/// The kernel writes spaces in paths as underscores, in both forms.
fn kernel_path(path: &str) -> String {
    path.replace(' ', "_")
}

const PCR: u32 = 10;
const TEMPLATE: &str = "ima-sig";
