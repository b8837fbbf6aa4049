//! `assay-agent run`: brings the parts up, keeps the device attached, and takes everything down again.
//!
//! Three tasks live as long as the agent: the Workload API, telemetry, and the device itself, which opens the TPM,
//! enrolls once, and then holds its stream to the server. They share the [`Holding`](crate::holding::Holding) and
//! the [`Link`] of the moment.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use assay_identity::bundle::BundleError;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tonic::Code;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::device::Device;
use crate::edge::{Client, Credential, Edge, EdgeError};
use crate::enroll::{EnrollError, Enrollment, enroll};
use crate::grants::Grants;
use crate::holding::Holding;
use crate::session::{Session, SessionError};
use crate::state_dir::{StateDir, StateError};
use crate::telemetry;
use crate::tpm::TpmError;
use crate::tpm::identity::IdentityError;
use crate::workload_api::{self, SocketError};

/// The agent cannot start, or cannot go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The trust bundle cannot be read.
    #[error("{path}: the trust bundle cannot be read")]
    ReadBundle {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The trust bundle is none.
    #[error("{path}: no trust bundle")]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// The trust bundle has nothing in it.
    #[error("{path}: no certificate in it; copy the server's bundle.pem here")]
    EmptyBundle {
        /// Which file.
        path: PathBuf,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The Workload API's socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A part ended that never should.
    #[error("the agent's {part} ended")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}

/// An attached device: what telemetry is signed and sent with.
#[derive(Clone)]
pub struct Link {
    /// The TPM.
    pub device: Device,
    /// The connection.
    pub client: Client,
    /// The device's SPIFFE ID.
    pub device_id: String,
}

/// Runs the agent until `stop` is done. What cannot be had now (gateway, TPM, grants) is tried for again and again;
/// what can never work (configuration, files, socket) is an error at once.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    tls::install_crypto_provider();
    let state = StateDir::open(&config.state)?;
    let trust = TrustSource::new(Trust { bundle: read_bundle(&config)?, crls: CrlSet::default() });
    let listener = workload_api::Listener::bind(&config.workload_api)?;
    tracing::info!(
        name = %config.name, tpm = %config.sources.tpm, gateway = %config.gateway,
        workload_api = %config.workload_api.display(), "agent started"
    );
    let (held, _) = watch::channel(Holding::default());
    let (link, linked) = watch::channel(None);

    let mut parts = JoinSet::new();
    let trust_domain = config.trust_domain.clone();
    parts.spawn(name("workload API", listener.serve(held.subscribe(), trust_domain.clone())));
    if let Some(interval) = config.telemetry_interval {
        let telemetry = telemetry::Telemetry::new(interval, config.location.clone(), state.clone());
        parts.spawn(name("telemetry", telemetry.run(linked, held.subscribe())));
    }
    let expiring = held.clone();
    parts.spawn(name("janitor", expire(expiring)));
    let grants = Grants::new(held, trust.clone(), trust_domain.clone());
    let edge = Edge::new(config.gateway.clone(), trust_domain, trust);
    parts.spawn(name("device", Agent { config, state, edge, grants, link }.run()));

    let ended = tokio::select! {
        () = stop => Ok(()),
        part = parts.join_next() => Err(RunError::Ended { part: part.and_then(Result::ok).unwrap_or("task") }),
    };
    // Waits for the tasks to let go, so that the TPM's slots are flushed and the socket is removed.
    parts.shutdown().await;
    tracing::info!("agent stopped");
    ended
}

async fn name(part: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    part
}

/// Takes SVIDs that nobody could renew out of the holding when their time is over.
async fn expire(held: watch::Sender<Holding>) {
    let mut tick = interval(EXPIRY_INTERVAL);
    loop {
        tick.tick().await;
        held.send_if_modified(|holding| holding.expire(SystemTime::now()));
    }
}

/// The task that speaks with the server.
struct Agent {
    config: Config,
    state: StateDir,
    edge: Edge,
    grants: Grants,
    link: watch::Sender<Option<Link>>,
}

/// Why the device is not attached any more, and so what to do next.
#[derive(Debug, Error)]
enum Interruption {
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error(transparent)]
    Edge(#[from] EdgeError),
    #[error("enrollment failed: {0}")]
    Enroll(#[from] EnrollError),
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl Interruption {
    /// The server's own word, if it is one.
    fn code(&self) -> Option<Code> {
        match self {
            Interruption::Session(SessionError::Server(status))
            | Interruption::Enroll(EnrollError::Server(status)) => Some(status.code()),
            _ => None,
        }
    }

    /// TLS 1.3 tells a client that its certificate is refused only after the handshake, as a connection that breaks.
    fn may_be_our_certificate(&self) -> bool {
        matches!(self, Interruption::Edge(_))
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

impl Agent {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut device = None;
        // A gateway that does not take our certificate may still take us without.
        let mut show_svid = true;
        loop {
            let Err(interruption) = self.attach(&mut device, &mut backoff, show_svid).await;
            self.link.send_replace(None);
            show_svid = !interruption.may_be_our_certificate() || !show_svid;
            if interruption.lost_the_tpm() {
                device = None;
            }
            let wait = backoff.wait().max(self.settle(&interruption));
            tracing::warn!(retry_in_ms = wait.as_millis(), "not attached: {interruption}");
            sleep(wait).await;
        }
    }

    /// Opens, enrolls, attaches, and serves until something interrupts.
    async fn attach(
        &mut self,
        device: &mut Option<Device>,
        backoff: &mut Backoff,
        show_svid: bool,
    ) -> Result<std::convert::Infallible, Interruption> {
        let device = match device {
            Some(device) => device,
            None => device.insert(Device::open(self.config.sources.tpm.clone(), self.state.clone()).await?),
        };
        let credential = self.credential(device).filter(|_| show_svid);
        let mut client = self.edge.connect(credential).await?;
        let enrollment = match Enrollment::load(&self.state, &self.config.trust_domain)? {
            Some(enrollment) => enrollment,
            None => {
                let enrollment = enroll(&mut client, device, &self.config, &self.state).await?;
                tracing::info!(device_id = %enrollment.device_id, "enrolled");
                enrollment
            }
        };
        let device_id = enrollment.device_id;
        let link = Link { device: device.clone(), client: client.clone(), device_id: device_id.clone() };
        let session = Session { device, sources: &self.config.sources, device_id: &device_id };
        let attached = || {
            tracing::info!(%device_id, "attached");
            backoff.reset();
            self.link.send_replace(Some(link));
        };
        session.serve(&mut client, &mut self.grants, attached).await?;
        Err(SessionError::Closed.into())
    }

    fn credential(&self, device: &Device) -> Option<Credential> {
        let chain = self.grants.held().borrow().device_svid.clone();
        (!chain.is_empty()).then(|| Credential { chain, key: device.key.clone() })
    }

    /// Acts on what the server's refusal says, and returns how long to wait at least.
    fn settle(&mut self, interruption: &Interruption) -> Duration {
        match interruption.code() {
            Some(Code::PermissionDenied) => {
                self.grants.withdraw("the server refuses this device".to_owned(), Vec::new());
                REFUSED_WAIT
            }
            // The server does not know the device, or not by these keys: show again which TPM this is.
            Some(Code::NotFound | Code::Unauthenticated) => {
                if let Err(error) = Enrollment::forget(&self.state) {
                    tracing::error!(%error, "enrollment could not be forgotten");
                }
                Duration::ZERO
            }
            Some(Code::ResourceExhausted) => BUSY_WAIT,
            _ => Duration::ZERO,
        }
    }
}

fn read_bundle(config: &Config) -> Result<Bundle, RunError> {
    let path = || config.bundle.clone();
    let pem =
        std::fs::read(&config.bundle).map_err(|source| RunError::ReadBundle { path: path(), source })?;
    let bundle = Bundle::from_pem(config.trust_domain.clone(), &pem)
        .map_err(|source| RunError::Bundle { path: path(), source })?;
    // With no authority no gateway would ever be recognised.
    if bundle.authorities().next().is_none() {
        return Err(RunError::EmptyBundle { path: path() });
    }
    Ok(bundle)
}

/// How exactly an SVID's end is kept.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// A revoked device asks again at leisure.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// A busy server is left alone for a moment.
const BUSY_WAIT: Duration = Duration::from_secs(5);
