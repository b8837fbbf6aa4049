//! What others can bring about as often as they like is said now and then: of each whom it is about once in a while, and of
//! all together no more than so many.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use assay_evidence::time::UnixTime;

/// What was said lately.
#[derive(Debug, Default)]
pub(crate) struct Rarely(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// Of what and whom; bounded by what is said of all.
    last: HashMap<(&'static str, String), UnixTime>,
    /// Of what in all.
    all: HashMap<&'static str, Allowance>,
}

/// How often something is said in all.
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    /// When it is full again.
    full_at: u64,
    /// How often nothing was said since something was.
    unsaid: u64,
}

impl Rarely {
    /// Whether it is to be said now, and how often it happened since without a word; `None`: nothing is to be said.
    pub(crate) fn says(&self, what: &'static str, about: &str, now: UnixTime) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Said { last, all } = &mut *said;
        last.retain(|_, at| *at <= now && at.plus(AGAIN_AFTER_SECONDS) > now);
        let about = (what, about.to_owned());
        let allowance = all.entry(what).or_default();
        // A clock that went back makes it wait no longer than one that has spent all.
        let spent = allowance.full_at.saturating_sub(now.0).min(AT_ONCE * EACH_SECONDS);
        allowance.full_at = now.0.saturating_add(spent);
        if last.contains_key(&about) || spent + EACH_SECONDS > AT_ONCE * EACH_SECONDS {
            allowance.unsaid = allowance.unsaid.saturating_add(1);
            return None;
        }
        allowance.full_at = allowance.full_at.saturating_add(EACH_SECONDS);
        last.insert(about, now);
        Some(std::mem::take(&mut allowance.unsaid))
    }
}

/// Of the same it is said again after so long.
const AGAIN_AFTER_SECONDS: u64 = 3600;
/// Of all, so often at once and then once in so many seconds.
const AT_ONCE: u64 = 60;
const EACH_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_6_of_the_same_it_is_said_once_an_hour_and_of_all_so_often() {
        let rarely = Rarely::default();
        let says = |about: &str, now| rarely.says("clock", about, UnixTime(now));
        assert_eq!((says("a", 100_000), says("a", 100_001), says("b", 100_001)), (Some(0), None, Some(1)));
        assert_eq!((says("a", 103_599), says("a", 103_600)), (None, Some(1)));
        assert_eq!(rarely.says("other", "a", UnixTime(103_600)), Some(0));
        let of_many =
            |now| (0..1000).filter(|number| says(&format!("{now}-{number}"), now).is_some()).count();
        assert_eq!((of_many(200_000), of_many(200_000 + 120)), (60, 2));
        // What is remembered is bounded by what was said.
        assert!(rarely.0.lock().unwrap().last.len() <= 2 * 60 + 60);
        // A clock that goes back gives nothing anew, and does not silence for ever.
        assert_eq!((of_many(150_000), of_many(150_000 + 60)), (0, 1));
    }
}
