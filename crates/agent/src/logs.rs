//! The measurement logs the kernel keeps: the firmware's boot log and the IMA list.
//!
//! Nothing here is believed or judged; the agent only carries bytes. A host without a log is a host without a log.

mod ima_cursor;
mod quoted;

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::{Entry, EntryStream, ListForm};
use thiserror::Error;

use ima_cursor::EntrySkipper;
pub use ima_cursor::entry_offset;
pub use quoted::quoted_values;

/// Where the kernel shows the boot log.
pub const BOOT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// Where systemd logs what user space measured.
pub const MEASURE_LOG: &str = "/run/log/systemd/tpm2-measure.log";
/// Where the kernel shows the IMA list in binary form.
pub const IMA_LOG: &str = "/sys/kernel/security/ima/binary_runtime_measurements";

/// A log that is there cannot be read.
#[derive(Debug, Error)]
#[error("{path}: cannot be read; the agent has to run as root, or be let through by the file's group")]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// Reads the whole boot log; `None` if the host has none.
pub fn read_boot_log(path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    read(path, BOOT_LOG_BYTES_MAX).map(|bytes| bytes.filter(|bytes| !bytes.is_empty()))
}

/// Reads systemd's measurement log; `None` if the host has none.
pub fn read_measure_log(path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    let bytes_max = u64::try_from(assay_evidence::measure_log::LOG_BYTES_MAX).unwrap_or(u64::MAX);
    read(path, bytes_max).map(|bytes| bytes.filter(|bytes| !bytes.is_empty()))
}

/// The IMA list from an entry on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImaList {
    /// Whole entries.
    pub bytes: Vec<u8>,
    /// The entry `bytes` starts with, counted from 0.
    pub first: u64,
    /// The host shows the list as text only.
    pub ascii: bool,
}

/// The files in which the kernel shows the IMA list.
#[derive(Clone, Debug)]
pub struct ImaSource {
    binary: PathBuf,
}

impl ImaSource {
    /// The list whose binary form is at `binary`; its other forms stand beside it.
    pub fn new(binary: &Path) -> Self {
        ImaSource { binary: binary.to_owned() }
    }

    /// Reads the list from entry `first` on; an empty list if the host has none, or none so long. What comes before is passed
    /// over a piece at a time, so that a long list takes no more memory than what is new in it.
    pub fn read_from(&self, first: u64) -> Result<ImaList, LogError> {
        if let Some(bytes) = read_past(&self.binary, EntrySkipper::binary(first))? {
            return Ok(ImaList { bytes, first, ascii: false });
        }
        let text = self.beside("ascii_runtime_measurements");
        match read_past(&text, EntrySkipper::lines(first))? {
            Some(bytes) => Ok(ImaList { bytes, first, ascii: true }),
            None => Ok(ImaList { first, ..ImaList::default() }),
        }
    }

    /// Goes over the list from its first entry to the last that is whole, or until `look` has seen enough, and holds one of
    /// them at a time.
    pub fn each_entry(&self, mut look: impl FnMut(&Entry<'_>) -> ControlFlow<()>) -> Result<(), LogError> {
        let ascii = self.beside("ascii_runtime_measurements");
        let (path, form) = match self.binary.exists() {
            true => (&self.binary, ListForm::Binary(HashAlgorithm::Sha1)),
            false => (&ascii, ListForm::Ascii),
        };
        let failed = |source| LogError { path: path.clone(), source };
        let mut file = match File::open(path) {
            Ok(file) => file.take(IMA_BYTES_MAX),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let (mut stream, mut chunk) = (EntryStream::new(form), vec![0; CHUNK_BYTES]);
        loop {
            let count = file.read(&mut chunk).map_err(failed)?;
            match chunk.get(..count) {
                None | Some([]) => stream.finish(),
                Some(bytes) => stream.push(bytes),
            }
            while let Ok(Some(entry)) = stream.next_entry() {
                if look(&entry).is_break() {
                    return Ok(());
                }
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// A number that changes when the list grows: the kernel's count of entries, else the length of the list.
    pub fn mark(&self) -> u64 {
        // Files of securityfs have no size, so a length of zero says nothing.
        let counted = fs::read_to_string(self.beside("runtime_measurements_count")).ok();
        if let Some(count) = counted.and_then(|text| text.trim().parse().ok()) {
            return count;
        }
        match fs::metadata(&self.binary) {
            Ok(metadata) if metadata.len() > 0 => metadata.len(),
            _ => self.read_from(0).map_or(0, |list| u64::try_from(list.bytes.len()).unwrap_or(u64::MAX)),
        }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.binary.with_file_name(name)
    }
}

/// What of a file comes after the entries that are passed over; `None` if there is no such file.
fn read_past(path: &Path, mut skipper: EntrySkipper) -> Result<Option<Vec<u8>>, LogError> {
    let failed = |source| LogError { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file.take(IMA_BYTES_MAX),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let (mut rest, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    while !skipper.is_done() {
        let count = file.read(&mut chunk).map_err(failed)?;
        match chunk.get(..count) {
            None | Some([]) => return Ok(Some(rest)),
            Some(bytes) => rest.extend_from_slice(skipper.past(bytes)),
        }
    }
    drop(chunk);
    file.read_to_end(&mut rest).map_err(failed)?;
    Ok(Some(rest))
}

fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, LogError> {
    let failed = |source| LogError { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Firmware reserves well under a megabyte.
const BOOT_LOG_BYTES_MAX: u64 = 8 << 20;
/// As much as is read of a list at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Two hundred thousand entries of a few hundred bytes.
const IMA_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_logs_has_none_and_text_stands_in_for_binary() {
        let folder = tempfile::tempdir().unwrap();
        let source = ImaSource::new(&folder.path().join("binary_runtime_measurements"));
        assert_eq!(read_boot_log(&folder.path().join("none")).unwrap(), None);
        assert_eq!(source.read_from(3).unwrap(), ImaList { first: 3, ..ImaList::default() });
        assert_eq!(source.mark(), 0);

        fs::write(folder.path().join("ascii_runtime_measurements"), "10 a\n10 b\n10 c\n").unwrap();
        let list = source.read_from(1).unwrap();
        assert_eq!((list.bytes.as_slice(), list.ascii), (b"10 b\n10 c\n".as_slice(), true));
        assert!(source.mark() > 0);
        fs::write(folder.path().join("runtime_measurements_count"), "3\n").unwrap();
        assert_eq!(source.mark(), 3);
    }
}
