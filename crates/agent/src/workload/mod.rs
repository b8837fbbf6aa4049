//! Which workloads are on this device: who calls, and what holds for them.
//!
//! Each kind of selector has its file. What a caller says of itself counts nowhere: the kernel is asked.

mod cgroup;
mod engine;
mod exchange;
mod kubelet;
pub(crate) mod peer;
pub(crate) mod program;
mod seen;
pub(crate) mod unix;

use std::sync::Arc;

use assay_clock::Clock;
use assay_identity::selector::Sha256;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::holding::Entry;
use cgroup::Cgroups;
use engine::Description;
pub use engine::Engines;
pub use kubelet::Kubelet;
use kubelet::{InPod, Pods};
use peer::Peer;
use program::Programs;
use seen::{Known, Seen, is_of_container, is_of_pod, is_of_program};
use unix::{Unix, UnixError};

/// Finds out who callers are; one for the whole agent. Clones share its turns and its memory.
#[derive(Clone, Debug)]
pub(crate) struct Attestor {
    programs: Arc<Programs>,
    engines: Arc<Engines>,
    /// What the node's kubelet tells, where there is one.
    pods: Option<Arc<Pods>>,
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
    pub(crate) fn new(engines: Engines, clock: Clock) -> Self {
        let pods = engines.kubelet.clone().map(|kubelet| Arc::new(Pods::new(kubelet, clock)));
        let (programs, engines) = (Arc::new(Programs::new()), Arc::new(engines));
        Attestor { programs, engines, pods, looks: Arc::new(Semaphore::new(LOOKS)) }
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
        let (wants_program, wants_container) = (asked().any(is_of_program), asked().any(is_of_container));
        let wants_pod = asked().any(is_of_pod);
        if !wants_program && !wants_container && !wants_pod {
            return Ok(may_be);
        }
        if wants_container {
            seen.container = self.container(&seen.cgroups).await;
        }
        if wants_pod {
            seen.pod = self.pod(&seen.cgroups).await;
        }
        if wants_program {
            seen.program = self.program().await;
        }
        // That took its time: what was looked at must still be what runs.
        self.peer.check()?;
        let holds = |index: &usize| entries.get(*index).is_some_and(|entry| seen.has_all(&entry.selectors));
        Ok(may_be.into_iter().filter(holds).collect())
    }

    async fn container(&self, cgroups: &Cgroups) -> Known<Description> {
        let Some(container) = &cgroups.container else { return Known::Never };
        match self.attestor.engines.describe(container).await {
            Ok(description) => Known::Is(description),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(pid = self.peer.pid(), container = container.id, %error, cause, "container is not known");
                Known::Never
            }
        }
    }

    async fn pod(&self, cgroups: &Cgroups) -> Known<InPod> {
        let Some(container) = &cgroups.container else { return Known::Never };
        let Some((uid, pods)) = container.pod.as_ref().zip(self.attestor.pods.as_ref()) else {
            return Known::Never;
        };
        match pods.describe(uid, container).await {
            Ok(pod) => Known::Is(pod),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(pid = self.peer.pid(), pod = uid, container = container.id, %error, cause, "pod is not known");
                Known::Never
            }
        }
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
            let cgroups = Cgroups::of(&peer.proc("cgroup"));
            // Read first, then asked: what was read was of the process that connected.
            let unix = Unix::of(&peer)?;
            let seen =
                Seen { unix, cgroups, container: Known::NotYet, pod: Known::NotYet, program: Known::NotYet };
            let may_be = |(_, entry): &(usize, &Arc<Entry>)| seen.has_all(&entry.selectors);
            let found = entries.iter().enumerate().filter(may_be).map(|(index, _)| index).collect();
            Ok((seen, found))
        });
        looking.await.map_err(|_| UnixError::Stopping)?
    }
}

/// Reading procfs and /etc/passwd takes well under a millisecond each.
const LOOKS: usize = 8;
