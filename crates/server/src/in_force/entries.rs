//! Registration entries in memory, by the device that may hand them out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use assay_evidence::time::UnixTime;
use assay_identity::{Selector, SpiffeId};
use assay_trust::condition::Conditions;
use assay_trust::grant::Entitlement;

use crate::store::{EntryRecord, Store, StoreError};

/// Every entry.
#[derive(Debug, Default)]
struct Standing {
    /// Oldest first; of one second in the order of their ids.
    all: Arc<[Arc<EntryRecord>]>,
    /// When the first of them ends by itself.
    first_end: Option<UnixTime>,
    by_parent: HashMap<String, Vec<Arc<EntryRecord>>>,
}

/// The entries that stand. Replaced as a whole by whoever follows the store.
#[derive(Debug)]
pub(crate) struct Entries {
    current: RwLock<Arc<Standing>>,
}

impl Entries {
    /// Loads them from the store.
    pub(crate) async fn open(store: &Store) -> Result<Entries, StoreError> {
        Ok(Entries { current: RwLock::new(load(store).await?) })
    }

    /// What workloads on this device are entitled to.
    pub(crate) fn of(&self, device: &SpiffeId) -> Vec<Arc<EntryRecord>> {
        self.current().by_parent.get(device.as_str()).cloned().unwrap_or_default()
    }

    /// What a node reaches that attested as SPIRE's agents do: its own entries, those of the aliases that choose it by its
    /// selectors, and those whose parent is an identity of an entry that it reaches.
    pub(crate) fn reached_by(&self, node: &SpiffeId, selectors: &[Selector]) -> Vec<Arc<EntryRecord>> {
        let current = self.current();
        let of = |parent: &str| current.by_parent.get(parent).into_iter().flatten();
        let server = SpiffeId::spire_server(node.trust_domain());
        let chosen = of(server.as_str())
            .filter(|alias| alias.unquoted && alias.selectors.iter().all(|one| selectors.contains(one)));
        let mut parents: Vec<&str> =
            std::iter::once(node.as_str()).chain(chosen.map(|alias| alias.spiffe_id.as_str())).collect();
        let mut seen: HashSet<&str> = parents.iter().copied().collect();
        let mut reached = Vec::new();
        while let Some(parent) = parents.pop() {
            for entry in of(parent) {
                reached.push(entry.clone());
                if seen.insert(&entry.spiffe_id) {
                    parents.push(&entry.spiffe_id);
                }
            }
        }
        reached.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        reached
    }

    /// All of them: oldest first, those of one second in the order of their ids.
    pub(crate) fn all(&self) -> Arc<[Arc<EntryRecord>]> {
        self.current().all.clone()
    }

    /// Those that have ended by themselves and are still there.
    pub(crate) fn over(&self, now: UnixTime) -> Vec<Arc<EntryRecord>> {
        let current = self.current();
        match current.first_end {
            Some(first) if first <= now => {
                current.all.iter().filter(|entry| entry.is_over(now)).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The one of this id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<EntryRecord>> {
        self.current().all.iter().find(|entry| entry.id == id).cloned()
    }

    /// The devices with entries that federate with one of these trust domains.
    pub(crate) fn federating(&self, domains: &[String]) -> Vec<SpiffeId> {
        let current = self.current();
        let federates =
            |entry: &&Arc<EntryRecord>| entry.federates_with.iter().any(|one| domains.contains(one));
        let mut parents: Vec<&str> =
            current.all.iter().filter(federates).map(|entry| entry.parent.as_str()).collect();
        parents.sort_unstable();
        parents.dedup();
        parents.into_iter().filter_map(|parent| SpiffeId::parse(parent).ok()).collect()
    }

    /// What they ask of the device itself.
    pub(crate) fn conditions(&self, device: &SpiffeId) -> Conditions {
        let entries = self.of(device);
        let selectors = entries.iter().flat_map(|entry| &entry.selectors);
        selectors.filter(|selector| selector.is_condition()).cloned().collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.current().all.len()).unwrap_or(u64::MAX)
    }

    /// Loads them again; the devices whose entries are others now.
    pub(crate) async fn reload(&self, store: &Store) -> Result<Vec<SpiffeId>, StoreError> {
        let new = load(store).await?;
        let old = std::mem::replace(
            &mut *self.current.write().unwrap_or_else(PoisonError::into_inner),
            new.clone(),
        );
        let (old, new) = (&old.by_parent, &new.by_parent);
        let changed = old.keys().chain(new.keys()).filter(|parent| old.get(*parent) != new.get(*parent));
        let mut changed: Vec<SpiffeId> = changed.filter_map(|parent| SpiffeId::parse(parent).ok()).collect();
        changed.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        changed.dedup();
        Ok(changed)
    }

    fn current(&self) -> Arc<Standing> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The part of an entry that decides, on a device or node that may hand it out: its parent, or one that reaches it.
pub(crate) fn entitlement(entry: &EntryRecord, holder: &SpiffeId) -> Option<Entitlement> {
    Some(Entitlement {
        spiffe_id: SpiffeId::parse(&entry.spiffe_id).ok()?,
        parent: holder.clone(),
        ttl_seconds: entry.ttl_seconds,
        dns_names: entry.dns_names.clone(),
        selectors: entry.selectors.clone(),
        unquoted: entry.unquoted,
        jwt_ttl_seconds: entry.jwt_ttl_seconds,
    })
}

async fn load(store: &Store) -> Result<Arc<Standing>, StoreError> {
    let all: Arc<[Arc<EntryRecord>]> = store.entries().await?.into_iter().map(Arc::new).collect();
    let mut by_parent = HashMap::<_, Vec<_>>::new();
    for entry in all.iter() {
        by_parent.entry(entry.parent.clone()).or_default().push(entry.clone());
    }
    let first_end = all.iter().map(|entry| entry.expires_at).filter(|at| at.0 != 0).min();
    Ok(Arc::new(Standing { all, first_end, by_parent }))
}
