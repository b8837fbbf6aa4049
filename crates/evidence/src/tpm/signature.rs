//! TPMT_SIGNATURE: what the TPM hands back beside an attestation.

use thiserror::Error;

use super::public_key::{PublicKey, SignatureAlgorithm, SignatureError, SignatureScheme};
use crate::der;
use crate::digest::HashAlgorithm;
use crate::read::{Reader, Truncated};

/// A parsed signature; says nothing until [`Signature::verify`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    algorithm: SignatureAlgorithm,
    /// The RSA signature, or the ECDSA signature in DER.
    bytes: Vec<u8>,
}

impl Signature {
    /// Reads a TPMT_SIGNATURE, all of it (TPM 2.0 Part 2, 11.3.4).
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureParseError> {
        let mut reader = Reader::new(bytes);
        let scheme_id = reader.u16_be()?;
        let scheme = scheme_from_tpm_id(scheme_id).ok_or(SignatureParseError::Scheme(scheme_id))?;
        let hash_id = reader.u16_be()?;
        let hash = HashAlgorithm::from_tpm_id(hash_id).ok_or(SignatureParseError::Hash(hash_id))?;
        let bytes = match scheme {
            SignatureScheme::RsaSsa | SignatureScheme::RsaPss => bounded(reader.tpm2b()?)?.to_vec(),
            SignatureScheme::EcDsa => {
                // TPMs differ in whether r and s keep their leading zeros; DER has neither.
                let r = der::unsigned(bounded(reader.tpm2b()?)?);
                let s = der::unsigned(bounded(reader.tpm2b()?)?);
                der::sequence(&[&r, &s])
            }
        };
        match reader.rest().len() {
            0 => Ok(Signature { algorithm: SignatureAlgorithm { scheme, hash }, bytes }),
            surplus => Err(SignatureParseError::Surplus(surplus)),
        }
    }

    /// Scheme and hash.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Checks that it is `key`'s over exactly `message`.
    pub fn verify(&self, key: &PublicKey, message: &[u8]) -> Result<(), SignatureError> {
        key.verify(self.algorithm, message, &self.bytes)
    }

    /// An RSASSA-PSS signature, as long as the modulus; `None` for others.
    pub fn rsa_pss(&self) -> Option<Vec<u8>> {
        (self.algorithm.scheme == SignatureScheme::RsaPss).then(|| self.bytes.clone())
    }

    /// An ECDSA signature in the DER of X.509 and TLS; `None` for RSA.
    pub fn ecdsa_der(&self) -> Option<Vec<u8>> {
        (self.algorithm.scheme == SignatureScheme::EcDsa).then(|| self.bytes.clone())
    }
}

/// Bytes that are not a signature we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureParseError {
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Neither RSASSA nor RSAPSS nor ECDSA.
    #[error("unknown signature scheme {0:#06x}")]
    Scheme(u16),
    /// A hash we do not know.
    #[error("unknown hash algorithm {0:#06x} in a signature")]
    Hash(u16),
    /// Longer than any signature of an accepted key.
    #[error("a signature of {0} bytes, at most {SIGNATURE_BYTES_MAX} make sense")]
    TooLong(usize),
    /// Bytes follow.
    #[error("{0} bytes after the signature")]
    Surplus(usize),
}

/// The scheme of a TPM_ALG_ID.
pub(super) fn scheme_from_tpm_id(id: u16) -> Option<SignatureScheme> {
    match id {
        0x0014 => Some(SignatureScheme::RsaSsa),
        0x0016 => Some(SignatureScheme::RsaPss),
        0x0018 => Some(SignatureScheme::EcDsa),
        _ => None,
    }
}

fn bounded(bytes: &[u8]) -> Result<&[u8], SignatureParseError> {
    match bytes.len() {
        0..=SIGNATURE_BYTES_MAX => Ok(bytes),
        length => Err(SignatureParseError::TooLong(length)),
    }
}

/// RSA-8192, the largest key that is ever verified.
const SIGNATURE_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecdsa_numbers_become_minimal_der() {
        // r with needless zeros, s with its high bit set.
        let bytes = [0, 0x18, 0, 0x0b, 0, 3, 0, 0, 1, 0, 1, 0x80];
        let signature = Signature::parse(&bytes).unwrap();
        assert_eq!(signature.algorithm().to_string(), "ecdsa-sha256");
        assert_eq!(signature.ecdsa_der().unwrap(), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
    }

    #[test]
    fn rsa_has_no_der() {
        let signature = Signature::parse(&[0, 0x14, 0, 0x0b, 0, 1, 7]).unwrap();
        assert_eq!(signature.algorithm().to_string(), "rsassa-sha256");
        assert_eq!(signature.ecdsa_der(), None);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = |bytes: &[u8]| Signature::parse(bytes).unwrap_err();
        assert_eq!(error(&[0, 0x1a, 0, 0x0b]), SignatureParseError::Scheme(0x1a));
        assert_eq!(error(&[0, 0x14, 0, 0x12]), SignatureParseError::Hash(0x12));
        assert_eq!(error(&[0, 0x14, 0, 0x0b, 0, 1, 7, 7]), SignatureParseError::Surplus(1));
        assert!(matches!(error(&[0, 0x14, 0, 0x0b, 0xff, 0xff, 7]), SignatureParseError::Truncated(_)));
        let long = [&[0, 0x14, 0, 0x0b, 8, 0], [0; 2048].as_slice()].concat();
        assert_eq!(error(&long), SignatureParseError::TooLong(2048));
    }
}
