//! Outcomes as SPIRE's agents and command line know them: a code, a sentence, and for a node that is refused the reason by which
//! it decides whether it attests again.

use assay_wire::spire::types::PermissionDeniedDetails;
use assay_wire::spire::types::permission_denied_details::Reason;
use tonic::{Code, Status};

use crate::door::rich;
use crate::outcome::{Kind, Outcome, Refusal};

/// What did not come of a request.
pub(super) fn refused(refusal: impl Into<Refusal>) -> Status {
    let Refusal { kind, code, message, .. } = refusal.into();
    let message = match kind {
        // What is wrong here is in the log.
        Kind::Fault | Kind::Unavailable => format!("{}: {code}", kind.family()),
        _ => message,
    };
    match reason(kind, code) {
        Some(reason) => denied(&message, reason),
        None => Status::new(rich::code(kind), message),
    }
}

/// The same as part of an answer.
pub(super) fn part(refusal: impl Into<Refusal>) -> assay_wire::spire::types::Status {
    let status = refused(refusal);
    assay_wire::spire::types::Status { code: status.code() as i32, message: status.message().to_owned() }
}

/// That all is well, as part of an answer.
pub(super) fn good() -> assay_wire::spire::types::Status {
    assay_wire::spire::types::Status { code: Code::Ok as i32, message: "OK".to_owned() }
}

/// For what this door alone knows.
pub(super) fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Malformed, "request", message)
}

fn reason(kind: Kind, code: &str) -> Option<Reason> {
    match (kind, code) {
        (Kind::Forbidden, "expired") => Some(Reason::AgentExpired),
        (Kind::Forbidden, "not-attested") => Some(Reason::AgentNotAttested),
        (Kind::Forbidden, "not-active") => Some(Reason::AgentNotActive),
        (Kind::Forbidden, "banned" | "revoked") => Some(Reason::AgentBanned),
        (Kind::Forbidden, "must-reattest") => Some(Reason::AgentMustReattest),
        _ => None,
    }
}

fn denied(message: &str, reason: Reason) -> Status {
    let details = PermissionDeniedDetails { reason: reason.into() };
    let name = "spire.api.types.PermissionDeniedDetails";
    let details = rich::details(Code::PermissionDenied, message, name, &details);
    Status::with_details(Code::PermissionDenied, message, details)
}

/// A refusal of an outcome, for the closures that cannot name it.
pub(super) fn of<E: Outcome + 'static>(error: E) -> Status {
    refused(Refusal::from(error))
}
