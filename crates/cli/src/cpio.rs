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
mod tests;
