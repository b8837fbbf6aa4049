//! Certificate revocation lists: signing them, and looking serials up in verified ones.

use std::collections::HashSet;
use std::sync::OnceLock;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams};
use rustls_pki_types::UnixTime;
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::{IssueError, Issuer, date, dates};
use crate::serial::Serial;
use crate::signature;
use crate::x509_svid::unix_time;

/// A certificate to be listed as revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedSerial {
    /// Which certificate.
    pub serial: Serial,
    /// Since when.
    pub at: UnixTime,
    /// Why.
    pub reason: RevocationReason,
}

/// Why a certificate was revoked; the reasons of RFC 5280 §5.3.1 that Assay gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationReason {
    /// The device's trust state fell.
    PrivilegeWithdrawn,
    /// The device or workload is gone.
    CessationOfOperation,
    /// A newer certificate took its place.
    Superseded,
    /// The private key may be known to others.
    KeyCompromise,
}

/// Signs the list of everything `issuer` has revoked.
pub fn sign(
    revoked: &[RevokedSerial],
    number: u64,
    this_update: UnixTime,
    next_update: UnixTime,
    issuer: &Issuer,
) -> Result<Vec<u8>, IssueError> {
    let (this_update, next_update) = dates(this_update, next_update)?;
    let list = CertificateRevocationListParams {
        this_update,
        next_update,
        crl_number: number.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(revoked_parameters).collect::<Result<_, _>>()?,
        key_identifier_method: KeyIdMethod::PreSpecified(issuer.key_identifier.clone()),
    };
    let signed = list.signed_by(&issuer.signer).map_err(IssueError::Signing)?;
    Ok(signed.der().to_vec())
}

fn revoked_parameters(revoked: &RevokedSerial) -> Result<RevokedCertParams, IssueError> {
    Ok(RevokedCertParams {
        serial_number: revoked.serial.as_bytes().to_vec().into(),
        revocation_time: date(revoked.at)?,
        reason_code: Some(match revoked.reason {
            RevocationReason::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
            RevocationReason::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
            RevocationReason::Superseded => rcgen::RevocationReason::Superseded,
            RevocationReason::KeyCompromise => rcgen::RevocationReason::KeyCompromise,
        }),
        invalidity_date: None,
    })
}

/// Why bytes are not a revocation list we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CrlError {
    /// Larger than any list we expect.
    #[error("a CRL has at most {CRL_BYTES_MAX} bytes, this has {length}")]
    TooLong {
        /// Bytes of the list.
        length: usize,
    },
    /// Not a v2 CRL with number and next update.
    #[error("not an X.509 v2 revocation list with a number and a next update")]
    Malformed,
    /// A critical extension whose meaning would be lost: a delta or partial list.
    #[error("the list has a critical extension, so it may not be complete")]
    Partial,
    /// The signature is not the authority's.
    #[error("the list is not signed by its authority")]
    Signature,
}

/// A parsed revocation list. It counts only for certificates issued by the very key that signed it.
#[derive(Debug)]
pub struct Crl {
    issuer: Vec<u8>,
    number: u64,
    next_update: UnixTime,
    revoked: HashSet<Serial>,
    der: Vec<u8>,
    /// The key the signature was verified under, once it was.
    verified_by: OnceLock<Vec<u8>>,
}

impl Crl {
    /// Parses DER. The signature is looked at when the issuer's key is known.
    pub fn parse(der: &[u8]) -> Result<Self, CrlError> {
        let list = parse_list(der)?;
        let content = &list.tbs_cert_list;
        if content.extensions().iter().any(|extension| extension.critical) {
            return Err(CrlError::Partial);
        }
        let number = list.crl_number().and_then(|number| u64::try_from(number).ok());
        let revoked = list.iter_revoked_certificates();
        let revoked = revoked.map(|entry| Serial::from_integer(entry.raw_serial())).collect::<Option<_>>();
        Ok(Crl {
            issuer: list.issuer().as_raw().to_vec(),
            number: number.ok_or(CrlError::Malformed)?,
            next_update: list.next_update().map(unix_time).ok_or(CrlError::Malformed)?,
            revoked: revoked.ok_or(CrlError::Malformed)?,
            der: der.to_vec(),
            verified_by: OnceLock::new(),
        })
    }

    /// Verifies that the authority with this certificate signed the list.
    pub fn verify(&self, authority: &[u8]) -> Result<(), CrlError> {
        let (_, authority) = X509Certificate::from_der(authority).map_err(|_| CrlError::Signature)?;
        let names_match = authority.subject().as_raw() == self.issuer;
        let holds = names_match && self.is_signed_by(authority.public_key().raw);
        if holds { Ok(()) } else { Err(CrlError::Signature) }
    }

    /// The list's number: higher is newer.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When the authority promised a newer list.
    pub fn next_update(&self) -> UnixTime {
        self.next_update
    }

    /// Whether the list names this serial.
    pub fn revokes(&self, serial: &Serial) -> bool {
        self.revoked.contains(serial)
    }

    /// Every serial that the list names, in no order.
    pub fn revoked(&self) -> impl Iterator<Item = &Serial> {
        self.revoked.iter()
    }

    fn is_signed_by(&self, spki: &[u8]) -> bool {
        if let Some(verified_by) = self.verified_by.get() {
            return verified_by == spki;
        }
        let holds = signature::verifies(spki, &self.der);
        if holds {
            // Losing a race here means that another thread verified the same list under the same key.
            let _ = self.verified_by.set(spki.to_vec());
        }
        holds
    }
}

fn parse_list(der: &[u8]) -> Result<CertificateRevocationList<'_>, CrlError> {
    if der.len() > CRL_BYTES_MAX {
        return Err(CrlError::TooLong { length: der.len() });
    }
    match CertificateRevocationList::from_der(der) {
        Ok(([], list)) => Ok(list),
        _ => Err(CrlError::Malformed),
    }
}

/// The revocation lists a verifier holds, of any number of authorities.
///
/// Inside a trust domain no list means refusal: an authority without one here, or with one past its next update, may
/// have revoked anything, and whoever withholds the list must gain nothing by it. A verifier that cannot have a list yet
/// says so, with [`CrlSet::bootstrapping`].
#[derive(Debug, Default)]
pub struct CrlSet {
    lists: Vec<Crl>,
    bootstrapping: bool,
}

/// What the lists say about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revocation {
    NotListed,
    Revoked,
    /// No list.
    NoList,
    /// One that should have been replaced by then.
    OldList(UnixTime),
}

impl CrlSet {
    /// Parses each list; one that does not parse is an error, not a gap.
    pub fn from_der<D: AsRef<[u8]>>(lists: impl IntoIterator<Item = D>) -> Result<Self, CrlError> {
        let lists = lists.into_iter().map(|der| Crl::parse(der.as_ref())).collect::<Result<_, _>>()?;
        Ok(CrlSet { lists, bootstrapping: false })
    }

    /// Of a verifier that has no list yet and asks its peer for the first one. Nothing that such a peer says may count
    /// but what is signed and brings the list with it.
    pub fn bootstrapping() -> Self {
        CrlSet { lists: Vec::new(), bootstrapping: true }
    }

    /// The same, of one that has had lists before: they may be out of date, but what they name is revoked.
    pub fn bootstrapping_with(lists: Vec<Crl>) -> Self {
        CrlSet { lists, bootstrapping: true }
    }

    /// The highest number of the lists; 0: there is none.
    pub fn number(&self) -> u64 {
        self.lists.iter().map(Crl::number).max().unwrap_or(0)
    }

    /// Until when there should be a newer list; `None`: there is none yet.
    pub fn next_update(&self) -> Option<UnixTime> {
        self.lists.iter().map(Crl::next_update).max()
    }

    /// Whether a list names this serial, for verifiers of certificates of one authority whose path was verified before.
    pub fn names(&self, serial: &Serial) -> bool {
        self.lists.iter().any(|list| list.revokes(serial))
    }

    /// What the newest list of the issuer with this name and key says about `serial`.
    pub(crate) fn look_up(
        &self,
        issuer: &[u8],
        issuer_spki: &[u8],
        serial: &Serial,
        now: UnixTime,
    ) -> Revocation {
        // A forged list is not signed by the issuer's key and so is as good as absent.
        let lists = self.lists.iter().filter(|crl| crl.issuer == issuer && crl.is_signed_by(issuer_spki));
        match lists.max_by_key(|crl| crl.number) {
            None if self.bootstrapping => Revocation::NotListed,
            None => Revocation::NoList,
            Some(crl) if crl.revokes(serial) => Revocation::Revoked,
            Some(crl) if crl.next_update <= now && !self.bootstrapping => {
                Revocation::OldList(crl.next_update)
            }
            Some(_) => Revocation::NotListed,
        }
    }
}

impl From<Vec<Crl>> for CrlSet {
    fn from(lists: Vec<Crl>) -> Self {
        CrlSet { lists, bootstrapping: false }
    }
}

/// Bytes of a list that is read.
pub const CRL_BYTES_MAX: usize = 16 << 20;

/// Certificates that a list of ours may name so that it is read, whatever their serial numbers: 299,574.
pub const CRL_SERIALS_MAX: usize = (CRL_BYTES_MAX - CRL_FRAME_BYTES) / CRL_ENTRY_BYTES;

/// A SEQUENCE (2) of an INTEGER of 20 bytes (22), a time (17), and extensions with a reason (14); and one to spare.
const CRL_ENTRY_BYTES: usize = 56;
/// Names, times, number, key identifier and signature of a list.
const CRL_FRAME_BYTES: usize = 1024;
