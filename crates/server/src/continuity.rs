//! Whether database, keys and what was signed last belong together: asked before anything is served, and never mended in
//! silence. Keys made anew would orphan every device, and an older copy of the database forgets what was revoked since.

use std::path::{Path, PathBuf};

use assay_clock::Clock;
use assay_identity::crl::CrlError;
use assay_identity::signed_note::NoteError;
use assay_identity::{Crl, TrustDomain};
use thiserror::Error;

use crate::audit::Head;
use crate::clock;
use crate::config::Place;
use crate::in_force::ledger_head::HEAD_FILE;
use crate::in_force::revocations::{AK_LIST_FILE, CLASSIC_LIST_FILE, LIST_FILE};
use crate::keys::{self, FileError, KeyNames, KeysError, LedgerKey};
use crate::store::{AuthorityRecord, RecordAuthority, RecordHead, ResumeLedger, Store, StoreError};

/// Checks that the keys are those that the database was made with, and that the trail has the head that was signed last.
pub(crate) async fn check(
    store: &Store,
    data: &Path,
    trust_domain: &TrustDomain,
) -> Result<(), ContinuityError> {
    if let Some(had) = keys::trust_domain(data)?.filter(|had| had != trust_domain) {
        return Err(ContinuityError::TrustDomain { had, configured: trust_domain.clone() });
    }
    let folder = data.join(keys::FOLDER);
    let names = KeyNames::of(&folder, trust_domain)?;
    match store.authority().await? {
        Some(record) => same_keys(&names, &record, &folder)?,
        // Of a build that did not note them, or of the first start.
        None if names.root_sha256.is_none() && store.trail_head().await?.leaves > 0 => {
            return Err(ContinuityError::Keys { folder, what: "root.key" });
        }
        None => {}
    }
    match LedgerKey::load(&folder, trust_domain)? {
        Some(key) => not_set_back(store, data, &key).await,
        None => Ok(()),
    }
}

/// Notes the keys of the first start.
pub(crate) async fn record(
    store: &Store,
    data: &Path,
    trust_domain: &TrustDomain,
) -> Result<(), ContinuityError> {
    let KeyNames { root_sha256, issuing_spki, ledger_key } =
        KeyNames::of(&data.join(keys::FOLDER), trust_domain)?;
    if let (Some(root_sha256), Some(issuing_spki), Some(ledger_key)) = (root_sha256, issuing_spki, ledger_key)
    {
        store.commit(RecordAuthority(AuthorityRecord { root_sha256, issuing_spki, ledger_key })).await?;
    }
    Ok(())
}

fn same_keys(names: &KeyNames, record: &AuthorityRecord, folder: &Path) -> Result<(), ContinuityError> {
    let is = |name: &Option<String>, recorded: &String| name.as_ref() == Some(recorded);
    let what = match () {
        () if !is(&names.root_sha256, &record.root_sha256) => "root.key and root.pem",
        () if !is(&names.issuing_spki, &record.issuing_spki) => "issuing.key and issuing.pem",
        () if !is(&names.ledger_key, &record.ledger_key) => "ledger.key",
        () => return Ok(()),
    };
    Err(ContinuityError::Keys { folder: folder.to_owned(), what })
}

async fn not_set_back(store: &Store, data: &Path, key: &LedgerKey) -> Result<(), ContinuityError> {
    let leaves = store.trail_head().await?.leaves;
    let path = data.join(HEAD_FILE);
    let Some(note) = keys::read(&path)? else {
        // The file is written after the store: it may lack behind the first head, and no other.
        let is_missing = store.signed_heads_count().await? > 1;
        return if is_missing { Err(ContinuityError::NoHead { path, leaves }) } else { Ok(()) };
    };
    let note = String::from_utf8_lossy(&note);
    let signed = Head::from_text(key.verifier().open(&note)?).ok_or(NoteError::Note)?;
    let last = store.audit_leaves(signed.leaves.saturating_sub(1), 1).await?;
    let is_there =
        last.first().is_some_and(|leaf| leaf.index + 1 == signed.leaves && leaf.hash == signed.hash);
    if is_there { Ok(()) } else { Err(ContinuityError::SetBack { leaves, signed: signed.leaves }) }
}

/// What going on from an older database brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Leaves that the trail had.
    pub leaves: u64,
    /// Certificates that stay withdrawn though the database had forgotten it: those of the last revocation list.
    pub still_withdrawn: u64,
}

/// Goes on from a database that was set back, on an operator's word: puts it on record, and signs the head as it is now.
/// What the last revocation list names stays withdrawn. No server may run on the folder.
///
/// `leaves`: how many the trail has, so that it is this copy that was decided upon.
pub async fn resume(place: impl Into<Place<'_>>, leaves: u64) -> Result<Resumed, ContinuityError> {
    let place: Place<'_> = place.into();
    let data = place.data;
    // Before anything is made where nothing is.
    let trust_domain = keys::trust_domain(data)?.ok_or(ContinuityError::NoServer)?;
    let _lock = keys::take_data_folder(data)?;
    let store = Store::open(&place.database()).await?;
    let outcome = resume_on(&store, data, &trust_domain, leaves).await;
    store.close().await;
    outcome
}

async fn resume_on(
    store: &Store,
    data: &Path,
    trust_domain: &TrustDomain,
    leaves: u64,
) -> Result<Resumed, ContinuityError> {
    let folder = data.join(keys::FOLDER);
    let signed = match check(store, data, trust_domain).await {
        Ok(()) => return Err(ContinuityError::NotSetBack),
        Err(
            ContinuityError::SetBack { leaves: found, .. } | ContinuityError::NoHead { leaves: found, .. },
        ) if found != leaves => {
            return Err(ContinuityError::OtherLeaves { found });
        }
        Err(ContinuityError::SetBack { signed, .. }) => signed,
        Err(ContinuityError::NoHead { .. }) => leaves,
        Err(other) => return Err(other),
    };
    let key = LedgerKey::load(&folder, trust_domain)?
        .ok_or(ContinuityError::Keys { folder: folder.clone(), what: "ledger.key" })?;
    let at = clock::now(&Clock::system());
    let (mut serials, number) = match keys::read(&data.join(LIST_FILE))? {
        Some(der) => last_list(&der, keys::issuing_certificate(&folder)?)?,
        None => (Vec::new(), 0),
    };
    if let Some(der) = keys::read(&data.join(CLASSIC_LIST_FILE))? {
        serials.extend(last_list(&der, keys::classic_root(&folder)?)?.0);
    }
    if let Some(der) = keys::read(&data.join(AK_LIST_FILE))? {
        serials.extend(last_list(&der, keys::ak_root(&folder)?)?.0);
    }
    let until = at.plus(WITHDRAWN_KEPT_SECONDS);
    let resume = ResumeLedger { at, signed, serials, until, list_number: number };
    let still_withdrawn = store.commit(resume).await?;
    let head = store.trail_head().await?;
    let note = key.sign(&head)?;
    store.commit(RecordHead { at, leaves: head.leaves, note: note.clone() }).await?;
    keys::write_public(&data.join(HEAD_FILE), note.as_bytes())?;
    Ok(Resumed { leaves, still_withdrawn })
}

/// The serial numbers and the number of the list that was signed last.
fn last_list(der: &[u8], authority: Option<Vec<u8>>) -> Result<(Vec<String>, u64), ContinuityError> {
    let crl = Crl::parse(der)?;
    if let Some(authority) = authority {
        crl.verify(&authority)?;
    }
    Ok((crl.revoked().map(ToString::to_string).collect(), crl.number()))
}

/// Why the server does not start on what it finds.
#[derive(Debug, Error)]
pub enum ContinuityError {
    /// Another trust domain than the one whose data it is.
    #[error(
        "this data folder is of the trust domain {had}, and {configured} is configured: a trust domain has its own"
    )]
    TrustDomain {
        /// Whose it is.
        had: TrustDomain,
        /// Which was asked for.
        configured: TrustDomain,
    },
    /// Keys that are not those the database was made with, or none.
    #[error(
        "{}: {what} is not what this database was made with. Devices, gateways and whoever verifies the ledger believe that \
         one alone: put the folder back from a backup. To begin a new fleet, begin a new data folder",
        folder.display()
    )]
    Keys {
        /// Where they should be.
        folder: PathBuf,
        /// Which.
        what: &'static str,
    },
    /// An older copy of the database.
    #[error(
        "the database has {leaves} leaves of the ledger, and is not the one of which a head of {signed} was signed: an older \
         copy is in its place, and what was revoked, approved or enrolled since is forgotten. Put the newest copy back, \
         or go on from this one with `assay ledger resume --leaves {leaves}`"
    )]
    SetBack {
        /// Leaves that are there.
        leaves: u64,
        /// Leaves of the head.
        signed: u64,
    },
    /// Nobody can say whether the database is an older copy.
    #[error(
        "{}: the head that was signed last is not there, so nobody can tell whether the database is an older copy. Put it \
         back, or go on with `assay ledger resume --leaves {leaves}`",
        path.display()
    )]
    NoHead {
        /// Where it should be.
        path: PathBuf,
        /// Leaves that are there.
        leaves: u64,
    },
    /// It is another copy than the one that was decided upon.
    #[error(
        "the database has {found} leaves of the ledger: if it is the one to go on from, say --leaves {found}"
    )]
    OtherLeaves {
        /// Leaves that are there.
        found: u64,
    },
    /// Not a data folder, or one whose public files are gone.
    #[error("no server has had this data folder: say which one with --data")]
    NoServer,
    /// There is nothing to decide.
    #[error("the database has the head that was signed last: there is nothing to resume, start the server")]
    NotSetBack,
    /// A head that does not read, or that another key signed.
    #[error(
        "{HEAD_FILE} in the data folder is not a head that this ledger's key signed: put it back from a backup"
    )]
    Head(#[from] NoteError),
    /// The last revocation list.
    #[error(
        "{LIST_FILE} in the data folder is not a revocation list of this authority: put it back from a backup"
    )]
    List(#[from] CrlError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The keys.
    #[error(transparent)]
    KeyFiles(#[from] KeysError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ContinuityError {
    /// Whether it is for an operator to decide how to go on, and what there is may be looked at meanwhile.
    pub(crate) fn awaits_a_word(&self) -> bool {
        matches!(self, ContinuityError::SetBack { .. } | ContinuityError::NoHead { .. })
    }
}

/// A list says when a certificate was withdrawn and not when it ends; none lives longer.
const WITHDRAWN_KEPT_SECONDS: u64 = 365 * 24 * 3600;
