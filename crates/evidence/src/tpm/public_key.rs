//! Public keys of the kinds we accept, and the one place where a signature is checked.

use std::fmt;

use aws_lc_rs::signature as lc;
use thiserror::Error;

use crate::der;
use crate::digest::HashAlgorithm;

/// A public key by its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PublicKey {
    /// RSA.
    Rsa {
        /// Big endian, without leading zeros.
        modulus: Vec<u8>,
        /// Almost always 65537.
        exponent: u32,
    },
    /// A point on NIST P-256.
    EcP256 {
        /// Big endian.
        x: [u8; 32],
        /// Big endian.
        y: [u8; 32],
    },
    /// A point on NIST P-384.
    EcP384 {
        /// Big endian.
        x: [u8; 48],
        /// Big endian.
        y: [u8; 48],
    },
}

impl PublicKey {
    /// Size of the modulus or of the curve, in bits.
    pub fn bits(&self) -> usize {
        match self {
            PublicKey::Rsa { modulus, .. } => {
                let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
                modulus.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0))
            }
            PublicKey::EcP256 { .. } => 256,
            PublicKey::EcP384 { .. } => 384,
        }
    }

    /// The DER SubjectPublicKeyInfo (RFC 3279, RFC 5480).
    pub fn spki_der(&self) -> Vec<u8> {
        let (algorithm, parameters) = match self {
            PublicKey::Rsa { .. } => (OID_RSA_ENCRYPTION, der::NULL.to_vec()),
            PublicKey::EcP256 { .. } => (OID_EC_PUBLIC_KEY, der::object_identifier(OID_P256)),
            PublicKey::EcP384 { .. } => (OID_EC_PUBLIC_KEY, der::object_identifier(OID_P384)),
        };
        let algorithm = der::sequence(&[&der::object_identifier(algorithm), &parameters]);
        der::sequence(&[&algorithm, &der::bit_string(&self.subject_public_key())])
    }

    /// What an SPKI's bit string holds: an RSAPublicKey, or an uncompressed point.
    pub(crate) fn subject_public_key(&self) -> Vec<u8> {
        match self {
            PublicKey::Rsa { modulus, exponent } => {
                der::sequence(&[&der::unsigned(modulus), &der::unsigned(&exponent.to_be_bytes())])
            }
            PublicKey::EcP256 { x, y } => [&[POINT_UNCOMPRESSED], x.as_slice(), y].concat(),
            PublicKey::EcP384 { x, y } => [&[POINT_UNCOMPRESSED], x.as_slice(), y].concat(),
        }
    }

    /// Checks a signature over `message`. ECDSA signatures are DER.
    pub(crate) fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        use HashAlgorithm::{Sha1, Sha256, Sha384, Sha512};
        use SignatureScheme::{EcDsa, RsaPss, RsaSsa};
        if algorithm.hash == Sha1 {
            return Err(SignatureError::WeakHash);
        }
        let lc: &[&'static dyn lc::VerificationAlgorithm] = match (self, algorithm.scheme, algorithm.hash) {
            (PublicKey::Rsa { .. }, RsaSsa, Sha256) => &[&lc::RSA_PKCS1_2048_8192_SHA256],
            (PublicKey::Rsa { .. }, RsaSsa, Sha384) => &[&lc::RSA_PKCS1_2048_8192_SHA384],
            (PublicKey::Rsa { .. }, RsaSsa, Sha512) => &[&lc::RSA_PKCS1_2048_8192_SHA512],
            // TPM 2.0 Part 1, B.7: older TPMs use the longest salt that fits, newer ones the hash's length.
            (PublicKey::Rsa { .. }, RsaPss, Sha256) => {
                &[&lc::RSA_PSS_2048_8192_SHA256, const { &max_salt(lc::RSA_PSS_2048_8192_SHA256) }]
            }
            (PublicKey::Rsa { .. }, RsaPss, Sha384) => {
                &[&lc::RSA_PSS_2048_8192_SHA384, const { &max_salt(lc::RSA_PSS_2048_8192_SHA384) }]
            }
            (PublicKey::Rsa { .. }, RsaPss, Sha512) => {
                &[&lc::RSA_PSS_2048_8192_SHA512, const { &max_salt(lc::RSA_PSS_2048_8192_SHA512) }]
            }
            (PublicKey::EcP256 { .. }, EcDsa, Sha256) => &[&lc::ECDSA_P256_SHA256_ASN1],
            (PublicKey::EcP256 { .. }, EcDsa, Sha384) => &[&lc::ECDSA_P256_SHA384_ASN1],
            (PublicKey::EcP256 { .. }, EcDsa, Sha512) => &[&lc::ECDSA_P256_SHA512_ASN1],
            (PublicKey::EcP384 { .. }, EcDsa, Sha256) => &[&lc::ECDSA_P384_SHA256_ASN1],
            (PublicKey::EcP384 { .. }, EcDsa, Sha384) => &[&lc::ECDSA_P384_SHA384_ASN1],
            (PublicKey::EcP384 { .. }, EcDsa, Sha512) => &[&lc::ECDSA_P384_SHA512_ASN1],
            _ => return Err(SignatureError::KeyKind { algorithm }),
        };
        let key = self.subject_public_key();
        let good = lc
            .iter()
            .any(|algorithm| lc::UnparsedPublicKey::new(*algorithm, &key).verify(message, signature).is_ok());
        good.then_some(()).ok_or(SignatureError::Wrong { algorithm })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublicKey::Rsa { .. } => write!(f, "RSA-{}", self.bits()),
            PublicKey::EcP256 { .. } => f.write_str("ECC P-256"),
            PublicKey::EcP384 { .. } => f.write_str("ECC P-384"),
        }
    }
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5.
    RsaSsa,
    /// RSASSA-PSS.
    RsaPss,
    /// ECDSA.
    EcDsa,
}

/// A signature scheme with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignatureAlgorithm {
    /// The scheme.
    pub scheme: SignatureScheme,
    /// The hash over the message.
    pub hash: HashAlgorithm,
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            SignatureScheme::RsaSsa => "rsassa",
            SignatureScheme::RsaPss => "rsapss",
            SignatureScheme::EcDsa => "ecdsa",
        };
        write!(f, "{scheme}-{}", self.hash)
    }
}

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// It hashes with SHA-1, for which collisions are bought.
    #[error("a signature over a SHA-1 hash proves nothing")]
    WeakHash,
    /// The key cannot make such a signature.
    #[error("a key of this kind makes no {algorithm} signature")]
    KeyKind {
        /// What the signature says it is.
        algorithm: SignatureAlgorithm,
    },
    /// The key is bound to another scheme than the signature's.
    #[error("the key signs with {key} only, this is {found}")]
    KeyScheme {
        /// The scheme in the key's public area.
        key: SignatureAlgorithm,
        /// The signature's.
        found: SignatureAlgorithm,
    },
    /// It is not this key's signature over these bytes.
    #[error("a {algorithm} signature that is not this key's over these bytes")]
    Wrong {
        /// What the signature says it is.
        algorithm: SignatureAlgorithm,
    },
}

const fn max_salt(parameters: lc::RsaParameters) -> lc::RsaParameters {
    parameters.with_pss_salt_length(lc::RsaPssSaltLength::Max)
}

const POINT_UNCOMPRESSED: u8 = 0x04;
/// 1.2.840.113549.1.1.1
const OID_RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const OID_EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.132.0.34
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
