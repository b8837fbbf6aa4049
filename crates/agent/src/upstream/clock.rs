//! How far the device's clock is from the server's, as the server's challenges say.
//!
//! A challenge is not signed, and it may wait on its way: what comes of it is a sentence for whoever looks after the device,
//! where something does not hold by its clock.

use std::time::Duration;

use assay_clock::Clock;
use assay_wire::clocks::Apart;
use tokio::time::Instant;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    apart: Apart,
    said_at: Option<Instant>,
}

impl ServerClock {
    /// The server's clock shows this; nought: it is an older one, which does not say. Said aloud when it begins to matter, now
    /// and then while it does, and when it is over.
    pub(super) fn shows(&mut self, theirs: u64, clock: &Clock) {
        if theirs == 0 {
            return;
        }
        self.apart = Apart::least(clock.seconds(), (theirs, theirs));
        let offset_s = self.apart.seconds();
        match (self.sentence(), self.said_at) {
            (Some(sentence), said) if said.is_none_or(|at| clock.instant() >= at + AGAIN_AFTER) => {
                self.said_at = Some(clock.instant());
                tracing::warn!(offset_s, "{sentence}: set it by NTP");
            }
            (None, Some(_)) => {
                self.said_at = None;
                tracing::info!(offset_s, "this device's clock is as the server's again");
            }
            (Some(_), _) | (None, None) => {}
        }
    }

    /// What is to be said where something does not hold; `None`: it is not the clock.
    pub(super) fn sentence(&self) -> Option<String> {
        let apart = self.apart;
        apart.matters().then(|| format!("by the server's clock, this device's is {apart}"))
    }
}

/// While nobody sets it.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_7_the_device_says_which_way_and_how_far_its_clock_is_off() {
        let (clock, hands) = Clock::with_hands();
        let server = clock.seconds();
        let mut shown = ServerClock::default();
        shown.shows(0, &clock);
        shown.shows(server, &clock);
        assert_eq!((shown.sentence(), shown.said_at), (None, None));
        hands.set_behind(Duration::from_secs(2 * 3600 + 1));
        shown.shows(server, &clock);
        assert!(shown.sentence().is_some_and(|said| said.ends_with("this device's is 2 h behind")));
        let said_at = shown.said_at;
        assert!(said_at.is_some());
        shown.shows(server, &clock);
        assert_eq!(shown.said_at, said_at, "said once");
        hands.set_ahead(Duration::ZERO);
        shown.shows(server, &clock);
        assert_eq!((shown.sentence(), shown.said_at), (None, None));
    }
}
