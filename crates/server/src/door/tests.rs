//! Every kind of outcome, as each door tells it.

use assay_evidence::{Check, Failure};
use assay_telemetry::{BadSignature, SequenceError};
use assay_trust::assignment::PlanError;
use assay_trust::rollout::Percent;
use axum::response::IntoResponse;
use http::header::RETRY_AFTER;
use tonic::Code;

use crate::attest::AttestError;
use crate::attest::table::NoRoom;
use crate::door::edge::session::SessionEnd;
use crate::enroll::EnrollError;
use crate::grant::telemetry::SubmitError;
use crate::outcome::{Refusal, faults};
use crate::policy::PolicyChangeError;
use crate::store::StoreError;
use crate::thread::Panicked;

fn check(refusal: impl Into<Refusal>, grpc: Code, http: u16, code: &str) {
    let refusal = refusal.into();
    let status = tonic::Status::from(refusal.clone());
    assert_eq!(status.code(), grpc, "{refusal:?}");
    assert_eq!(status.metadata().get("assay-reason").unwrap(), code);
    assert!(status.message().ends_with(code), "{}", status.message());
    assert_eq!(refusal.into_response().status().as_u16(), http);
}

#[test]
fn each_outcome_has_its_codes() {
    let failure = || Failure::new(Check::EkChain, "EK certificate", "a path", "none");
    check(EnrollError::Malformed(failure()), Code::InvalidArgument, 400, "ek-chain");
    check(EnrollError::Refused(vec![failure()]), Code::PermissionDenied, 403, "ek-chain");
    check(EnrollError::Activation, Code::Unauthenticated, 401, "credential-activation");
    check(EnrollError::Revoked, Code::PermissionDenied, 403, "revoked");
    check(AttestError::Unknown, Code::NotFound, 404, "not-enrolled");
    check(AttestError::NotAnAnswer, Code::Unauthenticated, 401, "quote-nonce");
    check(AttestError::NotTheDevice(Vec::new()), Code::Unauthenticated, 401, "quote-signature");
    check(SessionEnd::Silent, Code::DeadlineExceeded, 408, "silent");
    check(SessionEnd::Replaced, Code::Aborted, 409, "replaced");
    check(SessionEnd::ShuttingDown, Code::Unavailable, 503, "shutting-down");
    check(NoRoom, Code::ResourceExhausted, 429, "no-room");
    check(SubmitError::Open(BadSignature.into()), Code::Unauthenticated, 401, "device-signature");
    check(SubmitError::UnknownDevice, Code::NotFound, 404, "not-enrolled");
    let replay = SequenceError::Replay { sequence: 3 };
    check(SubmitError::Sequence(replay), Code::AlreadyExists, 409, "sequence-replay");
    let percent = PolicyChangeError::Percent(Percent::try_from(0).unwrap_err());
    check(percent, Code::InvalidArgument, 400, "percent");
    let name = || "base".to_owned();
    check(
        PolicyChangeError::Plan(PlanError::UnderWay { name: name() }),
        Code::FailedPrecondition,
        409,
        "rollout-under-way",
    );
    check(PolicyChangeError::Plan(PlanError::NoRollout { name: name() }), Code::NotFound, 404, "no-rollout");
    check(StoreError::Closed, Code::Unavailable, 503, "store");
    check(StoreError::Corrupt { column: "devices.trust" }, Code::Internal, 500, "store");
    check(Panicked, Code::Internal, 500, "panic");
    check(StoreError::Busy, Code::ResourceExhausted, 429, "busy");
    check(StoreError::Conflict, Code::Aborted, 409, "conflict");
}

#[test]
fn a_device_is_told_the_family_and_the_code_only() {
    let failure = Failure::new(Check::EkChain, "EK certificate", "a path to a trust anchor", "CN=Secret CA");
    let status = tonic::Status::from(Refusal::from(EnrollError::Refused(vec![failure])));
    assert_eq!(status.message(), "refused: ek-chain");
}

#[test]
fn when_it_is_full_it_says_when_to_come_back() {
    let status = tonic::Status::from(Refusal::from(NoRoom));
    assert!(!status.details().is_empty());
    let response = Refusal::from(StoreError::Busy).into_response();
    assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "5");
}

#[test]
fn finding_18_a_fault_is_counted_and_told_as_nothing_else() {
    let before = faults();
    let status = tonic::Status::from(Refusal::from(AttestError::from(Panicked)));
    assert_eq!((status.code(), status.message()), (Code::Internal, "fault: panic"));
    assert!(faults() > before);
}
