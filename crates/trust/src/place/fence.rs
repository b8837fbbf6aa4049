//! A policy's word on where a device may be, made ready, and what it says of a device that states where it is.

use std::cmp::Ordering;
use std::fmt;

use assay_evidence::time::UnixTime;
use assay_telemetry::position::Position;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::area::Area;
use super::assurance::Assurance;
use super::outline::Outline;
use crate::region::{Place, RegionList};

/// Where a device may be.
#[derive(Clone, Debug)]
pub struct Fence {
    pub(crate) allow_regions: Option<RegionList>,
    pub(crate) deny_regions: Option<RegionList>,
    pub(crate) allow: Vec<Fenced>,
    pub(crate) deny: Vec<Fenced>,
    pub(crate) demands: Demands,
}

/// What a position has to show before it is held against areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demands {
    pub(crate) assurance: Assurance,
    pub(crate) accuracy_max_m: Option<u32>,
    pub(crate) fix_age_max_seconds: Option<u64>,
    pub(crate) uncertain: Uncertain,
}

/// What is made of a position whose circle lies across the border of an area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Uncertain {
    /// It is refused.
    #[default]
    Refuse,
    /// Of an allowed area it counts as inside, which is said; of a denied one it is refused all the same.
    Accept,
}

/// An area, and what it is asked with.
#[derive(Clone, Debug)]
pub(crate) struct Fenced {
    area: Area,
    outline: Outline,
}

/// Where a position is in respect of an area.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    /// The area's name.
    pub area: String,
    /// Whether it is one that is denied.
    pub is_denied: bool,
    /// Whether it counts at this hour.
    pub counts: bool,
    /// Where the position is.
    pub stands: Stands,
    /// Metres from the point to the border, as far as a sphere tells.
    pub border_m: f64,
    /// Metres that are left between the position's circle and the border; less than nothing where they meet.
    pub margin_m: f64,
}

/// Whether a position's circle lies in an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stands {
    /// All of it does.
    Inside,
    /// None of it does.
    Outside,
    /// It lies across the border, or too close to tell.
    Uncertain,
}

/// That a device is where it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The allowed area that it is in, where areas are asked for.
    pub area: Option<String>,
    /// How it knows.
    pub assurance: Option<Assurance>,
    /// Whether it may be outside of the area.
    pub is_uncertain: bool,
}

/// Why a device is not where it may be, as far as it says. Coordinates are nobody's business but the device's, and not in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The region is none of the allowed ones.
    #[error("{place} is not in the allowed regions ({allowed}); location.allow_… in the policy widens them")]
    Region {
        /// Where the device says it is.
        place: String,
        /// Where it may be.
        allowed: String,
    },
    /// The region is denied, or too little is said to tell that it is not.
    #[error("{place} is, or may be, in a denied region ({denied}), as location.deny_… in the policy says")]
    DeniedRegion {
        /// Where the device says it is.
        place: String,
        /// Where it may not be.
        denied: String,
    },
    /// The policy asks for coordinates.
    #[error(
        "the policy asks for a position, and the device states none: give its agent a gpsd or coordinates under [location]"
    )]
    NoPosition,
    /// The position is worth less than is asked for.
    #[error("the position is {found}{doubts}, and location.assurance asks for {demanded}")]
    Assurance {
        /// What it is.
        found: Assurance,
        /// What speaks against it, in words.
        doubts: String,
        /// What is asked for.
        demanded: Assurance,
    },
    /// It may be too far off.
    #[error("the position may be {found_m} m off, and location.accuracy_max_m is {max_m}")]
    Accuracy {
        /// How far.
        found_m: u64,
        /// How far it may be.
        max_m: u32,
    },
    /// Nobody knows when it was fixed.
    #[error("the position has no time at which it was fixed, and location.fix_age_max_seconds asks for one")]
    NoTime,
    /// It was fixed too long ago.
    #[error("the position is {seconds} s old, and location.fix_age_max_seconds is {max}")]
    Old {
        /// How long ago.
        seconds: u64,
        /// How long it may be.
        max: u64,
    },
    /// It will have been fixed.
    #[error("the position is from {seconds} s ahead of the server's clock: look at both clocks")]
    Early {
        /// How far ahead.
        seconds: u64,
    },
    /// It is in a denied area, or may be.
    #[error("the position is {} denied area {area}: {}", .stands.in_words(), margin(*.border_m, *.accuracy_m))]
    DeniedArea {
        /// The area.
        area: String,
        /// Inside or uncertain.
        stands: Stands,
        /// Metres to the border.
        border_m: u64,
        /// How far the position may be off.
        accuracy_m: u64,
    },
    /// It is in no allowed area, or may be in none.
    #[error("the position is {} allowed area {area}, the nearest: {}", .stands.in_words(), margin(*.border_m, *.accuracy_m))]
    Elsewhere {
        /// The nearest that counts.
        area: String,
        /// Outside or uncertain.
        stands: Stands,
        /// Metres to the border.
        border_m: u64,
        /// How far the position may be off.
        accuracy_m: u64,
    },
    /// None of the allowed areas counts at this hour.
    #[error("no allowed area counts at this hour; their hours are in UTC")]
    NoHours,
}

impl Fence {
    /// Whether what is stated is where the device may be. `place` is what it says in words, `position` in coordinates.
    pub fn judge(
        &self,
        place: Option<&Place>,
        position: Option<&Position>,
        now: UnixTime,
    ) -> Result<Admitted, Refused> {
        self.judge_regions(place)?;
        if !self.asks_for_a_position() {
            return Ok(Admitted { area: None, assurance: None, is_uncertain: false });
        }
        let position = position.ok_or(Refused::NoPosition)?;
        self.judge_worth(position, now)?;
        let seen = self.survey(position, now);
        let counting = || seen.iter().filter(|seen| seen.counts);
        let accuracy_m = whole(position.accuracy.metres());
        // Denied comes first: what may be in there is as good as in there.
        if let Some(Seen { area, stands, border_m, .. }) =
            counting().find(|seen| seen.is_denied && seen.stands != Stands::Outside)
        {
            let (area, stands, border_m) = (area.clone(), *stands, whole(*border_m));
            return Err(Refused::DeniedArea { area, stands, border_m, accuracy_m });
        }
        let assurance = Some(Assurance::of(position));
        if self.allow.is_empty() {
            return Ok(Admitted { area: None, assurance, is_uncertain: false });
        }
        let allowed = counting().filter(|seen| !seen.is_denied);
        let Seen { area, stands, border_m, .. } =
            allowed.max_by(|a, b| a.order(b)).ok_or(Refused::NoHours)?.clone();
        match (stands, self.demands.uncertain) {
            (Stands::Inside, _) | (Stands::Uncertain, Uncertain::Accept) => {
                Ok(Admitted { area: Some(area), assurance, is_uncertain: stands == Stands::Uncertain })
            }
            (Stands::Outside, _) | (Stands::Uncertain, Uncertain::Refuse) => {
                Err(Refused::Elsewhere { area, stands, border_m: whole(border_m), accuracy_m })
            }
        }
    }

    /// Where a position is in respect of each area, the denied ones first.
    pub fn survey(&self, position: &Position, now: UnixTime) -> Vec<Seen> {
        let denied = self.deny.iter().map(|fenced| (fenced, true));
        let allowed = self.allow.iter().map(|fenced| (fenced, false));
        denied.chain(allowed).map(|(fenced, is_denied)| fenced.seen(position, is_denied, now)).collect()
    }

    /// The regions that are allowed; `None`: any.
    pub fn regions(&self) -> Option<&RegionList> {
        self.allow_regions.as_ref()
    }

    /// The regions that are denied, if any are.
    pub fn denied_regions(&self) -> Option<&RegionList> {
        self.deny_regions.as_ref()
    }

    /// Whether coordinates are asked for.
    pub fn asks_for_a_position(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    fn judge_regions(&self, place: Option<&Place>) -> Result<(), Refused> {
        let said =
            || place.map_or_else(|| "a place that the device does not state".to_owned(), ToString::to_string);
        if let Some(denied) = &self.deny_regions
            && place.is_none_or(|place| denied.may_hold(place))
        {
            return Err(Refused::DeniedRegion { place: said(), denied: denied.to_string() });
        }
        match &self.allow_regions {
            Some(allowed) if !place.is_some_and(|place| allowed.allows(place)) => {
                Err(Refused::Region { place: said(), allowed: allowed.to_string() })
            }
            _ => Ok(()),
        }
    }

    fn judge_worth(&self, position: &Position, now: UnixTime) -> Result<(), Refused> {
        let Demands { assurance: demanded, accuracy_max_m, fix_age_max_seconds, uncertain: _ } = self.demands;
        let found = Assurance::of(position);
        if found < demanded {
            return Err(Refused::Assurance { found, doubts: doubts(position), demanded });
        }
        let found_m = whole(position.accuracy.metres());
        if let Some(max_m) = accuracy_max_m.filter(|max_m| found_m > u64::from(*max_m)) {
            return Err(Refused::Accuracy { found_m, max_m });
        }
        let Some(max) = fix_age_max_seconds else { return Ok(()) };
        let fixed_at = position.fixed_at.ok_or(Refused::NoTime)?;
        let (seconds, early) = (now.0.saturating_sub(fixed_at), fixed_at.saturating_sub(now.0));
        if early > CLOCKS_APART_SECONDS {
            return Err(Refused::Early { seconds: early });
        }
        if seconds > max { Err(Refused::Old { seconds, max }) } else { Ok(()) }
    }
}

impl Refused {
    /// What the policy asks for, in a few words.
    pub fn expected(&self) -> String {
        match self {
            Refused::Region { allowed, .. } => allowed.clone(),
            Refused::DeniedRegion { denied, .. } => format!("not {denied}"),
            Refused::NoPosition => "a position".to_owned(),
            Refused::Assurance { demanded, .. } => demanded.to_string(),
            Refused::Accuracy { max_m, .. } => format!("at most {max_m} m off"),
            Refused::NoTime => "a time".to_owned(),
            Refused::Old { max, .. } => format!("at most {max} s old"),
            Refused::Early { .. } => "a time that has been".to_owned(),
            Refused::DeniedArea { area, .. } => format!("outside of {area}"),
            Refused::Elsewhere { area, .. } => format!("inside of {area} or another allowed area"),
            Refused::NoHours => "an hour at which an allowed area counts".to_owned(),
        }
    }

    /// What there is instead.
    pub fn found(&self) -> String {
        match self {
            Refused::Region { place, .. } | Refused::DeniedRegion { place, .. } => place.clone(),
            Refused::NoPosition => "none".to_owned(),
            Refused::Assurance { found, doubts, .. } => format!("{found}{doubts}"),
            Refused::Accuracy { found_m, .. } => format!("{found_m} m off"),
            Refused::NoTime => "no time".to_owned(),
            Refused::Old { seconds, .. } => format!("{seconds} s old"),
            Refused::Early { seconds } => format!("{seconds} s ahead"),
            Refused::DeniedArea { stands, .. } | Refused::Elsewhere { stands, .. } => stands.to_string(),
            Refused::NoHours => "another hour".to_owned(),
        }
    }
}

fn doubts(position: &Position) -> String {
    let names: Vec<&str> = position.doubts.iter().map(|doubt| doubt.name()).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!(", as what its receiver says is in doubt ({})", names.join(", ")),
    }
}

impl Fenced {
    pub(crate) fn new(area: &Area) -> Self {
        Fenced { area: area.clone(), outline: Outline::new(area.shape()) }
    }

    fn seen(&self, position: &Position, is_denied: bool, now: UnixTime) -> Seen {
        let reach = self.outline.reach(position.point);
        let margin_m = reach.metres - reach.slack - position.accuracy.metres();
        let stands = match (margin_m >= 0.0, reach.is_inside) {
            (false, _) => Stands::Uncertain,
            (true, true) => Stands::Inside,
            (true, false) => Stands::Outside,
        };
        let area = self.area.name().to_owned();
        Seen { area, is_denied, counts: self.area.counts_at(now), stands, border_m: reach.metres, margin_m }
    }
}

impl Seen {
    /// More is farther inside.
    fn order(&self, other: &Seen) -> Ordering {
        let rank = |seen: &Seen| match seen.stands {
            Stands::Inside => (2, seen.margin_m),
            // Where the circle meets the border, less of it does.
            Stands::Uncertain => (1, seen.margin_m),
            Stands::Outside => (0, -seen.margin_m),
        };
        let ((mine, margin), (others, other)) = (rank(self), rank(other));
        mine.cmp(&others).then(margin.total_cmp(&other))
    }
}

impl Stands {
    fn in_words(self) -> &'static str {
        match self {
            Stands::Inside => "inside of the",
            Stands::Outside => "outside of the",
            Stands::Uncertain => "at the border of the",
        }
    }

    /// As findings name it.
    pub fn name(self) -> &'static str {
        match self {
            Stands::Inside => "inside",
            Stands::Outside => "outside",
            Stands::Uncertain => "uncertain",
        }
    }
}

impl fmt::Display for Stands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn margin(border_m: u64, accuracy_m: u64) -> String {
    let in_words = |metres: u64| match metres {
        0..10_000 => format!("{metres} m"),
        metres => format!("{} km", metres / 1000),
    };
    format!("{} to its border, and the position may be {} off", in_words(border_m), in_words(accuracy_m))
}

/// Whole metres, rounded up.
fn whole(metres: f64) -> u64 {
    // No distance on the earth is out of range.
    metres.ceil() as u64
}

/// How far ahead of the server's a receiver's clock may be.
const CLOCKS_APART_SECONDS: u64 = 60;
