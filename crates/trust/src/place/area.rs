//! An area as policies write it: a name, a circle or polygons, and when it counts.

use std::fmt;

use assay_evidence::HashAlgorithm;
use assay_evidence::time::UnixTime;
use assay_telemetry::position::{Point, PointError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::geometry::{Geometry, GeometryError};
use super::hours::Hours;

/// An area of the earth's surface, at some hours or always.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "AreaText", into = "AreaText")]
pub struct Area {
    name: String,
    shape: Shape,
    hours: Vec<Hours>,
}

/// The outline of an area.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Everything within some metres of a point.
    Circle(Circle),
    /// What polygons enclose.
    Polygons(Geometry),
}

/// Everything within some metres of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Circle {
    /// Its centre.
    pub center: Point,
    /// Whole metres, 1 to [`CIRCLE_METRES_MAX`].
    pub radius_m: u32,
}

/// Why an area cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AreaError {
    /// The name is empty, too long or unprintable.
    #[error("{name:?} is no name of an area: use 1 to 64 letters, digits, dots, dashes and underscores")]
    Name {
        /// The name.
        name: String,
    },
    /// Neither a circle nor a geometry, or both.
    #[error("{name}: write either `circle` or `geometry`")]
    Shape {
        /// The area.
        name: String,
    },
    /// A circle around no point.
    #[error("{name}: {error}")]
    Center {
        /// The area.
        name: String,
        /// What is wrong.
        error: PointError,
    },
    /// A circle that is no area, or most of the earth.
    #[error("{name}: {metres} metres are out of range: 1 to {CIRCLE_METRES_MAX}")]
    Radius {
        /// The area.
        name: String,
        /// The radius.
        metres: u32,
    },
    /// Polygons that enclose nothing that could be judged.
    #[error("{name}: {error}")]
    Geometry {
        /// The area.
        name: String,
        /// What is wrong.
        error: GeometryError,
    },
    /// Polygons of too many points.
    #[error("{name}: the geometry has {points} points, and at most {POINTS_MAX} are judged: simplify it")]
    Points {
        /// The area.
        name: String,
        /// How many.
        points: usize,
    },
}

impl Area {
    /// An area, checked.
    pub fn new(name: String, shape: Shape, hours: Vec<Hours>) -> Result<Self, AreaError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(AreaError::Name { name });
        }
        match &shape {
            Shape::Circle(Circle { radius_m: metres, .. }) => {
                if !(1..=CIRCLE_METRES_MAX).contains(metres) {
                    return Err(AreaError::Radius { name, metres: *metres });
                }
            }
            Shape::Polygons(geometry) => {
                let points = geometry.points();
                if points > POINTS_MAX {
                    return Err(AreaError::Points { name, points });
                }
                if let Err(error) = geometry.check() {
                    return Err(AreaError::Geometry { name, error });
                }
            }
        }
        Ok(Area { name, shape, hours })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its outline.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// When it counts; empty: always.
    pub fn hours(&self) -> &[Hours] {
        &self.hours
    }

    /// Whether it counts at a moment.
    pub fn counts_at(&self, now: UnixTime) -> bool {
        self.hours.is_empty() || self.hours.iter().any(|hours| hours.contain(now))
    }

    /// How many points it costs to judge.
    pub fn points(&self) -> usize {
        match &self.shape {
            Shape::Circle(_) => 1,
            Shape::Polygons(geometry) => geometry.points(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Circle(Circle { center, radius_m }) => write!(f, "{radius_m} m around {center}"),
            Shape::Polygons(geometry) => {
                // What cannot be written out is told apart by its digest.
                let digest = HashAlgorithm::Sha256
                    .hash_of(|hashed| Ok(serde_json::to_writer(hashed, geometry)?))
                    .map(|digest| digest.to_string())
                    .unwrap_or_default();
                let short: String = digest.chars().take(DIGEST_CHARACTERS).collect();
                let (polygons, points) = (geometry.polygons().len(), geometry.points());
                let s = if polygons == 1 { "" } else { "s" };
                write!(f, "{polygons} polygon{s} of {points} points, {short}")
            }
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.shape)?;
        self.hours.iter().enumerate().try_for_each(|(number, hours)| {
            write!(f, "{}{hours} UTC", if number == 0 { ", " } else { " or " })
        })
    }
}

/// An area as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AreaText {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    circle: Option<CircleText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    geometry: Option<Geometry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hours: Vec<Hours>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CircleText {
    latitude: f64,
    longitude: f64,
    radius_m: u32,
}

impl TryFrom<AreaText> for Area {
    type Error = AreaError;

    fn try_from(text: AreaText) -> Result<Self, AreaError> {
        let AreaText { name, circle, geometry, hours } = text;
        let shape = match (circle, geometry) {
            (Some(CircleText { latitude, longitude, radius_m }), None) => {
                match Point::from_degrees(latitude, longitude) {
                    Ok(center) => Shape::Circle(Circle { center, radius_m }),
                    Err(error) => return Err(AreaError::Center { name, error }),
                }
            }
            (None, Some(geometry)) => Shape::Polygons(geometry),
            (None, None) | (Some(_), Some(_)) => return Err(AreaError::Shape { name }),
        };
        Area::new(name, shape, hours)
    }
}

impl From<Area> for AreaText {
    fn from(area: Area) -> Self {
        let Area { name, shape, hours } = area;
        let (circle, geometry) = match shape {
            Shape::Circle(Circle { center, radius_m }) => {
                let (latitude, longitude) = (center.latitude(), center.longitude());
                (Some(CircleText { latitude, longitude, radius_m }), None)
            }
            Shape::Polygons(geometry) => (None, Some(geometry)),
        };
        AreaText { name, circle, geometry, hours }
    }
}

/// A quarter of the way around; past it a circle is better written as what it leaves out.
pub const CIRCLE_METRES_MAX: u32 = 10_000_000;
/// All the boundaries of a large country in detail; it takes 2 MB in a policy.
pub const POINTS_MAX: usize = 100_000;
const NAME_BYTES_MAX: usize = 64;
/// `sha256:` and 64 bits.
const DIGEST_CHARACTERS: usize = 7 + 16;
