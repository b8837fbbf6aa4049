//! Endorsers: whom an operator trusts to vouch for TPMs and their keys, and what those have taken back.

use std::sync::Arc;

use super::certificate::{Certificate, CertificateError};
use super::revocation::{Revocation, RevocationList};
use crate::digest::Digest;
use crate::time::UnixTime;

/// A CA certificate that an operator trusts to vouch for TPMs; a root or an intermediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchor(pub(super) Certificate);

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

    /// An anchor that is not an operator's choice: a root key that is pinned in this crate.
    pub(crate) fn of(certificate: Certificate) -> TrustAnchor {
        TrustAnchor(certificate)
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

/// Trust anchors, and the revocation lists at hand. An authority without a list has taken nothing back as far as
/// anybody here knows. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Endorsers {
    pub(crate) anchors: Arc<[TrustAnchor]>,
    revocations: Arc<[RevocationList]>,
}

/// What is known of one certificate's revocation.
pub(super) enum Standing {
    Revoked(Revocation),
    /// Nobody named it, as far as this list goes.
    NotNamed(ListStanding),
}

/// What an authority above a key has taken back, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerList {
    /// The authority: its name as certificates write it, for people and policies.
    pub issuer: String,
    /// What is at hand of it.
    pub list: ListStanding,
}

/// What is at hand of an authority's revocation lists. Whether that is enough is for whoever reads it, at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListStanding {
    /// Nothing.
    Missing,
    /// A list in its name, and no other, that it did not sign: damaged, or put there by somebody else.
    NotSigned,
    /// Its newest list promised a newer one by then.
    Until(UnixTime),
}

impl Endorsers {
    /// Puts anchors and lists together.
    pub fn new(anchors: Vec<TrustAnchor>, revocations: Vec<RevocationList>) -> Endorsers {
        Endorsers { anchors: anchors.into(), revocations: revocations.into() }
    }

    /// Other anchors, with the same lists.
    #[must_use]
    pub fn with_anchors(&self, anchors: Vec<TrustAnchor>) -> Endorsers {
        Endorsers { anchors: anchors.into(), revocations: self.revocations.clone() }
    }

    /// Whether there is nobody who may vouch.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// What the lists that `issuer` signed say of `certificate`, which it issued.
    ///
    /// The newest list speaks. One from the future speaks too, and a revocation counts from whenever it is known: to
    /// believe a key before its compromise was dated would need a trusted time of signing.
    pub(super) fn standing(&self, certificate: &Certificate, issuer: &Certificate) -> Standing {
        let mut named = self.revocations.iter().filter(|list| list.names(issuer)).peekable();
        if named.peek().is_none() {
            return Standing::NotNamed(ListStanding::Missing);
        }
        let newest = named.filter(|list| list.is_signed_by(issuer)).max_by_key(|list| list.this_update());
        let Some(list) = newest else { return Standing::NotNamed(ListStanding::NotSigned) };
        match list.revocation(&certificate.serial) {
            Some(revocation) => Standing::Revoked(revocation),
            None => Standing::NotNamed(ListStanding::Until(list.next_update())),
        }
    }
}
