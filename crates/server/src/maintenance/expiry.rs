//! Trust that ran out grants nothing from the first moment; here the certificates that it carried are withdrawn, by the
//! earliest end and not by a turn of other chores.
//!
//! Ends are whole seconds of the clock, so that whatever has one has it as a second begins: that is when it is asked for,
//! which is one look-up in an index.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use tokio::task::JoinSet;

use super::chore::Chore;
use crate::device::Device;
use crate::entry;
use crate::fate::{self, FateError};
use crate::outcome::{chain, fault};
use crate::parts::Server;
use crate::spire;
use crate::store::{DeviceRecord, ExpireUnreadable, Store, StoreError};
use crate::thread::caught;

/// Runs until the server stops. What fails is tried again after longer each time; it grants nothing meanwhile.
pub(crate) async fn run(server: Arc<Server>) {
    while let Err(panicked) = caught(seconds(&server)).await {
        fault("panic", &panicked);
    }
}

async fn seconds(server: &Server) {
    let mut shutdown = server.shutdown.clone();
    let mut expiry = Chore::new("expiry", server.now());
    let mut entries = Chore::new("expiry of entries", server.now());
    let mut nodes = Chore::new("expiry of nodes that do not quote", server.now());
    loop {
        tokio::select! {
            () = server.clock.sleep(server.clock.until_next_second()) => {}
            _ = shutdown.changed() => return,
        }
        let now = server.now();
        if expiry.is_due(now) {
            expiry.did(expire(&server.store, now).await.map(|()| now), now);
        }
        if entries.is_due(now) {
            entries.did(entry::expire(&server.store, &server.entries, now).await.map(|()| now), now);
        }
        if nodes.is_due(now) {
            nodes.did(spire::fate::expire(&server.store, now).await.map(|()| now), now);
        }
    }
}

/// Every device whose evidence is too old loses what it holds, attached or not: many at a time, so that one commit and one
/// revocation list do for all that end together.
async fn expire(store: &Store, now: UnixTime) -> Result<(), StoreError> {
    loop {
        let mut expiring = JoinSet::new();
        for record in store.devices_to_expire(now, EXPIRE_AT_ONCE_MAX).await? {
            expiring.spawn(expire_one(store.clone(), record, now));
        }
        let (found, mut expired) = (expiring.len(), 0);
        while let Some(one) = expiring.join_next().await {
            expired += usize::from(one.unwrap_or(false));
        }
        // What cannot be expired must not be tried for ever.
        if found < EXPIRE_AT_ONCE_MAX || expired == 0 {
            return Ok(());
        }
    }
}

/// Whether it is done.
async fn expire_one(store: Store, record: DeviceRecord, now: UnixTime) -> bool {
    let id = record.id.clone();
    let expired = match Device::of(record) {
        Ok(device) => fate::expire(&store, &device.id, now).await,
        Err(error) => {
            // Nobody knows what it holds by right, so it holds nothing; and the others are not kept waiting for it.
            fault("store", &error);
            let expire = ExpireUnreadable { device_id: id.clone(), at: now };
            store.commit(expire).await.map(|_| ()).map_err(FateError::from)
        }
    };
    if let Err(error) = &expired {
        tracing::error!(device = id, error = %chain(error), "a device was not expired");
    }
    expired.is_ok()
}

/// Half of what may wait for the writer, so that others are not turned away; one revocation list does for all of them.
const EXPIRE_AT_ONCE_MAX: usize = 4096;
