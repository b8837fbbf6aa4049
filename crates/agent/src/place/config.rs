//! What the agent is told of the device's place.

use std::net::SocketAddr;

use assay_telemetry::position::{Accuracy, AccuracyError, Limits, Point, PointError, Position, Source};
use serde::Deserialize;
use thiserror::Error;

/// Where the device stands, as its operator says, and what else can say so.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LocationConfig {
    /// ISO 3166-1 country, such as `DE`. It may be left out where there are coordinates or a receiver.
    pub country: String,
    /// ISO 3166-2 subdivision, such as `DE-BY`.
    pub subdivision: String,
    /// City.
    pub city: String,
    /// Degrees north, WGS 84. It goes with `longitude` and `accuracy_m`.
    pub latitude: Option<f64>,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// How many metres the coordinates may be off.
    pub accuracy_m: Option<f64>,
    /// A receiver of satellites behind gpsd.
    pub gpsd: Option<GpsdConfig>,
}

/// gpsd, and what is believed of it without a doubt.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct GpsdConfig {
    /// Where gpsd answers, an address of loopback: its protocol says nothing of who speaks.
    pub address: SocketAddr,
    /// The receiver's device file, such as `/dev/ttyACM0`, where gpsd has more than one.
    pub device: Option<String>,
    /// The fastest that the device can be, metres per second; faster is a doubt.
    pub speed_max_m_s: f64,
    /// How many metres the receiver may be from `latitude` and `longitude`; farther is a doubt. Not looked at if not given.
    pub site_radius_m: Option<f64>,
    /// For how many seconds a doubt stands after what raised it was last seen.
    pub doubt_seconds: u64,
    /// For how many seconds what the receiver said last is stated.
    pub fix_age_max_seconds: u64,
}

impl Default for GpsdConfig {
    fn default() -> Self {
        GpsdConfig {
            address: SocketAddr::from(([127, 0, 0, 1], 2947)),
            device: None,
            speed_max_m_s: 340.0,
            site_radius_m: None,
            doubt_seconds: 300,
            fix_age_max_seconds: 30,
        }
    }
}

/// What was written down of the device's place, usable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// ISO 3166-1 country; may be empty.
    pub country: String,
    /// ISO 3166-2 subdivision; may be empty.
    pub subdivision: String,
    /// City; may be empty.
    pub city: String,
    /// Coordinates, if there are any.
    pub position: Option<Position>,
}

/// Why the section cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LocationError {
    /// Nothing is said.
    #[error("says nothing: give a country, coordinates or [location.gpsd]")]
    Nothing,
    /// A part of a region without the region.
    #[error("has a subdivision or a city without its country")]
    NoCountry,
    /// One of three.
    #[error("takes latitude, longitude and accuracy_m together or not at all")]
    Coordinates,
    /// No latitude.
    #[error("has a latitude that is not -90 to 90 degrees")]
    Latitude,
    /// No longitude.
    #[error("has a longitude that is not -180 to 180 degrees")]
    Longitude,
    /// No radius.
    #[error("has an accuracy_m that is not 0.01 to 20000000")]
    Accuracy,
    /// Who answers there is not asked.
    #[error("has a gpsd.address that is not one of loopback")]
    NotLoopback,
    /// No speed that anything has.
    #[error("has a gpsd.speed_max_m_s that is not 0.1 to 30000")]
    Speed,
    /// Nothing to be near to, or nearer than anybody can be.
    #[error("takes a gpsd.site_radius_m of 1 to 1000000, with latitude and longitude")]
    Site,
    /// No time.
    #[error("takes a gpsd.fix_age_max_seconds of 1 to 86400, and a gpsd.doubt_seconds of 1 to 86400")]
    Seconds,
}

impl LocationConfig {
    /// What can be stated of it, checked.
    pub fn whereabouts(&self) -> Result<Whereabouts, LocationError> {
        let LocationConfig { country, subdivision, city, gpsd, .. } = self;
        let position = self.position()?;
        if country.is_empty() && !(subdivision.is_empty() && city.is_empty()) {
            return Err(LocationError::NoCountry);
        }
        if country.is_empty() && position.is_none() && gpsd.is_none() {
            return Err(LocationError::Nothing);
        }
        if let Some(gpsd) = gpsd {
            gpsd.check(position.as_ref())?;
        }
        Ok(Whereabouts {
            country: country.clone(),
            subdivision: subdivision.clone(),
            city: city.clone(),
            position,
        })
    }

    fn position(&self) -> Result<Option<Position>, LocationError> {
        let (latitude, longitude, metres) = match (self.latitude, self.longitude, self.accuracy_m) {
            (Some(latitude), Some(longitude), Some(metres)) => (latitude, longitude, metres),
            (None, None, None) => return Ok(None),
            _ => return Err(LocationError::Coordinates),
        };
        let point = Point::from_degrees(latitude, longitude).map_err(|error| match error {
            PointError::Longitude => LocationError::Longitude,
            PointError::Latitude | PointError::Text { .. } => LocationError::Latitude,
        })?;
        let accuracy = Accuracy::from_metres(metres).map_err(|AccuracyError| LocationError::Accuracy)?;
        Ok(Some(Position { point, accuracy, fixed_at: None, source: Source::Configured, doubts: Vec::new() }))
    }
}

impl GpsdConfig {
    fn check(&self, position: Option<&Position>) -> Result<(), LocationError> {
        let is_near = |metres: f64| (1.0..=1_000_000.0).contains(&metres) && position.is_some();
        if !self.address.ip().is_loopback() {
            Err(LocationError::NotLoopback)
        } else if !(0.1..=30_000.0).contains(&self.speed_max_m_s) {
            Err(LocationError::Speed)
        } else if !self.site_radius_m.is_none_or(is_near) {
            Err(LocationError::Site)
        } else if !SECONDS.contains(&self.fix_age_max_seconds) || !SECONDS.contains(&self.doubt_seconds) {
            Err(LocationError::Seconds)
        } else {
            Ok(())
        }
    }

    /// What is believed of the receiver without a doubt, on a device of these coordinates.
    pub(super) fn limits(&self, position: Option<&Position>) -> Limits {
        Limits {
            speed_max: self.speed_max_m_s,
            site: position.map(|position| position.point).zip(self.site_radius_m),
            doubt_seconds: self.doubt_seconds,
        }
    }
}

const SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn whereabouts(text: &str) -> Result<Whereabouts, LocationError> {
        toml::from_str::<LocationConfig>(text).unwrap().whereabouts()
    }

    #[test]
    fn what_is_said_is_whole_or_refused_with_the_reason() {
        const POINT: &str = "latitude = 52.5\nlongitude = 13\naccuracy_m = 20";
        assert_eq!(whereabouts("country = 'DE'").unwrap().position, None);
        assert_eq!(whereabouts(POINT).unwrap().position.unwrap().point.to_string(), "52.5,13");
        assert!(whereabouts("[gpsd]").is_ok());
        for (text, expected) in [
            ("", LocationError::Nothing),
            ("city = 'Berlin'", LocationError::NoCountry),
            ("latitude = 52.5\nlongitude = 13", LocationError::Coordinates),
            ("latitude = 91\nlongitude = 13\naccuracy_m = 1", LocationError::Latitude),
            ("latitude = 9\nlongitude = nan\naccuracy_m = 1", LocationError::Longitude),
            ("latitude = 9\nlongitude = 1\naccuracy_m = 0", LocationError::Accuracy),
            ("[gpsd]\naddress = '192.0.2.1:2947'", LocationError::NotLoopback),
            ("[gpsd]\nspeed_max_m_s = 0", LocationError::Speed),
            ("[gpsd]\nsite_radius_m = 100", LocationError::Site),
            ("[gpsd]\nfix_age_max_seconds = 0", LocationError::Seconds),
        ] {
            assert_eq!(whereabouts(text), Err(expected), "{text}");
        }
        assert!(whereabouts(&format!("{POINT}\n[gpsd]\nsite_radius_m = 100")).is_ok());
    }
}
