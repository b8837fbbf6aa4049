//! How long a certificate lives, and what is due when: renewed from half of it, warned of from two thirds.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::x509_svid::NOT_BEFORE_LEEWAY;

/// The life of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    from: u64,
    until: u64,
}

/// How far a life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing is due.
    Young,
    /// Half of it is over: it is renewed.
    Due,
    /// Two thirds are over, and it was not renewed: somebody has to look.
    Late,
    /// It is over.
    Ended,
}

impl Life {
    /// Of a certificate that was issued with these dates, the first of them set back by [`NOT_BEFORE_LEEWAY`].
    pub fn of(not_before: UnixTime, not_after: UnixTime) -> Life {
        Life::between(not_before.as_secs() + NOT_BEFORE_LEEWAY.as_secs(), not_after.as_secs())
    }

    /// From one second since 1970 to another.
    pub fn between(from: u64, until: u64) -> Life {
        Life { from: from.min(until), until }
    }

    /// When it ends.
    pub fn until(&self) -> UnixTime {
        time(self.until)
    }

    /// When it is renewed.
    pub fn renew_at(&self) -> UnixTime {
        time(self.from + (self.until - self.from) / 2)
    }

    /// How far it has come.
    pub fn stage(&self, now: UnixTime) -> Stage {
        let (now, whole) = (now.as_secs(), self.until - self.from);
        match now.saturating_sub(self.from) {
            _ if now >= self.until => Stage::Ended,
            lived if lived >= whole - whole / 3 => Stage::Late,
            lived if lived >= whole / 2 => Stage::Due,
            _ => Stage::Young,
        }
    }
}

impl Stage {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Young => "young",
            Stage::Due => "due",
            Stage::Late => "late",
            Stage::Ended => "ended",
        }
    }
}

/// A moment, as it is shown: RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub UnixTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = i64::try_from(self.0.as_secs())
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|moment| moment.format(&Rfc3339).ok());
        match shown {
            Some(shown) => f.write_str(&shown),
            None => write!(f, "{} s after 1970", self.0.as_secs()),
        }
    }
}

fn time(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: u64, until: u64, now: u64, expected: Stage) {
        assert_eq!(Life::between(from, until).stage(time(now)), expected, "{from}..{until} at {now}");
    }

    #[test]
    fn year_1_renewed_from_half_and_warned_of_from_two_thirds() {
        check(100, 400, 0, Stage::Young);
        check(100, 400, 249, Stage::Young);
        check(100, 400, 250, Stage::Due);
        check(100, 400, 299, Stage::Due);
        check(100, 400, 300, Stage::Late);
        check(100, 400, 399, Stage::Late);
        check(100, 400, 400, Stage::Ended);
        // One that ended before it began, as far as clocks go.
        check(500, 400, 300, Stage::Late);
        check(0, 0, 0, Stage::Ended);
        assert_eq!(Life::between(100, 400).renew_at(), time(250));
        let leeway = NOT_BEFORE_LEEWAY.as_secs();
        assert_eq!(Life::of(time(1000), time(1100)).renew_at(), time((1000 + leeway + 1100) / 2));
    }
}
