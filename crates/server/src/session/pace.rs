//! When to challenge, and how much a stream may ask for.

use std::time::Duration;

use tokio::time::Instant;

/// When the next challenge is due.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    last: Instant,
    next: Instant,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Pace {
        let now = Instant::now();
        Pace { interval, last: now, next: now }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// A challenge went out.
    pub(super) fn challenged(&mut self) {
        self.last = Instant::now();
        self.next = self.last + self.interval;
    }

    /// Something was measured: at once, but no more often than the spacing allows.
    pub(super) fn soon(&mut self) {
        self.next = self.next.min(self.last + SPACING).max(Instant::now());
    }

    /// Everyone has to be challenged: each at a moment of its own within what the fleet's size takes.
    pub(super) fn hurry(&mut self, attached: usize) {
        let within = u32::try_from(attached / CHALLENGES_PER_SECOND).unwrap_or(u32::MAX);
        let spread = Duration::from_secs(1).saturating_mul(within);
        // Streams were challenged at moments of their own: where in its interval each stands is random enough.
        let phase = self.last.elapsed().as_secs_f64() / self.interval.as_secs_f64().max(1.0);
        let due = Instant::now() + spread.mul_f64(phase.clamp(0.0, 1.0));
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
    pub(super) fn new() -> Allowance {
        Allowance { left: REQUESTS_AT_ONCE, at: Instant::now() }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
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
/// What one core appraises beside everything else.
const CHALLENGES_PER_SECOND: usize = 1000;
/// The workloads of a busy device start together.
const REQUESTS_AT_ONCE: f64 = 100.0;
const REQUESTS_PER_SECOND: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_are_challenged_soon_but_spaced() {
        let mut pace = Pace::new(Duration::from_secs(60));
        pace.challenged();
        pace.soon();
        assert_eq!(pace.next() - Instant::now(), SPACING);
        tokio::time::advance(Duration::from_secs(5)).await;
        pace.soon();
        assert_eq!(pace.next(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_fleet_hurries_at_once() {
        let mut pace = Pace::new(Duration::from_secs(60));
        pace.challenged();
        tokio::time::advance(Duration::from_secs(5)).await;
        pace.hurry(900);
        assert_eq!(pace.next(), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn an_allowance_runs_out_and_refills() {
        let mut allowance = Allowance::new();
        assert_eq!((0..200).filter(|_| allowance.take()).count(), 100);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..200).filter(|_| allowance.take()).count(), 20);
    }
}
