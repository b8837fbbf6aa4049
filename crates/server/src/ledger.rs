//! `assay ledger`: checks the audit trail of a data folder from its files alone, beside a running server or not, and makes of it what
//! others check: proofs, and the log as files.
//!
//! Each leaf is chained to the one before, and the heads and checkpoints that were signed on the way are those of this chain and of the
//! tree over it. Whoever can write the database can make either anew, but not what was signed: the key is elsewhere.

mod log;

use std::path::{Path, PathBuf};

use assay_identity::signed_note::{NoteError, NoteVerifier};
use assay_identity::tlog::{Checkpoint, Edge, leaf_hash};
use thiserror::Error;
use tokio_stream::StreamExt;

use crate::audit::{ChainError, Hash, Head};
use crate::config::Place;
use crate::in_force::ledger_head::HEAD_FILE;
use crate::keys::{self, FileError, VERIFIER_FILE};
use crate::store::{self, Store, StoreError};

pub use log::Log;

/// A trail that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its leaves.
    pub leaves: u64,
    /// The last one's hash.
    pub hash: Hash,
    /// How many leaves the last signed head is of; `None`: the trail is older than signed heads, or of no server.
    pub signed: Option<u64>,
    /// How many leaves the last signed checkpoint is of.
    pub checkpoint: Option<u64>,
    /// The key that signed.
    pub key: Option<String>,
}

/// Reads every leaf in order, checks the chain, that every row that names a leaf still has it, and that every signed head
/// is one of this chain. `key`: the key to verify with; else the one in the data folder. `shown`: a head that was signed
/// and kept elsewhere, such as by a device.
pub async fn verify(
    place: impl Into<Place<'_>>,
    key: Option<&str>,
    shown: Option<&str>,
) -> Result<Verified, LedgerError> {
    let place: Place<'_> = place.into();
    let data = place.data;
    let key = verifier(data, key)?;
    // In the order that neither is ahead of what is read after it, while a server runs.
    let filed = text(&data.join(HEAD_FILE))?;
    let mut connection = Store::open_read_only(&place.database()).await?;
    let mut notes: Vec<String> =
        store::signed_heads(&mut connection).await?.into_iter().map(|(_, note)| note).collect();
    notes.extend(filed);
    notes.extend(shown.map(str::to_owned));
    let mut signed = heads(&notes, key.as_ref())?;
    let named = store::highest_named_leaf(&mut connection).await?;
    let last = signed.last().map(|head| head.leaves);
    let mut checkpoints = checkpoints(&store::checkpoints(&mut connection).await?, key.as_ref())?;
    let checkpoint = checkpoints.last().map(|checkpoint| checkpoint.size);
    let (mut head, mut edge) = (Head::EMPTY, Edge::default());
    {
        let mut trail = store::trail(&mut connection);
        while let Some(row) = trail.next().await {
            let leaf = store::leaf(&row?)?;
            head = head.follow(&leaf)?;
            edge.push(0, leaf_hash(&leaf.entry()));
            signed.retain(|signed| signed.leaves != head.leaves || *signed != head);
            checkpoints.retain(|signed| signed.size != head.leaves || signed.root != edge.root());
        }
    }
    // Rows are read before the trail: a running server only adds to it, so a leaf named then must be there now.
    if let Some(named) = named.filter(|named| *named >= head.leaves) {
        return Err(LedgerError::CutOff { leaves: head.leaves, named });
    }
    if let Some(other) = signed.first() {
        return Err(LedgerError::OtherHead { signed: other.leaves, leaves: head.leaves });
    }
    if let Some(other) = checkpoints.first() {
        return Err(LedgerError::OtherTree { signed: other.size, leaves: head.leaves });
    }
    let key = key.map(|key| key.to_string());
    Ok(Verified { leaves: head.leaves, hash: head.hash, signed: last, checkpoint, key })
}

/// The key to verify with.
fn verifier(data: &Path, key: Option<&str>) -> Result<Option<NoteVerifier>, LedgerError> {
    let filed = match key {
        Some(_) => None,
        None => text(&data.join(VERIFIER_FILE))?,
    };
    Ok(key.map(str::to_owned).or(filed).map(|key| NoteVerifier::parse(&key)).transpose()?)
}

/// The checkpoints of the notes, by size.
fn checkpoints(notes: &[String], key: Option<&NoteVerifier>) -> Result<Vec<Checkpoint>, LedgerError> {
    let key = match key {
        Some(key) => key,
        None if notes.is_empty() => return Ok(Vec::new()),
        None => return Err(LedgerError::NoKey),
    };
    let opened = notes.iter().map(|note| Checkpoint::from_text(key.open(note)?).ok_or(LedgerError::NoHead));
    opened.collect()
}

/// The heads of the notes, by leaves. Where there is a key, there has to be one that it signed.
fn heads(notes: &[String], key: Option<&NoteVerifier>) -> Result<Vec<Head>, LedgerError> {
    let Some(key) = key else {
        return if notes.is_empty() { Ok(Vec::new()) } else { Err(LedgerError::NoKey) };
    };
    let mut heads = Vec::new();
    for note in notes {
        heads.push(Head::from_text(key.open(note)?).ok_or(LedgerError::NoHead)?);
    }
    if heads.is_empty() {
        return Err(LedgerError::Unsigned);
    }
    heads.sort_by_key(|head| head.leaves);
    Ok(heads)
}

fn text(path: &Path) -> Result<Option<String>, LedgerError> {
    let Some(bytes) = keys::read(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| LedgerError::Text { path: path.to_owned() })
}

/// Why a trail does not verify.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file beside it could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that is no text.
    #[error("{}: not a text", path.display())]
    Text {
        /// Which.
        path: PathBuf,
    },
    /// A leaf is missing or altered.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Its end is gone.
    #[error("the trail ends after {leaves} leaves, but leaf {named} is named elsewhere: its end was cut off")]
    CutOff {
        /// Leaves that are there.
        leaves: u64,
        /// A leaf that should be.
        named: u64,
    },
    /// The chain is another than the one that was signed.
    #[error(
        "a head of {signed} leaves was signed that is not this trail's, which has {leaves}: it was made anew or cut off"
    )]
    OtherHead {
        /// Leaves of the signed head.
        signed: u64,
        /// Leaves that are there.
        leaves: u64,
    },
    /// The tree is another than the one that was signed.
    #[error(
        "a checkpoint of {signed} leaves was signed that is not this trail's, which has {leaves}: it was made anew or cut off"
    )]
    OtherTree {
        /// Leaves of the checkpoint.
        signed: u64,
        /// Leaves that are there.
        leaves: u64,
    },
    /// There is no checkpoint to prove anything against.
    #[error("no checkpoint of the trail is signed yet: a server signs one when it starts")]
    NoCheckpoint,
    /// Nothing that could be proven.
    #[error(
        "the checkpoint is of {size} leaves, so that there is no proof of {asked}: leaves count from 0, sizes from 1"
    )]
    NoProof {
        /// What was asked for.
        asked: u64,
        /// Leaves of the checkpoint.
        size: u64,
    },
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing was signed.
    #[error("no head of the trail is signed, though there is a key for it: the signed heads were taken away")]
    Unsigned,
    /// There is no key to verify with.
    #[error(
        "heads of the trail are signed, but {VERIFIER_FILE} is not in the data folder: give the key with --key"
    )]
    NoKey,
    /// A signed note that is no head.
    #[error("a signed note is none of a head or a checkpoint of the trail")]
    NoHead,
    /// A key or a note.
    #[error("a signed head of the trail does not verify")]
    Note(#[from] NoteError),
}
