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
use crate::time::UnixTime;
use crate::tpm::ek_certificate::{CertificateError, IssuerList, ListStanding};

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
