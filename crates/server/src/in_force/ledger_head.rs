//! The signed head of the ledger: signed again when the trail has grown, kept in the store and in a file beside it.
//!
//! The file is written after the store, so that it never says more than the store had. Who can write the database and not
//! the file can neither make the trail anew nor cut it off behind the last signed head. A server that starts on a trail
//! without the head in the file says so, and puts that head aside: `assay ledger verify` fails for as long as it is there.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::signed_note::NoteVerifier;
use thiserror::Error;

use crate::audit::Head;
use crate::keys::{self, KeysError, LedgerKey, write_public};
use crate::outcome::fault;
use crate::store::{RecordHead, Store};

/// The key, and the last head that it signed.
#[derive(Debug)]
pub(crate) struct LedgerHead {
    key: LedgerKey,
    file: PathBuf,
    /// How many leaves it is of, and the note. Locked for a moment at a time.
    signed: Mutex<(u64, String)>,
}

impl LedgerHead {
    /// Signs the head as it is.
    pub(crate) async fn open(
        store: &Store,
        key: LedgerKey,
        data: &Path,
        now: UnixTime,
    ) -> Result<LedgerHead, KeysError> {
        let head = LedgerHead { key, file: data.join(HEAD_FILE), signed: Mutex::default() };
        if let Some(note) = head.lost(store).await? {
            fault("ledger", &SetBack);
            write_public(&data.join(LOST_HEAD_FILE), note.as_bytes())?;
        }
        head.sign(store, now).await?;
        Ok(head)
    }

    /// The head that was signed last, if the trail does not have it any more.
    async fn lost(&self, store: &Store) -> Result<Option<String>, KeysError> {
        let Some(bytes) = keys::read(&self.file)? else { return Ok(None) };
        let note = String::from_utf8_lossy(&bytes).into_owned();
        let head = self.key.verifier().open(&note).ok().and_then(Head::from_text);
        let Some(Head { leaves, hash }) = head else { return Ok(Some(note)) };
        let last = store.audit_leaves(leaves.saturating_sub(1), 1).await?;
        let is_there = last.first().is_some_and(|leaf| leaf.index + 1 == leaves && leaf.hash == hash);
        Ok((!is_there).then_some(note))
    }

    /// Signs the head if it is another than the last one.
    pub(crate) async fn sign(&self, store: &Store, at: UnixTime) -> Result<(), KeysError> {
        let head = store.trail_head().await?;
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner).0;
        if head.leaves == 0 || head.leaves == signed {
            return Ok(());
        }
        let note = self.key.sign(&head)?;
        store.commit(RecordHead { at, leaves: head.leaves, note: note.clone() }).await?;
        write_public(&self.file, note.as_bytes())?;
        *self.signed.lock().unwrap_or_else(PoisonError::into_inner) = (head.leaves, note);
        Ok(())
    }

    /// The last signed head; empty before the first leaf.
    pub(crate) fn note(&self) -> String {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// What verifies it.
    pub(crate) fn verifier(&self) -> NoteVerifier {
        self.key.verifier()
    }
}

/// The database is not the one that the last head was signed of.
#[derive(Debug, Error)]
#[error(
    "the ledger does not have the head that was signed last: the database was set back or exchanged. The head is kept in \
     {LOST_HEAD_FILE} of the data folder; remove it if that was on purpose"
)]
struct SetBack;

/// Where a head is kept that the trail does not have any more.
pub(crate) const LOST_HEAD_FILE: &str = "ledger.head.lost";
/// Where the last signed head is, in the data folder.
pub(crate) const HEAD_FILE: &str = "ledger.head";
