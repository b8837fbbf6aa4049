//! Waiting longer after each failure, and never in step with others.

use std::time::Duration;

use aws_lc_rs::rand;

/// How long to wait before the next attempt: doubles from the first to the longest, and starts anew once something held for
/// longer than the longest wait. What is had and lost again at once is a failure like any other.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits between these, give or take a quarter.
    pub const fn between(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        jitter(doubled.min(self.longest))
    }

    /// What was tried for was there for so long.
    pub fn held_for(&mut self, duration: Duration) {
        if duration >= self.longest {
            self.succeeded();
        }
    }

    /// What was tried for is done, and need not hold.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// A random share of `duration`, between three and five quarters of it: a thousand devices that lost the same server
/// must not come back in the same instant.
pub fn jitter(duration: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness the wait is merely the middle one.
    let _ = rand::fill(&mut byte);
    let [byte] = byte;
    duration.mul_f64(0.75 + f64::from(byte) / 510.0)
}

const DOUBLINGS_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn year_1_waits_grow_to_a_bound_and_start_anew_once_something_held() {
        let mut backoff = Backoff::between(FIRST, LONGEST);
        let first = backoff.wait();
        assert!(first >= FIRST.mul_f64(0.75) && first <= FIRST.mul_f64(1.25));
        let last = (0..50).map(|_| backoff.wait()).last().unwrap();
        assert!(last >= LONGEST.mul_f64(0.75) && last <= LONGEST.mul_f64(1.25));
        // Had and lost again at once.
        backoff.held_for(Duration::from_millis(1));
        assert!(backoff.wait() >= LONGEST.mul_f64(0.75));
        backoff.held_for(LONGEST);
        assert!(backoff.wait() <= FIRST.mul_f64(1.25));
        backoff.succeeded();
        assert!(backoff.wait() <= FIRST.mul_f64(1.25));
    }
}
