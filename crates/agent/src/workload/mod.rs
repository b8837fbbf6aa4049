//! Which workloads are on this device: who calls, and what holds for them.
//!
//! Each kind of selector has its file. What a caller says of itself counts nowhere: the kernel is asked.

pub(crate) mod peer;
pub(crate) mod program;
mod seen;
pub(crate) mod unix;

use std::sync::Arc;

use assay_identity::selector::Sha256;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::holding::Entry;
use peer::Peer;
use program::Programs;
use seen::{Known, Seen, is_of_program};
use unix::{Unix, UnixError};

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
        let (mut seen, may_be) = self.look(entries.clone()).await?;
        let asked =
            || may_be.iter().filter_map(|index| entries.get(*index)).flat_map(|entry| &entry.selectors);
        if !asked().any(is_of_program) {
            return Ok(may_be);
        }
        seen.program = self.program().await;
        // That took its time: what was looked at must still be what runs.
        self.peer.check()?;
        let holds = |index: &usize| entries.get(*index).is_some_and(|entry| seen.has_all(&entry.selectors));
        Ok(may_be.into_iter().filter(holds).collect())
    }

    async fn program(&self) -> Known<Sha256> {
        match self.attestor.programs.sha256(&self.peer).await {
            Ok(sha256) => Known::Is(sha256),
            Err(error) => {
                tracing::warn!(pid = self.peer.pid(), %error, "program could not be hashed");
                Known::Never
            }
        }
    }

    /// Everything that is known at once, and the entries that may be the caller's by that.
    async fn look(&self, entries: Arc<[Arc<Entry>]>) -> Result<(Seen, Vec<usize>), UnixError> {
        let peer = self.peer.clone();
        let turn = self.attestor.looks.clone().acquire_owned().await.map_err(|_| UnixError::Stopping)?;
        let looking = spawn_blocking(move || {
            let _turn = turn;
            let seen = Seen { unix: Unix::of(&peer)?, program: Known::NotYet };
            let may_be = |(_, entry): &(usize, &Arc<Entry>)| seen.has_all(&entry.selectors);
            let found = entries.iter().enumerate().filter(may_be).map(|(index, _)| index).collect();
            Ok((seen, found))
        });
        looking.await.map_err(|_| UnixError::Stopping)?
    }
}

/// Reading procfs and /etc/passwd takes well under a millisecond each.
const LOOKS: usize = 8;
