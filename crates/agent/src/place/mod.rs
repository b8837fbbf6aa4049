//! Where the device is: what its operator wrote down (`config`), and what a receiver says (`receiver`), as telemetry states it.
//!
//! Nothing is decided here. What is stated says how it is known, and what speaks against it goes along.

mod config;
mod receiver;

use std::time::Duration;

use assay_telemetry::position::Position;
use assay_telemetry::{Location, LocationMethod};
use tokio::sync::watch;
use tokio::time::Instant;

pub use config::{GpsdConfig, LocationConfig, LocationError, Whereabouts};
pub use receiver::Receiver;

/// A position, and when it came.
#[derive(Clone, Debug)]
pub struct Heard {
    position: Position,
    came: Instant,
}

/// What is stated of the device's place at any moment.
#[derive(Clone, Debug, Default)]
pub struct Place {
    whereabouts: Option<Whereabouts>,
    heard: Option<(watch::Receiver<Option<Heard>>, Duration)>,
}

impl Place {
    /// What was written down, and nothing else.
    pub fn written(whereabouts: Option<Whereabouts>) -> Self {
        Place { whereabouts, heard: None }
    }

    /// With what a receiver says, for as long as it is no older.
    #[must_use]
    pub fn with(self, heard: watch::Receiver<Option<Heard>>, age_max: Duration) -> Self {
        Place { heard: Some((heard, age_max)), ..self }
    }

    /// What to state now. What a receiver says goes before what somebody wrote down.
    pub(crate) fn stated(&self, now: Instant) -> Option<Location> {
        let Whereabouts { country, subdivision, city, position } = self.whereabouts.clone()?;
        let heard = self.heard.as_ref().and_then(|(heard, age_max)| {
            let heard = heard.borrow().clone();
            heard.filter(|heard| now.saturating_duration_since(heard.came) <= *age_max)
        });
        let position = heard.map(|heard| heard.position).or(position);
        Some(Location { method: LocationMethod::Configured, country, subdivision, city, position })
    }
}
