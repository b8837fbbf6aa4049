//! The device as the agent uses it: its TPM with both keys loaded.

use std::sync::Arc;

use crate::state_dir::StateDir;
use crate::tpm::keys::Keys;
use crate::tpm::{DeviceSigningKey, Target, Tpm, TpmError};

/// The TPM and its keys; clones share them, and the last one gone flushes them.
#[derive(Clone)]
pub struct Device {
    /// The TPM.
    pub tpm: Tpm,
    /// The device key, and beside it the AK.
    pub key: DeviceSigningKey,
}

impl Device {
    /// Opens the TPM and loads the keys, making them the first time.
    pub async fn open(target: Target, state: StateDir) -> Result<Self, TpmError> {
        blocking(move || {
            let tpm = Tpm::open(&target)?;
            let keys = Arc::new(Keys::open(&tpm, &state)?);
            Ok(Device { key: DeviceSigningKey::new(keys)?, tpm })
        })
        .await
    }

    /// Runs TPM commands off the async threads: the slowest take seconds.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Device) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let device = self.clone();
        blocking(move || work(&device)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TpmError> + Send + 'static,
) -> Result<T, TpmError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // The runtime is shutting down, or the work panicked.
        Err(_) => Err(TpmError::Interrupted),
    }
}
