//! Where telemetry may come from. Regions are in `region.rs`, areas and what is made of a position in `place/`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Join, Section};
use crate::place::{Area, Assurance, Demands, Fence, Fenced, POINTS_MAX, Uncertain};
use crate::policy::choice::{Demanded, Ranked, Strictness, word};
use crate::policy::list::{Lists, join_option, sorted, texts};
use crate::policy::remark::Notes;
use crate::policy::{Field, PcrSection, PolicyError};
use crate::region::{City, Country, RegionList, Subdivision};

/// Where telemetry may come from. Regions are held against what a device says in words, areas against the position that it states; where a
/// policy has both, both have to hold, and what is denied comes before what is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocationSection {
    /// Whole countries, ISO 3166-1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_countries: Vec<Country>,
    /// Whole subdivisions, ISO 3166-2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_subdivisions: Vec<Subdivision>,
    /// Single cities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_cities: Vec<City>,
    /// Countries that are refused. Who does not say that it is elsewhere is refused too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_countries: Vec<Country>,
    /// Subdivisions that are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_subdivisions: Vec<Subdivision>,
    /// Cities that are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_cities: Vec<City>,
    /// What a position has to be worth; `sensed` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assurance: Option<Assurance>,
    /// How many metres a position may be off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_max_m: Option<u32>,
    /// How long ago it may have been fixed, by the clocks of receiver and server. A position that somebody wrote down has no such time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix_age_max_seconds: Option<u64>,
    /// What is made of a position whose circle lies across a border.
    #[serde(skip_serializing_if = "is_default")]
    pub uncertain: Uncertain,
    /// Areas, one of which a position has to be in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_areas: Vec<Area>,
    /// Areas that a position must not be in, nor at the border of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny_areas: Vec<Area>,
}

impl LocationSection {
    /// The same, ready to judge.
    pub fn fence(&self) -> Fence {
        let regions = |countries: &[Country], subdivisions: &[Subdivision], cities: &[City]| {
            let (countries, subdivisions, cities) =
                (countries.to_vec(), subdivisions.to_vec(), cities.to_vec());
            Some(RegionList { countries, subdivisions, cities }).filter(|regions| !regions.is_empty())
        };
        Fence {
            allow_regions: regions(&self.allow_countries, &self.allow_subdivisions, &self.allow_cities),
            deny_regions: regions(&self.deny_countries, &self.deny_subdivisions, &self.deny_cities),
            allow: self.allow_areas.iter().map(Fenced::new).collect(),
            deny: self.deny_areas.iter().map(Fenced::new).collect(),
            demands: Demands {
                assurance: self.assurance(),
                accuracy_max_m: self.accuracy_max_m,
                fix_age_max_seconds: self.fix_age_max_seconds,
                uncertain: self.uncertain,
            },
        }
    }

    /// What a position has to be worth, where one is asked for.
    pub fn assurance(&self) -> Assurance {
        self.assurance.unwrap_or(Assurance::Sensed)
    }

    /// Whether a receiver has to say where the device is.
    pub(crate) fn asks_for_a_receiver(&self) -> bool {
        self.has_areas() && self.assurance() > Assurance::Stated
    }

    fn has_areas(&self) -> bool {
        !self.allow_areas.is_empty() || !self.deny_areas.is_empty()
    }

    fn names_nothing(&self) -> bool {
        let LocationSection {
            allow_countries,
            allow_subdivisions,
            allow_cities,
            deny_countries,
            deny_subdivisions,
            deny_cities,
            assurance: _,
            accuracy_max_m: _,
            fix_age_max_seconds: _,
            uncertain: _,
            allow_areas: _,
            deny_areas: _,
        } = self;
        let regions = [allow_countries.len(), allow_subdivisions.len(), allow_cities.len()];
        let denied = [deny_countries.len(), deny_subdivisions.len(), deny_cities.len()];
        regions.into_iter().chain(denied).sum::<usize>() == 0 && !self.has_areas()
    }

    /// The lines that say what a position has to show, and are of no use where none is asked for.
    fn lines_on_positions(&self) -> Vec<&'static str> {
        let lines = [
            ("assurance", self.assurance.is_some()),
            ("accuracy_max_m", self.accuracy_max_m.is_some()),
            ("fix_age_max_seconds", self.fix_age_max_seconds.is_some()),
            ("uncertain", self.uncertain != Uncertain::default()),
        ];
        lines.into_iter().filter(|(_, is_there)| *is_there).map(|(line, _)| line).collect()
    }

    fn areas(&self) -> impl Iterator<Item = &Area> {
        self.allow_areas.iter().chain(&self.deny_areas)
    }
}

impl Section for Option<LocationSection> {
    fn key(&self) -> &'static str {
        "location"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        let Some(section) = self else { return };
        if section.names_nothing() {
            errors.push(PolicyError::EmptyList { field: "location".to_owned() });
        } else if !section.has_areas() {
            let lines = section.lines_on_positions().into_iter();
            errors.extend(lines.map(|line| PolicyError::NoAreas { field: line }));
        }
        if section.accuracy_max_m == Some(0) {
            errors.push(PolicyError::NoRoom { field: "accuracy_max_m" });
        }
        if section.fix_age_max_seconds == Some(0) {
            errors.push(PolicyError::NoRoom { field: "fix_age_max_seconds" });
        }
        let count = section.areas().count();
        if count > AREAS_MAX {
            errors.push(PolicyError::TooMany { field: "location.allow_areas", count, max: AREAS_MAX });
        }
        let points = section.areas().map(Area::points).sum::<usize>();
        if points > POINTS_MAX {
            errors.push(PolicyError::TooManyPoints { points });
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let Some(section) = self else { return };
        let LocationSection {
            allow_countries,
            allow_subdivisions,
            allow_cities,
            deny_countries,
            deny_subdivisions,
            deny_cities,
            assurance,
            accuracy_max_m: _,
            fix_age_max_seconds,
            uncertain,
            allow_areas,
            deny_areas,
        } = section;
        notes.repeated(Field::of(["location", "allow_countries"]), allow_countries);
        notes.repeated(Field::of(["location", "allow_subdivisions"]), allow_subdivisions);
        notes.repeated(Field::of(["location", "allow_cities"]), allow_cities);
        notes.repeated(Field::of(["location", "deny_countries"]), deny_countries);
        notes.repeated(Field::of(["location", "deny_subdivisions"]), deny_subdivisions);
        notes.repeated(Field::of(["location", "deny_cities"]), deny_cities);
        notes.repeated(Field::of(["location", "allow_areas"]), allow_areas);
        notes.repeated(Field::of(["location", "deny_areas"]), deny_areas);
        if !section.has_areas() {
            return;
        }
        if *assurance == Some(Assurance::Stated) {
            notes.warn(
                Field::of(["location", "assurance"]),
                "coordinates that somebody wrote into a configuration count, and so do those that their own receiver is in doubt of",
            );
        }
        if section.assurance() > Assurance::Stated && fix_age_max_seconds.is_none() {
            notes.warn(
                Field::of(["location", "fix_age_max_seconds"]),
                "a position counts however old it is: say for how long one does, such as 300",
            );
        }
        if *uncertain == Uncertain::Accept && !allow_areas.is_empty() {
            notes.warn(
                Field::of(["location", "uncertain"]),
                "a position that may be outside counts as inside, with whatever accuracy it states",
            );
        }
    }

    fn measures(&self) -> bool {
        false
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        // Without areas no position is asked for, which is less than whatever it might have to show.
        let section = self.as_ref().filter(|section| section.has_areas());
        let demanded = |line: &'static str, word: Option<String>, rank: u64| Demanded {
            field: Field::of(["location", line]),
            word: word.unwrap_or_else(|| "anything".to_owned()),
            strictness: Strictness::Rank(rank),
        };
        let at_most = |line, value: Option<u64>| {
            let rank = value.map_or(0, |value| u64::MAX.saturating_sub(value));
            demanded(line, value.map(|value| value.to_string()), rank)
        };
        let assurance = section.map(LocationSection::assurance);
        let uncertain = section.map(|section| section.uncertain);
        let accuracy = section.and_then(|section| section.accuracy_max_m).map(u64::from);
        let age = section.and_then(|section| section.fix_age_max_seconds);
        vec![
            demanded("assurance", assurance.map(word), assurance.map_or(0, |one| one.rank() + 1)),
            at_most("accuracy_max_m", accuracy),
            at_most("fix_age_max_seconds", age),
            demanded("uncertain", uncertain.map(word), uncertain.map_or(0, |one| one.rank() + 1)),
        ]
    }

    fn lists(&self) -> Lists {
        let mut lists = Lists::default();
        let section = self.clone().unwrap_or_default();
        let LocationSection { allow_countries, allow_subdivisions, allow_cities, .. } = &section;
        let allowed: BTreeSet<String> =
            [texts(allow_countries), texts(allow_subdivisions), texts(allow_cities)]
                .into_iter()
                .flatten()
                .collect();
        lists.restricts(Field::of(["location"]), (!allowed.is_empty()).then_some(allowed));
        lists.demands(Field::of(["location", "deny_countries"]), &section.deny_countries);
        lists.demands(Field::of(["location", "deny_subdivisions"]), &section.deny_subdivisions);
        lists.demands(Field::of(["location", "deny_cities"]), &section.deny_cities);
        let areas = (!section.allow_areas.is_empty()).then(|| texts(&section.allow_areas));
        lists.restricts(Field::of(["location", "allow_areas"]), areas);
        lists.demands(Field::of(["location", "deny_areas"]), &section.deny_areas);
        lists
    }
}

impl Join for Option<LocationSection> {
    fn join(&mut self, other: &Self) {
        join_option(self, other, |mine, other| {
            let asks =
                (mine.has_areas().then(|| mine.assurance()), other.has_areas().then(|| other.assurance()));
            let LocationSection {
                allow_countries,
                allow_subdivisions,
                allow_cities,
                deny_countries,
                deny_subdivisions,
                deny_cities,
                assurance,
                accuracy_max_m,
                fix_age_max_seconds,
                uncertain,
                allow_areas,
                deny_areas,
            } = mine;
            allow_countries.extend_from_slice(&other.allow_countries);
            allow_subdivisions.extend_from_slice(&other.allow_subdivisions);
            allow_cities.extend_from_slice(&other.allow_cities);
            deny_countries.extend_from_slice(&other.deny_countries);
            deny_subdivisions.extend_from_slice(&other.deny_subdivisions);
            deny_cities.extend_from_slice(&other.deny_cities);
            // What is not said is `sensed`, where there is anything to say it of.
            *assurance = asks.0.max(asks.1);
            join_least(accuracy_max_m, other.accuracy_max_m);
            join_least(fix_age_max_seconds, other.fix_age_max_seconds);
            // Of one without areas nothing is said.
            *uncertain = match asks {
                (None, _) => other.uncertain,
                (Some(_), None) => *uncertain,
                (Some(_), Some(_)) => (*uncertain).min(other.uncertain),
            };
            allow_areas.extend_from_slice(&other.allow_areas);
            deny_areas.extend_from_slice(&other.deny_areas);
        });
    }

    fn sort(&mut self) {
        let Some(section) = self else { return };
        sorted(&mut section.allow_countries);
        sorted(&mut section.allow_subdivisions);
        sorted(&mut section.allow_cities);
        sorted(&mut section.deny_countries);
        sorted(&mut section.deny_subdivisions);
        sorted(&mut section.deny_cities);
        sorted(&mut section.allow_areas);
        sorted(&mut section.deny_areas);
        // Saying the strict choice and leaving it out is one and the same.
        if section.assurance == Some(Assurance::Sensed) {
            section.assurance = None;
        }
    }
}

impl Ranked for Assurance {
    fn rank(self) -> u64 {
        match self {
            Assurance::Stated => 0,
            Assurance::Sensed => 1,
        }
    }
}

impl Ranked for Uncertain {
    fn rank(self) -> u64 {
        match self {
            Uncertain::Accept => 0,
            Uncertain::Refuse => 1,
        }
    }
}

/// Takes the smaller of two bounds; the one that is not there bounds nothing.
fn join_least<T: Ord + Copy>(mine: &mut Option<T>, other: Option<T>) {
    *mine = match (*mine, other) {
        (Some(mine), Some(other)) => Some(mine.min(other)),
        (mine, other) => mine.or(other),
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Each is looked at with every batch.
const AREAS_MAX: usize = 256;
