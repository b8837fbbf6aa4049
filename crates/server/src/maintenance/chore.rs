//! One thing that is done again and again: when it is next, and that it is not hurried while it fails.

use std::time::Duration;

use assay_clock::Backoff;
use assay_evidence::time::UnixTime;

use crate::outcome::chain;

/// A chore.
#[derive(Debug)]
pub(super) struct Chore {
    name: &'static str,
    next: UnixTime,
    backoff: Backoff,
}

impl Chore {
    /// Due from a moment on.
    pub(super) fn new(name: &'static str, next: UnixTime) -> Chore {
        Chore { name, next, backoff: Backoff::between(RETRY_FIRST, RETRY_LONGEST) }
    }

    pub(super) fn is_due(&self, now: UnixTime) -> bool {
        now >= self.next
    }

    /// Done, and due again at the time that it came to; or failed, which is said, and due again after longer each time.
    pub(super) fn did<E: std::error::Error>(&mut self, outcome: Result<UnixTime, E>, now: UnixTime) {
        match outcome {
            Ok(next) => {
                self.backoff.succeeded();
                self.next = next;
            }
            Err(error) => {
                let wait = self.backoff.wait();
                self.next = now.plus(wait.as_secs().max(1));
                tracing::error!(
                    chore = self.name, error = %chain(&error), again_in_s = wait.as_secs(), "a chore failed"
                );
            }
        }
    }
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_1_what_fails_is_tried_again_after_longer_each_time_and_at_once_on_time_after_a_success() {
        let mut chore = Chore::new("test", UnixTime(100));
        assert!(!chore.is_due(UnixTime(99)) && chore.is_due(UnixTime(100)));
        let failed = || Err::<UnixTime, _>(std::fmt::Error);
        chore.did(failed(), UnixTime(100));
        assert!(chore.is_due(UnixTime(102)));
        for _ in 0..20 {
            chore.did(failed(), UnixTime(100));
        }
        assert!(!chore.is_due(UnixTime(140)) && chore.is_due(UnixTime(180)));
        chore.did(Ok::<_, std::fmt::Error>(UnixTime(500)), UnixTime(200));
        assert!(!chore.is_due(UnixTime(499)) && chore.is_due(UnixTime(500)));
        chore.did(failed(), UnixTime(500));
        assert!(chore.is_due(UnixTime(502)));
    }
}
