//! Which secrets there are and for whom, without what is secret.

use std::sync::{Arc, PoisonError, RwLock};

use assay_evidence::time::UnixTime;
use assay_identity::secret::{SECRETS_PER_DEVICE_MAX, SecretName};
use assay_trust::grant::secret::SecretCondition;

use crate::device::Device;
use crate::store::{AssignedTo, SecretRecord, Store, StoreError};

/// A secret and the devices that it is for.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    pub name: SecretName,
    pub version: u64,
    pub autorun: bool,
    pub condition: SecretCondition,
}

/// Those that are for anybody. Replaced as a whole by whoever follows the store.
#[derive(Debug)]
pub(crate) struct Secrets {
    current: RwLock<Arc<Standing>>,
}

#[derive(Debug, Default)]
struct Standing {
    assigned: Vec<Assigned>,
    /// With those that are nobody's.
    count: u64,
}

impl Secrets {
    /// Loads them from the store.
    pub(crate) async fn open(store: &Store) -> Result<Secrets, StoreError> {
        Ok(Secrets { current: RwLock::new(load(store).await?) })
    }

    /// Those that a device may have now, in the order of their names.
    pub(crate) fn of(&self, device: &Device, now: UnixTime) -> Vec<(SecretName, u64)> {
        let current = self.current();
        let entitles = |one: &&Assigned| one.condition.entitles(&device.state, &device.labels, now);
        let meant = current.assigned.iter().filter(entitles);
        let of = meant.map(|one| (one.name.clone(), one.version));
        of.take(SECRETS_PER_DEVICE_MAX).collect()
    }

    /// The one of this name.
    pub(crate) fn get(&self, name: &SecretName) -> Option<Assigned> {
        self.current().assigned.iter().find(|one| one.name == *name).cloned()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.current().count
    }

    /// Loads them again.
    pub(crate) async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let new = load(store).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn current(&self) -> Arc<Standing> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn load(store: &Store) -> Result<Arc<Standing>, StoreError> {
    let all = store.secrets().await?;
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let assigned = all.into_iter().filter_map(|record| assigned(record).transpose());
    Ok(Arc::new(Standing { assigned: assigned.collect::<Result<_, _>>()?, count }))
}

fn assigned(record: SecretRecord) -> Result<Option<Assigned>, StoreError> {
    let corrupt = |column| StoreError::Corrupt { column };
    let SecretRecord { name, version, autorun, assigned, .. } = record;
    let Some(AssignedTo { labels, policy }) = assigned else { return Ok(None) };
    let condition = SecretCondition {
        labels: labels.parse().map_err(|_| corrupt("secrets.labels"))?,
        policy: Some(policy).filter(|policy| !policy.is_empty()),
    };
    let name = name.parse().map_err(|_| corrupt("secrets.name"))?;
    Ok(Some(Assigned { name, version, autorun, condition }))
}
