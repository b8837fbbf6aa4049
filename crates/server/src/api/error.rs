//! The one place where an outcome becomes a status code.
//!
//! Three families: *malformed* (the sender's bytes), *refused* (a check did not hold) and *unavailable* (our side). A
//! device learns the family and a reason code; an operator, who has shown a token, the whole sentence; the log the
//! rest.

use std::time::Duration;

use assay_evidence::Failure;
use assay_identity::csr::CsrError;
use assay_telemetry::{OpenError, SequenceError};
use assay_trust::assignment::PlanError;
use assay_trust::ear::EarError;
use assay_trust::policy::EnvelopeError;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use tonic::Code;

use super::grpc::retry;
use crate::attest::AttestError;
use crate::ear::EarFailure;
use crate::enroll::EnrollError;
use crate::entries::EntryError;
use crate::evidence::KeptResultError;
use crate::fate::FateError;
use crate::grant::svid::SvidError;
use crate::grant::telemetry::SubmitError;
use crate::keys::KeysError;
use crate::label::NotLabelled;
use crate::maintenance::chain;
use crate::policy::PolicyChangeError;
use crate::session::SessionEnd;
use crate::session::registry::NoRoom;
use crate::store::StoreError;
use crate::trial::TrialError;

/// An outcome that is not the one asked for, ready to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    kind: Kind,
    /// Stable, kebab-case: what programs go by.
    code: &'static str,
    /// For people who may know.
    message: String,
}

/// What kind of outcome it is; each has its codes below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The sender's bytes.
    Malformed,
    /// Whoever asks has not shown who they are.
    Unauthenticated,
    /// They have, and it is no.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// It is there already.
    Duplicate,
    /// Not in this order.
    OutOfTurn,
    /// Something else was faster.
    Overtaken,
    /// A bound is reached.
    Exhausted,
    /// Too late.
    Late,
    /// Our side.
    Unavailable,
}

impl Kind {
    fn grpc(self) -> Code {
        match self {
            Kind::Malformed => Code::InvalidArgument,
            Kind::Unauthenticated => Code::Unauthenticated,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::NotFound => Code::NotFound,
            Kind::Duplicate => Code::AlreadyExists,
            Kind::OutOfTurn => Code::FailedPrecondition,
            Kind::Overtaken => Code::Aborted,
            Kind::Exhausted => Code::ResourceExhausted,
            Kind::Late => Code::DeadlineExceeded,
            Kind::Unavailable => Code::Unavailable,
        }
    }

    fn http(self) -> StatusCode {
        match self {
            Kind::Malformed => StatusCode::BAD_REQUEST,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Duplicate | Kind::OutOfTurn | Kind::Overtaken => StatusCode::CONFLICT,
            Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
            Kind::Late => StatusCode::REQUEST_TIMEOUT,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn family(self) -> &'static str {
        match self {
            Kind::Malformed => "malformed",
            Kind::Exhausted | Kind::Late | Kind::Unavailable => "unavailable",
            _ => "refused",
        }
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Kind::Exhausted => Some(Duration::from_secs(5)),
            Kind::Unavailable | Kind::Overtaken => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl Refusal {
    /// A refusal with a message for people.
    pub(crate) fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { kind, code, message: message.into() }
    }

    /// The reason code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    fn of(kind: Kind, code: &'static str, error: &dyn std::error::Error) -> Refusal {
        if kind == Kind::Unavailable {
            tracing::error!(code, error = %chain(error), "a request could not be served");
        }
        Refusal::new(kind, code, chain(error))
    }
}

/// To devices: family and code.
impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, code, .. } = refusal;
        retry::status(kind.grpc(), &format!("{}: {code}", kind.family()), code, kind.retry_after())
    }
}

/// To operators: code and sentence.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = (self.kind.http(), Json(body)).into_response();
        if let Some(after) = self.kind.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let (kind, code) = match error {
            StoreError::Conflict => (Kind::Overtaken, "conflict"),
            StoreError::Unknown(_) => (Kind::NotFound, "unknown"),
            StoreError::Full { .. } => (Kind::Exhausted, "full"),
            StoreError::Busy => (Kind::Exhausted, "busy"),
            _ => (Kind::Unavailable, "store"),
        };
        Refusal::of(kind, code, &error)
    }
}

impl From<KeysError> for Refusal {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Record(error) => error.into(),
            error => Refusal::of(Kind::Unavailable, "signing", &error),
        }
    }
}

impl From<EnrollError> for Refusal {
    fn from(error: EnrollError) -> Self {
        let (kind, code) = match &error {
            EnrollError::Malformed(failure) => (Kind::Malformed, failure.check.name()),
            EnrollError::Name => (Kind::Malformed, "name"),
            EnrollError::Certificates { .. } => (Kind::Malformed, "certificates"),
            EnrollError::Refused(failures) => (Kind::Forbidden, first_check(failures)),
            EnrollError::Activation => (Kind::Unauthenticated, "credential-activation"),
            EnrollError::Csr(CsrError::Signature) => (Kind::Unauthenticated, "device-key-csr"),
            EnrollError::Csr(_) => (Kind::Malformed, "device-key-csr"),
            EnrollError::Credential(_) => (Kind::Forbidden, "ek-public"),
            EnrollError::Revoked => (Kind::Forbidden, "revoked"),
            EnrollError::Store(error) => return error.clone().into(),
            EnrollError::Keys(_) => (Kind::Unavailable, "signing"),
        };
        Refusal::of(kind, code, &error)
    }
}

impl From<AttestError> for Refusal {
    fn from(error: AttestError) -> Self {
        let (kind, code) = match &error {
            AttestError::Unknown => (Kind::NotFound, "not-enrolled"),
            AttestError::Revoked => (Kind::Forbidden, "revoked"),
            AttestError::Rebound => (Kind::Overtaken, "enrolled-again"),
            AttestError::NoQuote => (Kind::Malformed, "quote-parse"),
            AttestError::Pcr(_) => (Kind::Malformed, "pcr-values"),
            AttestError::NotAnAnswer => (Kind::Unauthenticated, "quote-nonce"),
            AttestError::NotTheDevice(findings) => {
                let code = findings.first().map_or("quote-signature", |finding| finding.check.name());
                (Kind::Unauthenticated, code)
            }
            AttestError::Busy => (Kind::Exhausted, "busy"),
            AttestError::Store(error) => return error.clone().into(),
            AttestError::Keys(_) => (Kind::Unavailable, "signing"),
        };
        Refusal::of(kind, code, &error)
    }
}

impl From<SvidError> for Refusal {
    fn from(error: SvidError) -> Self {
        let (kind, code) = match &error {
            SvidError::Denied(denied) => (Kind::Forbidden, denied.code()),
            SvidError::NoEntry => (Kind::NotFound, "no-entry"),
            SvidError::Signature(_) => (Kind::Unauthenticated, "device-signature"),
            SvidError::Csr(_) => (Kind::Malformed, "csr"),
            SvidError::Store(error) => return error.clone().into(),
            SvidError::Keys(KeysError::Record(error)) => return error.clone().into(),
            SvidError::Keys(_) => (Kind::Unavailable, "signing"),
        };
        Refusal::of(kind, code, &error)
    }
}

impl From<EarFailure> for Refusal {
    fn from(error: EarFailure) -> Self {
        let code = match error {
            EarFailure::NoResult(reason) => reason.code(),
            EarFailure::NoVector => "no-vector",
            EarFailure::Store(error) => return error.into(),
            EarFailure::Keys(error) => return error.into(),
        };
        Refusal::of(Kind::NotFound, code, &error)
    }
}

impl From<EarError> for Refusal {
    fn from(error: EarError) -> Self {
        Refusal::of(Kind::Malformed, "nonce", &error)
    }
}

impl From<NoRoom> for Refusal {
    fn from(error: NoRoom) -> Self {
        Refusal::of(Kind::Exhausted, "no-room", &error)
    }
}

impl From<SessionEnd> for Refusal {
    fn from(end: SessionEnd) -> Self {
        let (kind, code) = match end {
            SessionEnd::Attest(error) => return error.into(),
            SessionEnd::Svid(error) => return error.into(),
            SessionEnd::NoRoom(error) => return error.into(),
            SessionEnd::Silent => (Kind::Late, "silent"),
            SessionEnd::Gone => (Kind::Late, "gone"),
            SessionEnd::OutOfTurn => (Kind::OutOfTurn, "out-of-turn"),
            SessionEnd::TooLarge => (Kind::Exhausted, "size"),
            SessionEnd::Malformed => (Kind::Malformed, "message"),
            SessionEnd::NotAnId => (Kind::Malformed, "device-id"),
            SessionEnd::Replaced => (Kind::Overtaken, "replaced"),
            // Not a fault: said without a line in the error log.
            SessionEnd::ShuttingDown => {
                return Refusal::new(Kind::Unavailable, "shutting-down", "the server is shutting down");
            }
        };
        Refusal::of(kind, code, &end)
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        let (kind, code) = match &error {
            SubmitError::Statement(_) | SubmitError::Open(OpenError::Statement(_)) => {
                (Kind::Malformed, "statement")
            }
            SubmitError::Open(OpenError::PayloadTooLong { .. }) => (Kind::Malformed, "payload"),
            SubmitError::UnknownDevice => (Kind::NotFound, "not-enrolled"),
            SubmitError::Open(OpenError::Signature(_)) => (Kind::Unauthenticated, "device-signature"),
            SubmitError::Open(OpenError::KeyId) => (Kind::Unauthenticated, "device-key"),
            SubmitError::Open(OpenError::Payload) => (Kind::Unauthenticated, "payload-hash"),
            SubmitError::Sequence(SequenceError::Replay { .. }) => (Kind::Duplicate, "sequence-replay"),
            SubmitError::Sequence(SequenceError::Fork { .. }) => (Kind::OutOfTurn, "sequence-fork"),
            SubmitError::Sequence(SequenceError::EarlierBoot { .. }) => (Kind::OutOfTurn, "earlier-boot"),
            SubmitError::Sequence(SequenceError::Gap { .. }) => (Kind::OutOfTurn, "sequence-gap"),
            SubmitError::Store(error) => return error.clone().into(),
        };
        Refusal::of(kind, code, &error)
    }
}

impl From<PolicyChangeError> for Refusal {
    fn from(error: PolicyChangeError) -> Self {
        let (kind, code) = match &error {
            PolicyChangeError::Policy(_) => (Kind::Malformed, "policy"),
            PolicyChangeError::Envelope(EnvelopeError::Policy(_)) => (Kind::Malformed, "policy"),
            PolicyChangeError::Envelope(EnvelopeError::Unsigned | EnvelopeError::NotAccepted { .. }) => {
                (Kind::Forbidden, "policy-signature")
            }
            PolicyChangeError::Envelope(_) => (Kind::Malformed, "policy-envelope"),
            PolicyChangeError::NotVouched(_) => (Kind::OutOfTurn, "policy-not-vouched"),
            PolicyChangeError::VersionSpent { .. } => (Kind::OutOfTurn, "version-spent"),
            PolicyChangeError::SignatureRequired { .. } => (Kind::Forbidden, "policy-signature"),
            PolicyChangeError::Label(_) => (Kind::Malformed, "label"),
            PolicyChangeError::Percent(_) => (Kind::Malformed, "percent"),
            PolicyChangeError::Plan(error) => plan_codes(error),
            PolicyChangeError::NothingChanges { .. } => (Kind::OutOfTurn, "nothing-changes"),
            PolicyChangeError::Strained { .. } => (Kind::OutOfTurn, "policies-disagree"),
            PolicyChangeError::WouldFall { .. } => (Kind::OutOfTurn, "would-fall"),
            PolicyChangeError::Busy => (Kind::Exhausted, "busy"),
            PolicyChangeError::Store(error) => return error.clone().into(),
        };
        Refusal::of(kind, code, &error)
    }
}

fn plan_codes(error: &PlanError) -> (Kind, &'static str) {
    match error {
        PlanError::Ambiguous { .. } => (Kind::OutOfTurn, "ambiguous"),
        PlanError::TooMany => (Kind::OutOfTurn, "too-many-assignments"),
        PlanError::NotAssigned { .. } => (Kind::NotFound, "not-assigned"),
        PlanError::OtherName { .. } => (Kind::OutOfTurn, "other-policy"),
        PlanError::UnderWay { .. } => (Kind::OutOfTurn, "rollout-under-way"),
        PlanError::NoRollout { .. } => (Kind::NotFound, "no-rollout"),
        PlanError::NotWider { .. } => (Kind::OutOfTurn, "not-wider"),
    }
}

impl From<NotLabelled> for Refusal {
    fn from(error: NotLabelled) -> Self {
        match error {
            NotLabelled::Label(error) => Refusal::of(Kind::Malformed, "label", &error),
            NotLabelled::NotThere { .. } => Refusal::of(Kind::Malformed, "no-label", &error),
            NotLabelled::Device(error) => error.into(),
            NotLabelled::Store(error) => error.into(),
        }
    }
}

impl From<TrialError> for Refusal {
    fn from(error: TrialError) -> Self {
        match error {
            TrialError::Policy(error) => Refusal::of(Kind::Malformed, "policy", &error),
            TrialError::Store(error) => error.into(),
            TrialError::Busy => Refusal::of(Kind::Exhausted, "busy", &error),
        }
    }
}

impl From<KeptResultError> for Refusal {
    fn from(error: KeptResultError) -> Self {
        match error {
            KeptResultError::Unknown => Refusal::of(Kind::NotFound, "unknown-result", &error),
            KeptResultError::NotKept => Refusal::of(Kind::NotFound, "evidence-not-kept", &error),
            KeptResultError::Store(error) => error.into(),
        }
    }
}

impl From<EntryError> for Refusal {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Store(error) => error.into(),
            EntryError::Keys(error) => error.into(),
            error => Refusal::of(Kind::Malformed, "entry", &error),
        }
    }
}

impl From<FateError> for Refusal {
    fn from(error: FateError) -> Self {
        match error {
            FateError::Policy(error) => error.into(),
            FateError::Store(error) => error.into(),
            FateError::Keys(error) => error.into(),
            FateError::Unknown => Refusal::of(Kind::NotFound, "unknown-device", &error),
            FateError::NotRefused { .. } => Refusal::of(Kind::Malformed, "not-refused", &error),
        }
    }
}

fn first_check(failures: &[Failure]) -> &'static str {
    failures.first().map_or("refused", |failure| failure.check.name())
}

#[cfg(test)]
mod tests {
    use assay_evidence::Check;
    use assay_telemetry::BadSignature;
    use assay_trust::rollout::Percent;

    use super::*;

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
        check(
            PolicyChangeError::Plan(PlanError::NoRollout { name: name() }),
            Code::NotFound,
            404,
            "no-rollout",
        );
        check(StoreError::Closed, Code::Unavailable, 503, "store");
        check(StoreError::Busy, Code::ResourceExhausted, 429, "busy");
        check(StoreError::Conflict, Code::Aborted, 409, "conflict");
    }

    #[test]
    fn a_device_is_told_the_family_and_the_code_only() {
        let failure =
            Failure::new(Check::EkChain, "EK certificate", "a path to a trust anchor", "CN=Secret CA");
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
}
