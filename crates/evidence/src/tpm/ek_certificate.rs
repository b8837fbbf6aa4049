//! The EK certificate: its maker's word that an EK lives in a real TPM.
//!
//! A path checker of our own, strict and bounded: by name, key identifier and signature to one of the given
//! anchors, with no fetching and no revocation. Every check is made and reported on its own.

use super::certificate::Certificate;
pub use super::certificate::CertificateError;
use super::public_area::PublicArea;
use super::public_key::PublicKey;
use crate::check::{Check, Failure};
use crate::digest::Digest;
use crate::time::UnixTime;

/// A CA certificate that an operator trusts to vouch for TPMs; a root or an intermediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor(Certificate);

impl TrustAnchor {
    /// Reads one certificate in DER, or any number of them in PEM.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Vec<TrustAnchor>, CertificateError> {
        // DER starts with the tag of a SEQUENCE; PEM is text.
        if bytes.first() == Some(&0x30) {
            return Ok(vec![TrustAnchor(Certificate::parse(bytes)?)]);
        }
        let mut anchors = Vec::new();
        for pem in x509_parser::pem::Pem::iter_from_buffer(bytes) {
            let pem = pem.map_err(|_| CertificateError::Pem)?;
            if pem.label != "CERTIFICATE" {
                return Err(CertificateError::Pem);
            }
            anchors.push(TrustAnchor(Certificate::parse(&pem.contents)?));
        }
        if anchors.is_empty() { Err(CertificateError::Pem) } else { Ok(anchors) }
    }

    /// Its subject, for people.
    pub fn subject(&self) -> &str {
        &self.0.subject_text
    }

    /// SHA-256 over the certificate.
    pub fn certificate_sha256(&self) -> Digest {
        self.0.sha256
    }
}

/// A verified EK certificate. Made by [`verify_ek_certificate`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    certificate: Certificate,
    key: PublicKey,
    spki: Vec<u8>,
    anchor: String,
    valid_until: UnixTime,
}

impl Endorsement {
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
    anchors: &[TrustAnchor],
    at: UnixTime,
) -> Result<Endorsement, Vec<Failure>> {
    let certificate = Certificate::parse(leaf).map_err(|error| {
        vec![Failure::new(Check::EkChain, "EK certificate", "an X.509 certificate", error.to_string())]
    })?;
    let mut failures = check_leaf(&certificate);
    // One that does not parse cannot be part of a path; the path will be missed if it was needed.
    let intermediates: Vec<Certificate> =
        intermediates.iter().take(INTERMEDIATES_MAX).filter_map(|der| Certificate::parse(der).ok()).collect();
    let mut search = Search::new(&intermediates, anchors, at);
    let issuers = search.path(&certificate);
    if issuers.is_none() {
        failures.push(search.failure(&certificate));
    }
    let issuers = issuers.unwrap_or_default();
    let path = || std::iter::once(&certificate).chain(issuers.iter().copied());
    failures.extend(path().filter_map(|certificate| check_validity(certificate, at)));

    let valid_until = path().map(|certificate| certificate.not_after).min().unwrap_or(at);
    let anchor = issuers.last().map(|anchor| anchor.title()).unwrap_or_default();
    match (certificate.key.clone(), failures.is_empty()) {
        (Some(key), true) => Ok(Endorsement { spki: key.spki_der(), key, anchor, valid_until, certificate }),
        _ => Err(failures),
    }
}

/// TCG EK Credential Profile 2.5, 3.2: what makes a certificate an EK certificate.
fn check_leaf(leaf: &Certificate) -> Vec<Failure> {
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

fn check_validity(certificate: &Certificate, at: UnixTime) -> Option<Failure> {
    let Certificate { not_before, not_after, .. } = certificate;
    let valid = *not_before <= at && at <= *not_after;
    (!valid).then(|| {
        let expected = format!("valid at {at}");
        let found = format!("valid from {not_before} to {not_after}");
        Failure::new(Check::EkValidity, certificate.title(), expected, found)
    })
}

/// A depth-first search for a path, on a budget: an attacker chooses the intermediates.
struct Search<'a> {
    intermediates: &'a [Certificate],
    anchors: &'a [TrustAnchor],
    at: UnixTime,
    signatures_left: u32,
    /// A path that holds but for the dates: what to report if no better one is found.
    outdated: Option<Vec<&'a Certificate>>,
    /// Why the last candidate was not an issuer.
    obstacle: Option<String>,
}

impl<'a> Search<'a> {
    fn new(intermediates: &'a [Certificate], anchors: &'a [TrustAnchor], at: UnixTime) -> Self {
        let signatures_left = SIGNATURES_MAX;
        Search { intermediates, anchors, at, signatures_left, outdated: None, obstacle: None }
    }

    /// The issuers of `leaf` up to an anchor; one with good dates if there is one.
    fn path(&mut self, leaf: &Certificate) -> Option<Vec<&'a Certificate>> {
        let mut issuers = Vec::new();
        if self.extend(leaf, &mut issuers) { Some(issuers) } else { self.outdated.take() }
    }

    fn extend(&mut self, child: &Certificate, issuers: &mut Vec<&'a Certificate>) -> bool {
        if issuers.len() >= DEPTH_MAX {
            self.obstacle = Some(format!("a path longer than {DEPTH_MAX} issuers"));
            return false;
        }
        for TrustAnchor(anchor) in self.anchors {
            if self.is_issuer(anchor, child, issuers.len()) {
                issuers.push(anchor);
                let at = self.at;
                if issuers.iter().all(|issuer| check_validity(issuer, at).is_none()) {
                    return true;
                }
                self.outdated.get_or_insert_with(|| issuers.clone());
                issuers.pop();
            }
        }
        for intermediate in self.intermediates {
            let repeated = issuers.iter().any(|issuer| issuer.sha256 == intermediate.sha256);
            if !repeated && self.is_issuer(intermediate, child, issuers.len()) {
                issuers.push(intermediate);
                if self.extend(intermediate, issuers) {
                    return true;
                }
                issuers.pop();
            }
        }
        false
    }

    /// RFC 5280, 6.1: name, key identifier, CA constraints, and only then the signature.
    fn is_issuer(&mut self, issuer: &Certificate, child: &Certificate, intermediates_below: usize) -> bool {
        if issuer.subject != child.issuer {
            return false;
        }
        let ids = (&issuer.extensions.subject_key_id, &child.extensions.authority_key_id);
        if matches!(ids, (Some(subject), Some(authority)) if subject != authority) {
            return false;
        }
        let obstacle = self.obstacle_to_issuing(issuer, child, intermediates_below);
        let good = obstacle.is_none();
        if let Some(obstacle) = obstacle {
            self.obstacle = Some(format!("{}: {obstacle}", issuer.title()));
        }
        good
    }

    fn obstacle_to_issuing(
        &mut self,
        issuer: &Certificate,
        child: &Certificate,
        intermediates_below: usize,
    ) -> Option<String> {
        let extensions = &issuer.extensions;
        if !extensions.is_ca {
            return Some("not a CA".to_owned());
        }
        if !extensions.key_usage.is_some_and(|usage| usage.cert_sign) {
            return Some("may not sign certificates".to_owned());
        }
        if let Some(oid) = extensions.not_understood.first() {
            return Some(format!("critical extension {oid} is not understood"));
        }
        let allowed = extensions.path_length.and_then(|length| usize::try_from(length).ok());
        if allowed.is_some_and(|allowed| intermediates_below > allowed) {
            return Some("its path length constraint is exceeded".to_owned());
        }
        let Some(key) = &issuer.key else {
            return Some("its key is of an unsupported kind".to_owned());
        };
        match self.signatures_left.checked_sub(1) {
            None => return Some("too many signatures to check".to_owned()),
            Some(left) => self.signatures_left = left,
        }
        child.verify_signed_by(key).err().map(|error| error.to_string())
    }

    fn failure(self, leaf: &Certificate) -> Failure {
        let found = self.obstacle.unwrap_or_else(|| format!("no certificate of {}", leaf.issuer_text));
        Failure::new(Check::EkChain, leaf.title(), "a path to a trust anchor", found)
    }
}

/// tcg-kp-EKCertificate.
const OID_EK_CERTIFICATE: &str = "2.23.133.8.1";
/// Makers use two or three levels of CAs.
const DEPTH_MAX: usize = 5;
/// More intermediates than a path may be long make no sense.
const INTERMEDIATES_MAX: usize = 8;
/// A good path needs one for each level; the rest is for CAs that renewed their keys under one name.
const SIGNATURES_MAX: u32 = 16;
