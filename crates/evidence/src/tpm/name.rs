//! The Name of a TPM object: what ties a key to a credential and to a certification.

use std::fmt;

use crate::digest::{Digest, HashAlgorithm};

/// A Name: nameAlg ‖ H(public area). TPM 2.0 Part 1, 16.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// The Name of an object with this marshalled TPMT_PUBLIC.
    pub fn of(algorithm: HashAlgorithm, public_area: &[u8]) -> Self {
        Self::from_digest(&algorithm.hash(&[public_area]))
    }

    /// Reads algorithm identifier and digest; `None` if the length is not the algorithm's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, digest) = bytes.split_first_chunk()?;
        let algorithm = HashAlgorithm::from_tpm_id(u16::from_be_bytes(*id))?;
        Digest::new(algorithm, digest).map(|digest| Self::from_digest(&digest))
    }

    /// Reads the hex form, as `to_hex` and the TPM tools print it.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        Self::from_bytes(&bytes)
    }

    /// Algorithm identifier and digest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lowercase hex.
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    fn from_digest(digest: &Digest) -> Self {
        let mut bytes = digest.algorithm().tpm_id().to_be_bytes().to_vec();
        bytes.extend_from_slice(digest.as_bytes());
        Name(bytes)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip() {
        let name = Name::of(HashAlgorithm::Sha256, b"public area");
        assert!(name.to_hex().starts_with("000b"));
        assert_eq!(Name::from_hex(&name.to_hex()), Some(name));
    }

    #[test]
    fn a_name_has_exactly_its_algorithms_length() {
        assert_eq!(Name::from_bytes(&[0, 0x0b, 1, 2]), None);
        assert_eq!(Name::from_bytes(&[0xff; 34]), None);
        assert_eq!(Name::from_bytes(&[0]), None);
    }
}
