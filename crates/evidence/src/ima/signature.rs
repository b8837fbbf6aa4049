//! File signatures: the `security.ima` attribute as the list carries it, and the keys that verify it.
//!
//! A good signature says that the key's holder signed a file of this digest; what that is worth, and
//! until when, is the policy's word. A certificate is only a container of the key here.

use std::fmt;

use aws_lc_rs::digest as lc;
use aws_lc_rs::signature::{self, ParsedPublicKey};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Entry;
use crate::read::Reader;
use crate::{Digest, HashAlgorithm};

/// A version 2 signature: `struct signature_v2_hdr` of the kernel's integrity.h, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSignature<'a> {
    /// The hash that was signed; also the algorithm of the file digest.
    pub hash: HashAlgorithm,
    /// The last four bytes of the key's identifier: a hint, no proof.
    pub key_id: [u8; 4],
    /// PKCS#1 v1.5 or a DER ECDSA signature.
    pub signature: &'a [u8],
}

impl<'a> FileSignature<'a> {
    /// Reads the attribute; `None` where it is absent, of another kind or version, or over a hash
    /// that we do not trust for signatures.
    pub fn parse(attribute: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(attribute);
        let (kind, version) = (reader.u8().ok()?, reader.u8().ok()?);
        if (kind, version) != (EVM_IMA_XATTR_DIGSIG, SIGNATURE_VERSION_2) {
            return None;
        }
        // The kernel's enum hash_algo; SHA-1 (2) signatures prove nothing any more.
        let hash = match reader.u8().ok()? {
            4 => HashAlgorithm::Sha256,
            5 => HashAlgorithm::Sha384,
            6 => HashAlgorithm::Sha512,
            _ => return None,
        };
        let key_id = reader.array().ok()?;
        let signature = reader.tpm2b().ok()?;
        reader.is_empty().then_some(FileSignature { hash, key_id, signature })
    }
}

/// A public key that may sign files: RSA of 2048 bits or more, or ECDSA over P-256 or P-384.
#[derive(Clone)]
pub struct SigningKey {
    /// The key as aws-lc knows it, once for each hash it may be used with.
    uses: Vec<(HashAlgorithm, ParsedPublicKey)>,
    key_ids: Vec<[u8; 4]>,
    spki_sha256: Digest,
}

impl SigningKey {
    /// Reads one certificate or public key (SubjectPublicKeyInfo), PEM or DER.
    pub fn from_certificate_or_spki(bytes: &[u8]) -> Result<Self, SigningKeyError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(SigningKeyError::TooLong);
        }
        if bytes.starts_with(b"-----") {
            let pem = Pem::iter_from_buffer(bytes).next();
            let pem = pem.and_then(Result::ok).ok_or(SigningKeyError::Malformed)?;
            return Self::from_der(&pem.contents);
        }
        Self::from_der(bytes)
    }

    fn from_der(der: &[u8]) -> Result<Self, SigningKeyError> {
        if let Ok((_, certificate)) = X509Certificate::from_der(der) {
            let mut key = Self::from_spki(certificate.public_key())?;
            let subject_key_id =
                certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                    x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => last_four(id.0),
                    _ => None,
                });
            key.key_ids.extend(subject_key_id);
            return Ok(key);
        }
        match SubjectPublicKeyInfo::from_der(der) {
            Ok(([], spki)) => Self::from_spki(&spki),
            _ => Err(SigningKeyError::Malformed),
        }
    }

    fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, SigningKeyError> {
        let algorithms = match spki.parsed().map_err(|_| SigningKeyError::Malformed)? {
            PublicKey::RSA(_) => RSA,
            PublicKey::EC(point) if point.data().len() == P256_POINT_BYTES => P256,
            PublicKey::EC(point) if point.data().len() == P384_POINT_BYTES => P384,
            _ => return Err(SigningKeyError::Unsupported),
        };
        let mut uses = Vec::with_capacity(algorithms.len());
        for (hash, algorithm) in algorithms {
            let key = ParsedPublicKey::new(*algorithm, spki.raw).map_err(|_| SigningKeyError::Unsupported)?;
            uses.push((*hash, key));
        }
        // evmctl: the identifier is the SHA-1 of the key bits, unless the certificate states one.
        let sha1 = HashAlgorithm::Sha1.hash(&[&spki.subject_public_key.data]);
        Ok(SigningKey {
            uses,
            key_ids: last_four(sha1.as_bytes()).into_iter().collect(),
            spki_sha256: HashAlgorithm::Sha256.hash(&[spki.raw]),
        })
    }

    /// The SHA-256 of the key's SubjectPublicKeyInfo.
    pub fn spki_sha256(&self) -> Digest {
        self.spki_sha256
    }

    /// Whether `entry` carries a signature by this key over its file digest.
    pub fn verify(&self, entry: &Entry<'_>) -> bool {
        match (entry.signature(), entry.file_digest()) {
            (Some(signature), Some(digest)) => self.verify_digest(&signature, &digest),
            _ => false,
        }
    }

    /// Whether `signature` is this key's over `digest`.
    pub fn verify_digest(&self, signature: &FileSignature<'_>, digest: &Digest) -> bool {
        // Signatures that name another key are not tried: a list of them would cost the verifier time.
        if signature.hash != digest.algorithm() || !self.key_ids.contains(&signature.key_id) {
            return false;
        }
        let algorithm = match signature.hash {
            HashAlgorithm::Sha1 => return false,
            HashAlgorithm::Sha256 => &lc::SHA256,
            HashAlgorithm::Sha384 => &lc::SHA384,
            HashAlgorithm::Sha512 => &lc::SHA512,
        };
        let Ok(digest) = lc::Digest::import_less_safe(digest.as_bytes(), algorithm) else {
            return false;
        };
        let key = self.uses.iter().find(|(hash, _)| *hash == signature.hash).map(|(_, key)| key);
        key.is_some_and(|key| key.verify_digest_sig(&digest, signature.signature).is_ok())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.spki_sha256).finish()
    }
}

/// Why a signing key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SigningKeyError {
    /// Longer than [`KEY_BYTES_MAX`].
    #[error("it has more than {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// Neither a certificate nor a public key.
    #[error("it is neither a certificate nor a public key, in PEM or DER")]
    Malformed,
    /// Not a key that is strong enough, or of a kind that file signatures use.
    #[error("it is neither RSA of 2048 bits or more nor a P-256 or P-384 key")]
    Unsupported,
}

fn last_four(id: &[u8]) -> Option<[u8; 4]> {
    id.last_chunk().copied()
}

type Algorithms = &'static [(HashAlgorithm, &'static dyn signature::VerificationAlgorithm)];

const RSA: Algorithms = &[
    (HashAlgorithm::Sha256, &signature::RSA_PKCS1_2048_8192_SHA256),
    (HashAlgorithm::Sha384, &signature::RSA_PKCS1_2048_8192_SHA384),
    (HashAlgorithm::Sha512, &signature::RSA_PKCS1_2048_8192_SHA512),
];
const P256: Algorithms = &[
    (HashAlgorithm::Sha256, &signature::ECDSA_P256_SHA256_ASN1),
    (HashAlgorithm::Sha384, &signature::ECDSA_P256_SHA384_ASN1),
    (HashAlgorithm::Sha512, &signature::ECDSA_P256_SHA512_ASN1),
];
const P384: Algorithms = &[
    (HashAlgorithm::Sha256, &signature::ECDSA_P384_SHA256_ASN1),
    (HashAlgorithm::Sha384, &signature::ECDSA_P384_SHA384_ASN1),
    (HashAlgorithm::Sha512, &signature::ECDSA_P384_SHA512_ASN1),
];

/// `enum evm_ima_xattr_type`: EVM_IMA_XATTR_DIGSIG.
const EVM_IMA_XATTR_DIGSIG: u8 = 3;
const SIGNATURE_VERSION_2: u8 = 2;
/// Bytes of a certificate or key in a policy; common ones have one or two thousand.
const KEY_BYTES_MAX: usize = 64 << 10;
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;
