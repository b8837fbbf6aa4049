//! The signed head of the ledger: signed again when the trail has grown, kept in the store and in a file beside it.
//!
//! The file is written after the store, so that it never says more than the store had. Who can write the database and not
//! the file can neither make the trail anew nor cut it off behind the last signed head: a server does not start on a trail
//! without the head in the file (`continuity.rs`).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::signed_note::NoteVerifier;

use super::ledger_tree::LedgerTree;
use crate::keys::{KeysError, LedgerKey, write_public};
use crate::store::{RecordHead, Store};

/// The key, and the last head that it signed.
#[derive(Debug)]
pub(crate) struct LedgerHead {
    key: LedgerKey,
    file: PathBuf,
    tree: LedgerTree,
    /// How many leaves it is of, and the note. Locked for a moment at a time.
    signed: Mutex<(u64, String)>,
    /// Since when there are leaves under no signed head.
    unsigned_since: Mutex<Option<UnixTime>>,
}

impl LedgerHead {
    /// Signs the head as it is.
    pub(crate) async fn open(
        store: &Store,
        key: LedgerKey,
        data: &Path,
        now: UnixTime,
    ) -> Result<LedgerHead, KeysError> {
        let tree = LedgerTree::open(store, &key).await?;
        let head = LedgerHead {
            key,
            tree,
            file: data.join(HEAD_FILE),
            signed: Mutex::default(),
            unsigned_since: Mutex::default(),
        };
        head.sign(store, now).await?;
        Ok(head)
    }

    /// Signs the head if it is another than the last one.
    pub(crate) async fn sign(&self, store: &Store, at: UnixTime) -> Result<(), KeysError> {
        let head = store.trail_head().await?;
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner).0;
        if head.leaves == 0 || head.leaves == signed {
            return Ok(());
        }
        self.unsigned(|since| since.get_or_insert(at).0);
        let note = self.key.sign(&head)?;
        store.commit(RecordHead { at, leaves: head.leaves, note: note.clone() }).await?;
        write_public(&self.file, note.as_bytes())?;
        // Of the same leaves, so that who has either can hold the other to it.
        self.tree.sign(store, &self.key, (head.leaves, at)).await?;
        *self.signed.lock().unwrap_or_else(PoisonError::into_inner) = (head.leaves, note);
        self.unsigned(|since| *since = None);
        Ok(())
    }

    /// For how many seconds there have been leaves under no signed head, where there are any.
    pub(crate) fn unsigned_seconds(&self, now: UnixTime) -> u64 {
        self.unsigned(|since| since.map_or(0, |since| now.0.saturating_sub(since.0)))
    }

    fn unsigned<T>(&self, of: impl FnOnce(&mut Option<UnixTime>) -> T) -> T {
        of(&mut self.unsigned_since.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last signed head; empty before the first leaf.
    pub(crate) fn note(&self) -> String {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The trail as a tree.
    pub(crate) fn tree(&self) -> &LedgerTree {
        &self.tree
    }

    /// What verifies it.
    pub(crate) fn verifier(&self) -> NoteVerifier {
        self.key.verifier()
    }
}

/// Where the last signed head is, in the data folder.
pub(crate) const HEAD_FILE: &str = "ledger.head";
