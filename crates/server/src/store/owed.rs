//! Falls that are in force and not on record yet: the disk had no room for them, not even in its reserve.
//!
//! Whoever reads the device reads it as fallen, so that nothing is granted by it. They are put on record in their order, before
//! anything else, once there is room. They are in memory alone: a server that ends before has forgotten them, and its devices
//! have to show anew what they are.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::device::{Change, DeviceRecord, RecordAppraisal, RevokeDevice};
use super::{Store, StoreError};

/// Them.
#[derive(Debug, Default)]
pub(super) struct Owed {
    falls: Mutex<VecDeque<Fall>>,
    fell: Notify,
}

/// A fall.
#[derive(Clone, Debug)]
pub enum Fall {
    /// By an operator's word.
    Revoked(RevokeDevice),
    /// By a result.
    Appraised(Box<RecordAppraisal>),
}

impl Fall {
    /// Whose.
    pub(super) fn device_id(&self) -> &str {
        &self.change().device_id
    }

    fn change(&self) -> &Change {
        match self {
            Fall::Revoked(RevokeDevice(change)) => change,
            Fall::Appraised(record) => &record.change,
        }
    }
}

impl Owed {
    /// Takes a fall up: from now on it is in force.
    pub(super) fn push(&self, fall: Fall) -> Result<(), StoreError> {
        let mut falls = self.lock();
        if falls.len() >= FALLS_MAX {
            return Err(StoreError::Full { noun: "falls that are not on record", limit: FALLS_MAX as u64 });
        }
        tracing::error!(
            device = fall.change().device_id,
            "a fall is in force and not on record: the disk is full"
        );
        falls.push_back(fall);
        self.fell.notify_one();
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether falls of this device wait: others of it wait behind them.
    pub(super) fn has(&self, device_id: &str) -> bool {
        self.lock().iter().any(|fall| fall.change().device_id == device_id)
    }

    /// A device as it is by what is owed of it.
    pub(super) fn over(&self, mut record: DeviceRecord) -> DeviceRecord {
        if let Some(fall) = self.lock().iter().rfind(|fall| fall.change().device_id == record.id) {
            record.trust = fall.change().trust.clone();
        }
        record
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Fall>> {
        self.falls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Completes when there is a fall that is not on record.
    pub(crate) async fn fell(&self) {
        self.owed.fell.notified().await;
    }

    /// Those that fell so.
    pub(crate) fn fallen(&self) -> Vec<String> {
        self.owed.lock().iter().map(|fall| fall.change().device_id.clone()).collect()
    }

    /// Puts on record what is owed, in its order, for as long as there is room.
    pub(crate) async fn pay(&self) -> Result<(), StoreError> {
        loop {
            let Some(fall) = self.owed.lock().front().cloned() else { return Ok(()) };
            let paid = match fall {
                Fall::Revoked(revoke) => self.writer.commit(revoke).await.map(drop),
                Fall::Appraised(record) => self.writer.commit(*record).await.map(drop),
            };
            match paid {
                Err(error @ (StoreError::NoSpace(_) | StoreError::Busy)) => return Err(error),
                paid => {
                    self.owed.lock().pop_front();
                    paid?;
                }
            }
        }
    }
}

/// Some KiB each.
const FALLS_MAX: usize = 10_000;
