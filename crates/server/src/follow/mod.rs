//! What every commit brings, whoever made it and whether or not they are still there.
//!
//! One task reads the store's feed, in order and without a gap, and does what follows from each leaf: it is counted
//! ([`count`]), what is in force is loaded again ([`reload`]), the streams that it concerns look again ([`wake`]), and
//! what fell is put on the revocation list ([`list`]). In that order, so that no stream hears of a new list beside grants
//! that are none any more. Then the leaf is settled, which callers who must wait for it learn. What fails is owed, and
//! tried again. On each tick memory is compared with the store ([`reconcile`]).

mod count;
mod list;
mod reconcile;
mod reload;
mod wake;

use std::sync::Arc;
use std::time::Duration;

use assay_clock::{Backoff, Clock};
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use thiserror::Error;

use crate::attest::table::Registry;
use crate::clock;
use crate::in_force::access::Access;
use crate::in_force::entries::Entries;
use crate::in_force::federation::Federation;
use crate::in_force::ledger_head::LedgerHead;
use crate::in_force::policies::{Policies, PolicyLoadError};
use crate::in_force::revocations::RevocationList;
use crate::in_force::secrets::Secrets;
use crate::keys::KeysError;
use crate::metrics::Metrics;
use crate::outcome::{Kind, Outcome, fault};
use crate::placement::Placement;
use crate::store::{Committed, Follower, Store, StoreError};
use crate::thread::{Panicked, caught};

/// What follows from commits is done to these.
#[derive(Clone, Debug)]
pub(crate) struct Following {
    pub store: Store,
    pub registry: Arc<Registry>,
    pub policies: Arc<Policies>,
    pub entries: Arc<Entries>,
    pub federation: Arc<Federation>,
    pub secrets: Arc<Secrets>,
    pub access: Arc<Access>,
    pub revocations: Arc<RevocationList>,
    pub ledger_head: Arc<LedgerHead>,
    pub metrics: Arc<Metrics>,
    pub placement: Arc<Placement>,
    pub clock: Clock,
}

/// What follows from leaves that were read and is not done yet.
#[derive(Debug, Default)]
struct Owed {
    plan: bool,
    entries: bool,
    federation: bool,
    secrets: bool,
    access: bool,
    list: list::Fallen,
}

impl Following {
    pub(crate) fn now(&self) -> UnixTime {
        clock::now(&self.clock)
    }

    /// Follows until the store is closed, whatever happens: what a panic left undone is mended by the comparison with the
    /// store.
    pub(crate) async fn run(self, mut follower: Follower) {
        while let Err(panicked) = caught(self.follow(&mut follower)).await {
            fault("panic", &panicked);
            self.clock.sleep(TICK).await;
        }
    }

    async fn follow(&self, follower: &mut Follower) {
        let mut owed = Owed::default();
        let (mut tick, mut backoff) = (self.clock.instant(), Backoff::between(TICK, TICK_LONGEST));
        loop {
            let outcome = tokio::select! {
                biased;
                commits = follower.next() => match commits {
                    Ok(Some(commits)) => {
                        self.heed(&commits, &mut owed);
                        match self.heed_waiting(follower, &mut owed).await {
                            Ok(()) => self.settle(follower, &mut owed).await,
                            Err(error) => Err(error),
                        }
                    }
                    Ok(None) => return,
                    Err(error) => Err(error.into()),
                },
                () = self.store.fell() => self.enforce().await,
                () = self.clock.sleep_until(tick) => {
                    let ticked = self.tick(follower, &mut owed).await;
                    let wait = match ticked {
                        Ok(()) => {
                            backoff.succeeded();
                            TICK
                        }
                        Err(_) => backoff.wait(),
                    };
                    tick = self.clock.instant() + wait;
                    ticked
                }
            };
            if let Err(error) = outcome {
                fault(error.told().1, &error);
            }
        }
    }

    /// Takes up what else was committed meanwhile: one list does for all that fell together, and one of a hundred thousand
    /// takes a second to sign.
    async fn heed_waiting(&self, follower: &mut Follower, owed: &mut Owed) -> Result<(), FollowError> {
        for _ in 0..BATCHES_AT_ONCE_MAX {
            let waiting = tokio::select! {
                biased;
                commits = follower.next() => commits?,
                () = std::future::ready(()) => None,
            };
            match waiting {
                Some(commits) => self.heed(&commits, owed),
                None => break,
            }
        }
        Ok(())
    }

    /// Notes what follows from these leaves, and does what cannot fail.
    fn heed(&self, commits: &[Committed], owed: &mut Owed) {
        for committed in commits {
            count::count(&self.metrics, committed);
            owed.plan |= reload::changes_plan(committed);
            owed.entries |= reload::changes_entries(committed);
            owed.federation |= reload::changes_federation(committed);
            owed.secrets |= reload::changes_secrets(committed);
            owed.access |= reload::changes_access(committed);
            owed.list.add(committed);
        }
        wake::wake(&self.registry, &self.placement, commits);
    }

    /// Does what is owed; everything up to the follower's next leaf is settled then.
    async fn settle(&self, follower: &Follower, owed: &mut Owed) -> Result<(), FollowError> {
        if owed.plan {
            self.policies.reload(&self.store).await?;
            owed.plan = false;
        }
        if owed.entries {
            let changed = self.entries.reload(&self.store).await?;
            changed.iter().for_each(|device| self.registry.wake_for_entries(device));
            owed.entries = false;
        }
        if owed.federation {
            self.reload_federation().await?;
            owed.federation = false;
        }
        if owed.secrets {
            self.secrets.reload(&self.store).await?;
            self.registry.wake_for_secrets();
            owed.secrets = false;
        }
        if owed.access {
            self.access.reload(&self.store).await?;
            owed.access = false;
        }
        owed.list.publish(&self.revocations, self.now()).await?;
        self.store.settle(follower.next_leaf());
        Ok(())
    }

    /// Loads other trust domains again; the devices with entries that federate with one that is another now hear of it.
    async fn reload_federation(&self) -> Result<(), FollowError> {
        let changed = self.federation.reload(&self.store).await?;
        if !changed.is_empty() {
            let parents = self.entries.federating(&changed);
            parents.iter().for_each(|device| self.registry.wake_for_entries(device));
        }
        Ok(())
    }

    /// Falls that there is no room to record are in force: what their devices hold goes on the list, and their streams look again.
    async fn enforce(&self) -> Result<(), FollowError> {
        for id in self.store.fallen() {
            let held = self.store.svids_of_device(&id, self.now(), u32::MAX).await?;
            list::Fallen::of_standing(held).publish(&self.revocations, self.now()).await?;
            if let Ok(device) = SpiffeId::parse(&id) {
                self.registry.wake(&device);
            }
        }
        Ok(())
    }

    /// Pays old debts, reads what was committed elsewhere, and mends what is not as the store has it.
    async fn tick(&self, follower: &mut Follower, owed: &mut Owed) -> Result<(), FollowError> {
        self.settle(follower, owed).await?;
        match self.store.pay().await {
            // As long as there is no room, it is a concern, and no fault.
            Err(StoreError::NoSpace(_) | StoreError::Busy) => {}
            paid => paid?,
        }
        let standing = self.store.standing(self.now()).await?;
        if follower.next_leaf() < standing.leaves {
            let missed = follower.missed(standing.leaves).await?;
            self.heed(&missed, owed);
            return self.settle(follower, owed).await;
        }
        reconcile::reconcile(self, follower.next_leaf(), &standing).await?;
        Ok(self.ledger_head.sign(&self.store, self.now()).await?)
    }
}

/// Why what follows from a commit could not be done yet.
#[derive(Debug, Error)]
pub(crate) enum FollowError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The policies in force could not be loaded.
    #[error(transparent)]
    Policies(#[from] PolicyLoadError),
    /// The list could not be signed.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A panic on the way.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl Outcome for FollowError {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Fault, "follow")
    }
}

/// As many as the feed keeps for whoever is behind; nobody who waits for a leaf waits for all that come after it.
const BATCHES_AT_ONCE_MAX: usize = 64;
/// How often debts are paid and memory is compared, and how seldom while that fails.
const TICK: Duration = Duration::from_secs(1);
const TICK_LONGEST: Duration = Duration::from_secs(10);
