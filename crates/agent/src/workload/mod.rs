//! Which workloads are on this device: who calls, and what holds for them.
//!
//! Each kind of selector has its file. What a caller says of itself counts nowhere: the kernel is asked.

pub(crate) mod peer;
pub(crate) mod program;
pub(crate) mod unix;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::holding::Entry;
use peer::Peer;
use program::Programs;
use unix::{Hash, Unix, UnixError};

/// Finds out who callers are; one for the whole agent. Clones share its turns and its memory.
#[derive(Clone, Debug)]
pub(crate) struct Attestor {
    programs: Arc<Programs>,
    /// Callers that are looked at at a time.
    looks: Arc<Semaphore>,
}

/// A process that asks for its identity.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    peer: Peer,
    attestor: Attestor,
}

impl Attestor {
    pub(crate) fn new() -> Self {
        Attestor { programs: Arc::new(Programs::new()), looks: Arc::new(Semaphore::new(LOOKS)) }
    }

    /// A caller whose entries can be asked for.
    pub(crate) fn caller(&self, peer: Peer) -> Caller {
        Caller { peer, attestor: self.clone() }
    }
}

impl Caller {
    /// Which of the entries are this caller's, by their places in the list. An error is a caller that is gone, or is not
    /// who connected.
    ///
    /// An entry is a caller's if every selector of it holds; one without selectors is nobody's. A program is hashed only
    /// for whom everything else holds.
    pub(crate) async fn entries(&self, entries: Arc<[Arc<Entry>]>) -> Result<Vec<usize>, UnixError> {
        let (unix, quick) = self.look(entries.clone()).await?;
        let (costly, mut found): (Vec<usize>, Vec<usize>) =
            quick.into_iter().partition(|index| entries.get(*index).is_some_and(|entry| wants_hash(entry)));
        if costly.is_empty() {
            return Ok(found);
        }
        match self.attestor.programs.sha256(&self.peer).await {
            Ok(sha256) => {
                let holds = |entry: &Entry| unix.has_all(&entry.selectors, Hash::Is(sha256));
                found.extend(
                    costly.into_iter().filter(|index| entries.get(*index).is_some_and(|entry| holds(entry))),
                );
                found.sort_unstable();
            }
            Err(error) => tracing::warn!(pid = self.peer.pid(), %error, "program could not be hashed"),
        }
        // Hashing took its time: what was hashed must still be what runs.
        self.peer.check()?;
        Ok(found)
    }

    /// Everything that is known at once, and the entries for which it holds, hashes left out.
    async fn look(&self, entries: Arc<[Arc<Entry>]>) -> Result<(Unix, Vec<usize>), UnixError> {
        let peer = self.peer.clone();
        let turn = self.attestor.looks.clone().acquire_owned().await.map_err(|_| UnixError::Stopping)?;
        let looking = spawn_blocking(move || {
            let _turn = turn;
            let unix = Unix::of(&peer)?;
            let holds = |(_, entry): &(usize, &Arc<Entry>)| unix.has_all(&entry.selectors, Hash::Later);
            let found = entries.iter().enumerate().filter(holds).map(|(index, _)| index).collect();
            Ok((unix, found))
        });
        looking.await.map_err(|_| UnixError::Stopping)?
    }
}

fn wants_hash(entry: &Entry) -> bool {
    entry.selectors.iter().any(unix::is_hash)
}

/// Reading procfs and /etc/passwd takes well under a millisecond each.
const LOOKS: usize = 8;
