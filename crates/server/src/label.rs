//! Labels: what operators say about a device, and with it which policy judges it.

use assay_identity::SpiffeId;
use assay_trust::labels::{LabelError, Labels};
use thiserror::Error;

use crate::device::Device;
use crate::fate::{FateError, enrolled};
use crate::outcome::{Kind, Outcome};
use crate::policy::{Planning, PolicyChangeError};
use crate::store::{LabelDevice, StoreError};

/// What is to be said of a device, and no longer.
#[derive(Debug, Default)]
pub(crate) struct NewLabels {
    /// `key=value`, each.
    pub set: Vec<String>,
    /// Keys.
    pub remove: Vec<String>,
    /// Whether the device may fall of it.
    pub force: bool,
}

/// Gives a device other labels. If another policy judges it for that, it is challenged under it; one with which it would
/// fall forbids it, unless that is accepted.
pub(crate) async fn label(
    planning: Planning<'_>,
    id: &SpiffeId,
    new: &NewLabels,
) -> Result<Device, NotLabelled> {
    let Planning { store, by, now, .. } = planning;
    for _ in 0..ATTEMPTS_MAX {
        let mut device = enrolled(store, id).await?;
        let labels = new.applied(&device.labels)?;
        if labels == device.labels {
            return Ok(device);
        }
        let plan_version = planning.guard_labels(&device, &labels, new.force).await?;
        let (from, to) = (device.labels.to_string(), labels.to_string());
        device.labels = labels;
        let label = LabelDevice {
            device_id: id.to_string(),
            from,
            to: to.clone(),
            plan_version,
            forced: new.force,
            at: now,
            by: by.name().to_owned(),
        };
        match store.commit_and_follow(label).await {
            Ok(()) => {
                tracing::info!(device = %id, labels = to, %by, "device labelled");
                return Ok(device);
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}

impl NewLabels {
    fn applied(&self, labels: &Labels) -> Result<Labels, NotLabelled> {
        let mut labels = labels.clone();
        for key in &self.remove {
            if !labels.remove(key) {
                return Err(NotLabelled::NotThere { key: key.clone() });
            }
        }
        for pair in &self.set {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| LabelError::NotAPair { text: pair.clone() })?;
            labels.set(key, value)?;
        }
        Ok(labels)
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
    /// The device would fall, or what is in force cannot be read.
    #[error(transparent)]
    Policy(#[from] PolicyChangeError),
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
            NotLabelled::Policy(error) => error.told(),
            NotLabelled::Store(error) => error.told(),
        }
    }
}

/// How often it is decided anew when another's labels come first.
const ATTEMPTS_MAX: usize = 5;
