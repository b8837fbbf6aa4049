//! The EK certificate: its maker's word that an EK lives in a real TPM.
//!
//! Here is what makes a certificate one for EKs; the path to an anchor is `path.rs`. Every check is made and
//! reported on its own.

use super::certificate::Certificate;
pub use super::certificate::CertificateError;
pub use super::endorsers::{Endorsers, IssuerList, ListStanding, TrustAnchor};
use super::path::{PathChecks, verify_path};
use super::public_area::PublicArea;
use super::public_key::PublicKey;
use crate::check::{Check, Failure, Mismatch};
use crate::digest::Digest;
use crate::time::UnixTime;

/// A verified EK certificate. Made by [`verify_ek_certificate`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EkCertificate {
    certificate: Certificate,
    key: PublicKey,
    spki: Vec<u8>,
    anchor: String,
    valid_until: UnixTime,
    lists: Vec<IssuerList>,
}

impl EkCertificate {
    /// The endorsed EK as DER SubjectPublicKeyInfo, in its one canonical form.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The TPM's manufacturer as the certificate states it, such as `id:00001014`.
    pub fn manufacturer(&self) -> Option<&str> {
        self.certificate.extensions.tpm.manufacturer.as_deref()
    }

    /// The TPM's model.
    pub fn model(&self) -> Option<&str> {
        self.certificate.extensions.tpm.model.as_deref()
    }

    /// The TPM's firmware version as the certificate states it.
    pub fn version(&self) -> Option<&str> {
        self.certificate.extensions.tpm.version.as_deref()
    }

    /// Who issued it, for people.
    pub fn issuer(&self) -> &str {
        &self.certificate.issuer_text
    }

    /// The trust anchor at which its path ends, for people.
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// SHA-256 over the certificate.
    pub fn certificate_sha256(&self) -> Digest {
        self.certificate.sha256
    }

    /// When the first certificate of its path expires.
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// What is known of the revocation of its path, by the authorities in it; a policy weighs it.
    pub fn revocation_lists(&self) -> &[IssuerList] {
        &self.lists
    }

    /// Checks that `ek` is the key it endorses.
    pub fn matches(&self, ek: &PublicArea) -> Option<Failure> {
        // By its numbers: the certificate may spell the same key in another way.
        (*ek.key() != self.key).then(|| {
            let fingerprint = |spki: &[u8]| crate::digest::HashAlgorithm::Sha256.hash(&[spki]).to_string();
            let expected = format!("the key {}", fingerprint(&self.spki));
            let found = format!("the key {}", fingerprint(&ek.spki_der()));
            Failure::new(Check::EkCertificateKey, "EK certificate", expected, found)
        })
    }
}

/// Verifies an EK certificate at a time; every check that does not hold is in the error.
pub fn verify_ek_certificate(
    leaf: &[u8],
    intermediates: &[&[u8]],
    endorsers: &Endorsers,
    at: UnixTime,
) -> Result<EkCertificate, Vec<Failure>> {
    let certificate = Certificate::parse(leaf).map_err(|error| vec![unreadable(&error)])?;
    let mut failures = check_leaf(&certificate);
    let path = verify_path(&certificate, intermediates, endorsers, at, CHECKS);
    match (path, certificate.key.clone()) {
        (Ok(path), Some(key)) if failures.is_empty() => Ok(EkCertificate {
            spki: key.spki_der(),
            key,
            anchor: path.anchor,
            valid_until: path.valid_until,
            lists: path.lists,
            certificate,
        }),
        (path, _) => {
            failures.extend(path.err().unwrap_or_default());
            Err(failures)
        }
    }
}

/// Anchors do not help a certificate that cannot be read.
fn unreadable(error: &CertificateError) -> Failure {
    let failure = Failure::new(Check::EkChain, "EK certificate", "an X.509 certificate", error.to_string());
    failure.explained(match error {
        CertificateError::CutShort { .. } => Mismatch::CopyCutShort,
        _ => Mismatch::Unreadable,
    })
}

/// TCG EK Credential Profile 2.5, 3.2: what makes a certificate an EK certificate.
pub(super) fn check_leaf(leaf: &Certificate) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut fail = |check, claim: &str, expected: &str, found: String| {
        failures.push(Failure::new(check, format!("EK certificate {claim}"), expected, found));
    };
    let extensions = &leaf.extensions;
    if !extensions.extended_key_usage.iter().any(|oid| oid == OID_EK_CERTIFICATE) {
        // Without it, any certificate of the same CA would pass for an EK's.
        let found = match extensions.extended_key_usage.join(", ") {
            none if none.is_empty() => "none".to_owned(),
            usages => usages,
        };
        fail(Check::EkEku, "extended key usage", OID_EK_CERTIFICATE, found);
    }
    if extensions.is_ca {
        fail(Check::EkChain, "basic constraints", "not a CA", "a CA".to_owned());
    }
    for oid in &extensions.not_understood {
        fail(Check::EkChain, "critical extensions", "understood ones only", oid.clone());
    }
    let usage = extensions.key_usage;
    match &leaf.key {
        None => fail(Check::EkChain, "key", "RSA, P-256 or P-384", "another kind".to_owned()),
        Some(PublicKey::Rsa { .. }) if usage.is_some_and(|usage| !usage.key_encipherment) => {
            fail(Check::EkEku, "key usage", "keyEncipherment", format!("{usage:?}"));
        }
        Some(PublicKey::EcP256 { .. } | PublicKey::EcP384 { .. })
            if usage.is_some_and(|usage| !usage.key_agreement) =>
        {
            fail(Check::EkEku, "key usage", "keyAgreement", format!("{usage:?}"));
        }
        Some(_) => {}
    }
    failures
}

const CHECKS: PathChecks = PathChecks {
    chain: Check::EkChain,
    signature: Check::EkSignature,
    validity: Check::EkValidity,
    revoked: Check::EkRevoked,
};
/// tcg-kp-EKCertificate.
const OID_EK_CERTIFICATE: &str = "2.23.133.8.1";
