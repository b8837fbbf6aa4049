//! Polygons as policies write them: the geometries of GeoJSON (RFC 7946), read strictly.
//!
//! Coordinates become whole ten-millionths of a degree, so that equal policies are equal values and containment is exact. An edge is
//! straight in longitude and latitude (RFC 7946, 3.1.1), and no edge goes more than half around the earth: which way it would go is for
//! the writer to say, by cutting the polygon at the antimeridian or by counting on past 180.

use std::fmt;

use assay_telemetry::position::{Point, PointError};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A geometry object of one of the two types that enclose something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", content = "coordinates", deny_unknown_fields)]
pub enum Geometry {
    /// One polygon.
    Polygon(Polygon),
    /// Several.
    MultiPolygon(Vec<Polygon>),
}

/// An outer ring, and the holes in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Polygon(pub Vec<Ring>);

/// Points of which the last is the first again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ring(pub Vec<Vertex>);

/// A point of a ring, in ten-millionths of a degree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vertex {
    /// East; may count on past 180 degrees.
    pub longitude_e7: i64,
    /// North.
    pub latitude_e7: i64,
}

/// Why a geometry encloses nothing that could be judged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// There is nothing in it.
    #[error("there is no polygon in it")]
    Empty,
    /// A ring that does not come back.
    #[error(
        "polygon {polygon}, ring {ring}: a ring has at least four points, of which the last is the first again"
    )]
    Open {
        /// Which polygon, from 0.
        polygon: usize,
        /// Which ring, from 0; the first is the outer one.
        ring: usize,
    },
    /// A ring around nothing.
    #[error("polygon {polygon}, ring {ring}: it encloses nothing")]
    Flat {
        /// Which polygon.
        polygon: usize,
        /// Which ring.
        ring: usize,
    },
    /// An edge of which nobody can tell which way it goes.
    #[error(
        "polygon {polygon}, ring {ring}: the edge to point {point} goes more than half around the earth: put points between, cut the \
         polygon at the antimeridian (RFC 7946, 3.1.9), or count longitudes on past 180"
    )]
    LongEdge {
        /// Which polygon.
        polygon: usize,
        /// Which ring.
        ring: usize,
        /// Which point of it.
        point: usize,
    },
    /// More than once around.
    #[error("polygon {polygon}: it goes more than once around the earth")]
    TooWide {
        /// Which polygon.
        polygon: usize,
    },
}

impl Geometry {
    /// Its polygons.
    pub fn polygons(&self) -> &[Polygon] {
        match self {
            Geometry::Polygon(polygon) => std::slice::from_ref(polygon),
            Geometry::MultiPolygon(polygons) => polygons,
        }
    }

    /// How many points it has.
    pub fn points(&self) -> usize {
        self.polygons().iter().flat_map(|polygon| &polygon.0).map(|ring| ring.0.len()).sum()
    }

    /// How far it reaches, in words: `47.3..55.1 N, 5.9..15 E`.
    pub fn bounds(&self) -> String {
        let vertices = || self.polygons().iter().flat_map(|polygon| &polygon.0).flat_map(|ring| &ring.0);
        let range = |part: fn(&Vertex) -> i64| {
            let (least, most) = (vertices().map(part).min(), vertices().map(part).max());
            format!("{}..{}", least.unwrap_or_default() as f64 / 1e7, most.unwrap_or_default() as f64 / 1e7)
        };
        format!("{} N, {} E", range(|vertex| vertex.latitude_e7), range(|vertex| vertex.longitude_e7))
    }

    /// Says what keeps it from enclosing something.
    pub fn check(&self) -> Result<(), GeometryError> {
        if self.polygons().iter().all(|polygon| polygon.0.is_empty()) {
            return Err(GeometryError::Empty);
        }
        self.polygons().iter().enumerate().try_for_each(|(number, polygon)| polygon.check(number))
    }
}

impl Polygon {
    fn check(&self, polygon: usize) -> Result<(), GeometryError> {
        if self.0.is_empty() {
            return Err(GeometryError::Empty);
        }
        for (number, ring) in self.0.iter().enumerate() {
            ring.check(polygon, number)?;
        }
        let longitudes = || self.0.iter().flat_map(|ring| &ring.0).map(|vertex| vertex.longitude_e7);
        let (west, east) = (longitudes().min().unwrap_or_default(), longitudes().max().unwrap_or_default());
        if east - west > TURN_E7 { Err(GeometryError::TooWide { polygon }) } else { Ok(()) }
    }
}

impl Ring {
    /// Its edges, each from one point to the next.
    pub fn edges(&self) -> impl Iterator<Item = (Vertex, Vertex)> + '_ {
        self.0.iter().copied().zip(self.0.iter().skip(1).copied())
    }

    fn check(&self, polygon: usize, ring: usize) -> Result<(), GeometryError> {
        if self.0.len() < 4 || self.0.first() != self.0.last() {
            return Err(GeometryError::Open { polygon, ring });
        }
        for (index, (from, to)) in self.edges().enumerate() {
            // At a pole all longitudes are one.
            let is_at_a_pole = from.is_a_pole() && from.latitude_e7 == to.latitude_e7;
            if (to.longitude_e7 - from.longitude_e7).abs() > TURN_E7 / 2 && !is_at_a_pole {
                return Err(GeometryError::LongEdge { polygon, ring, point: index + 1 });
            }
        }
        let doubled: i128 = self.edges().map(|(from, to)| from.cross(to)).sum();
        if doubled == 0 { Err(GeometryError::Flat { polygon, ring }) } else { Ok(()) }
    }
}

impl Vertex {
    /// Whether it is one of the poles.
    pub(super) fn is_a_pole(self) -> bool {
        self.latitude_e7.abs() == POLE_E7
    }

    fn cross(self, other: Vertex) -> i128 {
        i128::from(self.longitude_e7) * i128::from(other.latitude_e7)
            - i128::from(other.longitude_e7) * i128::from(self.latitude_e7)
    }

    /// Of degrees; longitudes may count on past 180, to 540.
    fn from_degrees(longitude: f64, latitude: f64) -> Result<Self, PointError> {
        let around = longitude.rem_euclid(360.0);
        let within = if around > 180.0 { around - 360.0 } else { around };
        let point = Point::from_degrees(latitude, within)?;
        if !(-540.0..=540.0).contains(&longitude) {
            return Err(PointError::Longitude);
        }
        // In the range of the type, by the line above.
        let longitude_e7 = (longitude * 1e7).round() as i64;
        Ok(Vertex { longitude_e7, latitude_e7: i64::from(point.latitude_e7()) })
    }
}

impl fmt::Debug for Vertex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.longitude_e7 as f64 / 1e7, self.latitude_e7 as f64 / 1e7)
    }
}

impl Serialize for Vertex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_tuple(2)?;
        // Both are below 2^53, and ten-millionths of a degree read back from their shortest decimal.
        pair.serialize_element(&(self.longitude_e7 as f64 / 1e7))?;
        pair.serialize_element(&(self.latitude_e7 as f64 / 1e7))?;
        pair.end()
    }
}

impl<'de> Deserialize<'de> for Vertex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PositionVisitor)
    }
}

/// RFC 7946, 3.1.1: longitude, latitude, and what may follow, such as a height.
struct PositionVisitor;

impl<'de> Visitor<'de> for PositionVisitor {
    type Value = Vertex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position, [LONGITUDE, LATITUDE] in degrees")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut positions: A) -> Result<Vertex, A::Error> {
        let missing = |length| serde::de::Error::invalid_length(length, &self);
        let longitude = positions.next_element()?.ok_or_else(|| missing(0))?;
        let latitude = positions.next_element()?.ok_or_else(|| missing(1))?;
        while positions.next_element::<IgnoredAny>()?.is_some() {}
        Vertex::from_degrees(longitude, latitude).map_err(serde::de::Error::custom)
    }
}

/// Once around.
pub(super) const TURN_E7: i64 = 3_600_000_000;
pub(super) const POLE_E7: i64 = 900_000_000;
