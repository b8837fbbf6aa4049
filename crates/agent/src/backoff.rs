//! Waiting longer after each failure, and never in step with other devices.

use std::time::Duration;

use aws_lc_rs::rand;

/// Doubles from half a second to half a minute.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        jitter(wait)
    }

    /// Starts anew after a success.
    pub fn reset(&mut self) {
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

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
const DOUBLINGS_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_anew() {
        let mut backoff = Backoff::default();
        let first = backoff.wait();
        assert!(first >= FIRST.mul_f64(0.75) && first <= FIRST.mul_f64(1.25));
        let last = (0..50).map(|_| backoff.wait()).last().unwrap();
        assert!(last >= LONGEST.mul_f64(0.75) && last <= LONGEST.mul_f64(1.25));
        backoff.reset();
        assert!(backoff.wait() <= FIRST.mul_f64(1.25));
    }
}
