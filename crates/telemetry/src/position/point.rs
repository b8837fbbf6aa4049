//! A point of the earth's surface, in whole ten-millionths of a degree.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Latitude and longitude by WGS 84, exact to 1e-7 degrees, which is 11 mm at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    latitude_e7: i32,
    longitude_e7: i32,
}

/// Why numbers are no point.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PointError {
    /// Beyond a pole, or no number.
    #[error("a latitude is -90 to 90 degrees: the order is latitude, longitude")]
    Latitude,
    /// Beyond the antimeridian, or no number.
    #[error("a longitude is -180 to 180 degrees")]
    Longitude,
    /// Not two numbers.
    #[error("{text:?} is no point: write LATITUDE,LONGITUDE in degrees, such as 52.52,13.405")]
    Text {
        /// What there is.
        text: String,
    },
}

impl Point {
    /// Of degrees, rounded to 1e-7.
    pub fn from_degrees(latitude: f64, longitude: f64) -> Result<Self, PointError> {
        let latitude_e7 = e7(latitude, 90).ok_or(PointError::Latitude)?;
        let longitude_e7 = e7(longitude, 180).ok_or(PointError::Longitude)?;
        Ok(Point { latitude_e7, longitude_e7 })
    }

    /// Of ten-millionths of a degree.
    pub fn from_e7(latitude_e7: i32, longitude_e7: i32) -> Result<Self, PointError> {
        if !(-90 * E7..=90 * E7).contains(&latitude_e7) {
            return Err(PointError::Latitude);
        }
        if !(-180 * E7..=180 * E7).contains(&longitude_e7) {
            return Err(PointError::Longitude);
        }
        Ok(Point { latitude_e7, longitude_e7 })
    }

    /// Ten-millionths of a degree north.
    pub fn latitude_e7(self) -> i32 {
        self.latitude_e7
    }

    /// Ten-millionths of a degree east.
    pub fn longitude_e7(self) -> i32 {
        self.longitude_e7
    }

    /// Degrees north.
    pub fn latitude(self) -> f64 {
        f64::from(self.latitude_e7) / f64::from(E7)
    }

    /// Degrees east.
    pub fn longitude(self) -> f64 {
        f64::from(self.longitude_e7) / f64::from(E7)
    }

    /// Metres to another point, on a sphere of the earth's mean radius: the ellipsoid's are 0.56 % less to 0.45 % more.
    pub fn metres_to(self, other: Point) -> f64 {
        let (from, to) = (self.latitude().to_radians(), other.latitude().to_radians());
        let east = (other.longitude() - self.longitude()).to_radians();
        // The haversine, which keeps its digits where two points are close.
        let square = |angle: f64| (angle / 2.0).sin().powi(2);
        let haversine = square(to - from) + from.cos() * to.cos() * square(east);
        2.0 * EARTH_RADIUS_M * haversine.clamp(0.0, 1.0).sqrt().asin()
    }
}

/// Degrees as ten-millionths, where they are no more than so many.
fn e7(degrees: f64, degrees_max: i32) -> Option<i32> {
    // Of what is no number neither comparison holds.
    let is_within = degrees >= f64::from(-degrees_max) && degrees <= f64::from(degrees_max);
    is_within.then(|| (degrees * f64::from(E7)).round() as i32)
}

impl FromStr for Point {
    type Err = PointError;

    fn from_str(text: &str) -> Result<Self, PointError> {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        let numbers = text.split_once(',').and_then(|(north, east)| number(north).zip(number(east)));
        let (latitude, longitude) = numbers.ok_or_else(|| PointError::Text { text: text.to_owned() })?;
        Point::from_degrees(latitude, longitude)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.latitude(), self.longitude())
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const E7: i32 = 10_000_000;
/// IUGG's mean radius of WGS 84, (2a + b) / 3.
const EARTH_RADIUS_M: f64 = 6_371_008.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_read_within_their_range_and_written_back() {
        for text in ["52.52,13.405", "-90,180", "0.0000001,-0.0000001", "0,0", "51.4778,-179.9999999"] {
            assert_eq!(text.parse::<Point>().unwrap().to_string(), text);
        }
        assert_eq!(" 1.5 , -2 ".parse::<Point>().unwrap(), Point::from_e7(15_000_000, -20_000_000).unwrap());
        assert_eq!("90.0000001,0".parse::<Point>(), Err(PointError::Latitude));
        assert_eq!("NaN,0".parse::<Point>(), Err(PointError::Latitude));
        assert_eq!("0,-inf".parse::<Point>(), Err(PointError::Longitude));
        assert_eq!("0,181".parse::<Point>(), Err(PointError::Longitude));
        assert!(matches!("52.52".parse::<Point>(), Err(PointError::Text { .. })));
        assert!(Point::from_e7(i32::MIN, 0).is_err() && Point::from_e7(0, i32::MAX).is_err());
    }

    #[test]
    fn distances_are_those_of_the_earth_within_what_is_said() {
        // Along the ellipsoid, from outside: Berlin to Paris 879.7 km, London to New York 5,585 km, a degree of the equator 111.3195 km,
        // a degree of the meridian at the pole 111.694 km.
        for (from, to, metres) in [
            ("52.52,13.405", "48.8566,2.3522", 879_700.0),
            ("51.5074,-0.1278", "40.7128,-74.006", 5_585_200.0),
            ("0,179.5", "0,-179.5", 111_319.5),
            ("89,0", "90,0", 111_694.0),
        ] {
            let (from, to): (Point, Point) = (from.parse().unwrap(), to.parse().unwrap());
            let found = from.metres_to(to);
            assert!((found / metres - 1.0).abs() < 0.0057, "{from} to {to}: {found}");
            assert_eq!(found, to.metres_to(from));
        }
        let same: Point = "1,1".parse().unwrap();
        assert_eq!(same.metres_to(same), 0.0);
    }
}
