//! The streams of the devices that commits are about look at their state again.

use assay_identity::SpiffeId;

use crate::attest::table::Registry;
use crate::audit::Kind;
use crate::placement::Placement;
use crate::store::Committed;

pub(super) fn wake(registry: &Registry, placement: &Placement, commits: &[Committed]) {
    for committed in commits {
        let (of_device, of_tasks) = (is_about_a_device(committed.kind), is_about_tasks(committed.kind));
        if let Ok(device) = SpiffeId::parse(&committed.subject) {
            if of_device {
                registry.wake(&device);
            }
            if of_tasks {
                registry.wake_for_tasks(&device);
            }
        }
        if of_device || of_tasks || committed.kind == Some(Kind::TaskSubmitted) {
            placement.look_again();
        }
    }
}

fn is_about_tasks(kind: Option<Kind>) -> bool {
    matches!(kind, None | Some(Kind::TaskPlaced | Kind::TaskWithdrawn | Kind::TaskResult))
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
