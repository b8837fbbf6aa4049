//! The one place where the server asks what time it is; everything inward gets it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_evidence::time::UnixTime;

/// Now. A clock before 1970 counts as 1970, where nothing is fresh.
pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// How long until [`now`] is another second: what ends then has ended, to the moment.
pub(crate) fn until_next_second() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(1).saturating_sub(Duration::from_nanos(since.subsec_nanos().into()))
}

/// The same moment as certificates and TLS have it.
pub(crate) fn certificate_time(at: UnixTime) -> assay_identity::UnixTime {
    assay_identity::UnixTime::since_unix_epoch(Duration::from_secs(at.0))
}
