//! Which commits change what is in force.

use crate::audit::Kind;
use crate::store::Committed;

pub(super) fn changes_plan(committed: &Committed) -> bool {
    match committed.kind {
        Some(
            Kind::PolicySet
            | Kind::PolicyUnassigned
            | Kind::RolloutStarted
            | Kind::RolloutWidened
            | Kind::RolloutFinished
            | Kind::RolloutAborted,
        ) => true,
        Some(
            Kind::DeviceEnrolled
            | Kind::DeviceAppraised
            | Kind::DeviceUnanswered
            | Kind::DeviceExpired
            | Kind::DeviceRevoked
            | Kind::DeviceApproved
            | Kind::DeviceReadmitted
            | Kind::DeviceLabelled
            | Kind::DeviceWaiting
            | Kind::DeviceAdmitted
            | Kind::DeviceDenied
            | Kind::DeviceRenamed
            | Kind::DeviceReplaced
            | Kind::SvidIssued
            | Kind::JwtIssued
            | Kind::SvidWithdrawn
            | Kind::LedgerResumed
            | Kind::GatewayRevoked
            | Kind::OperatorRevoked
            | Kind::TelemetryAccepted
            | Kind::TelemetrySealed
            | Kind::TelemetryDropped
            | Kind::TelemetryKeyAdded
            | Kind::TelemetryKeyRemoved
            | Kind::EntryCreated
            | Kind::EntryUpdated
            | Kind::EntryRemoved
            | Kind::EntryUnmet
            | Kind::SecretPut
            | Kind::SecretRotated
            | Kind::SecretAssigned
            | Kind::SecretRevoked
            | Kind::SecretReleased
            | Kind::SecretWithdrawn
            | Kind::JoinTokenCreated
            | Kind::FederationSet
            | Kind::FederationEnded
            | Kind::FederationBundleSet
            | Kind::FederationBundleRemoved
            | Kind::SpireAgentAttested
            | Kind::SpireAgentExpired
            | Kind::SpireAgentBanned
            | Kind::SpireAgentEvicted
            | Kind::KeylimeAgentBound
            | Kind::KeylimeAgentRemoved
            | Kind::KeylimeAgentAdded
            | Kind::KeylimeAgentDropped
            | Kind::AccessTokenCreated
            | Kind::AccessTokenRevoked
            | Kind::PersonSignedIn
            | Kind::TaskSubmitted
            | Kind::TaskPlaced
            | Kind::TaskWithdrawn
            | Kind::TaskResult
            | Kind::TaskEnded
            | Kind::SecurityRefused,
        ) => false,
        // Written by a later version of the server: look.
        None => true,
    }
}

pub(super) fn changes_entries(committed: &Committed) -> bool {
    matches!(
        committed.kind,
        None | Some(Kind::EntryCreated | Kind::EntryUpdated | Kind::EntryRemoved | Kind::DeviceReplaced)
    )
}

pub(super) fn changes_federation(committed: &Committed) -> bool {
    matches!(
        committed.kind,
        None | Some(
            Kind::FederationSet
                | Kind::FederationEnded
                | Kind::FederationBundleSet
                | Kind::FederationBundleRemoved
        )
    )
}

pub(super) fn changes_secrets(committed: &Committed) -> bool {
    matches!(
        committed.kind,
        None | Some(Kind::SecretPut | Kind::SecretRotated | Kind::SecretAssigned | Kind::SecretRevoked)
    )
}

pub(super) fn changes_access(committed: &Committed) -> bool {
    matches!(committed.kind, None | Some(Kind::AccessTokenCreated | Kind::AccessTokenRevoked))
}
