//! Word of what was committed: each leaf of the trail with what it brought, in order and without a gap.
//!
//! The writer publishes after each commit. Whoever follows knows by the number which leaves it missed and reads those
//! from the store. What follows from a leaf is *settled* once its follower says so, and a caller may wait for that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use super::withdraw::Withdrawn;
use super::{Store, StoreError};
use crate::audit::Kind;

/// A leaf that is on disk, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the trail.
    pub leaf: u64,
    /// What happened; `None`: something that a later version of the server writes.
    pub kind: Option<Kind>,
    /// What it was done to.
    pub subject: String,
    /// The grants that fell with it.
    pub withdrawn: Withdrawn,
}

/// The writer's end, and how far what follows is settled.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    commits: broadcast::Sender<Arc<Vec<Committed>>>,
    settled: watch::Sender<u64>,
}

impl Feed {
    /// Begins after so many leaves.
    pub(super) fn new(leaves: u64) -> Feed {
        Feed { commits: broadcast::Sender::new(BATCHES_WAITING_MAX), settled: watch::Sender::new(leaves) }
    }

    /// Says what a batch brought.
    pub(super) fn publish(&self, batch: Vec<Committed>) {
        if !batch.is_empty() {
            // Nobody may be following; whoever begins reads the store first.
            self.commits.send(Arc::new(batch)).ok();
        }
    }

    /// Waits until what follows from the first `leaves` leaves is done.
    pub(super) async fn wait(&self, leaves: u64) -> Result<(), StoreError> {
        let mut settled = self.settled.subscribe();
        let waiting = settled.wait_for(|settled| *settled >= leaves);
        match timeout(SETTLED_WITHIN, waiting).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unsettled),
        }
    }
}

/// Reads the feed from one leaf on.
#[derive(Debug)]
pub(crate) struct Follower {
    store: Store,
    commits: broadcast::Receiver<Arc<Vec<Committed>>>,
    ahead: VecDeque<Arc<Vec<Committed>>>,
    next: u64,
}

impl Store {
    /// Follows from the next leaf on. What is loaded from the store afterwards is at least as new.
    pub(crate) fn follow(&self) -> Follower {
        // In this order: a commit in between is published to the receiver and skipped by its number.
        let commits = self.feed.commits.subscribe();
        let next = *self.feed.settled.borrow();
        Follower { store: self.clone(), commits, ahead: VecDeque::new(), next }
    }

    /// Says that what follows from the first `leaves` leaves is done.
    pub(crate) fn settle(&self, leaves: u64) {
        self.feed.settled.send_if_modified(|settled| {
            let further = *settled < leaves;
            *settled = leaves.max(*settled);
            further
        });
    }
}

impl Follower {
    /// The number of the next leaf.
    pub(crate) fn next_leaf(&self) -> u64 {
        self.next
    }

    /// What comes next; `None` when the store was closed. May be dropped and called again without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Committed>>, StoreError> {
        loop {
            let Some(batch) = self.ahead.front().cloned() else {
                match self.commits.recv().await {
                    Ok(batch) => self.ahead.push_back(batch),
                    // Its number says what is missing, once another batch comes.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok(None),
                }
                continue;
            };
            let first = batch.first().map_or(self.next, |first| first.leaf);
            if first > self.next {
                return self.missed(first).await.map(Some);
            }
            self.ahead.pop_front();
            let new: Vec<Committed> = batch.iter().filter(|one| one.leaf >= self.next).cloned().collect();
            if let Some(last) = new.last() {
                self.next = last.leaf.saturating_add(1);
                return Ok(Some(new));
            }
        }
    }

    /// Reads what is in the store before leaf `end`, some of it at a time.
    pub(crate) async fn missed(&mut self, end: u64) -> Result<Vec<Committed>, StoreError> {
        let missed = self.store.committed(self.next, end, MISSED_AT_ONCE_MAX).await?;
        if let Some(last) = missed.last() {
            self.next = last.leaf.saturating_add(1);
        }
        Ok(missed)
    }
}

/// Batches that a follower may be behind before it reads the store instead; each has at most some hundred leaves.
const BATCHES_WAITING_MAX: usize = 256;
/// Leaves read back at once.
const MISSED_AT_ONCE_MAX: u32 = 1000;
/// A revocation list of a hundred thousand takes a second to sign.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
