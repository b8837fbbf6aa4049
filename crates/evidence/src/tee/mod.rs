//! Evidence of trusted execution environments: what a confidential guest or an enclave shows of itself.
//!
//! A folder a kind, each with the same shape: `parse` reads bytes, `verify` makes every check of cryptography and
//! consistency, and what it leaves are claims. Time, roots and collateral are arguments. Whether a claim is a good one,
//! such as a debug flag that is not set, is for appraisal.

pub mod azure;
pub mod cca;
pub mod dcap;
pub mod nvidia;
pub mod snp;

use crate::check::{Check, Failure};
use crate::digest::HashAlgorithm;
use crate::time::UnixTime;
use crate::tpm::certificate::Certificate;
use crate::tpm::ek_certificate::{CertificateError, IssuerList, ListStanding, TrustAnchor};
use crate::tpm::public_key::PublicKey;

/// What verification of one piece of evidence found.
#[derive(Clone, Debug)]
pub struct Verified<C> {
    /// The claims, if no check failed.
    pub claims: Option<C>,
    /// Every check that did not hold.
    pub failures: Vec<Failure>,
    /// What proves nothing false and what a policy may want to refuse, such as a revocation list that is not at hand.
    pub notes: Vec<Failure>,
}

impl<C> Verified<C> {
    /// Nothing more can be said than this.
    fn refused(failures: Vec<Failure>) -> Self {
        Verified { claims: None, failures, notes: Vec::new() }
    }
}

/// The certificates of a file, in DER: one in DER, or any number of them in PEM.
pub fn certificates_of(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.to_vec()]);
    }
    let mut certificates = Vec::new();
    for pem in x509_parser::pem::Pem::iter_from_buffer(bytes) {
        let pem = pem.map_err(|_| CertificateError::Pem)?;
        if pem.label != "CERTIFICATE" {
            return Err(CertificateError::Pem);
        }
        certificates.push(pem.contents);
    }
    if certificates.is_empty() { Err(CertificateError::Pem) } else { Ok(certificates) }
}

/// The certificate of a maker's root key, which is known by its hash, whoever brought it.
///
/// Its name, dates and constraints come with it, and the hash is of the key alone: they are the maker's because the key
/// signed them.
fn pinned_root(der: &[u8], is_root: impl FnOnce(&str) -> bool) -> Option<TrustAnchor> {
    let certificate = Certificate::parse(der).ok()?;
    let key = certificate.key.as_ref()?;
    if !is_root(&spki_sha256(key)) {
        return None;
    }
    certificate.verify_signed_by(key).ok()?;
    Some(TrustAnchor::of(certificate))
}

/// SHA-256 over a key's SubjectPublicKeyInfo, in hex, as roots are pinned by.
fn spki_sha256(key: &PublicKey) -> String {
    HashAlgorithm::Sha256.hash(&[&key.spki_der()]).to_hex()
}

/// Critical extensions of a certificate that nothing here reads. Each may say that the certificate is not for this.
fn not_understood<'a>(certificate: &'a Certificate, whose: &'a str) -> impl Iterator<Item = Failure> + 'a {
    certificate.extensions.not_understood.iter().map(move |oid| {
        let claim = format!("{whose} critical extensions");
        Failure::new(Check::TeeEndorsement, claim, "understood ones only", oid.clone())
    })
}

/// What a missing, expired or forged revocation list leaves open.
fn list_note(list: &IssuerList, at: UnixTime) -> Option<Failure> {
    let found = match list.list {
        ListStanding::Missing => "none at hand".to_owned(),
        ListStanding::NotSigned => "one that it did not sign".to_owned(),
        ListStanding::Until(until) if until < at => format!("one that was in force until {until}"),
        ListStanding::Until(_) => return None,
    };
    let claim = format!("revocation list of {}", list.issuer);
    Some(Failure::new(Check::TeeRevoked, claim, "a list that is in force", found))
}
