//! cpio archives in the "new ASCII" form (newc), as Linux unpacks them into its first root file system.
//!
//! The kernel's Documentation/driver-api/early-userspace/buffer-format.rst is the specification. An archive is read once,
//! front to back, and never held in memory; every length is bounded. What to do with an entry is the caller's matter.

use std::io::{self, ErrorKind, Read};

use thiserror::Error;

/// Reads one archive.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    /// Bytes read so far, which padding is counted from.
    at: u64,
    /// What is left of the current entry's content.
    left: u64,
    entries: usize,
}

/// What an entry says of itself, but for its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path as written, without its NUL.
    pub path: Vec<u8>,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// How many names the file has.
    pub links: u32,
    /// Device (major, minor) and inode: names of one file share it within an archive.
    pub file: (u32, u32, u32),
    /// Length of the content.
    pub bytes: u64,
}

/// Why an archive cannot be read further.
#[derive(Debug, Error)]
pub enum CpioError {
    /// Not the magic number of this form.
    #[error(
        "byte {at}: there is no header of a newc archive (070701), which is the only form that the kernel unpacks"
    )]
    Magic {
        /// Where a header should be.
        at: u64,
    },
    /// A field of a header is not hex.
    #[error("byte {at}: the header is broken")]
    Header {
        /// Where the header is.
        at: u64,
    },
    /// A name that is empty, too long or not ended by its only NUL.
    #[error("byte {at}: the entry has no path of 1 to {PATH_BYTES_MAX} bytes")]
    Path {
        /// Where its header is.
        at: u64,
    },
    /// More entries than any system has.
    #[error("more than {ENTRIES_MAX} entries")]
    TooMany,
    /// The input ends inside the archive.
    #[error("it ends at byte {at}, before the archive does")]
    Ends {
        /// How much was read.
        at: u64,
    },
    /// The input cannot be read or unpacked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Entry {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// Whether anybody may run it.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

impl<R: Read> Archive<R> {
    /// Begins at the first header.
    pub fn new(input: R) -> Self {
        Archive { input, at: 0, left: 0, entries: 0 }
    }

    /// The next entry; `None` at the trailer. What is left of the last one's content is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, CpioError> {
        io::copy(&mut self.content(), &mut io::sink()).map_err(|error| self.failed(error))?;
        self.skip_padding()?;
        if self.entries >= ENTRIES_MAX {
            return Err(CpioError::TooMany);
        }
        self.entries += 1;
        let header_at = self.at;
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header)?;
        let fields = fields(&header, header_at)?;
        let [inode, mode, _, _, links, _, bytes, major, minor, _, _, path_bytes, _] = fields;
        let path = self.path(path_bytes, header_at)?;
        self.skip_padding()?;
        if path == TRAILER {
            return Ok(None);
        }
        self.left = bytes.into();
        Ok(Some(Entry { path, mode, links, file: (major, minor, inode), bytes: bytes.into() }))
    }

    /// The content of the entry that was read last.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn path(&mut self, bytes: u32, header_at: u64) -> Result<Vec<u8>, CpioError> {
        let length = usize::try_from(bytes).ok().filter(|length| (2..=PATH_BYTES_MAX + 1).contains(length));
        let mut path = vec![0; length.ok_or(CpioError::Path { at: header_at })?];
        self.read(&mut path)?;
        match path.iter().position(|byte| *byte == 0) {
            Some(end) if end + 1 == path.len() => path.truncate(end),
            _ => return Err(CpioError::Path { at: header_at }),
        }
        Ok(path)
    }

    /// Headers and contents start at multiples of four.
    fn skip_padding(&mut self) -> Result<(), CpioError> {
        let mut padding = [0; ALIGNMENT];
        let excess = usize::try_from(self.at % ALIGNMENT as u64).unwrap_or(0);
        let padding = padding.get_mut(excess..).filter(|_| excess > 0);
        padding.map_or(Ok(()), |padding| self.read(padding))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), CpioError> {
        self.input.read_exact(buffer).map_err(|error| self.failed(error))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn failed(&self, error: io::Error) -> CpioError {
        match error.kind() {
            ErrorKind::UnexpectedEof => CpioError::Ends { at: self.at },
            _ => CpioError::Io(error),
        }
    }
}

/// Reads what is left of an entry's content.
#[derive(Debug)]
pub struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Archive { input, at, left, .. } = &mut *self.0;
        let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..length).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = input.read(buffer)?;
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, CpioError::Ends { at: *at }));
        }
        *at += count as u64;
        *left -= count as u64;
        Ok(count)
    }
}

/// The thirteen numbers after the magic, each eight hex digits.
fn fields(header: &[u8; HEADER_BYTES], at: u64) -> Result<[u32; 13], CpioError> {
    let (magic, digits) = header.split_at(MAGIC_BYTES);
    if !MAGICS.contains(&magic) {
        return Err(CpioError::Magic { at });
    }
    let mut fields = [0; 13];
    for (field, digits) in fields.iter_mut().zip(digits.chunks_exact(FIELD_BYTES)) {
        let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
        *field = text.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or(CpioError::Header { at })?;
    }
    Ok(fields)
}

/// Without and with a checksum, which the kernel sums up and we do not need.
const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];
const MAGIC_BYTES: usize = 6;
const FIELD_BYTES: usize = 8;
const HEADER_BYTES: usize = MAGIC_BYTES + 13 * FIELD_BYTES;
const ALIGNMENT: usize = 4;
/// The name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// Linux, PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;
/// A large initramfs has some ten thousand.
const ENTRIES_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(path: &str, mode: u32, links: u32, inode: u32, bytes: usize) -> Vec<u8> {
        let path_bytes = path.len() + 1;
        let fields = [inode, mode, 0, 0, links, 0, bytes as u32, 8, 1, 0, 0, path_bytes as u32, 0];
        let digits: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        padded([b"070701", digits.as_bytes(), path.as_bytes(), &[0]].concat())
    }

    fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
        let entries = entries.iter().flat_map(|(path, content)| {
            [header(path, 0o100_755, 1, 7, content.len()), padded(content.clone())].concat()
        });
        entries.chain(header("TRAILER!!!", 0, 1, 0, 0)).collect()
    }

    /// Every path with its content.
    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, CpioError> {
        let mut archive = Archive::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next_entry()? {
            let mut content = Vec::new();
            archive.content().read_to_end(&mut content)?;
            assert_eq!(content.len() as u64, entry.bytes);
            assert!(entry.is_file() && entry.is_executable());
            entries.push((String::from_utf8(entry.path).unwrap(), content));
        }
        Ok(entries)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(entries in proptest::collection::vec(
            ("[a-z/]{1,30}", proptest::collection::vec(any::<u8>(), 0..40)), 0..6
        )) {
            prop_assert_eq!(read(&archive(&entries)).unwrap(), entries);
        }

        #[test]
        fn changed_archives_are_read_without_panic(at in 0_usize..400, byte: u8, length in 0_usize..400) {
            let mut bytes = archive(&[("bin/a".into(), vec![1; 50]), ("bin/b".into(), vec![2; 9])]);
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            bytes.truncate(length);
            let mut archive = Archive::new(bytes.as_slice());
            while let Ok(Some(_)) = archive.next_entry() {}
        }
    }

    #[test]
    fn content_that_nobody_reads_is_skipped() {
        let bytes = archive(&[("a".into(), vec![1; 7]), ("b".into(), vec![2; 6])]);
        let mut archive = Archive::new(bytes.as_slice());
        assert_eq!(archive.next_entry().unwrap().unwrap().path, b"a");
        archive.content().read_exact(&mut [0; 3]).unwrap();
        assert_eq!(archive.next_entry().unwrap().unwrap().path, b"b");
        assert!(archive.next_entry().unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let good = archive(&[("bin/a".into(), vec![1; 5])]);
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bytes = good.clone();
            change(&mut bytes);
            let error = read(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&|bytes| bytes[5] = b'7', "byte 0: there is no header of a newc archive");
        check(&|bytes| bytes[6] = b'+', "byte 0: the header is broken");
        check(&|bytes| bytes[6] = b'g', "byte 0: the header is broken");
        check(&|bytes| bytes[112] = 0, "byte 0: the entry has no path");
        check(&|bytes| bytes[115] = 1, "byte 0: the entry has no path");
        check(&|bytes| bytes[94..102].copy_from_slice(b"00000001"), "byte 0: the entry has no path");
        check(&|bytes| bytes[94..102].copy_from_slice(b"FFFFFFFF"), "byte 0: the entry has no path");
        check(&|bytes| bytes[54..62].copy_from_slice(b"FFFFFFFF"), "before the archive does");
        check(&|bytes| bytes.truncate(130), "it ends at byte");
        check(&|bytes| bytes.truncate(118), "it ends at byte 118, before the archive does");
    }
}
