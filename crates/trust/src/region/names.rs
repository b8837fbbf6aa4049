//! Names of countries and subdivisions, for places that are said in words.
//!
//! Names are Natural Earth's, which is in the public domain; `scripts/regions` wrote them. What goes by another name there is said by
//! its code.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::{Country, Subdivision};

/// The country of a code or a name.
pub(super) fn country(text: &str) -> Option<Country> {
    let by_code = text.parse().ok();
    by_code.or_else(|| names().countries.get(&folded(text)).copied())
}

/// The subdivision of a code, with its country or without, or of a name, in a country.
pub(super) fn subdivision(country: Country, text: &str) -> Option<Subdivision> {
    let text = text.trim();
    let within = text.parse::<Subdivision>().ok().or_else(|| {
        let by_name = names().subdivisions.get(&(country, folded(text))).cloned();
        // A name of three letters is a name first.
        by_name.or_else(|| Subdivision::new(country, text))
    });
    within.filter(|subdivision| subdivision.country == country)
}

struct Names {
    countries: HashMap<String, Country>,
    subdivisions: HashMap<(Country, String), Subdivision>,
}

fn names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names = Names { countries: HashMap::new(), subdivisions: HashMap::new() };
        for line in LINES.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('|');
            let code = fields.next().unwrap_or_default();
            if let Ok(country) = code.parse::<Country>() {
                names.countries.extend(fields.map(|name| (folded(name), country)));
            } else if let Ok(subdivision) = code.parse::<Subdivision>() {
                let country = subdivision.country;
                names.subdivisions.extend(fields.map(|name| ((country, folded(name)), subdivision.clone())));
            }
        }
        names
    })
}

/// Whatever the case is.
fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

const LINES: &str = include_str!("../../data/subdivisions.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_mean_the_same() {
        let check = |country_text: &str, text: &str, expected: Option<&str>| {
            let found = country(country_text).and_then(|country| subdivision(country, text));
            assert_eq!(found.map(|found| found.to_string()).as_deref(), expected, "{country_text} {text}");
        };
        check("US", "California", Some("US-CA"));
        check("United States of America", " california ", Some("US-CA"));
        check("us", "CA", Some("US-CA"));
        check("US", "US-CA", Some("US-CA"));
        check("DE", "Bavaria", Some("DE-BY"));
        check("DE", "Bayern", Some("DE-BY"));
        check("DE", "California", None);
        check("DE", "US-CA", None);
        check("US", "Atlantis", None);
        check("Atlantis", "CA", None);
        assert!(names().countries.len() > 180 && names().subdivisions.len() > 4000);
    }
}
