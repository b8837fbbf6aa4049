//! How far another's clock is from ours, as one end of an exchange sees it.
//!
//! Nobody signs it: it tells an operator where to look, and never makes anything hold that would not.

use std::fmt;

/// By how many seconds another's clock is ahead of ours; less than nought: behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apart(i64);

impl Apart {
    /// The least that explains what was told: the other's clock showed `theirs` at some moment between these of ours, which
    /// may be as far apart as a message takes on its way.
    pub fn least(theirs: u64, (from, until): (u64, u64)) -> Apart {
        let seconds = match theirs {
            theirs if theirs < from => signed(from - theirs).saturating_neg(),
            theirs if theirs > until => signed(theirs - until),
            _ => 0,
        };
        Apart(seconds)
    }

    /// Ahead of ours by so many seconds; less than nought: behind.
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// Whether it is more than is forgiven where certificates begin.
    pub fn matters(self) -> bool {
        self.0.unsigned_abs() > FORGIVEN_SECONDS
    }

    /// What comes of it for a device whose clock it is, of certificates that live so long; `None`: nothing.
    pub fn consequence(self, life_seconds: u64) -> Option<String> {
        let by = self.0.unsigned_abs();
        let said = match (self.matters(), self.0 < 0) {
            (false, _) => return None,
            (true, true) if by - FORGIVEN_SECONDS >= life_seconds => {
                "to it, no certificate that is issued has begun before it ends: its workloads get none that holds".to_owned()
            }
            (true, true) => {
                let late = span(by - FORGIVEN_SECONDS);
                format!("to it, certificates begin {late} after they were issued: until then its workloads go without")
            }
            (true, false) if by >= life_seconds => {
                "to it, every certificate has ended when it is issued: its workloads get none that holds".to_owned()
            }
            (true, false) => format!("to it, certificates end {} early", span(by)),
        };
        Some(said)
    }
}

/// As what is said of the other's clock: "2 h behind".
impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("right"),
            behind if behind < 0 => write!(f, "{} behind", span(behind.unsigned_abs())),
            ahead => write!(f, "{} ahead", span(ahead.unsigned_abs())),
        }
    }
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A time for people.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// By as much, certificates for devices begin before they are signed.
const FORGIVEN_SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_7_the_least_difference_is_told_that_explains_what_was_said() {
        let least = |theirs| Apart::least(theirs, (100, 130)).seconds();
        assert_eq!([99, 100, 115, 130, 131, 0].map(least), [-1, 0, 0, 0, 1, -100]);
        assert_eq!(Apart::least(u64::MAX, (0, 0)).seconds(), i64::MAX);
        assert_eq!(Apart::least(0, (u64::MAX, u64::MAX)).seconds(), -i64::MAX);
    }

    #[test]
    fn year_7_what_comes_of_it_is_told_by_direction_and_life() {
        let says = |theirs: u64, life| Apart::least(theirs, (100_000, 100_000)).consequence(life);
        assert_eq!((says(99_990, 3600), says(100_010, 3600)), (None, None));
        assert!(says(99_000, 3600).is_some_and(|said| said.contains("begin 16 min after")));
        assert!(says(90_000, 3600).is_some_and(|said| said.contains("begun before it ends")));
        assert!(says(101_000, 3600).is_some_and(|said| said.contains("end 16 min early")));
        assert!(says(103_600, 3600).is_some_and(|said| said.contains("has ended when it is issued")));
        let said = |theirs| Apart::least(theirs, (100_000, 100_000)).to_string();
        assert_eq!([92_800, 100_000, 100_100].map(said), ["2 h behind", "right", "100 s ahead"]);
    }
}
