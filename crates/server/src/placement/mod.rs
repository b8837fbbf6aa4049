//! Placement: tasks come in, go to devices that may run them, and come back as results.
//!
//! What may run where is decided by the pure `trust::placement` and `trust::grant::task`; here is what surrounds them: load, decide,
//! commit. One task ([`Placement::run`]) looks at what waits whenever something was committed that may matter to it, and each second. A
//! device that falls loses its attempts in the transaction that says so, and everything else follows from that leaf.

mod demands;
mod fleet;
mod result;
mod submit;
mod turn;

use std::sync::Arc;

use assay_evidence::task::{Definition, NotADefinition, Sha384};
use assay_trust::grant::Denied;
use assay_trust::placement::Score;
use thiserror::Error;
use tokio::sync::Notify;

use crate::attest::table::Registry;
use crate::device::{Device, DeviceError};
use crate::outcome::{Kind, Outcome};
use crate::store::{AttemptRecord, Store, StoreError, TaskRecord};

pub(crate) use demands::Demands;
pub(crate) use result::{RegisterShown, Shown, ShownBeside};
pub(crate) use submit::NewTask;

/// What placing needs.
#[derive(Debug)]
pub(crate) struct Placement {
    store: Store,
    registry: Arc<Registry>,
    news: Notify,
}

/// What a device is told of a task that is placed on it.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// The attempt.
    pub attempt: AttemptRecord,
    /// The encoding of its definition.
    pub definition: Vec<u8>,
    /// SHA-384 of its input.
    pub input: Sha384,
    /// Bytes of image and input.
    pub bytes: (u64, u64),
    /// Whether its register has to be shown with the result.
    pub is_attested: bool,
}

/// What a device is asked for that wants to run a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// What is run.
    Image,
    /// What it reads.
    Input,
}

/// A device and what it is worth for a task.
#[derive(Clone, Debug)]
pub(crate) struct Weighed {
    /// Its SPIFFE ID.
    pub device: String,
    /// What people call it.
    pub name: String,
    /// Its score, or what there is against it: code and sentence.
    pub verdict: Result<Score, (&'static str, String)>,
}

impl Placement {
    pub(crate) fn new(store: Store, registry: Arc<Registry>) -> Placement {
        Placement { store, registry, news: Notify::new() }
    }

    /// Something changed that may matter to a task.
    pub(crate) fn look_again(&self) {
        self.news.notify_one();
    }

    /// The tasks that a device has now.
    pub(crate) async fn of_device(&self, device: &Device) -> Result<Vec<Placed>, StoreError> {
        let attempts = self.store.standing_attempts(Some(device.id.as_str())).await?;
        let mut placed = Vec::new();
        for attempt in attempts.into_iter().filter(|one| one.state_version == device.state.version()) {
            if let Some(task) = self.store.task(&attempt.task_id).await? {
                placed.push(told(attempt, task)?);
            }
        }
        Ok(placed)
    }

    /// What a device needs to run an attempt that stands on it.
    pub(crate) async fn content(
        &self,
        device: &Device,
        task_id: &str,
        number: u32,
        which: Content,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let attempt = self.store.attempt(task_id, number).await?;
        let is_its = |attempt: &AttemptRecord| {
            attempt.stands()
                && attempt.device_id == device.id.as_str()
                && attempt.state_version == device.state.version()
        };
        let (Some(_), Some(task)) = (attempt.filter(is_its), self.store.task(task_id).await?) else {
            return Ok(None);
        };
        let name = match which {
            Content::Image => task.image,
            Content::Input => task.input,
        };
        self.store.blob(&name, CONTENT_BYTES_MAX).await.map(Some)
    }
}

fn told(attempt: AttemptRecord, task: TaskRecord) -> Result<Placed, StoreError> {
    let demands = Demands::read(&task.demands)?;
    Ok(Placed {
        attempt,
        definition: task.definition,
        input: demands.input,
        bytes: (demands.image_bytes, demands.input_bytes),
        is_attested: demands.is_attested(),
    })
}

fn definition(task: &TaskRecord) -> Result<Definition, StoreError> {
    Definition::parse(&task.definition).map_err(|_| StoreError::Corrupt { column: "tasks.definition" })
}

/// Why placing did not go on.
#[derive(Debug, Error)]
pub(crate) enum PlacementError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A device's record.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What is drawn for attempts.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeysError),
}

impl Outcome for PlacementError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            PlacementError::Store(error) => error.told(),
            PlacementError::Device(error) => error.told(),
            PlacementError::Keys(error) => error.told(),
        }
    }
}

/// What a denial is to whoever submits a task: their own doing, or how things are.
fn told_of(denied: &Denied) -> (Kind, &'static str) {
    (Kind::Forbidden, denied.code())
}

/// What is wrong with a definition, as a submitter is told.
fn told_of_definition(_: NotADefinition) -> (Kind, &'static str) {
    (Kind::Malformed, "task")
}

/// Bytes of an image, an input, an output or messages at most.
pub(crate) const CONTENT_BYTES_MAX: usize = 8 << 20;
