//! The endorsers in force: the trust anchors and revocation lists that the configuration names, read again when a file
//! changes.
//!
//! What cannot be read stops the server from starting. Later it changes nothing: what was in force stays, so that a
//! half-written file neither admits nor refuses anybody. It is tried again and again, with the log and a metric saying what
//! is wrong, and meanwhile the lists in force grow old: what that means for whom is a policy's to say
//! (`endorsement.crl_required`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use assay_evidence::Failure;
use assay_evidence::request::DeviceIdentity;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{CertificateError, Endorsers, TrustAnchor};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::idevid::{self, ShownIdentity, verify_device_identity};
use assay_evidence::tpm::public_area::{PublicArea, PublicAreaError};
use assay_evidence::tpm::revocation::{LIST_BYTES_MAX, RevocationList, RevocationListError};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;

use crate::archive::form::{EndorserFiles, read_endorsers, write_endorsers};
use crate::config::Config;

/// The door to the endorsers in force.
#[derive(Debug)]
pub(crate) struct EndorsersInForce {
    ek_anchors: Vec<PathBuf>,
    idevid_anchors: Vec<PathBuf>,
    lists: Vec<PathBuf>,
    /// Held while files are read.
    reading: Mutex<Reading>,
    current: watch::Sender<Endorsing>,
}

/// How far reading has come.
#[derive(Debug, Default)]
struct Reading {
    /// The files as they were when they were last looked at, whatever came of it; `None` before, and where that failed.
    seen: Option<Vec<Seen>>,
    failing: Option<Failing>,
}

/// They could not be read.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since: UnixTime,
    attempts: u32,
    retry_at: UnixTime,
}

/// A revocation list in force, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListInForce {
    /// Whose it says it is.
    pub issuer: String,
    /// When a newer one was promised.
    pub next_update: UnixTime,
}

/// Who may vouch for what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endorsing {
    /// For EKs.
    pub eks: Endorsers,
    /// For IDevIDs and IAKs.
    pub identities: Endorsers,
    /// What there is of revocation lists.
    pub lists: Arc<[ListInForce]>,
    /// The files they were read from, as evidence is kept with.
    pub kept: Bytes,
    /// Counts how often they changed.
    pub version: u64,
}

/// What changes about a file when its content does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl EndorsersInForce {
    /// Reads everything that the configuration names.
    pub(crate) fn open(config: &Config, now: UnixTime) -> Result<EndorsersInForce, EndorsersError> {
        let in_force = EndorsersInForce {
            ek_anchors: config.ek_anchors.clone(),
            idevid_anchors: config.idevid_anchors.clone(),
            lists: config.ek_crls.clone(),
            reading: Mutex::default(),
            current: watch::Sender::new(Endorsing::default()),
        };
        in_force.read_again(now)?;
        Ok(in_force)
    }

    /// Whoever may vouch now.
    pub(crate) fn current(&self) -> Endorsing {
        self.current.borrow().clone()
    }

    /// The same, and word of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Endorsing> {
        self.current.subscribe()
    }

    /// Since when the files cannot be read, if they cannot.
    pub(crate) fn failing_since(&self) -> Option<UnixTime> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).failing.map(|failing| failing.since)
    }

    /// Reads the files if one of them is new, gone or another than before, and after a failure again when it is time;
    /// whether that changed anything.
    pub(crate) fn read_again(&self, now: UnixTime) -> Result<bool, EndorsersError> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.files();
        let seen = found.as_ref().ok().map(Found::all);
        let is_due = reading.failing.is_some_and(|failing| failing.retry_at <= now);
        // A folder that cannot be listed has nothing to compare.
        let is_new = if seen.is_some() { reading.seen != seen } else { reading.failing.is_none() };
        if !is_new && !is_due {
            return Ok(false);
        }
        reading.seen = seen;
        match found.and_then(Found::read) {
            Ok(new) => {
                if let Some(failing) = reading.failing.take() {
                    tracing::info!(since = %failing.since, "trust anchors and revocation lists can be read again");
                }
                self.current.send_modify(|current| {
                    *current = Endorsing { version: current.version.saturating_add(1), ..new };
                });
                Ok(true)
            }
            Err(error) => {
                reading.failing = Some(Failing::again(reading.failing, now));
                Err(error)
            }
        }
    }

    fn files(&self) -> Result<Found, EndorsersError> {
        let [eks, identities, lists] =
            [&self.ek_anchors, &self.idevid_anchors, &self.lists].map(|paths| files(paths));
        Ok(Found { eks: eks?, identities: identities?, lists: lists? })
    }
}

impl Failing {
    /// After one more failure: soon at first, and never at rest.
    fn again(before: Option<Failing>, now: UnixTime) -> Failing {
        let attempts = before.map_or(0, |failing| failing.attempts.saturating_add(1));
        let wait = 1_u64.checked_shl(attempts).unwrap_or(RETRY_SECONDS_MAX).min(RETRY_SECONDS_MAX);
        Failing { since: before.map_or(now, |failing| failing.since), attempts, retry_at: now.plus(wait) }
    }
}

/// The files that the configuration names.
struct Found {
    eks: Vec<Seen>,
    identities: Vec<Seen>,
    lists: Vec<Seen>,
}

impl Found {
    fn all(&self) -> Vec<Seen> {
        [self.eks.as_slice(), &self.identities, &self.lists].concat()
    }

    fn read(self) -> Result<Endorsing, EndorsersError> {
        let contents = |files: &[Seen]| -> Result<Vec<Vec<u8>>, EndorsersError> {
            files.iter().map(|Seen { path, .. }| read(path)).collect()
        };
        let files = EndorserFiles {
            ek_anchors: contents(&self.eks)?,
            idevid_anchors: contents(&self.identities)?,
            lists: contents(&self.lists)?,
        };
        let ek_anchors = parse_anchors(&files.ek_anchors, &self.eks)?;
        let idevid_anchors = parse_anchors(&files.idevid_anchors, &self.identities)?;
        let lists = parse_lists(&files.lists, &self.lists)?;
        for list in &lists {
            let (issuer, next_update) = (list.issuer(), list.next_update());
            tracing::info!(issuer, revoked = list.revoked_count(), %next_update, "revocation list in force");
        }
        Ok(Endorsing::new(ek_anchors, idevid_anchors, lists, &files))
    }
}

impl Endorsing {
    fn new(
        ek_anchors: Vec<TrustAnchor>,
        idevid_anchors: Vec<TrustAnchor>,
        lists: Vec<RevocationList>,
        files: &EndorserFiles,
    ) -> Endorsing {
        let in_force = lists
            .iter()
            .map(|list| ListInForce { issuer: list.issuer().to_owned(), next_update: list.next_update() });
        let in_force = in_force.collect();
        let eks = Endorsers::new(ek_anchors, lists);
        Endorsing {
            lists: in_force,
            identities: eks.with_anchors(idevid_anchors),
            eks,
            kept: write_endorsers(files).into(),
            version: 0,
        }
    }

    /// Who they were when evidence was kept; `None` where that is not what this server writes.
    pub(crate) fn of_kept(kept: &[u8]) -> Option<Endorsing> {
        let files = read_endorsers(kept)?;
        let anchors = |files: &[Vec<u8>]| {
            let read = files.iter().map(|bytes| TrustAnchor::from_pem_or_der(bytes).ok());
            Some(read.collect::<Option<Vec<_>>>()?.concat())
        };
        let lists = files.lists.iter().map(|bytes| RevocationList::from_pem_or_der(bytes).ok());
        let lists = lists.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
        Some(Endorsing::new(anchors(&files.ek_anchors)?, anchors(&files.idevid_anchors)?, lists, &files))
    }

    /// The EK that a device shows and who vouches for it, with the identity that it shows beside it.
    pub(crate) fn endorsement(
        &self,
        shown: &DeviceIdentity,
        at: UnixTime,
    ) -> Result<Endorsement, PublicAreaError> {
        let ek = PublicArea::parse_tpm2b(&shown.ek_public)?;
        let intermediates: Vec<&[u8]> = shown.ek_intermediates.iter().map(AsRef::as_ref).collect();
        let endorsement = Endorsement::verify(&ek, &shown.ek_certificate, &intermediates, &self.eks, at);
        Ok(match verify_identity(shown, &self.identities, at) {
            Some(identity) => endorsement.with_identity(identity),
            None => endorsement,
        })
    }
}

/// Verifies keys and certificates of the identity that a device shows. `None`: it shows none, or nobody is trusted to
/// vouch for any.
pub(crate) fn verify_identity(
    shown: &DeviceIdentity,
    endorsers: &Endorsers,
    at: UnixTime,
) -> Option<Result<idevid::DeviceIdentity, Vec<Failure>>> {
    let shows_none =
        [&shown.iak_public, &shown.iak_certificate, &shown.idevid_public, &shown.idevid_certificate]
            .iter()
            .all(|part| part.is_empty());
    if (shows_none && shown.idevid_intermediates.is_empty()) || endorsers.is_empty() {
        return None;
    }
    let intermediates: Vec<&[u8]> = shown.idevid_intermediates.iter().map(AsRef::as_ref).collect();
    let shown = ShownIdentity {
        iak_public: &shown.iak_public,
        iak_certificate: &shown.iak_certificate,
        idevid_public: &shown.idevid_public,
        idevid_certificate: &shown.idevid_certificate,
        intermediates: &intermediates,
    };
    Some(verify_device_identity(&shown, endorsers, at))
}

fn parse_anchors(contents: &[Vec<u8>], files: &[Seen]) -> Result<Vec<TrustAnchor>, EndorsersError> {
    let mut anchors = Vec::new();
    for (bytes, Seen { path, .. }) in contents.iter().zip(files) {
        let read = TrustAnchor::from_pem_or_der(bytes);
        anchors.extend(read.map_err(|source| EndorsersError::Anchor { path: path.clone(), source })?);
    }
    Ok(anchors)
}

fn parse_lists(contents: &[Vec<u8>], files: &[Seen]) -> Result<Vec<RevocationList>, EndorsersError> {
    let mut lists = Vec::new();
    for (bytes, Seen { path, .. }) in contents.iter().zip(files) {
        let read = RevocationList::from_pem_or_der(bytes);
        lists.extend(read.map_err(|source| EndorsersError::List { path: path.clone(), source })?);
    }
    Ok(lists)
}

/// The files named, and those in the folders named.
fn files(paths: &[PathBuf]) -> Result<Vec<Seen>, EndorsersError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EndorsersError::File { path, source }
    };
    let mut found = Vec::new();
    for path in paths {
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
            files = entries.map_err(failed(path))?.iter().map(fs::DirEntry::path).collect();
            files.retain(|file| file.is_file());
            files.sort();
        }
        for file in files {
            // That one cannot be read is said when it is read, once.
            let metadata = fs::metadata(&file).ok();
            let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            found.push(Seen { bytes: metadata.map_or(0, |metadata| metadata.len()), modified, path: file });
        }
    }
    Ok(found)
}

/// A file, never more than one byte past the longest that is accepted.
fn read(path: &Path) -> Result<Vec<u8>, EndorsersError> {
    let failed = |source| EndorsersError::File { path: path.to_owned(), source };
    let limit = u64::try_from(LIST_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| -> io::Result<usize> { file.take(limit).read_to_end(&mut bytes) });
    read.map_err(failed)?;
    Ok(bytes)
}

/// Between two attempts to read what could not be read.
const RETRY_SECONDS_MAX: u64 = 60;

/// Why endorsers could not be read.
#[derive(Debug, Error)]
pub enum EndorsersError {
    /// A file or folder.
    #[error("{}: cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A trust anchor that is none.
    #[error("{}: not a certificate that can vouch for TPMs", path.display())]
    Anchor {
        /// Which.
        path: PathBuf,
        /// Why.
        source: CertificateError,
    },
    /// A revocation list that cannot be used.
    #[error("{}: not a revocation list that can be used", path.display())]
    List {
        /// Which.
        path: PathBuf,
        /// Why.
        source: RevocationListError,
    },
}

#[cfg(test)]
mod tests {
    use assay_testkit::EkMaker;

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    #[test]
    fn files_are_read_again_when_they_change_and_only_then() {
        let (folder, maker) = (tempfile::tempdir().unwrap(), EkMaker::new().unwrap());
        let (root, list) = (folder.path().join("root.pem"), folder.path().join("list.crl"));
        std::fs::write(&root, maker.root_ca_pem()).unwrap();
        let config =
            Config { ek_anchors: vec![root.clone()], ek_crls: vec![list.clone()], ..Config::default() };
        // Without a list that is named: it may be the one that revokes everything.
        let missing = EndorsersInForce::open(&config, NOW);
        assert!(matches!(missing, Err(EndorsersError::File { path, .. }) if path == list));
        std::fs::write(&list, maker.revoke(&[]).unwrap()).unwrap();
        let in_force = EndorsersInForce::open(&config, NOW).unwrap();
        let mut changes = in_force.watch();
        assert!(!in_force.read_again(NOW).unwrap() && !changes.has_changed().unwrap());
        std::fs::write(&list, maker.revoke(&[&[7; 9]]).unwrap()).unwrap();
        assert!(in_force.read_again(NOW).unwrap() && changes.has_changed().unwrap());
        changes.mark_unchanged();
        // Gone, said once at a time, and nothing is forgotten.
        std::fs::remove_file(&root).unwrap();
        assert!(matches!(in_force.read_again(NOW), Err(EndorsersError::File { path, .. }) if path == root));
        assert!(!in_force.read_again(NOW).unwrap() && !changes.has_changed().unwrap());
        assert!(!in_force.current().eks.is_empty());
    }

    #[test]
    fn finding_14_what_cannot_be_read_is_tried_again_ever_more_slowly_and_heals_by_itself() {
        let (folder, maker) = (tempfile::tempdir().unwrap(), EkMaker::new().unwrap());
        let (lists, list) = (folder.path().join("lists"), folder.path().join("lists/maker.crl"));
        std::fs::create_dir(&lists).unwrap();
        std::fs::write(&list, maker.revoke(&[]).unwrap()).unwrap();
        let config = Config { ek_crls: vec![lists.clone()], ..Config::default() };
        let in_force = EndorsersInForce::open(&config, NOW).unwrap();
        assert_eq!((in_force.failing_since(), in_force.current().lists.len()), (None, 1));
        // A link to nowhere: what is seen of it stays the same, so that only trying again can show that it is good.
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), folder.path().join("link.crl")).unwrap();
        let config = Config { ek_crls: vec![lists, folder.path().join("link.crl")], ..config };
        let in_force = EndorsersInForce { lists: config.ek_crls, ..in_force };
        let mut attempts = Vec::new();
        for second in 0..200 {
            match in_force.read_again(NOW.plus(second)) {
                Ok(changed) => assert!(!changed),
                Err(_) => attempts.push(second),
            }
        }
        assert_eq!(attempts, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        assert_eq!((in_force.failing_since(), in_force.current().lists.len()), (Some(NOW), 1));
        std::fs::write(folder.path().join("elsewhere"), maker.revoke(&[&[7]]).unwrap()).unwrap();
        assert!(in_force.read_again(NOW.plus(200)).unwrap());
        assert_eq!((in_force.failing_since(), in_force.current().lists.len()), (None, 2));
    }

    #[test]
    fn nothing_to_read_never_changes() {
        let in_force = EndorsersInForce::open(&Config::default(), NOW).unwrap();
        assert!(in_force.current().eks.is_empty());
        assert!(!in_force.read_again(NOW).unwrap() && !in_force.watch().has_changed().unwrap());
    }

    #[test]
    fn what_is_kept_says_who_endorsed() {
        let (folder, maker) = (tempfile::tempdir().unwrap(), EkMaker::new().unwrap());
        let device = assay_testkit::SoftwareDevice::new("device", &maker).unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("root"), maker.root_ca()).unwrap();
        std::fs::write(path("list"), maker.revoke(&[&device.ek.certificate_serial()]).unwrap()).unwrap();
        let config = Config { ek_anchors: vec![path("root")], ..Config::default() };
        let revoking = Config { ek_crls: vec![path("list")], ..config.clone() };
        let shown = DeviceIdentity {
            ek_public: device.ek.public_area().to_vec().into(),
            ek_certificate: device.ek_certificate.clone().into(),
            ek_intermediates: device.ek_intermediates.iter().cloned().map(Into::into).collect(),
            ..DeviceIdentity::default()
        };
        for (config, revoked) in [(config, false), (revoking, true)] {
            let current = EndorsersInForce::open(&config, NOW).unwrap().current();
            let again = Endorsing::of_kept(&current.kept).unwrap();
            let by = |endorsing: &Endorsing| endorsing.endorsement(&shown, NOW).unwrap();
            assert_eq!(by(&again), by(&current));
            assert_eq!(by(&again).is_revoked(), revoked);
        }
        assert!(Endorsing::of_kept(b"\x0a\x01x").is_none() && Endorsing::of_kept(b"\xff").is_none());
    }
}
