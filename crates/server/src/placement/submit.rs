//! Tasks that come in, and those that are ended or asked after.

use assay_evidence::task::{Definition, NotADefinition, sha384};
use assay_evidence::time::UnixTime;
use assay_trust::grant::Denied;
use assay_trust::grant::task::{Level, check_task};
use assay_trust::labels::{LabelError, Selector};
use assay_trust::placement::Demand;
use data_encoding::HEXLOWER;
use thiserror::Error;

use super::fleet::Record;
use super::{
    CONTENT_BYTES_MAX, Demands, Placement, PlacementError, Weighed, definition, told_of, told_of_definition,
};
use crate::actor::Actor;
use crate::keys::random;
use crate::outcome::{Kind, Outcome};
use crate::store::{EndAttempt, EndTask, StoreError, SubmitTask, TaskRecord, TaskStatus};

/// A task that is submitted. What follows from the input is filled in here.
#[derive(Clone, Debug)]
pub(crate) struct NewTask {
    /// What people call it.
    pub name: String,
    /// What is run.
    pub definition: Definition,
    /// What it asks for, without the digest of its input and the lengths.
    pub demands: Demands,
    /// What is run.
    pub image: Vec<u8>,
    /// What it reads.
    pub input: Vec<u8>,
    /// How long from now it has to have ended; 0: whenever it does.
    pub deadline_seconds: u64,
}

impl Placement {
    /// Takes a task in, if it can ever run.
    pub(crate) async fn submit(
        &self,
        new: NewTask,
        by: Actor,
        now: UnixTime,
    ) -> Result<TaskRecord, NotSubmitted> {
        let NewTask { name, definition, mut demands, image, input, deadline_seconds } = new;
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(NotSubmitted::Name);
        }
        for (what, bytes) in [("image", &image), ("input", &input)] {
            if bytes.len() > CONTENT_BYTES_MAX {
                return Err(NotSubmitted::TooLong { what, bytes: bytes.len() });
            }
        }
        if !image.starts_with(MODULE_MAGIC) {
            return Err(NotSubmitted::NotAModule);
        }
        demands.input = sha384(&input);
        (demands.image_bytes, demands.input_bytes) = (length(&image), length(&input));
        definition.check()?;
        let selector: Selector = demands.selector.parse()?;
        let measurement = definition.measurement();
        check_task(&demands.request(&definition), &measurement)?;
        if demands.level == Level::Secret {
            self.look_for_hardware(&definition, &demands, &selector, now).await?;
        }
        let id = HEXLOWER.encode(&random::<16>().map_err(PlacementError::from)?);
        let deadline = if deadline_seconds == 0 { UnixTime(0) } else { now.plus(deadline_seconds) };
        let (image, input) =
            (self.store.new_blob(&image, false).await?, self.store.new_blob(&input, false).await?);
        let task = TaskRecord {
            id,
            name,
            level: demands.level.name().to_owned(),
            status: TaskStatus::Waiting,
            reason: "it waits for a device".to_owned(),
            definition: definition.encode(),
            demands: serde_json::to_string(&demands).map_err(|_| StoreError::Unwritable)?,
            image: image.hash(),
            input: input.hash(),
            submitted_at: now,
            deadline,
            next_at: now,
            attempts: 0,
            ended_at: UnixTime(0),
        };
        let measurement = HEXLOWER.encode(&measurement);
        let (by, submit) = (by.to_string(), task.clone());
        self.store.commit(SubmitTask { task: submit, measurement, image, input, by }).await?;
        Ok(task)
    }

    /// Hardware does not come by waiting: where no device of those that run tasks has any, the submitter is told so at once.
    async fn look_for_hardware(
        &self,
        definition: &Definition,
        demands: &Demands,
        selector: &Selector,
        now: UnixTime,
    ) -> Result<(), NotSubmitted> {
        let weighed = self.weighed(definition, demands, selector, &Record(&[]), now).await?;
        let is_without = |one: &Weighed| matches!(one.verdict, Err((code, _)) if code == "no-tee");
        match weighed.iter().find(|one| is_without(one)) {
            Some(without) if weighed.iter().all(|one| one.verdict.is_err()) => {
                let why = without.verdict.as_ref().err().map(|(_, why)| why.clone()).unwrap_or_default();
                Err(NotSubmitted::NoHardware { devices: weighed.len(), why })
            }
            None if weighed.is_empty() => {
                let why = "no device is attached that runs tasks".to_owned();
                Err(NotSubmitted::NoHardware { devices: 0, why })
            }
            _ => Ok(()),
        }
    }

    async fn weighed(
        &self,
        definition: &Definition,
        demands: &Demands,
        selector: &Selector,
        record: &Record<'_>,
        now: UnixTime,
    ) -> Result<Vec<Weighed>, PlacementError> {
        let demand = Demand {
            request: demands.request(definition),
            room: demands.room(definition),
            selector,
            spread: &demands.spread,
        };
        Ok(self.fleet().await?.weighed(&demand, record, now))
    }

    /// What each device that runs tasks is worth for a task, the best first.
    pub(crate) async fn explain(
        &self,
        task: &TaskRecord,
        now: UnixTime,
    ) -> Result<Vec<Weighed>, PlacementError> {
        let (definition, demands) = (definition(task)?, Demands::read(&task.demands)?);
        let selector = demands.selector.parse().unwrap_or_default();
        let attempts = self.store.attempts(&task.id).await?;
        self.weighed(&definition, &demands, &selector, &Record(&attempts), now).await
    }

    /// Ends a task, wherever it is.
    pub(crate) async fn cancel(
        &self,
        task: &TaskRecord,
        reason: &str,
        by: Actor,
        now: UnixTime,
    ) -> Result<(), NotSubmitted> {
        let end = EndAttempt {
            task_id: task.id.clone(),
            number: task.attempts,
            reason: format!("cancelled: {reason}"),
            at: now,
            by: by.to_string(),
        };
        match self.store.commit(EndTask { end, is_cancelled: true }).await? {
            true => Ok(()),
            false => Err(NotSubmitted::Over),
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Why a task is not taken in, or not ended.
#[derive(Debug, Error)]
pub(crate) enum NotSubmitted {
    /// A name for people.
    #[error("name: at most {NAME_BYTES_MAX} bytes without control characters")]
    Name,
    /// Too much of something.
    #[error("{what}: {bytes} bytes, at most {CONTENT_BYTES_MAX} are taken")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// Something else than a module.
    #[error("image: not a WebAssembly module in binary form")]
    NotAModule,
    /// A field of the definition.
    #[error("{0}")]
    Definition(#[from] NotADefinition),
    /// The labels.
    #[error("selector: {0}")]
    Selector(#[from] LabelError),
    /// It may run nowhere.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No device has what hides a secret task's memory.
    #[error("{why} ({devices} devices that run tasks were looked at)")]
    NoHardware {
        /// How many were looked at.
        devices: usize,
        /// Why one of them does not.
        why: String,
    },
    /// It is over.
    #[error("the task is over")]
    Over,
    /// Placement.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for NotSubmitted {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotSubmitted::Name | NotSubmitted::NotAModule => (Kind::Malformed, "task"),
            NotSubmitted::TooLong { .. } => (Kind::Malformed, "resource-exhaustion"),
            NotSubmitted::Definition(error) => told_of_definition(*error),
            NotSubmitted::Selector(_) => (Kind::Malformed, "selector"),
            NotSubmitted::Denied(denied) => told_of(denied),
            NotSubmitted::NoHardware { .. } => (Kind::Forbidden, "no-tee"),
            NotSubmitted::Over => (Kind::Overtaken, "task-over"),
            NotSubmitted::Placement(error) => error.told(),
            NotSubmitted::Store(error) => error.told(),
        }
    }
}

/// What begins a WebAssembly module: "\0asm" and version 1.
const MODULE_MAGIC: &[u8] = b"\0asm\x01\0\0\0";
const NAME_BYTES_MAX: usize = 253;
