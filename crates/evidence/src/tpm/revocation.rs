//! Certificate revocation lists: what the authorities above a TPM's keys have taken back (RFC 5280, section 5).
//!
//! Complete lists only: a delta or partial list, or one that speaks for other issuers, says so in a critical
//! extension, and a list with any critical extension is refused. A list counts once the authority of that name in
//! the very path has signed it; `path.rs` asks.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use thiserror::Error;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};
use x509_parser::x509::{ReasonCode, X509Version};

use super::certificate::{Certificate, frame, signature_algorithm, unix_time};
use super::public_key::{PublicKey, SignatureAlgorithm};
use crate::der::strip_zeros;
use crate::time::UnixTime;

/// A parsed revocation list; nothing of it is verified.
#[derive(Debug)]
pub struct RevocationList {
    /// The DER of the name, which is compared byte by byte.
    issuer: Vec<u8>,
    issuer_text: String,
    authority_key_id: Option<Vec<u8>>,
    this_update: UnixTime,
    next_update: UnixTime,
    revoked: HashMap<Vec<u8>, Revocation>,
    /// What the signature is over, as received.
    tbs: Vec<u8>,
    signature_algorithm: SignatureAlgorithm,
    signature: Vec<u8>,
    /// The key that was found to have signed it; no more than a memory of that answer.
    signed_by: OnceLock<PublicKey>,
}

/// That a certificate was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Revocation {
    pub(super) since: UnixTime,
    /// As RFC 5280, 5.3.1, calls it.
    pub(super) reason: &'static str,
}

impl RevocationList {
    /// Reads one list in DER, or any number of them in PEM.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Vec<RevocationList>, RevocationListError> {
        if bytes.len() > LIST_BYTES_MAX {
            return Err(RevocationListError::TooLong(bytes.len()));
        }
        // DER starts with the tag of a SEQUENCE; PEM is text.
        if bytes.first() == Some(&0x30) {
            return Ok(vec![RevocationList::parse(bytes)?]);
        }
        let mut lists = Vec::new();
        for pem in x509_parser::pem::Pem::iter_from_buffer(bytes) {
            let pem = pem.map_err(|_| RevocationListError::Pem)?;
            if pem.label != "X509 CRL" {
                return Err(RevocationListError::Pem);
            }
            lists.push(RevocationList::parse(&pem.contents)?);
        }
        if lists.is_empty() { Err(RevocationListError::Pem) } else { Ok(lists) }
    }

    fn parse(der: &[u8]) -> Result<RevocationList, RevocationListError> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(RevocationListError::Der);
        };
        let content = &list.tbs_cert_list;
        if content.version != Some(X509Version::V2) {
            return Err(RevocationListError::Version);
        }
        if content.signature != list.signature_algorithm {
            return Err(RevocationListError::Algorithms);
        }
        let signature = &list.signature_value.data;
        if frame(content.as_ref(), &list.signature_algorithm, signature).as_deref() != Some(der) {
            return Err(RevocationListError::Der);
        }
        let next_update = content.next_update.ok_or(RevocationListError::NextUpdate)?;
        Ok(RevocationList {
            issuer: content.issuer.as_raw().to_vec(),
            issuer_text: content.issuer.to_string(),
            authority_key_id: authority_key_id(&list)?,
            this_update: unix_time(content.this_update),
            next_update: unix_time(next_update),
            revoked: content.revoked_certificates.iter().map(entry).collect::<Result<_, _>>()?,
            tbs: content.as_ref().to_vec(),
            signature_algorithm: signature_algorithm(&list.signature_algorithm)
                .ok_or(RevocationListError::Algorithm)?,
            signature: signature.to_vec(),
            signed_by: OnceLock::new(),
        })
    }

    /// Whose list it says it is, for people.
    pub fn issuer(&self) -> &str {
        &self.issuer_text
    }

    /// When its authority issued it.
    pub fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// When its authority promised a newer one.
    pub fn next_update(&self) -> UnixTime {
        self.next_update
    }

    /// How many certificates it takes back.
    pub fn revoked_count(&self) -> usize {
        self.revoked.len()
    }

    /// The certificates that it takes back, by serial number, each with the reason as RFC 5280, 5.3.1, calls it.
    pub fn revoked(&self) -> impl Iterator<Item = (&[u8], UnixTime, &'static str)> {
        self.revoked
            .iter()
            .map(|(serial, revocation)| (serial.as_slice(), revocation.since, revocation.reason))
    }

    /// What it says of the certificate with this serial number.
    pub(super) fn revocation(&self, serial: &[u8]) -> Option<Revocation> {
        self.revoked.get(serial).copied()
    }

    /// Whether it claims to be of this authority. Of two keys under one name, the key identifier tells which.
    pub(super) fn names(&self, issuer: &Certificate) -> bool {
        let ids = (&self.authority_key_id, &issuer.extensions.subject_key_id);
        self.issuer == issuer.subject && !matches!(ids, (Some(list), Some(issuer)) if list != issuer)
    }

    /// Whether this authority signed it, and may (RFC 5280, 6.3.3, step f).
    pub(super) fn is_signed_by(&self, issuer: &Certificate) -> bool {
        let Some(key) = &issuer.key else { return false };
        if !issuer.extensions.key_usage.is_some_and(|usage| usage.crl_sign) {
            return false;
        }
        if let Some(signed_by) = self.signed_by.get() {
            return signed_by == key;
        }
        let holds = key.verify(self.signature_algorithm, &self.tbs, &self.signature).is_ok();
        if holds {
            // Losing a race here means that another thread got the same answer.
            let _ = self.signed_by.set(key.clone());
        }
        holds
    }
}

/// The one extension that is used, from a list whose others are not critical.
fn authority_key_id(list: &CertificateRevocationList<'_>) -> Result<Option<Vec<u8>>, RevocationListError> {
    let mut key_id = None;
    let mut seen = BTreeSet::new();
    for extension in list.extensions() {
        let oid = extension.oid.to_id_string();
        if extension.critical {
            // Most of all issuingDistributionPoint and deltaCRLIndicator: what is not listed may be revoked still.
            return Err(RevocationListError::Critical(oid));
        }
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::ParseError { .. } if oid == OID_AUTHORITY_KEY_ID => {
                return Err(RevocationListError::Der);
            }
            _ => {}
        }
        if !seen.insert(oid) {
            return Err(RevocationListError::Der);
        }
    }
    Ok(key_id)
}

fn entry(entry: &RevokedCertificate<'_>) -> Result<(Vec<u8>, Revocation), RevocationListError> {
    // certificateIssuer is critical: the entry is about another authority's certificate.
    if let Some(extension) = entry.extensions().iter().find(|extension| extension.critical) {
        return Err(RevocationListError::Critical(extension.oid.to_id_string()));
    }
    let reason = match entry.reason_code().map_or(ReasonCode::Unspecified, |(_, reason)| reason) {
        ReasonCode::KeyCompromise => "keyCompromise",
        ReasonCode::CACompromise => "cACompromise",
        ReasonCode::AffiliationChanged => "affiliationChanged",
        ReasonCode::Superseded => "superseded",
        ReasonCode::CessationOfOperation => "cessationOfOperation",
        ReasonCode::CertificateHold => "certificateHold",
        ReasonCode::PrivilegeWithdrawn => "privilegeWithdrawn",
        ReasonCode::AACompromise => "aACompromise",
        // Of delta lists only: the entry would say the opposite of what it does in a complete one.
        ReasonCode::RemoveFromCRL => return Err(RevocationListError::Delta),
        _ => "unspecified",
    };
    let revocation = Revocation { since: unix_time(entry.revocation_date), reason };
    Ok((strip_zeros(entry.raw_serial()).to_vec(), revocation))
}

/// Bytes that are not a revocation list we accept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RevocationListError {
    /// Longer than any list expected.
    #[error("{0} bytes, at most {LIST_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not a CRL in DER.
    #[error("not a certificate revocation list in DER")]
    Der,
    /// PEM armour around something else.
    #[error("not a certificate revocation list in PEM (X509 CRL)")]
    Pem,
    /// Version 1.
    #[error("not an X.509 version 2 revocation list")]
    Version,
    /// Two different statements of the signature algorithm.
    #[error("signed and unsigned signature algorithm differ")]
    Algorithms,
    /// A signature algorithm that is not used for certificates of TPMs.
    #[error("unsupported signature algorithm")]
    Algorithm,
    /// It never grows old, so that nobody could tell that newer ones are withheld.
    #[error("no nextUpdate: it does not say when a newer list is due")]
    NextUpdate,
    /// A delta, partial or indirect list, or something unheard of.
    #[error(
        "critical extension {0} is not supported: give the authority's complete list of its own certificates"
    )]
    Critical(String),
    /// An entry that belongs in a delta list.
    #[error("a delta list is not supported: give the authority's complete list")]
    Delta,
}

/// An entry is about 40 bytes: room for 200,000 revoked certificates.
pub const LIST_BYTES_MAX: usize = 8 << 20;
const OID_AUTHORITY_KEY_ID: &str = "2.5.29.35";
