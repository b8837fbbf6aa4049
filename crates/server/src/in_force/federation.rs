//! The other trust domains in force: where their bundles are found, the bundle of each, and how fetching them goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use assay_evidence::time::UnixTime;
use assay_identity::{ForeignBundle, SpiffeId, TrustDomain};
use tokio::sync::Notify;

use crate::store::{EntryRecord, ForeignDomainRecord, Store, StoreError};

/// Another trust domain.
#[derive(Clone, Debug)]
pub(crate) struct Foreign {
    pub trust_domain: TrustDomain,
    pub endpoint: Option<Endpoint>,
    pub bundle: Option<ForeignBundle>,
    pub record: ForeignDomainRecord,
}

/// Where its bundle is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub url: String,
    /// Who is to answer there; `None`: whoever the web knows by the URL's name.
    pub id: Option<SpiffeId>,
}

/// How fetching goes. It is not on record: with the next start everything is fetched anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetching {
    /// When it was last there.
    pub fetched_at: Option<UnixTime>,
    /// Why it was not the last time.
    pub failure: Option<String>,
    /// When it is fetched next; `None`: now.
    pub due_at: Option<UnixTime>,
    pub attempts: u32,
}

/// All of them. Replaced as a whole by whoever follows the store.
#[derive(Debug)]
pub(crate) struct Federation {
    current: RwLock<Arc<[Arc<Foreign>]>>,
    fetching: Mutex<HashMap<TrustDomain, Fetching>>,
    changed: Notify,
}

impl Federation {
    /// Loads them from the store.
    pub(crate) async fn open(store: &Store) -> Result<Federation, StoreError> {
        let current = RwLock::new(load(store).await?);
        Ok(Federation { current, fetching: Mutex::default(), changed: Notify::new() })
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> Arc<[Arc<Foreign>]> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Foreign>> {
        self.all().iter().find(|foreign| foreign.record.trust_domain == name).cloned()
    }

    /// Those that have a bundle and that one of these entries federates with.
    pub(crate) fn of_entries<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a EntryRecord>,
    ) -> Vec<Arc<Foreign>> {
        let mut names: Vec<&str> =
            entries.into_iter().flat_map(|entry| &entry.federates_with).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Vec::new();
        }
        let all = self.all();
        let is_meant = |foreign: &&Arc<Foreign>| {
            foreign.bundle.is_some() && names.binary_search(&foreign.record.trust_domain.as_str()).is_ok()
        };
        all.iter().filter(is_meant).cloned().collect()
    }

    /// Loads them again; the names of those that are others now.
    pub(crate) async fn reload(&self, store: &Store) -> Result<Vec<String>, StoreError> {
        let new = load(store).await?;
        let old = std::mem::replace(
            &mut *self.current.write().unwrap_or_else(PoisonError::into_inner),
            new.clone(),
        );
        let differs = |one: &Arc<Foreign>, others: &[Arc<Foreign>]| {
            others.iter().all(|other| other.record != one.record)
        };
        let gone = old.iter().filter(|one| differs(one, &new));
        let come = new.iter().filter(|one| differs(one, &old));
        let mut changed: Vec<String> =
            gone.chain(come).map(|foreign| foreign.record.trust_domain.clone()).collect();
        changed.sort();
        changed.dedup();
        {
            let mut fetching = self.fetching();
            fetching.retain(|name, _| new.iter().any(|foreign| foreign.trust_domain == *name));
            // One that is found elsewhere now is looked for there at once.
            for foreign in new.iter() {
                let is_there = |one: &Arc<Foreign>| {
                    one.trust_domain == foreign.trust_domain && one.endpoint == foreign.endpoint
                };
                if !old.iter().any(is_there) {
                    fetching.remove(&foreign.trust_domain);
                }
            }
        }
        self.changed.notify_one();
        Ok(changed)
    }

    /// How fetching this one goes.
    pub(crate) fn progress(&self, of: &TrustDomain) -> Fetching {
        self.fetching().get(of).cloned().unwrap_or_default()
    }

    /// Notes how fetching this one went.
    pub(crate) fn note(&self, of: &TrustDomain, note: impl FnOnce(&mut Fetching)) {
        note(self.fetching().entry(of.clone()).or_default());
    }

    /// Those that are to be fetched now, and when the next one is.
    pub(crate) fn due(&self, now: UnixTime) -> (Vec<Arc<Foreign>>, Option<UnixTime>) {
        let (all, fetching) = (self.all(), self.fetching());
        let due_at =
            |foreign: &Foreign| fetching.get(&foreign.trust_domain)?.due_at.filter(|due_at| now < *due_at);
        let found = all.iter().filter(|foreign| foreign.endpoint.is_some());
        let (later, due): (Vec<_>, Vec<_>) = found.partition(|foreign| due_at(foreign).is_some());
        (due.into_iter().cloned().collect(), later.into_iter().filter_map(|foreign| due_at(foreign)).min())
    }

    /// Waits until they are others.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn fetching(&self) -> MutexGuard<'_, HashMap<TrustDomain, Fetching>> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load(store: &Store) -> Result<Arc<[Arc<Foreign>]>, StoreError> {
    let records = store.foreign_domains().await?;
    records.into_iter().map(|record| foreign(record).map(Arc::new)).collect()
}

/// Reads a record back.
pub(crate) fn foreign(record: ForeignDomainRecord) -> Result<Foreign, StoreError> {
    let corrupt = |column| StoreError::Corrupt { column };
    let trust_domain =
        TrustDomain::parse(&record.trust_domain).map_err(|_| corrupt("foreign_domains.trust_domain"))?;
    let id = match record.endpoint_id.as_str() {
        "" => None,
        id => Some(SpiffeId::parse(id).map_err(|_| corrupt("foreign_domains.endpoint_id"))?),
    };
    let endpoint = Some(record.url.clone()).filter(|url| !url.is_empty()).map(|url| Endpoint { url, id });
    let bundle = match record.document.as_str() {
        "" => None,
        document => {
            let read = ForeignBundle::from_document(trust_domain.clone(), document.as_bytes());
            Some(read.map_err(|_| corrupt("foreign_domains.document"))?)
        }
    };
    Ok(Foreign { trust_domain, endpoint, bundle, record })
}
