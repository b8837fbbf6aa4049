//! Labels: what operators say about a device, and with it which policy judges it.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::labels::LabelError;
use serde::Deserialize;
use thiserror::Error;

use crate::device::Device;
use crate::fate::{FateError, enrolled};
use crate::outcome::{Kind, Outcome};
use crate::store::{LabelDevice, Store, StoreError};

/// What is to be said of a device, and no longer.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLabels {
    /// `key=value`, each.
    #[serde(default)]
    set: Vec<String>,
    /// Keys.
    #[serde(default)]
    remove: Vec<String>,
}

/// Gives a device other labels. If another policy judges it for that, it is challenged under it.
pub(crate) async fn label(
    store: &Store,
    id: &SpiffeId,
    new: &NewLabels,
    by: &str,
    now: UnixTime,
) -> Result<Device, NotLabelled> {
    for _ in 0..ATTEMPTS_MAX {
        let mut device = enrolled(store, id).await?;
        let from = device.labels.to_string();
        new.apply(&mut device)?;
        let to = device.labels.to_string();
        if to == from {
            return Ok(device);
        }
        let label =
            LabelDevice { device_id: id.to_string(), from, to: to.clone(), at: now, by: by.to_owned() };
        match store.commit_and_follow(label).await {
            Ok(()) => {
                tracing::info!(device = %id, labels = to, by, "device labelled");
                return Ok(device);
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}
impl NewLabels {
    fn apply(&self, device: &mut Device) -> Result<(), NotLabelled> {
        for key in &self.remove {
            if !device.labels.remove(key) {
                return Err(NotLabelled::NotThere { key: key.clone() });
            }
        }
        for pair in &self.set {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| LabelError::NotAPair { text: pair.clone() })?;
            device.labels.set(key, value)?;
        }
        Ok(())
    }
}

/// Why a device keeps its labels.
#[derive(Debug, Error)]
pub(crate) enum NotLabelled {
    /// Not a label, or too many.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Nothing to remove.
    #[error("the device has no label {key:?}")]
    NotThere {
        /// The key.
        key: String,
    },
    /// The device.
    #[error(transparent)]
    Device(#[from] FateError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for NotLabelled {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotLabelled::Label(_) => (Kind::Malformed, "label"),
            NotLabelled::NotThere { .. } => (Kind::Malformed, "no-label"),
            NotLabelled::Device(error) => error.told(),
            NotLabelled::Store(error) => error.told(),
        }
    }
}

/// How often it is decided anew when another's labels come first.
const ATTEMPTS_MAX: usize = 5;
