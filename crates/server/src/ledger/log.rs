//! The trail as a log that others check, up to the checkpoint that was signed last: proofs, and its tiles as files.

use std::path::Path;

use assay_identity::tlog::{self, Checkpoint, Hash, Tile, consistency, inclusion, leaf_hash};
use tokio_stream::StreamExt;

use super::{LedgerError, checkpoints, verifier};
use crate::config::Place;
use crate::store::{self, Store};

/// The entries that a checkpoint is of, by their hashes.
#[derive(Debug)]
pub struct Log {
    note: String,
    checkpoint: Checkpoint,
    leaves: Vec<Hash>,
}

impl Log {
    /// Reads the trail of a data folder up to its last checkpoint, and holds it against that. `entries` is given each entry.
    async fn read(
        place: impl Into<Place<'_>>,
        mut entries: impl FnMut(u64, Vec<u8>) -> Result<(), LedgerError>,
    ) -> Result<Log, LedgerError> {
        let place: Place<'_> = place.into();
        let key = verifier(place.data, None)?;
        let mut connection = Store::open_read_only(&place.database()).await?;
        let notes = store::checkpoints(&mut connection).await?;
        let checkpoint = checkpoints(&notes, key.as_ref())?.pop().ok_or(LedgerError::NoCheckpoint)?;
        let note = notes.last().cloned().unwrap_or_default();
        let mut leaves = Vec::new();
        let mut trail = store::trail(&mut connection);
        while (leaves.len() as u64) < checkpoint.size
            && let Some(row) = trail.next().await
        {
            let entry = store::leaf(&row?)?.entry();
            leaves.push(leaf_hash(&entry));
            entries(leaves.len() as u64 - 1, entry)?;
        }
        if leaves.len() as u64 != checkpoint.size || tlog::root(&leaves) != checkpoint.root {
            return Err(LedgerError::OtherTree { signed: checkpoint.size, leaves: leaves.len() as u64 });
        }
        Ok(Log { note, checkpoint, leaves })
    }

    /// Reads it.
    pub async fn open(place: impl Into<Place<'_>>) -> Result<Log, LedgerError> {
        Log::read(place, |_, _| Ok(())).await
    }

    /// The checkpoint, as it was signed.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// What the checkpoint says.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The hash of an entry, and what shows that it is in the log.
    pub fn inclusion(&self, index: u64) -> Result<(Hash, Vec<Hash>), LedgerError> {
        let at = usize::try_from(index).ok();
        let found = at.and_then(|at| Some((*self.leaves.get(at)?, inclusion(&self.leaves, at)?)));
        found.ok_or(LedgerError::NoProof { asked: index, size: self.checkpoint.size })
    }

    /// The root that the log had with its first `size` entries, and what shows that it went on from there.
    pub fn consistency(&self, size: u64) -> Result<(Hash, Vec<Hash>), LedgerError> {
        let old = usize::try_from(size).ok();
        let found =
            old.and_then(|old| Some((tlog::root(self.leaves.get(..old)?), consistency(&self.leaves, old)?)));
        found.ok_or(LedgerError::NoProof { asked: size, size: self.checkpoint.size })
    }

    /// Writes the log of a data folder as static files, the checkpoint last: what is served from `folder` is a log by C2SP tlog-tiles.
    pub async fn export(place: impl Into<Place<'_>>, folder: &Path) -> Result<Log, LedgerError> {
        let mut bundle: Vec<Vec<u8>> = Vec::new();
        let flush = |number: u64, bundle: &mut Vec<Vec<u8>>| {
            let tile = Tile { level: None, number, width: bundle.len() as u64 };
            let bytes = tlog::bundle(bundle.iter().map(Vec::as_slice)).unwrap_or_default();
            bundle.clear();
            write(folder, &tile.to_string(), &bytes)
        };
        let log = Log::read(place, |index, entry| {
            bundle.push(entry);
            if bundle.len() as u64 == tlog::TILE_WIDTH {
                flush(index / tlog::TILE_WIDTH, &mut bundle)
            } else {
                Ok(())
            }
        })
        .await?;
        if !bundle.is_empty() {
            flush(log.checkpoint.size / tlog::TILE_WIDTH, &mut bundle)?;
        }
        let mut level: Vec<Hash> = log.leaves.clone();
        for tile in Tile::all(log.checkpoint.size).filter(|tile| tile.level.is_some()) {
            if tile.level > Some(0) && tile.number == 0 {
                let tiles = level.chunks_exact(256);
                level = tiles.map(tlog::root).collect();
            }
            let first = tile.first().and_then(|first| usize::try_from(first).ok()).unwrap_or(usize::MAX);
            let hashes = level.iter().skip(first).take(256).flatten().copied().collect::<Vec<u8>>();
            write(folder, &tile.to_string(), &hashes)?;
        }
        write(folder, "checkpoint", log.note.as_bytes())?;
        Ok(log)
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), LedgerError> {
    let path = folder.join(name);
    let written = match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    };
    written
        .and_then(|()| std::fs::write(&path, bytes))
        .map_err(|source| LedgerError::Write { path: path.clone(), source })
}
