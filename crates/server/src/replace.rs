//! A device that got a new TPM, or a machine in another's place: the new one is called what the old one was, labelled as it
//! was and entitled to what it was, and the old one is ended; one step, on record as one.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::{Event, Status};
use thiserror::Error;

use crate::actor::Actor;
use crate::device::Device;
use crate::fate::{FateError, change, enrolled};
use crate::outcome::{Kind, Outcome};
use crate::policy::{Planning, PolicyChangeError};
use crate::store::{Change, ReplaceDevice, ReplacedDevice, StandingDevice, StoreError};

/// Puts a device in another's place.
pub(crate) async fn replace(
    planning: Planning<'_>,
    old: &SpiffeId,
    new: &SpiffeId,
    force: bool,
) -> Result<ReplacedDevice, NotReplaced> {
    let Planning { store, by, now, .. } = planning;
    if old == new {
        return Err(NotReplaced::Itself);
    }
    for _ in 0..ATTEMPTS_MAX {
        let (old, new) = (enrolled(store, old).await?, enrolled(store, new).await?);
        if new.state.status() == Status::Revoked {
            return Err(NotReplaced::Revoked { name: new.record.name });
        }
        let plan_version = planning.guard_labels(&new, &old.labels, force).await?;
        let replace = ReplaceDevice {
            end: end(&old, &new, by, now),
            old: standing(&old),
            new: standing(&new),
            plan_version,
            forced: force,
            at: now,
            by: by.name().to_owned(),
        };
        match store.commit_and_follow(replace).await {
            Ok(replaced) => {
                let (name, entries) = (&old.record.name, replaced.entries);
                tracing::warn!(old = %old.id, new = %new.id, name, entries, %by, "device replaced");
                return Ok(replaced);
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}

/// The end of the old device; nothing ends twice.
fn end(old: &Device, new: &Device, by: Actor, now: UnixTime) -> Option<Change> {
    let event = Event::revoked(now, by.name(), format!("replaced by {}", new.id));
    let next = old.state.apply(&event);
    (next != old.state).then(|| change(old, &next, &event, by, now))
}

fn standing(device: &Device) -> StandingDevice {
    StandingDevice {
        id: device.id.to_string(),
        name: device.record.name.clone(),
        labels: device.labels.to_string(),
    }
}

/// Why a device is not replaced.
#[derive(Debug, Error)]
pub(crate) enum NotReplaced {
    /// By itself.
    #[error(
        "a device is not replaced by itself: after a cleared TPM, assay device revoke and readmit take it back"
    )]
    Itself,
    /// By one that is ended.
    #[error("{name} is revoked and replaces no other device")]
    Revoked {
        /// The one that should.
        name: String,
    },
    /// One of the devices.
    #[error(transparent)]
    Device(#[from] FateError),
    /// The new device would fall, or what is in force cannot be read.
    #[error(transparent)]
    Policy(#[from] PolicyChangeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for NotReplaced {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotReplaced::Itself => (Kind::Malformed, "itself"),
            NotReplaced::Revoked { .. } => (Kind::OutOfTurn, "revoked"),
            NotReplaced::Device(error) => error.told(),
            NotReplaced::Policy(error) => error.told(),
            NotReplaced::Store(error) => error.told(),
        }
    }
}

/// How often it is decided anew when one of the devices moves on meanwhile.
const ATTEMPTS_MAX: usize = 5;
