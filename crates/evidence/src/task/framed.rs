//! An encoding in which equal values have equal bytes: fields in a fixed order, each text and list preceded by its length.

use crate::read::{Reader, Truncated};

/// Writes fields.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Begins with what says which encoding it is.
    pub(super) fn new(context: &[u8]) -> Writer {
        let mut writer = Writer::default();
        writer.text(context);
        writer
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// A value of a length that everybody knows.
    pub(super) fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.fixed(bytes);
    }

    pub(super) fn count(&mut self, count: usize) {
        // What is longer is refused when it is read.
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a text of at most so many bytes; `None`: it is longer, or not UTF-8.
pub(super) fn text(reader: &mut Reader<'_>, bytes_max: usize) -> Result<Option<String>, Truncated> {
    let length = count(reader)?;
    if length > bytes_max {
        return Ok(None);
    }
    Ok(std::str::from_utf8(reader.bytes(length)?).ok().map(str::to_owned))
}

/// Reads a length.
pub(super) fn count(reader: &mut Reader<'_>) -> Result<usize, Truncated> {
    Ok(usize::try_from(reader.u32_be()?).unwrap_or(usize::MAX))
}
