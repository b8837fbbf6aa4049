//! Regions by name: ISO 3166-1 countries, ISO 3166-2 subdivisions, and cities within them.
//!
//! A place is what a device states, at the assurance of its source; a region list says where that may be.

mod names;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A country's ISO 3166-1 alpha-2 code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// A subdivision's ISO 3166-2 code, such as `DE-BE`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subdivision {
    country: Country,
    code: String,
}

/// A city within a subdivision, such as `DE-BE/Berlin`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct City {
    subdivision: Subdivision,
    name: String,
}

/// Why a text names no region.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegionError {
    /// Not an assigned ISO 3166-1 alpha-2 code.
    #[error("{text:?} is not an ISO 3166-1 country code: write two letters, such as DE")]
    Country {
        /// The text.
        text: String,
    },
    /// Not of the form of an ISO 3166-2 code.
    #[error("{text:?} is not an ISO 3166-2 subdivision code: write it with its country, such as DE-BE")]
    Subdivision {
        /// The text.
        text: String,
    },
    /// Not a subdivision and a city.
    #[error("{text:?} is not a city: write it with its subdivision, such as DE-BE/Berlin")]
    City {
        /// The text.
        text: String,
    },
}

impl Country {
    fn as_str(&self) -> &str {
        // Made of two ASCII letters only, by `from_str`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Country {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, RegionError> {
        let upper = text.trim().to_ascii_uppercase();
        match <[u8; 2]>::try_from(upper.as_bytes()) {
            Ok(code) if ASSIGNED.split_ascii_whitespace().any(|known| known == upper) => Ok(Country(code)),
            _ => Err(RegionError::Country { text: text.to_owned() }),
        }
    }
}

impl FromStr for Subdivision {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, RegionError> {
        let malformed = || RegionError::Subdivision { text: text.to_owned() };
        let (country, code) = text.trim().split_once('-').ok_or_else(malformed)?;
        Subdivision::new(country.parse().map_err(|_| malformed())?, code).ok_or_else(malformed)
    }
}

impl Subdivision {
    /// ISO 3166-2: one to three letters or digits after the country.
    fn new(country: Country, code: &str) -> Option<Self> {
        let plausible =
            (1..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plausible.then(|| Subdivision { country, code: code.to_ascii_uppercase() })
    }
}

impl FromStr for City {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, RegionError> {
        let malformed = || RegionError::City { text: text.to_owned() };
        let (subdivision, name) = text.split_once('/').ok_or_else(malformed)?;
        let name = name.trim();
        if name.is_empty() {
            return Err(malformed());
        }
        Ok(City { subdivision: subdivision.parse()?, name: name.to_owned() })
    }
}

/// Where something is said to be. What is not said is not guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    country: Option<Country>,
    subdivision: Option<Subdivision>,
    city: Option<String>,
    /// What is said to be a subdivision of the country and is one of another: such a place is nowhere.
    elsewhere: Option<Subdivision>,
}

impl Place {
    /// Reads what a statement says; a part that names no region counts as not said. The subdivision may come
    /// with its country (`DE-BE`) or without (`BE`). Of a place that contradicts itself nothing counts.
    pub fn stated(country: &str, subdivision: &str, city: &str) -> Self {
        let country: Option<Country> = country.parse().ok();
        let subdivision = subdivision
            .parse::<Subdivision>()
            .ok()
            .or_else(|| Subdivision::new(country?, subdivision.trim()));
        let (subdivision, elsewhere) = match subdivision {
            Some(other) if country.is_some_and(|country| country != other.country) => (None, Some(other)),
            // A subdivision without its country is not enough.
            subdivision => (subdivision.filter(|_| country.is_some()), None),
        };
        let city = Some(city.trim()).filter(|city| !city.is_empty()).map(str::to_owned);
        Place { country, subdivision, city, elsewhere }
    }

    /// Reads what is said in words or codes; `None` where something is said that names no region, or one that does not lie in
    /// the one before it. What is empty is not said.
    pub fn in_words(country: &str, subdivision: &str, city: &str) -> Option<Self> {
        let city = Some(city.trim()).filter(|city| !city.is_empty()).map(str::to_owned);
        let country = match country.trim() {
            "" => None,
            country => Some(names::country(country)?),
        };
        let subdivision = match subdivision.trim() {
            "" => None,
            subdivision => Some(names::subdivision(country?, subdivision)?),
        };
        Some(Place { country, subdivision, city, elsewhere: None })
    }

    /// Whether nothing is said that names a region.
    pub fn says_nothing(&self) -> bool {
        self.country.is_none()
            && self.subdivision.is_none()
            && self.city.is_none()
            && self.elsewhere.is_none()
    }

    /// Whether country, subdivision and city are all said.
    pub fn is_complete(&self) -> bool {
        self.country.is_some() && self.subdivision.is_some() && self.city.is_some()
    }
}

/// Regions; each makes them wider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionList {
    /// Whole countries.
    pub countries: Vec<Country>,
    /// Whole subdivisions.
    pub subdivisions: Vec<Subdivision>,
    /// Single cities.
    pub cities: Vec<City>,
}

impl RegionList {
    /// Whether the place lies in one of the regions; a place that does not say enough does not.
    pub fn allows(&self, place: &Place) -> bool {
        if place.elsewhere.is_some() {
            return false;
        }
        let country = place.country.is_some_and(|country| self.countries.contains(&country));
        let subdivision = place.subdivision.as_ref().is_some_and(|place| self.subdivisions.contains(place));
        country || subdivision || self.cities.iter().any(|city| city.is(place))
    }

    /// Whether the place lies in one of the regions, or says too little to tell that it does not.
    pub fn may_hold(&self, place: &Place) -> bool {
        let may_be_in = |country: Country| place.country.is_none_or(|said| said == country);
        let may_be_of = |subdivision: &Subdivision| {
            may_be_in(subdivision.country)
                && place.subdivision.as_ref().is_none_or(|said| said == subdivision)
        };
        let may_be = |city: &City| {
            may_be_of(&city.subdivision) && place.city.as_deref().is_none_or(|said| city.is_named(said))
        };
        place.elsewhere.is_some()
            || self.countries.iter().any(|country| may_be_in(*country))
            || self.subdivisions.iter().any(may_be_of)
            || self.cities.iter().any(may_be)
    }

    /// Whether there is no region at all.
    pub fn is_empty(&self) -> bool {
        self.countries.is_empty() && self.subdivisions.is_empty() && self.cities.is_empty()
    }

    /// Each as policies write it.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let names = self.countries.iter().map(Country::to_string);
        let names = names.chain(self.subdivisions.iter().map(Subdivision::to_string));
        names.chain(self.cities.iter().map(City::to_string))
    }
}

impl City {
    fn is(&self, place: &Place) -> bool {
        let same_name = place.city.as_deref().is_some_and(|name| self.is_named(name));
        same_name && place.subdivision.as_ref() == Some(&self.subdivision)
    }

    fn is_named(&self, name: &str) -> bool {
        name.to_lowercase() == self.name.to_lowercase()
    }
}

impl fmt::Display for RegionList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(country), Some(elsewhere)) = (&self.country, &self.elsewhere) {
            return write!(f, "{country} with {elsewhere}, which is not in it");
        }
        let region = match (&self.subdivision, &self.country) {
            (Some(subdivision), _) => subdivision.to_string(),
            (None, Some(country)) => country.to_string(),
            (None, None) => "an unknown region".to_owned(),
        };
        match &self.city {
            Some(city) => write!(f, "{region}/{}", city.escape_debug()),
            None => f.write_str(&region),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Subdivision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.country, self.code)
    }
}

impl fmt::Display for City {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.subdivision, self.name)
    }
}

macro_rules! text_in_policies {
    ($($region:ty),*) => {$(
        impl fmt::Debug for $region {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $region {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $region {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_in_policies!(Country, Subdivision, City);

/// ISO 3166-1 alpha-2, officially assigned codes.
const ASSIGNED: &str = "\
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR \
GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO \
JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR \
MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO \
RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV \
TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

#[cfg(test)]
mod tests {
    use super::*;

    fn list(countries: &[&str], subdivisions: &[&str], cities: &[&str]) -> RegionList {
        RegionList {
            countries: countries.iter().map(|text| text.parse().unwrap()).collect(),
            subdivisions: subdivisions.iter().map(|text| text.parse().unwrap()).collect(),
            cities: cities.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn the_country_table_is_complete() {
        assert_eq!(ASSIGNED.split_ascii_whitespace().count(), 249);
    }

    #[test]
    fn each_level_allows_what_lies_in_it() {
        let list = list(&["de"], &["FR-IDF"], &["US-CA/San Francisco"]);
        for (country, subdivision, city, expected) in [
            ("DE", "", "", true),
            ("DE", "DE-BE", "Berlin", true),
            ("FR", "FR-IDF", "Paris", true),
            ("FR", "IDF", "", true),
            ("FR", "FR-ARA", "Lyon", false),
            ("US", "CA", "san francisco", true),
            ("US", "US-CA", "Oakland", false),
            ("", "", "San Francisco", false),
            ("US", "FR-IDF", "", false),
            ("", "FR-IDF", "", false),
            // A country that is allowed with a subdivision that is not of it, whichever of the two it is in.
            ("DE", "FR-IDF", "", false),
            ("DE", "US-CA", "San Francisco", false),
            ("FR", "DE-BE", "Paris", false),
        ] {
            assert_eq!(
                list.allows(&Place::stated(country, subdivision, city)),
                expected,
                "{country} {subdivision} {city}"
            );
        }
    }

    #[test]
    fn a_denied_region_holds_what_does_not_say_that_it_is_elsewhere() {
        for (denied, country, subdivision, city, expected) in [
            (list(&["DE"], &[], &[]), "DE", "", "", true),
            (list(&["DE"], &[], &[]), "FR", "", "", false),
            (list(&["DE"], &[], &[]), "", "", "", true),
            (list(&[], &["DE-BE"], &[]), "DE", "", "", true),
            (list(&[], &["DE-BE"], &[]), "DE", "DE-BY", "", false),
            (list(&[], &["DE-BE"], &[]), "FR", "", "", false),
            (list(&[], &[], &["DE-BE/Berlin"]), "DE", "DE-BE", "", true),
            (list(&[], &[], &["DE-BE/Berlin"]), "DE", "DE-BE", "BERLIN", true),
            (list(&[], &[], &["DE-BE/Berlin"]), "DE", "DE-BE", "Spandau", false),
            // What contradicts itself is nowhere, and so may be anywhere.
            (list(&["US"], &[], &[]), "DE", "FR-IDF", "", true),
        ] {
            let place = Place::stated(country, subdivision, city);
            assert_eq!(denied.may_hold(&place), expected, "{denied}: {country} {subdivision} {city}");
        }
    }

    #[test]
    fn a_place_that_contradicts_itself_is_nowhere_and_says_why() {
        let place = Place::stated("DE", "FR-IDF", "Paris");
        assert_eq!(place.to_string(), "DE with FR-IDF, which is not in it");
        assert_eq!(Place::stated("DE", "BE", "Berlin").to_string(), "DE-BE/Berlin");
    }

    #[test]
    fn what_names_no_region_is_refused() {
        assert!("XX".parse::<Country>().is_err());
        assert!("DEU".parse::<Country>().is_err());
        assert!("DE".parse::<Subdivision>().is_err());
        assert!("DE-TOOLONG".parse::<Subdivision>().is_err());
        assert!("Berlin".parse::<City>().is_err());
        assert!("DE-BE/ ".parse::<City>().is_err());
    }
}
