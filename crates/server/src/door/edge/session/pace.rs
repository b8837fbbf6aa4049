//! When to challenge, and how much a stream may ask for.

use std::time::Duration;

use tokio::time::Instant;

/// When the next challenge is due.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    beat: Beat,
    last: Instant,
    next: Instant,
}

/// When challenges go out that may wait a moment, those of all streams together: in one packet of each connection, whose
/// devices answer together, whose verdicts are recorded and signed together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat(Instant);

impl Beat {
    /// Counted from here.
    pub(crate) fn from(now: Instant) -> Beat {
        Beat(now)
    }

    /// The first beat that is not before this.
    fn after(self, at: Instant) -> Instant {
        let past = (at - self.0).as_nanos() % BEAT.as_nanos();
        let rest = BEAT.as_nanos() - past;
        if past == 0 { at } else { at + Duration::from_nanos(u64::try_from(rest).unwrap_or_default()) }
    }
}

impl Pace {
    pub(super) fn new(interval: Duration, beat: Beat, now: Instant) -> Pace {
        Pace { interval, beat, last: now, next: now }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// A challenge went out.
    pub(super) fn challenged(&mut self, now: Instant) {
        self.last = now;
        self.next = self.beat.after(now + self.interval);
    }

    /// There is no room for the challenge that is due.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.next = now + POSTPONEMENT;
    }

    /// Something was measured: at once, but no more often than the spacing allows.
    pub(super) fn soon(&mut self, now: Instant) {
        let soon = if self.last + SPACING <= now { now } else { self.beat.after(self.last + SPACING) };
        self.next = self.next.min(soon).max(now);
    }

    /// Everyone has to be challenged: each at a moment of its own within what the fleet's size takes.
    pub(super) fn hurry(&mut self, attached: usize, now: Instant) {
        let within = u32::try_from(attached / CHALLENGES_PER_SECOND).unwrap_or(u32::MAX);
        let spread = Duration::from_secs(1).saturating_mul(within);
        // Streams were challenged at moments of their own: where in its interval each stands is random enough.
        let phase = (now - self.last).as_secs_f64() / self.interval.as_secs_f64().max(1.0);
        let due = now + spread.mul_f64(phase.clamp(0.0, 1.0));
        self.next = self.next.min(due.max(self.last + SPACING));
    }
}

/// How many requests a stream may make: a bucket that refills.
#[derive(Debug)]
pub(super) struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Allowance {
        Allowance { left: REQUESTS_AT_ONCE, at: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let refilled = self.left + (now - self.at).as_secs_f64() * REQUESTS_PER_SECOND;
        (self.left, self.at) = (refilled.min(REQUESTS_AT_ONCE), now);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

/// A device that measures all the time costs twenty appraisals a second, no more.
const SPACING: Duration = Duration::from_millis(50);
/// Half of the spacing.
const BEAT: Duration = Duration::from_millis(25);
/// About as long as a few whole IMA lists take to verify.
const POSTPONEMENT: Duration = Duration::from_millis(100);
/// What one core appraises beside everything else.
const CHALLENGES_PER_SECOND: usize = 1000;
/// The workloads of a busy device start together.
const REQUESTS_AT_ONCE: f64 = 100.0;
const REQUESTS_PER_SECOND: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(5);

    fn pace(now: Instant) -> Pace {
        Pace::new(LATER, Beat::from(now), now)
    }

    #[test]
    fn changes_are_challenged_soon_but_spaced() {
        let now = Instant::now();
        let mut pace = pace(now);
        pace.challenged(now);
        pace.soon(now);
        assert_eq!(pace.next(), now + SPACING);
        pace.soon(now + LATER);
        assert_eq!(pace.next(), now + LATER, "whoever was not asked for a while is asked at once");
    }

    #[test]
    fn challenges_that_may_wait_go_out_together() {
        let now = Instant::now();
        let due = |after: u64| {
            let mut pace = pace(now);
            let challenged = now + Duration::from_millis(after);
            pace.challenged(challenged);
            let by_itself = pace.next();
            pace.soon(challenged + Duration::from_millis(7));
            (by_itself, pace.next())
        };
        for after in 1..=25 {
            assert_eq!(due(after), (now + LATER + BEAT, now + SPACING + BEAT), "{after}");
        }
        assert_eq!(due(26), (now + LATER + 2 * BEAT, now + SPACING + 2 * BEAT));
    }

    #[test]
    fn a_small_fleet_hurries_at_once_and_a_large_one_in_turn() {
        let now = Instant::now();
        let hurried = |attached| {
            let mut pace = Pace::new(Duration::from_secs(60), Beat::from(now), now);
            pace.challenged(now);
            pace.hurry(attached, now + LATER);
            pace.next()
        };
        assert_eq!(hurried(900), now + LATER);
        assert!(hurried(60_000) > now + LATER);
        assert!(hurried(usize::MAX) <= now + Duration::from_secs(60), "never later than it was due anyway");
    }

    #[test]
    fn an_allowance_runs_out_and_refills() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert_eq!((0..200).filter(|_| allowance.take(now)).count(), 100);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..200).filter(|_| allowance.take(later)).count(), 20);
    }
}
