//! Who may enroll that was never here: everybody whom a maker vouches for, those of a manifest, or whom an operator admits.
//!
//! It is asked once the TPM has proven itself, so that whoever waits is there. A device that is known is none of these: what
//! it may is in its state.

use assay_evidence::request::DeviceIdentity;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::CertificateSummary;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_identity::SpiffeId;

use crate::actor::Actor;
use crate::config::EnrollmentMode;
use crate::in_force::manifest::{Manifest, ManifestInForce};
use crate::store::{NotePending, PendingRecord, SayOfPending, Store, StoreError, Word};

/// What lets newcomers in.
#[derive(Debug)]
pub(crate) struct Newcomers {
    pub mode: EnrollmentMode,
    pub manifest: ManifestInForce,
    /// How many may wait.
    pub devices_max: u64,
}

/// What a newcomer showed, as far as somebody vouches for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub ek_sha256: String,
    pub ek_manufacturer: String,
    pub ek_issuer: String,
    pub ek_serial: String,
    pub serial: String,
    pub idevid_subject: String,
}

/// What comes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// It is let in.
    Open,
    /// It is let in on an operator's word, which has to stand still when it enters.
    OnWord,
    /// It waits for one.
    Waits,
    /// It is on no list.
    NotListed,
    /// An operator has denied it.
    Denied,
}

fn decide(mode: EnrollmentMode, manifest: &Manifest, shown: &Shown, word: Option<Word>) -> Entrance {
    let listed = || manifest.lists(&shown.ek_sha256, &shown.serial, &shown.idevid_subject);
    match (mode, word) {
        (_, Some(Word::Denied)) => Entrance::Denied,
        (EnrollmentMode::Automatic, _) => Entrance::Open,
        (EnrollmentMode::Listed | EnrollmentMode::Approved, _) if listed() => Entrance::Open,
        (EnrollmentMode::Approved, Some(Word::Admitted)) => Entrance::OnWord,
        (EnrollmentMode::Approved, _) => Entrance::Waits,
        (EnrollmentMode::Listed, _) => Entrance::NotListed,
    }
}

impl Newcomers {
    /// Whether a device may enroll that was never here.
    pub(crate) async fn entrance(
        &self,
        store: &Store,
        id: &SpiffeId,
        shown: &Shown,
    ) -> Result<Entrance, StoreError> {
        let word = store.pending(id.as_str()).await?.map(|pending| pending.word);
        Ok(decide(self.mode, &self.manifest.current(), shown, word))
    }

    /// Notes that it waits.
    pub(crate) async fn wait(
        &self,
        store: &Store,
        id: &SpiffeId,
        (shown, name, address): (&Shown, &str, &str),
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let pending = PendingRecord {
            id: id.to_string(),
            name: name.to_owned(),
            ek_manufacturer: shown.ek_manufacturer.clone(),
            ek_issuer: shown.ek_issuer.clone(),
            ek_serial: shown.ek_serial.clone(),
            serial: shown.serial.clone(),
            idevid_subject: shown.idevid_subject.clone(),
            address: address.to_owned(),
            first_at: now,
            last_at: now,
            word: Word::Waiting,
            word_at: UnixTime(0),
            reason: String::new(),
        };
        store.commit(NotePending { pending, devices_max: self.devices_max }).await
    }
}

impl Shown {
    /// What counts of it: an EK certificate that leads to a trusted maker, an IDevID that does.
    pub(crate) fn of(endorsement: &Endorsement, shown: &DeviceIdentity, serial: Option<&str>) -> Shown {
        let summary = |der: &[u8]| CertificateSummary::read(der).ok();
        let ek = endorsement.certificate();
        let ek_summary = ek.and_then(|_| summary(&shown.ek_certificate));
        let idevid = serial.and_then(|_| summary(&shown.idevid_certificate));
        Shown {
            ek_sha256: endorsement.ek_sha256().to_hex(),
            ek_manufacturer: ek.and_then(|ek| ek.manufacturer()).unwrap_or_default().to_owned(),
            ek_issuer: ek.map(|ek| ek.issuer()).unwrap_or_default().to_owned(),
            ek_serial: ek_summary.map(|summary| summary.serial).unwrap_or_default(),
            serial: serial.unwrap_or_default().to_owned(),
            idevid_subject: idevid.map(|summary| summary.subject).unwrap_or_default(),
        }
    }
}

/// Lets a device in that waits, or keeps it out: with a reason.
pub(crate) async fn say(
    store: &Store,
    id: &str,
    (word, reason): (Word, &str),
    by: Actor,
    now: UnixTime,
) -> Result<(), StoreError> {
    let (id, reason) = (id.to_owned(), reason.to_owned());
    store
        .commit_and_follow(SayOfPending { id: id.clone(), word, reason, at: now, by: by.name().to_owned() })
        .await?;
    tracing::info!(device = id, word = word.name(), %by, "device that was never here");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_10_who_was_never_here_comes_in_by_mode_manifest_and_word() {
        use EnrollmentMode::{Approved, Automatic, Listed};
        use Word::{Admitted, Denied, Waiting};
        let shown = |serial: &str| Shown { serial: serial.to_owned(), ..Shown::default() };
        let manifest = Manifest::of_serials(&["S-1"]);
        for (mode, word, listed, unlisted) in [
            (Automatic, None, Entrance::Open, Entrance::Open),
            (Automatic, Some(Waiting), Entrance::Open, Entrance::Open),
            (Automatic, Some(Admitted), Entrance::Open, Entrance::Open),
            (Listed, None, Entrance::Open, Entrance::NotListed),
            (Listed, Some(Waiting), Entrance::Open, Entrance::NotListed),
            (Listed, Some(Admitted), Entrance::Open, Entrance::NotListed),
            (Approved, None, Entrance::Open, Entrance::Waits),
            (Approved, Some(Waiting), Entrance::Open, Entrance::Waits),
            (Approved, Some(Admitted), Entrance::Open, Entrance::OnWord),
        ] {
            assert_eq!(decide(mode, &manifest, &shown("S-1"), word), listed, "{mode:?} {word:?}");
            assert_eq!(decide(mode, &manifest, &shown("S-2"), word), unlisted, "{mode:?} {word:?}");
        }
        for mode in [Automatic, Listed, Approved] {
            assert_eq!(decide(mode, &manifest, &shown("S-1"), Some(Denied)), Entrance::Denied);
        }
    }
}
