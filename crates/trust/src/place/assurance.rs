//! What a position is worth, by who says it.

use std::fmt;

use assay_telemetry::position::{Position, Source};
use serde::{Deserialize, Serialize};

/// How a position came to be. Each is what an attested agent passed on, and none proves a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// Somebody wrote it down, or there are doubts about what a receiver says.
    Stated,
    /// A receiver of satellites on the device said it, and nothing that was looked at speaks against it. Whoever is root there, or
    /// has a transmitter beside it, can have it say anything.
    Sensed,
}

impl Assurance {
    /// That of a position.
    pub fn of(position: &Position) -> Self {
        match position.source {
            Source::Configured => Assurance::Stated,
            Source::Receiver if position.doubts.is_empty() => Assurance::Sensed,
            Source::Receiver => Assurance::Stated,
        }
    }

    /// As policies write it.
    pub fn name(self) -> &'static str {
        match self {
            Assurance::Stated => "stated",
            Assurance::Sensed => "sensed",
        }
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
