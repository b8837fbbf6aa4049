//! Where telemetry may come from. The regions themselves are in `region.rs`.

use super::{Join, Section};
use crate::policy::choice::Demanded;
use crate::policy::list::{Lists, join_option, sorted};
use crate::policy::remark::Notes;
use crate::policy::{Field, PcrSection, PolicyError};
use crate::region::RegionList;

impl Section for Option<RegionList> {
    fn key(&self) -> &'static str {
        "location"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        if self.as_ref().is_some_and(RegionList::is_empty) {
            errors.push(PolicyError::EmptyList { field: "location".to_owned() });
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let Some(RegionList { allow_countries, allow_subdivisions, allow_cities }) = self else { return };
        notes.repeated(Field::of(["location", "allow_countries"]), allow_countries);
        notes.repeated(Field::of(["location", "allow_subdivisions"]), allow_subdivisions);
        notes.repeated(Field::of(["location", "allow_cities"]), allow_cities);
    }

    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        Vec::new()
    }

    fn lists(&self) -> Lists {
        let regions =
            self.as_ref().map(|RegionList { allow_countries, allow_subdivisions, allow_cities }| {
                let countries = allow_countries.iter().map(ToString::to_string);
                let subdivisions = allow_subdivisions.iter().map(ToString::to_string);
                let cities = allow_cities.iter().map(ToString::to_string);
                countries.chain(subdivisions).chain(cities).collect()
            });
        let mut lists = Lists::default();
        lists.restricts(Field::of(["location"]), regions);
        lists
    }
}

impl Join for Option<RegionList> {
    fn join(&mut self, other: &Self) {
        join_option(
            self,
            other,
            |RegionList { allow_countries, allow_subdivisions, allow_cities }, other| {
                allow_countries.extend_from_slice(&other.allow_countries);
                allow_subdivisions.extend_from_slice(&other.allow_subdivisions);
                allow_cities.extend_from_slice(&other.allow_cities);
            },
        );
    }

    fn sort(&mut self) {
        let Some(RegionList { allow_countries, allow_subdivisions, allow_cities }) = self else { return };
        sorted(allow_countries);
        sorted(allow_subdivisions);
        sorted(allow_cities);
    }
}
