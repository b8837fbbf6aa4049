//! What a device's evidence says differently since it was last good.

use assay_trust::change::{Change, describe};

use super::load;
use crate::store::{Store, StoreError};

/// The changes from the last good evidence to the last that verified, oldest cause first. `None`: one of them is not
/// kept, or not to be had whole.
pub(crate) async fn since_good(store: &Store, device_id: &str) -> Result<Option<Vec<Change>>, StoreError> {
    let good = store.last_good_evidence(device_id).await?;
    let (Some(good), Some(last)) = (good, store.last_verified_evidence(device_id).await?) else {
        return Ok(None);
    };
    if good.id == last.id {
        return Ok(Some(Vec::new()));
    }
    let (before, after) = (load(store, &good).await?, load(store, &last).await?);
    // Two whole lists may take a while to read.
    let described = tokio::task::spawn_blocking(move || {
        let boot_logs = std::sync::Arc::default();
        let before = before.claims(&boot_logs).ok()??;
        let after = after.claims(&boot_logs).ok()??;
        Some(describe(&before, &after))
    });
    Ok(described.await.ok().flatten())
}
