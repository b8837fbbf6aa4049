//! The revocation list in force: signed anew at every withdrawal and before it grows stale.
//!
//! The store gives every withdrawal a number within its transaction. A list that is signed without one takes the next,
//! so a higher number always lists at least as much. Every attached stream hears of a new list.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::crl::{CRL_BYTES_MAX, RevocationReason, RevokedSerial};
use assay_identity::tls::{Trust, TrustSource};
use assay_identity::{Crl, CrlSet, Serial};
use bytes::Bytes;
use tokio::sync::watch;

use crate::clock::certificate_time;
use crate::keys::{AkAuthority, Authority, ClassicAuthority, FileError, KeysError, write_public};
use crate::store::{RenumberRevocationList, Store, StoreError, SvidRecord, Withdrawn};

/// The list and everyone who has to hear of a new one.
#[derive(Debug)]
pub(crate) struct RevocationList {
    authority: Arc<Authority>,
    /// What the classic root has withdrawn has a list of its own.
    classic: Option<Classic>,
    /// And what the root for AKs has withdrawn.
    ak: Option<OfAks>,
    ttl_seconds: u64,
    /// Held for the time of one signature, never across an await.
    listed: Mutex<Listed>,
    current: watch::Sender<Bytes>,
    trust: Arc<TrustSource>,
    bytes: AtomicU64,
    /// Until when it may be used.
    ends: AtomicU64,
    /// The number of the list that is in the file.
    kept: AtomicU64,
}

#[derive(Debug)]
struct Classic {
    authority: Arc<ClassicAuthority>,
    current: watch::Sender<Bytes>,
    trust: Arc<TrustSource>,
}

#[derive(Debug)]
struct OfAks {
    authority: Arc<AkAuthority>,
    current: watch::Sender<Bytes>,
}

/// The authorities beside the trust domain's own, where they are on.
pub(crate) type Beside = (Option<Arc<ClassicAuthority>>, Option<Arc<AkAuthority>>);

#[derive(Debug)]
struct Listed {
    number: u64,
    /// Serial to when it was withdrawn and when it may leave the list.
    serials: HashMap<Serial, (UnixTime, UnixTime)>,
}

impl RevocationList {
    /// Loads what has to be listed and signs the first list of this run.
    pub(crate) async fn open(
        store: &Store,
        (authority, (classic, ak)): (Arc<Authority>, Beside),
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<RevocationList, KeysError> {
        store.commit(RenumberRevocationList { step: RUN_STEP, at: now }).await?;
        let (records, number) = store.withdrawn_svids(now).await?;
        let serials = serials(records, now)?;
        let trust = Trust { bundle: authority.bundle().clone(), crls: CrlSet::default() };
        let classic = classic.map(|authority| Classic {
            trust: TrustSource::new(Trust { bundle: authority.bundle().clone(), crls: CrlSet::default() }),
            current: watch::Sender::new(Bytes::new()),
            authority,
        });
        let list = RevocationList {
            authority,
            classic,
            ak: ak.map(|authority| OfAks { authority, current: watch::Sender::new(Bytes::new()) }),
            ttl_seconds,
            listed: Mutex::new(Listed { number: 0, serials }),
            current: watch::Sender::new(Bytes::new()),
            trust: TrustSource::new(trust),
            bytes: AtomicU64::new(0),
            ends: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        };
        list.sign(number, &[], now)?;
        Ok(list)
    }

    /// Puts what was withdrawn on the list, at once.
    pub(crate) fn publish(&self, withdrawn: &Withdrawn, now: UnixTime) -> Result<(), KeysError> {
        self.sign(withdrawn.list_number.unwrap_or(0), &withdrawn.serials, now)
    }

    /// How many certificates are listed.
    pub(crate) fn entries(&self) -> u64 {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        u64::try_from(listed.serials.len()).unwrap_or(u64::MAX)
    }

    /// How many of the listed certificates have not ended.
    pub(crate) fn standing(&self, now: UnixTime) -> u64 {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = listed.serials.values().filter(|(_, not_after)| *not_after > now).count();
        u64::try_from(standing).unwrap_or(u64::MAX)
    }

    /// Puts everything on the list that the store says has to be.
    pub(crate) async fn reload(&self, store: &Store, now: UnixTime) -> Result<(), KeysError> {
        let (records, number) = store.withdrawn_svids(now).await?;
        let serials = serials(records, now)?;
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).serials.extend(serials);
        self.sign(number, &[], now)
    }

    /// Signs the same list again with a new end.
    pub(crate) async fn renew(&self, store: &Store, now: UnixTime) -> Result<(), KeysError> {
        let number = store.commit(RenumberRevocationList { step: 1, at: now }).await?;
        self.sign(number, &[], now)
    }

    /// The list in force, DER, and word of every new one.
    pub(crate) fn watch(&self) -> watch::Receiver<Bytes> {
        self.current.subscribe()
    }

    /// The number of the list in force.
    pub(crate) fn number(&self) -> u64 {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).number
    }

    /// The list in force, DER.
    pub(crate) fn current(&self) -> Bytes {
        self.current.borrow().clone()
    }

    /// The list of the classic root and what verifies its certificates, where that is on.
    pub(crate) fn classic(&self) -> Option<(Bytes, Arc<TrustSource>)> {
        self.classic.as_ref().map(|classic| (classic.current.borrow().clone(), classic.trust.clone()))
    }

    fn sign_classic(&self, revoked: &[RevokedSerial], number: u64, now: UnixTime) -> Result<(), KeysError> {
        let Some(classic) = &self.classic else { return Ok(()) };
        let der = classic.authority.sign_crl(revoked, number, now, self.ttl_seconds)?;
        let crls = CrlSet::from(vec![Crl::parse(&der)?]);
        classic.trust.replace(Trust { bundle: classic.authority.bundle().clone(), crls });
        classic.current.send_replace(Bytes::from(der));
        Ok(())
    }

    /// The list of the root for AKs, DER, where that is on.
    pub(crate) fn ak(&self) -> Option<Bytes> {
        self.ak.as_ref().map(|ak| ak.current.borrow().clone())
    }

    fn sign_ak(&self, revoked: &[RevokedSerial], number: u64, now: UnixTime) -> Result<(), KeysError> {
        let Some(ak) = &self.ak else { return Ok(()) };
        let der = ak.authority.sign_crl(revoked, number, now, self.ttl_seconds)?;
        Crl::parse(&der)?;
        ak.current.send_replace(Bytes::from(der));
        Ok(())
    }

    /// What the server's own doors verify peers with.
    pub(crate) fn trust(&self) -> Arc<TrustSource> {
        self.trust.clone()
    }

    fn sign(&self, number: u64, withdrawn: &[(String, UnixTime)], now: UnixTime) -> Result<(), KeysError> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        for (serial, not_after) in withdrawn {
            let serial = Serial::from_hex(serial).ok_or(StoreError::Corrupt { column: "svids.serial" })?;
            listed.serials.insert(serial, (now, *not_after));
        }
        listed.number = number.max(listed.number.saturating_add(1));
        // A little longer than its life, for verifiers whose clocks are behind.
        listed.serials.retain(|_, (_, not_after)| not_after.plus(CLOCK_SKEW_SECONDS) > now);
        let mut revoked: Vec<RevokedSerial> = listed
            .serials
            .iter()
            .map(|(serial, (at, _))| RevokedSerial {
                serial: serial.clone(),
                at: certificate_time(*at),
                reason: RevocationReason::PrivilegeWithdrawn,
            })
            .collect();
        revoked.sort_by(|one, other| one.serial.cmp(&other.serial));
        // A serial number says by its length whose it is.
        let (classic, revoked): (Vec<_>, Vec<_>) =
            revoked.into_iter().partition(|one| one.serial.is_classic());
        let (ak, revoked): (Vec<_>, Vec<_>) = revoked.into_iter().partition(|one| one.serial.is_of_ak());
        self.sign_classic(&classic, listed.number, now)?;
        self.sign_ak(&ak, listed.number, now)?;
        let der = self.authority.sign_crl(&revoked, listed.number, now, self.ttl_seconds)?;
        self.alarm(der.len());
        // A list that nobody can read withdraws nothing, and must not take the place of one that does.
        let crl = Crl::parse(&der)?;
        let crls = CrlSet::from(vec![crl]);
        self.trust.replace(Trust { bundle: self.authority.bundle().clone(), crls });
        self.current.send_replace(Bytes::from(der));
        self.ends.store(now.plus(self.ttl_seconds).0, Ordering::Relaxed);
        Ok(())
    }
}

impl RevocationList {
    /// Says aloud that the list comes near the size that verifiers refuse.
    fn alarm(&self, bytes: usize) {
        self.bytes.store(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        if bytes > CRL_BYTES_MAX / 4 * 3 {
            tracing::error!(
                bytes,
                at_most = CRL_BYTES_MAX,
                "the revocation list grows too long to be used: shorten the life of certificates, or end what asks for many"
            );
        }
    }

    /// Writes the list in force to a file, unless it is there: what is on it outlives a database that is set back.
    pub(crate) fn keep(&self, data: &Path) -> Result<(), FileError> {
        let (number, list) = (self.number(), self.current());
        if self.kept.load(Ordering::Relaxed) < number {
            if let Some((classic, _)) = self.classic() {
                write_public(&data.join(CLASSIC_LIST_FILE), &classic)?;
            }
            if let Some(ak) = self.ak() {
                write_public(&data.join(AK_LIST_FILE), &ak)?;
            }
            write_public(&data.join(LIST_FILE), &list)?;
            self.kept.store(number, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Until when the list in force may be used.
    pub(crate) fn ends(&self) -> UnixTime {
        UnixTime(self.ends.load(Ordering::Relaxed))
    }

    /// Bytes of the last list that was signed, usable or not.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn serials(
    records: Vec<SvidRecord>,
    now: UnixTime,
) -> Result<HashMap<Serial, (UnixTime, UnixTime)>, StoreError> {
    let listed = |record: SvidRecord| {
        let serial =
            Serial::from_hex(&record.serial).ok_or(StoreError::Corrupt { column: "svids.serial" })?;
        Ok((serial, (record.withdrawn_at.unwrap_or(now), record.not_after)))
    };
    records.into_iter().map(listed).collect()
}

const CLOCK_SKEW_SECONDS: u64 = 60;
/// More than the lists of one run that may overtake each other, so that the next run's numbers lie above, even if its clock
/// is behind.
const RUN_STEP: u64 = 1 << 20;
/// Where that of the classic root is, in the data folder.
pub(crate) const CLASSIC_LIST_FILE: &str = "classic.crl";
/// Where that of the root for AKs is, in the data folder.
pub(crate) const AK_LIST_FILE: &str = "ak.crl";
/// Where the list in force is, in the data folder.
pub(crate) const LIST_FILE: &str = "revocations.crl";
