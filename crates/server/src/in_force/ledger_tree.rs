//! The trail as a Merkle tree in tiles: a function of its leaves, kept as far as whole tiles go, and caught up with when a head is signed.
//!
//! What records a thing writes a leaf, in one transaction; of the tree it knows nothing, and waits for nothing. The roots of whole tiles and
//! the signed checkpoint are one transaction of their own, so that a tree is never ahead of what was signed of it.

use std::sync::{Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::tlog::{self, Checkpoint, Edge, Hash, TILE_WIDTH, Tile};

use crate::keys::{KeysError, LedgerKey};
use crate::store::{RecordCheckpoint, Store, StoreError};

/// The tree, as the last checkpoint says.
#[derive(Debug, Default)]
pub(crate) struct LedgerTree(Mutex<State>);

#[derive(Clone, Debug, Default)]
struct State {
    /// Roots of whole tiles.
    tiles: Vec<Hash>,
    /// How many of them the store has.
    kept: usize,
    /// Hashes of the leaves behind them.
    tail: Vec<Hash>,
    /// The last checkpoint; empty before the first leaf.
    note: String,
}

impl LedgerTree {
    /// Reads what is kept of the tree, and holds it against the checkpoint that was signed last. What is kept of tiles may be damaged and is
    /// made again from the leaves; leaves that are others than those that were signed are not gone on from.
    pub(crate) async fn open(store: &Store, key: &LedgerKey) -> Result<LedgerTree, KeysError> {
        let Some(note) = store.last_checkpoint().await? else { return Ok(LedgerTree::default()) };
        let verifier = key.verifier();
        let Checkpoint { size, root, .. } =
            Checkpoint::from_text(verifier.open(&note)?).ok_or(KeysError::NoCheckpoint)?;
        let mut tiles = store.ledger_tiles().await?;
        tiles.truncate(whole(size));
        let mut state = State { kept: tiles.len(), tiles, tail: Vec::new(), note };
        state.grow(store, size).await?;
        if state.root() != root {
            tracing::warn!(
                size,
                "what is kept of the ledger's tree is not what was signed: it is made again from the leaves"
            );
            state = State { note: state.note, ..State::default() };
            state.grow(store, size).await?;
        }
        if state.size() != size || state.root() != root {
            return Err(KeysError::OtherTrail { size });
        }
        Ok(LedgerTree(Mutex::new(state)))
    }

    /// Goes on to a trail of so many leaves, and signs that.
    pub(crate) async fn sign(
        &self,
        store: &Store,
        key: &LedgerKey,
        (size, at): (u64, UnixTime),
    ) -> Result<(), KeysError> {
        let mut state = self.state();
        if state.size() >= size {
            return Ok(());
        }
        state.grow(store, size).await?;
        let origin = key.verifier().name().to_owned();
        state.note =
            key.sign_text(&Checkpoint { origin, size: state.size(), root: state.root() }.to_text())?;
        let tiles = (0..).zip(&state.tiles).skip(state.kept).map(|(number, root)| (number, *root)).collect();
        state.kept = state.tiles.len();
        store.commit(RecordCheckpoint { at, leaves: state.size(), note: state.note.clone(), tiles }).await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// The last checkpoint; empty before the first leaf.
    pub(crate) fn note(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note.clone()
    }

    /// What a tile has; `None`: it is not in the tree that was signed.
    pub(crate) async fn tile(&self, store: &Store, tile: Tile) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.state();
        let Some(first) = tile.first().filter(|_| tile.is_in(state.size())) else { return Ok(None) };
        let width = u32::try_from(tile.width).unwrap_or(0);
        Ok(match tile.level {
            None => {
                let leaves = store.audit_leaves(first, width).await?;
                let entries: Vec<Vec<u8>> = leaves.iter().map(|leaf| leaf.entry()).collect();
                tlog::bundle(entries.iter().map(Vec::as_slice))
            }
            Some(0) => {
                let leaves = store.audit_leaves(first, width).await?;
                Some(leaves.iter().flat_map(|leaf| tlog::leaf_hash(&leaf.entry())).collect())
            }
            Some(level) => state.hashes(level, first, tile.width).map(|hashes| hashes.concat()),
        })
    }

    fn state(&self) -> State {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl State {
    fn size(&self) -> u64 {
        self.tiles.len() as u64 * TILE_WIDTH + self.tail.len() as u64
    }

    fn root(&self) -> Hash {
        let mut edge = Edge::default();
        self.tiles.iter().for_each(|tile| edge.push(TILE_HEIGHT, *tile));
        self.tail.iter().for_each(|leaf| edge.push(0, *leaf));
        edge.root()
    }

    /// Reads leaves up to a size, as far as there are any.
    async fn grow(&mut self, store: &Store, size: u64) -> Result<(), StoreError> {
        while self.size() < size {
            let limit = u32::try_from((size - self.size()).min(PAGE)).unwrap_or(u32::MAX);
            let leaves = store.audit_leaves(self.size(), limit).await?;
            if leaves.is_empty() {
                return Ok(());
            }
            for leaf in leaves {
                self.tail.push(tlog::leaf_hash(&leaf.entry()));
                if self.tail.len() as u64 == TILE_WIDTH {
                    self.tiles.push(tlog::root(&self.tail));
                    self.tail.clear();
                }
            }
        }
        Ok(())
    }

    /// Hashes of a level above the leaves: each is the root of so many whole tiles.
    fn hashes(&self, level: u8, first: u64, width: u64) -> Option<Vec<Hash>> {
        let tiles = TILE_WIDTH.checked_pow(u32::from(level) - 1)?;
        let hash = |index: u64| {
            let start = usize::try_from(index.checked_mul(tiles)?).ok()?;
            let end = start.checked_add(usize::try_from(tiles).ok()?)?;
            self.tiles.get(start..end).map(tlog::root)
        };
        (first..first.checked_add(width)?).map(hash).collect()
    }
}

/// Whole tiles of a tree of this size.
fn whole(size: u64) -> usize {
    usize::try_from(size / TILE_WIDTH).unwrap_or(usize::MAX)
}

/// 2^8 leaves.
const TILE_HEIGHT: u32 = 8;
/// Leaves that are read at a time.
const PAGE: u64 = 1024;
