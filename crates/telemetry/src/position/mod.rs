//! Positions in coordinates: a point on WGS 84, how far it may be off, when it was fixed, and who says so.
//!
//! A position is a device's word, as regions are. What it is worth is for whoever judges it to say; here it is whole or it is none.
//! [`Watch`] holds what a receiver says against what it said before.

pub mod gpsd;
mod point;
mod watch;

use thiserror::Error;

pub use point::{Point, PointError};
pub use watch::{Fix, Limits, Watch};

/// Where a device is, as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The point.
    pub point: Point,
    /// How far it may be off.
    pub accuracy: Accuracy,
    /// When it was fixed, seconds since 1970 by the receiver's clock; `None` for what somebody wrote down.
    pub fixed_at: Option<u64>,
    /// Who says so.
    pub source: Source,
    /// What speaks against it; each once.
    pub doubts: Vec<Doubt>,
}

/// The radius of the circle that a position is in, 0.01 m to 20,000 km.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accuracy(u32);

/// No radius of a circle that something could be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an accuracy is 0.01 to 20000000 metres")]
pub struct AccuracyError;

/// Who says where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Whoever wrote the agent's configuration.
    Configured,
    /// A receiver of satellites, by way of gpsd on the device.
    Receiver,
}

/// What speaks against a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// Between two fixes it moved faster than it may.
    Speed,
    /// Between two fixes it moved farther than its own speed says.
    Jump,
    /// The receiver's time went back, or does not go as the device's own does.
    Time,
    /// It stands, by its configuration, somewhere else.
    Drift,
    /// The receiver says that its signals are forged.
    Spoofing,
    /// The receiver says that its signals are jammed.
    Jamming,
    /// Something that a newer agent knows of.
    Unknown,
}

impl Accuracy {
    /// Of metres; what is finer than a centimetre is rounded up.
    pub fn from_metres(metres: f64) -> Result<Self, AccuracyError> {
        let centimetres = (metres * 100.0).ceil();
        if metres > 0.0 && centimetres <= f64::from(CENTIMETRES_MAX) {
            // In the range of the type, by the line above.
            Ok(Accuracy(centimetres as u32))
        } else {
            Err(AccuracyError)
        }
    }

    /// Of centimetres.
    pub fn from_centimetres(centimetres: u32) -> Result<Self, AccuracyError> {
        if (1..=CENTIMETRES_MAX).contains(&centimetres) {
            Ok(Accuracy(centimetres))
        } else {
            Err(AccuracyError)
        }
    }

    /// In centimetres.
    pub fn centimetres(self) -> u32 {
        self.0
    }

    /// In metres.
    pub fn metres(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl Source {
    /// As statements and findings name it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Configured => "configured",
            Source::Receiver => "receiver",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Source::Configured, Source::Receiver].into_iter().find(|source| source.name() == name)
    }
}

impl Doubt {
    /// Each that has a name of its own.
    pub const NAMED: [Doubt; 6] =
        [Doubt::Speed, Doubt::Jump, Doubt::Time, Doubt::Drift, Doubt::Spoofing, Doubt::Jamming];

    /// As statements and findings name it.
    pub fn name(self) -> &'static str {
        match self {
            Doubt::Speed => "speed",
            Doubt::Jump => "jump",
            Doubt::Time => "time",
            Doubt::Drift => "drift",
            Doubt::Spoofing => "spoofing",
            Doubt::Jamming => "jamming",
            Doubt::Unknown => "unknown",
        }
    }

    /// By its name; a name that is not known is a doubt all the same.
    pub fn from_name(name: &str) -> Self {
        Doubt::NAMED.into_iter().find(|doubt| doubt.name() == name).unwrap_or(Doubt::Unknown)
    }
}

/// Half of the earth's circumference.
const CENTIMETRES_MAX: u32 = 2_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accuracy_is_a_radius_that_something_can_be_in() {
        assert_eq!(Accuracy::from_metres(3.001).unwrap().centimetres(), 301);
        assert_eq!(Accuracy::from_metres(1e-9).unwrap().centimetres(), 1);
        assert_eq!(Accuracy::from_metres(20_000_000.0).unwrap().metres(), 20_000_000.0);
        for metres in [0.0, -1.0, 20_000_000.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Accuracy::from_metres(metres), Err(AccuracyError), "{metres}");
        }
        assert!(Accuracy::from_centimetres(0).is_err() && Accuracy::from_centimetres(u32::MAX).is_err());
    }

    #[test]
    fn names_read_back() {
        for doubt in Doubt::NAMED {
            assert_eq!(Doubt::from_name(doubt.name()), doubt);
        }
        assert_eq!(Doubt::from_name("sunspots"), Doubt::Unknown);
        assert_eq!(Source::from_name("receiver"), Some(Source::Receiver));
        assert_eq!(Source::from_name("oracle"), None);
    }
}
