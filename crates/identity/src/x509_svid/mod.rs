//! X.509-SVIDs: the template says what to sign, the issuer signs, `inspect` looks at what was signed.

mod inspect;
mod leaf;
mod template;

pub use inspect::{InspectError, IssuedSvid, inspect};
pub use leaf::presented_id;
pub use template::{NOT_BEFORE_LEEWAY, SvidTemplate, issue};

pub(crate) use leaf::Leaf;

use std::time::Duration;

use rustls_pki_types::UnixTime;
use x509_parser::time::ASN1Time;

/// The time of a certificate field; what lies before 1970 is taken as 1970.
pub(crate) fn unix_time(time: ASN1Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}
