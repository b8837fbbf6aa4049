//! When an area counts: days and hours, in UTC.

use std::fmt;
use std::str::FromStr;

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Hours of some days of the week. Where they end no later than they begin, they end on the next day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// The days on which they begin; empty: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// When they begin, UTC.
    pub from: Minute,
    /// When they end, UTC; that minute is no longer in them.
    pub to: Minute,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// A minute of a day, such as `06:00`; `24:00` is its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(u16);

/// Why a text is no time of day.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no time of day: write HH:MM in UTC, 00:00 to 24:00")]
pub struct HoursError {
    text: String,
}

impl Hours {
    /// Whether a moment is in them.
    pub fn contain(&self, time: UnixTime) -> bool {
        let minute = u16::try_from(time.0 % DAY_SECONDS / 60).unwrap_or_default();
        let today = Day::of(time);
        let begins_on = |day: Day| self.days.is_empty() || self.days.contains(&day);
        if self.from < self.to {
            begins_on(today) && (self.from.0..self.to.0).contains(&minute)
        } else {
            begins_on(today) && minute >= self.from.0 || begins_on(today.before()) && minute < self.to.0
        }
    }
}

impl Day {
    /// Every day, from Monday.
    pub const ALL: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];

    fn of(time: UnixTime) -> Self {
        // 1970-01-01 was a Thursday.
        let day = usize::try_from((time.0 / DAY_SECONDS + 3) % 7).unwrap_or_default();
        Day::ALL.get(day).copied().unwrap_or(Day::Mon)
    }

    fn before(self) -> Self {
        let index = Day::ALL.iter().position(|day| *day == self).unwrap_or_default();
        Day::ALL.get((index + 6) % 7).copied().unwrap_or(Day::Mon)
    }
}

impl FromStr for Minute {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let malformed = || HoursError { text: text.to_owned() };
        let number = |text: &str| {
            let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| is_plain)
        };
        let (hours, minutes) = text.split_once(':').ok_or_else(malformed)?;
        match (number(hours), number(minutes)) {
            (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => Ok(Minute(hours * 60 + minutes)),
            (Some(24), Some(0)) => Ok(Minute(24 * 60)),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<String> = self.days.iter().map(|day| format!("{day:?}").to_lowercase()).collect();
        let days = if days.is_empty() { "daily".to_owned() } else { days.join(" ") };
        write!(f, "{days} {}-{}", self.from, self.to)
    }
}

impl Serialize for Minute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Minute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

const DAY_SECONDS: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hours: &str, time: &str, expected: bool) {
        let hours: Hours = toml::from_str(hours).unwrap();
        assert_eq!(hours.contain(UnixTime::from_rfc3339(time).unwrap()), expected, "{hours} at {time}");
    }

    #[test]
    fn hours_begin_on_their_days_and_may_end_on_the_next() {
        let work = "days = ['mon', 'tue']\nfrom = '06:00'\nto = '18:30'";
        // 2026-11-30 is a Monday.
        check(work, "2026-11-30T06:00:00Z", true);
        check(work, "2026-11-30T18:29:59Z", true);
        check(work, "2026-11-30T18:30:00Z", false);
        check(work, "2026-12-02T07:00:00Z", false);
        let night = "days = ['sun']\nfrom = '22:00'\nto = '05:00'";
        check(night, "2026-11-29T23:00:00Z", true);
        check(night, "2026-11-30T04:59:00Z", true);
        check(night, "2026-11-30T05:00:00Z", false);
        check(night, "2026-11-30T22:00:00Z", false);
        check("from = '00:00'\nto = '24:00'", "2026-12-05T23:59:59Z", true);
        // A whole day from noon to noon.
        check("days = ['sat']\nfrom = '12:00'\nto = '12:00'", "2026-12-06T11:59:00Z", true);
        check("days = ['sat']\nfrom = '12:00'\nto = '12:00'", "2026-12-06T12:00:00Z", false);
    }

    #[test]
    fn what_is_no_time_of_day_is_refused() {
        for text in ["6:00", "06:60", "24:01", "0600", "+6:00", "06:00 ", ""] {
            assert!(text.parse::<Minute>().is_err(), "{text:?}");
        }
    }
}
