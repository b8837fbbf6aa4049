//! What an agent sends: measurements and a region, signed with a nonce.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use thiserror::Error;

use super::read::JsonError;
use super::value::Value;
use crate::dsse::BadSignature;

/// A body as it came; nothing of it is verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    body: Value,
}

/// A submission that this key signed. Only [`Submission::signed_by`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    submission: Submission,
    algorithm: HashAlgorithm,
}

impl Signed {
    /// What was signed.
    pub fn submission(&self) -> &Submission {
        &self.submission
    }

    /// By what it was hashed.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }
}

/// Why a body is no submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmissionError {
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Nothing in it.
    #[error("the body is empty")]
    Empty,
    /// A member is missing or of another type.
    #[error("{member} is missing or of another type")]
    Member {
        /// Which.
        member: &'static str,
    },
}

/// What is signed is a hash by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// Where a device says it is, in words. What is not said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// A country.
    pub region: String,
    /// A part of it.
    pub state: String,
    /// A city in that.
    pub city: String,
}

impl Submission {
    /// Reads a body and looks at its structure, as the original does: in this order, and no further.
    pub fn read(body: &[u8]) -> Result<Submission, SubmissionError> {
        let body = Value::read(body)?;
        if body.is_empty() {
            return Err(SubmissionError::Empty);
        }
        let submission = Submission { body };
        let is_object = |name| submission.member(name).is_some_and(|value| value.as_object().is_some());
        let is_text = |name| matches!(submission.member(name), Some(Value::Text(_)));
        let is_there = |name| submission.member(name).is_some();
        let members = [
            ("metrics", is_object("metrics")),
            ("geographic_region", is_object("geographic_region")),
            ("nonce", is_text("nonce")),
            ("signature", is_text("signature")),
            ("algorithm", is_there("algorithm")),
            ("timestamp", is_there("timestamp")),
        ];
        match members.into_iter().find(|(_, is_usable)| !is_usable) {
            Some((member, _)) => Err(SubmissionError::Member { member }),
            None => Ok(submission),
        }
    }

    /// One that nobody signed, to be shown to OpenTelemetry.
    pub fn unsigned(metrics: Value, geographic_region: Value) -> Submission {
        let members = [("metrics", metrics), ("geographic_region", geographic_region)];
        Submission {
            body: Value::Object(members.into_iter().map(|(name, value)| (name.into(), value)).collect()),
        }
    }

    fn member(&self, name: &str) -> Option<&Value> {
        self.body.as_object()?.get(&name.into())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.member(name)?.as_str()
    }

    /// What was measured.
    pub fn metrics(&self) -> &Value {
        self.member("metrics").unwrap_or(&Value::Null)
    }

    /// The nonce that it says it was signed with.
    pub fn nonce(&self) -> &str {
        self.text("nonce").unwrap_or_default()
    }

    /// The hash of the key that it says it was signed by (later versions say so).
    pub fn key_hash(&self) -> Option<&str> {
        self.text("tpm_public_key_hash")
    }

    /// The algorithm that it names, if there is one of that name.
    pub fn algorithm(&self) -> Option<HashAlgorithm> {
        HashAlgorithm::named(self.text("algorithm")?)
    }

    /// The signature; `None`: it is not hexadecimal.
    pub fn signature(&self) -> Option<Vec<u8>> {
        HEXLOWER_PERMISSIVE.decode(self.text("signature")?.as_bytes()).ok()
    }

    /// Whether the digest that it names, if it names one, is this.
    pub fn names_digest(&self, digest: &[u8]) -> bool {
        match self.member("digest") {
            None => true,
            Some(named) => {
                named.as_str().is_some_and(|named| named.eq_ignore_ascii_case(&HEXLOWER.encode(digest)))
            }
        }
    }

    /// Where the device says it is; a member that is no text counts as not said.
    pub fn region(&self) -> Region {
        let region = self.member("geographic_region").and_then(Value::as_object);
        let text = |name: &str| region.and_then(|region| region.get(&name.into())?.as_str());
        let text = |name: &str| text(name).unwrap_or_default().to_owned();
        Region { region: text("region"), state: text("state"), city: text("city") }
    }

    /// Verifies that the key, a SubjectPublicKeyInfo, signed it.
    ///
    /// The algorithm and the digest that a body names are not signed. They are held to what was signed, except where `labels_count`
    /// says not: then the hash is SHA-256 whatever the body calls it, as with the original.
    pub fn signed_by(self, spki: &[u8], labels_count: bool) -> Result<Signed, BadSignature> {
        let algorithm =
            if labels_count { self.algorithm().ok_or(BadSignature)? } else { HashAlgorithm::Sha256 };
        let (message, signature) = (self.signed_bytes(), self.signature().ok_or(BadSignature)?);
        verify_signature(spki, algorithm, &message, &signature)?;
        if labels_count && !self.names_digest(&algorithm.hash(&message)) {
            return Err(BadSignature);
        }
        Ok(Signed { submission: self, algorithm })
    }

    /// The exact bytes that are signed.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let region = self.member("geographic_region").unwrap_or(&Value::Null);
        signed_bytes(self.metrics(), region, self.nonce())
    }
}

/// What an agent signs: both members as Python writes them, and the nonce's digits right behind.
pub fn signed_bytes(metrics: &Value, geographic_region: &Value, nonce: &str) -> Vec<u8> {
    let (region, metrics) = (geographic_region.to_python(), metrics.to_python());
    format!("{{\"geographic_region\": {region}, \"metrics\": {metrics}}}{nonce}").into_bytes()
}

impl HashAlgorithm {
    /// All of them.
    pub const ALL: [HashAlgorithm; 3] = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];

    /// The name in bodies.
    pub fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Sha256 => "sha256",
            HashAlgorithm::Sha384 => "sha384",
            HashAlgorithm::Sha512 => "sha512",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<HashAlgorithm> {
        HashAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The hash of bytes.
    pub fn hash(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            HashAlgorithm::Sha256 => &digest::SHA256,
            HashAlgorithm::Sha384 => &digest::SHA384,
            HashAlgorithm::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }
}

/// Verifies a signature by a key that is given as SubjectPublicKeyInfo, DER: RSASSA-PKCS1-v1_5 by RSA of 2048 bits or more, or
/// ECDSA by P-256, in DER.
pub fn verify_signature(
    spki: &[u8],
    hash: HashAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let of_rsa: &'static dyn VerificationAlgorithm = match hash {
        HashAlgorithm::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        HashAlgorithm::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        HashAlgorithm::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
    };
    let of_p256: &'static dyn VerificationAlgorithm = match hash {
        HashAlgorithm::Sha256 => &ECDSA_P256_SHA256_ASN1,
        HashAlgorithm::Sha384 => &ECDSA_P256_SHA384_ASN1,
        HashAlgorithm::Sha512 => &ECDSA_P256_SHA512_ASN1,
    };
    // The kind is the key's own: an RSA key does not read as a point, nor the other way round.
    let verifies = |algorithm| UnparsedPublicKey::new(algorithm, spki).verify(message, signature).is_ok();
    if [of_rsa, of_p256].into_iter().any(verifies) { Ok(()) } else { Err(BadSignature) }
}

/// Whether this is a key that signatures are verified by here: RSA of 2048 bits or more, or P-256.
pub fn is_signing_key(spki: &[u8]) -> bool {
    let reads = |algorithm| ParsedPublicKey::new(algorithm, spki).is_ok();
    let is_rsa = reads(&RSA_PKCS1_2048_8192_SHA256 as &'static dyn VerificationAlgorithm);
    (is_rsa && spki.len() >= RSA_SPKI_BYTES_MIN) || (!is_rsa && reads(&ECDSA_P256_SHA256_ASN1))
}

/// The hash that names a key: SHA-256, hexadecimal, of its PEM's base64 in one line.
pub fn key_hash(spki: &[u8]) -> String {
    HEXLOWER.encode(&HashAlgorithm::Sha256.hash(BASE64.encode(spki).as_bytes()))
}

/// Of a modulus of 2048 bits, with what is around it.
const RSA_SPKI_BYTES_MIN: usize = 290;
