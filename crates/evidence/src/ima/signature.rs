//! File signatures: the `security.ima` attribute as the list carries it, and the keys that verify it.
//! The same keys verify signed policies.
//!
//! A good signature says that the key's holder signed a file of this digest; what that is worth, and
//! until when, is the policy's word. A certificate is only a container of the key here.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::digest as lc;
use aws_lc_rs::signature::{self, ParsedPublicKey};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Entry;
use crate::read::{Reader, Truncated};
use crate::{Digest, HashAlgorithm};

/// What a signature is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureForm {
    /// Version 2: the digest of the file's content itself.
    FileDigest,
    /// Version 3 over the content: the hash of a `struct ima_file_id` that says so.
    FileId,
    /// Version 3 over fs-verity's digest: the same structure with another type.
    VerityId,
}

/// A signature: `struct signature_v2_hdr` of the kernel's integrity.h, big endian, in version 2 or 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSignature<'a> {
    /// What it is over.
    pub form: SignatureForm,
    /// The hash that was signed; also the algorithm of the file digest.
    pub hash: HashAlgorithm,
    /// The last four bytes of the key's identifier: a hint, no proof.
    pub key_id: [u8; 4],
    /// PKCS#1 v1.5, a DER ECDSA signature or an Ed25519 one.
    pub signature: &'a [u8],
}

impl<'a> FileSignature<'a> {
    /// Reads the attribute; `None` where it is absent, of another kind or version, or over a hash
    /// that we do not trust for signatures.
    pub fn parse(attribute: &'a [u8]) -> Option<Self> {
        Self::read(attribute).ok()
    }

    /// Reads the attribute, or says why it is no signature that counts.
    pub fn read(attribute: &'a [u8]) -> Result<Self, SignatureFault> {
        if attribute.is_empty() {
            return Err(SignatureFault::Absent);
        }
        let mut reader = Reader::new(attribute);
        let (kind, version) = (reader.u8()?, reader.u8()?);
        let form = match (kind, version) {
            (EVM_IMA_XATTR_DIGSIG, SIGNATURE_VERSION_2) => SignatureForm::FileDigest,
            (EVM_IMA_XATTR_DIGSIG, SIGNATURE_VERSION_3) => SignatureForm::FileId,
            (IMA_VERITY_DIGSIG, SIGNATURE_VERSION_3) => SignatureForm::VerityId,
            _ => return Err(SignatureFault::Form { kind, version }),
        };
        let hash_id = reader.u8()?;
        // SHA-1 signatures prove nothing any more.
        let hash = HASH_IDS.into_iter().find(|(id, _)| *id == hash_id);
        let (_, hash) = hash.ok_or(SignatureFault::Hash(hash_id))?;
        let key_id = reader.array()?;
        let signature = reader.tpm2b()?;
        if !reader.is_empty() {
            return Err(SignatureFault::Malformed);
        }
        Ok(FileSignature { form, hash, key_id, signature })
    }

    /// The digest that was signed, of a file with this content (or fs-verity) digest.
    fn signed(&self, digest: &Digest) -> Digest {
        let kind = match self.form {
            SignatureForm::FileDigest => return *digest,
            SignatureForm::FileId => EVM_IMA_XATTR_DIGSIG,
            SignatureForm::VerityId => IMA_VERITY_DIGSIG,
        };
        // struct ima_file_id: type, hash algorithm, digest without padding. The type keeps a signature of a
        // Merkle tree's root from counting for a file whose content has that digest, and the other way round.
        let hash_id = HASH_IDS.into_iter().find(|(_, hash)| *hash == self.hash).map_or(0, |(id, _)| id);
        self.hash.hash(&[&[kind, hash_id], digest.as_bytes()])
    }
}

/// Why an entry's signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureFault {
    /// The entry carries none.
    #[error("it has no signature")]
    Absent,
    /// The attribute ends early or has more than a signature.
    #[error("its signature attribute is malformed")]
    Malformed,
    /// An attribute that is no signature, or one of a version that we do not know.
    #[error("its signature attribute is of kind {kind} and version {version}, which is no known signature")]
    Form {
        /// `enum evm_ima_xattr_type`.
        kind: u8,
        /// Version of the header.
        version: u8,
    },
    /// Over a hash that is too weak or unknown; the number is the kernel's.
    #[error("its signature is over hash algorithm {0} of the kernel's list, which is too weak or unknown")]
    Hash(u8),
    /// The list has no digest of the kind and algorithm that was signed.
    #[error("its signature is over {}, which is not what was measured", over(*form, *hash))]
    OtherDigest {
        /// What was signed.
        form: SignatureForm,
        /// By which algorithm.
        hash: HashAlgorithm,
    },
    /// No key has the identifier that it names.
    #[error("its signature is by key {:08x}, which is not among the accepted keys", u32::from_be_bytes(*.0))]
    UnknownKey([u8; 4]),
    /// The key that it names did not make it.
    #[error("its signature names key {:08x} and does not verify with it", u32::from_be_bytes(*.0))]
    Wrong([u8; 4]),
}

impl From<Truncated> for SignatureFault {
    fn from(_: Truncated) -> Self {
        SignatureFault::Malformed
    }
}

fn over(form: SignatureForm, hash: HashAlgorithm) -> String {
    let what = match form {
        SignatureForm::FileDigest | SignatureForm::FileId => "the content",
        SignatureForm::VerityId => "the fs-verity digest",
    };
    format!("{what} by {hash}")
}

impl<'a> Entry<'a> {
    /// The signature and the digest that it has to be over.
    fn signed_digest(&self) -> Result<(FileSignature<'a>, Digest), SignatureFault> {
        let signature = FileSignature::read(self.signature)?;
        let FileSignature { form, hash, .. } = signature;
        let digest = match form {
            SignatureForm::FileDigest | SignatureForm::FileId => self.file_digest(),
            SignatureForm::VerityId => self.verity_digest(),
        };
        let digest = digest.filter(|digest| digest.algorithm() == hash);
        Ok((signature, digest.ok_or(SignatureFault::OtherDigest { form, hash })?))
    }
}

/// Keys that may sign files, found by the identifier that a signature names.
#[derive(Clone, Debug, Default)]
pub struct SigningKeys {
    keys: Vec<SigningKey>,
    by_id: HashMap<[u8; 4], Vec<usize>>,
}

impl SigningKeys {
    /// Adds a key.
    pub fn add(&mut self, key: SigningKey) {
        for id in &key.key_ids {
            let of_id = self.by_id.entry(*id).or_default();
            if !of_id.contains(&self.keys.len()) {
                of_id.push(self.keys.len());
            }
        }
        self.keys.push(key);
    }

    /// The key that signed the entry's file, or why none counts.
    pub fn signer(&self, entry: &Entry<'_>) -> Result<&SigningKey, SignatureFault> {
        self.signer_by(entry, SigningKey::verify_digest)
    }

    /// The same by another way to [`SigningKey::verify_digest`], such as one that remembers what it has verified.
    pub fn signer_by(
        &self,
        entry: &Entry<'_>,
        verifies: impl Fn(&SigningKey, &FileSignature<'_>, &Digest) -> bool,
    ) -> Result<&SigningKey, SignatureFault> {
        let (signature, digest) = entry.signed_digest()?;
        let of_id = self.by_id.get(&signature.key_id).ok_or(SignatureFault::UnknownKey(signature.key_id))?;
        let mut keys = of_id.iter().filter_map(|index| self.keys.get(*index));
        keys.find(|key| verifies(key, &signature, &digest)).ok_or(SignatureFault::Wrong(signature.key_id))
    }
}

impl FromIterator<SigningKey> for SigningKeys {
    fn from_iter<I: IntoIterator<Item = SigningKey>>(iter: I) -> Self {
        let mut keys = SigningKeys::default();
        iter.into_iter().for_each(|key| keys.add(key));
        keys
    }
}

/// A public key that may sign files: RSA of 2048 bits or more, ECDSA over P-256 or P-384, or Ed25519.
#[derive(Clone)]
pub struct SigningKey {
    uses: Uses,
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
        match Self::from_certificate(der) {
            Err(SigningKeyError::Malformed) => {}
            read => return read,
        }
        match SubjectPublicKeyInfo::from_der(der) {
            Ok(([], spki)) => Self::from_spki(&spki),
            _ => Err(SigningKeyError::Malformed),
        }
    }

    /// Reads one certificate in DER.
    pub(super) fn from_certificate(der: &[u8]) -> Result<Self, SigningKeyError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| SigningKeyError::Malformed)?;
        let mut key = Self::from_spki(certificate.public_key())?;
        let subject_key_id =
            certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => last_four(id.0),
                _ => None,
            });
        key.key_ids.extend(subject_key_id);
        Ok(key)
    }

    fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, SigningKeyError> {
        let uses = match spki.parsed().map_err(|_| SigningKeyError::Malformed)? {
            PublicKey::RSA(_) => Uses::of_digests(RSA, HashAlgorithm::Sha256, spki)?,
            PublicKey::EC(point) if point.data().len() == P256_POINT_BYTES => {
                Uses::of_digests(P256, HashAlgorithm::Sha256, spki)?
            }
            PublicKey::EC(point) if point.data().len() == P384_POINT_BYTES => {
                Uses::of_digests(P384, HashAlgorithm::Sha384, spki)?
            }
            _ if spki.algorithm.algorithm == OID_SIG_ED25519 => {
                let key = ParsedPublicKey::new(&signature::ED25519, spki.raw);
                Uses::OfMessage(key.map_err(|_| SigningKeyError::Unsupported)?)
            }
            _ => return Err(SigningKeyError::Unsupported),
        };
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
        entry.signed_digest().is_ok_and(|(signature, digest)| self.verify_digest(&signature, &digest))
    }

    /// Whether `signature` is this key's over a file with this digest, of the kind that its form is over.
    pub fn verify_digest(&self, signature: &FileSignature<'_>, digest: &Digest) -> bool {
        // Signatures that name another key are not tried: a list of them would cost the verifier time.
        if signature.hash != digest.algorithm() || !self.key_ids.contains(&signature.key_id) {
            return false;
        }
        self.uses.verify(&signature.signed(digest), signature.signature)
    }

    /// Whether `signature` is this key's over a message, by the hash that belongs to the key: SHA-384 for P-384, SHA-256
    /// for P-256 and RSA (PKCS#1 v1.5), none for Ed25519. ECDSA signatures are DER.
    pub fn verify_message(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = match &self.uses {
            Uses::OfMessage(key) => Some(key),
            Uses::OfDigests { keys, of_messages } => {
                keys.iter().find(|(hash, _)| hash == of_messages).map(|(_, key)| key)
            }
        };
        key.is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

/// The key as aws-lc knows it.
#[derive(Clone)]
enum Uses {
    /// Once for each hash it may be used with, and the one that belongs to it where nobody names another.
    OfDigests { keys: Vec<(HashAlgorithm, ParsedPublicKey)>, of_messages: HashAlgorithm },
    /// Ed25519 hashes for itself. The header leaves the scheme to the key, so the message is what other keys
    /// sign as a digest. Kernels carry such signatures in the list, but cannot enforce them.
    OfMessage(ParsedPublicKey),
}

impl Uses {
    fn of_digests(
        algorithms: Algorithms,
        of_messages: HashAlgorithm,
        spki: &SubjectPublicKeyInfo<'_>,
    ) -> Result<Self, SigningKeyError> {
        let parse = |(hash, algorithm): &(HashAlgorithm, &'static dyn signature::VerificationAlgorithm)| {
            let key = ParsedPublicKey::new(*algorithm, spki.raw).map_err(|_| SigningKeyError::Unsupported)?;
            Ok((*hash, key))
        };
        let keys = algorithms.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Uses::OfDigests { keys, of_messages })
    }

    fn verify(&self, digest: &Digest, signature: &[u8]) -> bool {
        let keys = match self {
            Uses::OfDigests { keys, .. } => keys,
            Uses::OfMessage(key) => return key.verify_sig(digest.as_bytes(), signature).is_ok(),
        };
        let algorithm = match digest.algorithm() {
            HashAlgorithm::Sha1 => return false,
            HashAlgorithm::Sha256 => &lc::SHA256,
            HashAlgorithm::Sha384 => &lc::SHA384,
            HashAlgorithm::Sha512 => &lc::SHA512,
        };
        let key = keys.iter().find(|(hash, _)| *hash == digest.algorithm()).map(|(_, key)| key);
        match (key, lc::Digest::import_less_safe(digest.as_bytes(), algorithm)) {
            (Some(key), Ok(digest)) => key.verify_digest_sig(&digest, signature).is_ok(),
            _ => false,
        }
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
    #[error("it is neither RSA of 2048 bits or more nor a P-256, P-384 or Ed25519 key")]
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
/// The same: a signature over an fs-verity digest.
const IMA_VERITY_DIGSIG: u8 = 6;
const SIGNATURE_VERSION_2: u8 = 2;
const SIGNATURE_VERSION_3: u8 = 3;
/// The kernel's enum hash_algo, as far as we trust it.
const HASH_IDS: [(u8, HashAlgorithm); 3] =
    [(4, HashAlgorithm::Sha256), (5, HashAlgorithm::Sha384), (6, HashAlgorithm::Sha512)];
/// Bytes of a certificate or key in a policy; common ones have one or two thousand.
const KEY_BYTES_MAX: usize = 64 << 10;
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;
