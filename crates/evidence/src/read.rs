//! A reader over foreign bytes: every access is checked, every length is compared before it is used.

use thiserror::Error;

/// The input ended, or a length in it points past its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("offset {offset}: {wanted} bytes wanted, {left} left")]
pub struct Truncated {
    /// Where in the input the read started.
    pub offset: usize,
    /// Bytes the format asks for.
    pub wanted: usize,
    /// Bytes that are there.
    pub left: usize,
}

/// A cursor over a byte slice. Never panics, never allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes, offset: 0 }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(Truncated { offset: self.offset, wanted: count, left: self.rest.len() });
        };
        self.rest = rest;
        self.offset = self.offset.saturating_add(count);
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes, big endian: the TPM's order.
    pub fn u16_be(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes, big endian.
    pub fn u32_be(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes, big endian.
    pub fn u64_be(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Two bytes, little endian: the order of boot logs and IMA lists.
    pub fn u16_le(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little endian.
    pub fn u32_le(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian.
    pub fn u64_le(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A TPM2B: a big-endian u16 length and that many bytes.
    pub fn tpm2b(&mut self) -> Result<&'a [u8], Truncated> {
        let count = self.u16_be()?;
        self.bytes(usize::from(count))
    }
}
