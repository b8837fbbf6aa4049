//! The streams of the devices that commits are about look at their state again.

use assay_identity::SpiffeId;

use crate::attest::table::Registry;
use crate::audit::Kind;
use crate::store::Committed;

pub(super) fn wake(registry: &Registry, commits: &[Committed]) {
    for committed in commits.iter().filter(|committed| is_about_a_device(committed.kind)) {
        if let Ok(device) = SpiffeId::parse(&committed.subject) {
            registry.wake(&device);
        }
    }
}

fn is_about_a_device(kind: Option<Kind>) -> bool {
    matches!(
        kind,
        None | Some(
            Kind::DeviceEnrolled
                | Kind::DeviceAppraised
                | Kind::DeviceUnanswered
                | Kind::DeviceExpired
                | Kind::DeviceRevoked
                | Kind::DeviceApproved
                | Kind::DeviceReadmitted
                | Kind::DeviceLabelled
                | Kind::DeviceReplaced
        )
    )
}
