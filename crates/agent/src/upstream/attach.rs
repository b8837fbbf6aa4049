//! Keeps the device attached: opens the TPM, enrolls once, holds the stream, and begins again where one of them is lost.

use std::sync::Arc;
use std::time::Duration;

use assay_clock::{Backoff, Clock, jitter};
use assay_identity::tls::TrustSource;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::connection::{Connection, ConnectionError, Credential};
use super::enroll::{EnrollError, Enrollment, enroll};
use super::memory::Memory;
use super::session::{Session, SessionError};
use crate::ask::Asks;
use crate::config::Config;
use crate::device::Device;
use crate::holding::Grants;
use crate::link::Link;
use crate::offline;
use crate::state_dir::{StateDir, StateError};
use crate::task::{Room, Wire};
use crate::tpm::TpmError;
use crate::tpm::identity::IdentityError;

/// The task that speaks with the server.
pub struct Upstream {
    config: Config,
    state: StateDir,
    connection: Connection,
    grants: Grants,
    link: watch::Sender<Option<Link>>,
    memory: Memory,
    asks: Asks,
    tasks: Option<(Wire, Room)>,
    /// The server does not know the device, or not by these keys: it has to show again which TPM it is.
    unknown: bool,
    /// What an earlier run held was looked at: once a run.
    looked_back: bool,
}

/// Why the device is not attached any more, and so what to do next.
#[derive(Debug, Error)]
enum Interruption {
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("enrollment failed: {0}")]
    Enroll(#[from] EnrollError),
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl Interruption {
    /// The server's own word, if it is one.
    fn status(&self) -> Option<&Status> {
        match self {
            Interruption::Session(SessionError::Server(status))
            | Interruption::Enroll(EnrollError::Server(status)) => Some(status),
            _ => None,
        }
    }

    fn code(&self) -> Option<Code> {
        self.status().map(Status::code)
    }

    /// The server, or whoever speaks in its place, does not want the device: that is not being without a server.
    fn is_a_refusal(&self) -> bool {
        !matches!(
            self.code(),
            None | Some(
                Code::Unavailable
                    | Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::ResourceExhausted
            )
        )
    }

    /// TLS 1.3 tells a client that its certificate is refused only after the handshake, as a connection that breaks.
    fn may_be_our_certificate(&self) -> bool {
        matches!(self, Interruption::Connection(_))
            || matches!(self.code(), Some(Code::Unavailable | Code::Unknown))
    }

    fn lost_the_tpm(&self) -> bool {
        match self {
            Interruption::Tpm(error)
            | Interruption::Session(SessionError::Tpm(error))
            | Interruption::Enroll(
                EnrollError::Tpm(error) | EnrollError::MakersIdentity(IdentityError::Tpm(error)),
            ) => error.is_lost(),
            _ => false,
        }
    }
}

impl Upstream {
    /// Speaks with the gateway of `config`, recognised with `trust`; `grants` gets what comes of it, and `asks` is
    /// answered.
    pub fn new(
        config: Config,
        state: StateDir,
        trust: Arc<TrustSource>,
        grants: Grants,
        memory: Memory,
        clock: Clock,
        (link, asks, tasks): (watch::Sender<Option<Link>>, Asks, Option<(Wire, Room)>),
    ) -> Self {
        let connection = Connection::new(config.gateway.clone(), config.trust_domain.clone(), trust, clock);
        Upstream {
            config,
            state,
            connection,
            grants,
            link,
            memory,
            asks,
            tasks,
            unknown: false,
            looked_back: false,
        }
    }

    /// Keeps the device attached for as long as the agent runs.
    pub async fn run(mut self) {
        let mut backoff = Backoff::between(WAIT_FIRST, WAIT_LONGEST);
        let mut device = None;
        // A gateway that does not take our certificate may still take us without.
        let mut show_svid = true;
        loop {
            let mut attached_at = None;
            let Err(interruption) = self.attach(&mut device, &mut attached_at, show_svid).await;
            self.link.send_replace(None);
            if let Some(at) = attached_at {
                backoff.held_for(self.connection.clock().instant() - at);
            }
            show_svid = !interruption.may_be_our_certificate() || !show_svid;
            if interruption.lost_the_tpm() {
                device = None;
            }
            // A server that is there and ends streams is not away: what falls to whoever waits is bounded more closely.
            let longest = if attached_at.is_some() { WAIT_AFTER_A_STREAM } else { Duration::MAX };
            if interruption.is_a_refusal() {
                self.give_back();
            } else if let Some(device) = &device {
                self.look_back(device).await;
            }
            let wait = backoff.wait().min(longest).max(self.settle(&interruption));
            let clock = self.memory.clock.sentence().unwrap_or_default();
            tracing::warn!(retry_in_ms = wait.as_millis(), clock, "not attached: {interruption}");
            self.connection.clock().sleep(wait).await;
        }
    }

    /// Opens, enrolls, attaches, and serves until something interrupts.
    async fn attach(
        &mut self,
        device: &mut Option<Device>,
        attached_at: &mut Option<Instant>,
        show_svid: bool,
    ) -> Result<std::convert::Infallible, Interruption> {
        let device = match device {
            Some(device) => device,
            None => {
                let Config { sources, attestation_key, .. } = &self.config;
                let opened = Device::open(sources.tpm.clone(), self.state.clone(), *attestation_key);
                device.insert(opened.await?)
            }
        };
        let credential = self.credential(device).filter(|_| show_svid);
        let heard = match self.grants.list() {
            [] => self.memory.list(),
            heard => heard,
        };
        let mut client = self.connection.connect(credential, heard).await?;
        let known = Enrollment::load(&self.state, &self.config.trust_domain)?;
        let enrollment = match known.filter(|_| !self.unknown) {
            Some(enrollment) => enrollment,
            None => {
                let enrollment = enroll(&mut client, device, &self.config, &self.state).await?;
                tracing::info!(device_id = %enrollment.device_id, "enrolled");
                self.grants.enrolled();
                enrollment
            }
        };
        self.unknown = false;
        let device_id = enrollment.device_id;
        let link = Link { device: device.clone(), client: client.clone(), device_id: device_id.clone() };
        let session = Session {
            device,
            sources: &self.config.sources,
            device_id: &device_id,
            connection: &self.connection,
            memory: &mut self.memory,
            asks: &mut self.asks,
            tasks: self.tasks.as_mut().map(|(wire, room)| (wire, *room)),
        };
        let clock = self.connection.clock().clone();
        let attached = || {
            tracing::info!(%device_id, "attached");
            *attached_at = Some(clock.instant());
            self.link.send_replace(Some(link));
        };
        session.serve(&mut client, &mut self.grants, attached).await?;
        Err(SessionError::Closed.into())
    }

    /// Serves what an earlier run held no longer, as there is a server and it did not confirm it. Its word is not signed, so that
    /// nothing else goes by it.
    fn give_back(&mut self) {
        if self.grants.held().borrow().until.is_some() {
            self.grants.withdraw("the server refuses the device".to_owned());
        }
    }

    /// Serves what an earlier run held, where the policy allows that and the server was not heard yet.
    async fn look_back(&mut self, device: &Device) {
        if self.looked_back || self.grants.held().borrow().ready {
            return;
        }
        self.looked_back = true;
        let now = self.connection.clock().now();
        match offline::restore(&self.state, device, &self.config.trust_domain, now).await {
            Ok(None) => {}
            Ok(Some(holding)) => {
                let age =
                    holding.heard_at.and_then(|heard| now.duration_since(heard).ok()).unwrap_or_default();
                let left = holding.until.and_then(|until| until.duration_since(now).ok()).unwrap_or_default();
                tracing::warn!(
                    age_seconds = age.as_secs(), ends_in_seconds = left.as_secs(), svids = holding.workloads.len(),
                    policy = %holding.policy, "no server: what was granted before is served as it was sealed"
                );
                self.grants.restore(holding);
            }
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "no server, and what was sealed before cannot be served");
            }
        }
    }

    fn credential(&self, device: &Device) -> Option<Credential> {
        let chain = self.grants.held().borrow().device_svid.clone();
        (!chain.is_empty()).then(|| Credential { chain, key: device.key.clone() })
    }

    /// Acts on what the server's refusal says, and returns how long to wait at least. A status is not signed, so it takes
    /// nothing from the device.
    fn settle(&mut self, interruption: &Interruption) -> Duration {
        match interruption.code() {
            Some(Code::PermissionDenied) => REFUSED_WAIT,
            Some(Code::NotFound | Code::Unauthenticated) => {
                self.unknown = true;
                Duration::ZERO
            }
            Some(Code::ResourceExhausted) => jitter(told_to_wait(interruption.status())),
            _ => Duration::ZERO,
        }
    }
}

/// As long as whoever is busy says, within reason.
fn told_to_wait(status: Option<&Status>) -> Duration {
    let said = status.and_then(|status| status.metadata().get("grpc-retry-pushback-ms"));
    let milliseconds = said.and_then(|value| value.to_str().ok()?.parse().ok());
    milliseconds.map_or(BUSY_WAIT, Duration::from_millis).clamp(BUSY_WAIT_MIN, BUSY_WAIT_MAX)
}

/// After one more failure, at the first and at most. A stream that ends sooner than the longest is a failure too.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_LONGEST: Duration = Duration::from_secs(30);
const WAIT_AFTER_A_STREAM: Duration = Duration::from_secs(5);
/// A revoked device asks again at leisure.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// A busy server is left alone for a moment.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const BUSY_WAIT_MIN: Duration = Duration::from_secs(1);
/// It is not signed, so that nobody on the way may say how long a device is away.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_7_a_busy_server_is_left_alone_for_as_long_as_it_says_within_reason() {
        let status = |said: &str| {
            let mut status = Status::resource_exhausted("");
            status.metadata_mut().insert("grpc-retry-pushback-ms", said.parse().unwrap());
            status
        };
        assert_eq!(told_to_wait(Some(&status("2500"))), Duration::from_millis(2500));
        assert_eq!(told_to_wait(Some(&status("0"))), BUSY_WAIT_MIN);
        assert_eq!(told_to_wait(Some(&status("86400000"))), BUSY_WAIT_MAX);
        assert_eq!(told_to_wait(Some(&status("soon"))), BUSY_WAIT);
        assert_eq!(told_to_wait(Some(&Status::resource_exhausted(""))), BUSY_WAIT);
    }
}
