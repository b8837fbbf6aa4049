//! The server's clock, in the types of the server: seconds since 1970.

use std::time::Duration;

use assay_clock::Clock;
use assay_evidence::time::UnixTime;

/// Now.
pub(crate) fn now(clock: &Clock) -> UnixTime {
    UnixTime(clock.seconds())
}

/// The same moment as certificates and TLS have it.
pub(crate) fn certificate_time(at: UnixTime) -> assay_identity::UnixTime {
    assay_identity::UnixTime::since_unix_epoch(Duration::from_secs(at.0))
}
