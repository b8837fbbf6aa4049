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

    /// EFI_CERT_X509_GUID: a certificate in a signature database.
    pub const CERT_X509: Guid = Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);

    /// Reads what [`Guid`] displays: five groups of hex digits in lower case.
    pub fn from_text(text: &str) -> Option<Guid> {
        let group = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let mut groups = text.split('-');
        let mut next = || groups.next().and_then(group);
        let (first, second, third, fourth, last) = (next()?, next()?, next()?, next()?, next()?);
        let guid = Guid::new(
            u32::try_from(first).ok()?,
            u16::try_from(second).ok()?,
            u16::try_from(third).ok()?,
            u64::from(u16::try_from(fourth).ok()?) << 48 | last & 0xffff_ffff_ffff,
        );
        // Written as it is read: no signs, no lengths but these.
        Some(guid).filter(|guid| guid.to_string() == text)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_read_as_they_are_written() {
        let check =
            |text: &str, expected: Option<Guid>| assert_eq!(Guid::from_text(text), expected, "{text}");
        for guid in [Guid::GLOBAL_VARIABLE, Guid::SHIM_LOCK, Guid::CERT_X509] {
            check(&guid.to_string(), Some(guid));
        }
        check("605DAB50-e046-4300-abb6-3dd810dd8b23", None);
        check("605dab50-e046-4300-abb6-13dd810dd8b23", None);
        check("605dab50-e046-4300-abb6", None);
        check("605dab50-e046-4300-abb6-3dd810dd8b23-1", None);
        check("+05dab50-e046-4300-abb6-3dd810dd8b23", None);
    }
}
