//! EFI GUIDs.

use std::fmt;

use crate::read::{Reader, Truncated};

/// A GUID in EFI's byte order: the first three groups little endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// EFI_GLOBAL_VARIABLE: the vendor of SecureBoot, PK, KEK.
    pub const GLOBAL_VARIABLE: Guid = Guid::new(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
    /// EFI_IMAGE_SECURITY_DATABASE: the vendor of db, dbx.
    pub const IMAGE_SECURITY_DATABASE: Guid = Guid::new(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
    /// SHIM_LOCK: the vendor of shim's variables.
    pub const SHIM_LOCK: Guid = Guid::new(0x605d_ab50, 0xe046, 0x4300, 0xabb6_3dd8_10dd_8b23);

    pub(super) const fn new(first: u32, second: u16, third: u16, last: u64) -> Self {
        let value = (first as u128) << 96 | (second as u128) << 80 | (third as u128) << 64 | last as u128;
        let [a, b, c, d, e, f, g, h, rest @ ..] = value.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = rest;
        Guid([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        reader.array().map(Guid)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q] = self.0;
        write!(f, "{d:02x}{c:02x}{b:02x}{a:02x}-{g:02x}{e:02x}-{i:02x}{h:02x}-{j:02x}{k:02x}-")?;
        [l, m, n, o, p, q].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
