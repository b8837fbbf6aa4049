//! Commits in numbers.

use crate::audit::Kind;
use crate::metrics::Metrics;
use crate::store::Committed;

pub(super) fn count(metrics: &Metrics, committed: &Committed) {
    metrics.withdrawn(committed.withdrawn.serials.len());
    match committed.kind {
        Some(Kind::DeviceEnrolled) => metrics.enrolled(),
        Some(Kind::SvidIssued) => metrics.svid_issued(),
        _ => {}
    }
}
