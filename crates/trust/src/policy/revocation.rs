//! Entries of dbx that are no image's digest: certificates, and digests of what they sign.

use std::fmt;
use std::str::FromStr;

use assay_evidence::boot_log::{Guid, SignatureKind};
use assay_evidence::{Digest, HashAlgorithm};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// An entry of a signature database by its type and the SHA-256 of its data (UEFI, 32.4.1): `<GUID>:sha256:<hex>`, such as
/// `a5c059a1-94e4-4aa7-87b5-ab155c2bf072:sha256:…` for a certificate.
///
/// The type is part of it: the bytes of a revoked certificate under another type revoke nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revocation {
    signature_type: Guid,
    sha256: Digest,
}

/// Why a text names no entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no entry of dbx: write <signature type's GUID>:sha256:<hex of its data>")]
pub struct RevocationError(String);

impl Revocation {
    /// The entry; `None` for an image's digest, which is a list of its own.
    pub fn of(kind: &SignatureKind) -> Option<Self> {
        match kind {
            SignatureKind::ImageDigest(_) => None,
            SignatureKind::Certificate { sha256, .. } => {
                Some(Revocation { signature_type: Guid::CERT_X509, sha256: *sha256 })
            }
            SignatureKind::Other { signature_type, sha256 } => {
                Some(Revocation { signature_type: *signature_type, sha256: *sha256 })
            }
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.signature_type, self.sha256)
    }
}

impl FromStr for Revocation {
    type Err = RevocationError;

    fn from_str(text: &str) -> Result<Self, RevocationError> {
        let parts = text.split_once(':').and_then(|(signature_type, sha256)| {
            let sha256 = Digest::from_text(sha256).filter(|one| one.algorithm() == HashAlgorithm::Sha256)?;
            Some(Revocation { signature_type: Guid::from_text(signature_type)?, sha256 })
        });
        parts.ok_or_else(|| RevocationError(text.to_owned()))
    }
}

impl Serialize for Revocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Revocation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        let certificate = format!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072:sha256:{}", "1a".repeat(32));
        assert_eq!(certificate.parse::<Revocation>().unwrap().to_string(), certificate);
        let sha256 = HashAlgorithm::Sha256.hash(&[b"a certificate"]);
        let kind = SignatureKind::Certificate { sha256, subject: String::new() };
        let expected = format!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072:{sha256}");
        assert_eq!(Revocation::of(&kind).unwrap().to_string(), expected);
        assert_eq!(Revocation::of(&SignatureKind::ImageDigest(sha256)), None);
        for text in
            ["", "sha256:1a", &certificate.replace("sha256", "sha1"), &certificate.replace("a5c0", "")]
        {
            assert!(text.parse::<Revocation>().is_err(), "{text}");
        }
    }
}
