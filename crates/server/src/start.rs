//! Making and stopping what runs: the data folder, both doors, the chores.

mod keylime;
mod spire;

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use assay_evidence::ima::{SigningKey, SigningKeyError};
use assay_identity::x509pop::X509PopError;
use assay_identity::{SpiffeId, tls};
use assay_trust::policy::{PolicySigners, SIGNERS_MAX};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::config::Config;
use crate::continuity::ContinuityError;
use crate::door;
use crate::door::federation::NoWebRoots;
use crate::door::forward::DestinationError;
use crate::door::listen::{Door, Limits, Peers};
use crate::door::oidc::OidcLoadError;
use crate::door::webhook::WebhookError;
use crate::in_force::endorsers::EndorsersError;
use crate::in_force::manifest::ManifestError;
use crate::in_force::policies::PolicyLoadError;
use crate::keys::{self, FileError, KeysError};
use crate::maintenance;
use crate::outcome::fault;
use crate::parts::Server;
use crate::security::{Cause, Refused};
use crate::store::{Store, StoreError};
use keylime::KeylimeDoors;
use spire::SpireDoors;

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    following: JoinHandle<()>,
    server: Arc<Server>,
    _lock: File,
}

/// Where a server can be reached; also in `addresses.json` of its data folder.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    /// Where gateways connect.
    pub edge: SocketAddr,
    /// Where operators connect.
    pub console: SocketAddr,
    /// Where agents of the JSON protocol connect, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_protocol: Option<SocketAddr>,
    /// Where metrics are, without TLS; `None`: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Where SPIRE's agents connect, if they are let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spire: Option<SocketAddr>,
    /// Where Keylime's agents register and attest, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keylime: Option<KeylimeAddresses>,
    /// The trust domain it serves.
    pub trust_domain: String,
}

/// Where Keylime's agents connect.
#[derive(Clone, Debug, Serialize)]
pub struct KeylimeAddresses {
    /// To register.
    pub registrar: SocketAddr,
    /// To register without TLS, where that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_registrar: Option<SocketAddr>,
    /// To attest.
    pub verifier: SocketAddr,
}

impl Running {
    /// Opens the data folder, binds both doors and starts to serve.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        Running::start_by(Clock::system(), config).await
    }

    /// The same, by a clock of the caller's.
    pub async fn start_by(clock: Clock, config: Config) -> Result<Running, StartError> {
        tls::install_crypto_provider();
        let lock = keys::take_data_folder(&config.data)?;
        raise_descriptors(&config.limits);
        let (stopping, shutdown) = watch::channel(false);
        let store = Store::open(&config.database()).await?;
        // Before anything is loaded, so that nothing that is committed meanwhile is missed.
        let follower = store.follow();
        let server = Arc::new(Server::open(store, config, clock, shutdown.clone()).await?);
        let edge = bind(server.config.edge).await?;
        let console = bind(server.config.console).await?;
        let json = json_door(&server).await?;
        let exporter = exporter(&server).await?;
        let path = server.config.data.join(door::local::SOCKET);
        let operator = door::local::bind(&path).map_err(|source| StartError::File { path, source })?;
        let spire = SpireDoors::bind(&server.config).await?;
        let keylime = KeylimeDoors::bind(&server.config).await?;
        let addresses = Addresses {
            keylime: keylime.as_ref().map(KeylimeDoors::addresses),
            spire: spire.as_ref().map(|doors| doors.address),
            edge: edge.0,
            console: console.0,
            json_protocol: json.as_ref().map(|(address, ..)| *address),
            metrics: exporter.as_ref().map(|(address, _)| *address),
            trust_domain: server.config.trust_domain.to_string(),
        };
        let text = serde_json::to_vec_pretty(&addresses).unwrap_or_default();
        keys::write_public(&server.config.data.join("addresses.json"), &text)?;

        let mut tasks = JoinSet::new();
        tasks.spawn(door::listen::serve(edge.1, edge_door(&server), shutdown.clone()));
        tasks.spawn(door::listen::serve(console.1, console_door(&server), shutdown.clone()));
        if let Some((_, listener, door)) = json {
            tasks.spawn(door::listen::serve(listener, door, shutdown.clone()));
        }
        tasks.spawn(door::plain::serve(operator, door::console::router(&server), shutdown.clone()));
        if let Some((_, listener)) = exporter {
            let router = door::console::metrics::exporter(&server);
            tasks.spawn(door::plain::serve(listener, router, shutdown.clone()));
        }
        if let Some(doors) = spire {
            doors.serve(&server, &mut tasks, &shutdown);
        }
        if let Some(doors) = keylime {
            doors.serve(&server, &mut tasks, &shutdown);
        }
        tasks.spawn(maintenance::run(server.clone()));
        tasks.spawn(maintenance::expiry::run(server.clone()));
        tasks.spawn(door::edge::announce::run(server.clone()));
        let (placing, clock, stop) = (server.placement.clone(), server.clock.clone(), shutdown.clone());
        tasks.spawn(async move { placing.run(clock, stop).await });
        tasks.spawn(door::forward::run(server.clone()));
        tasks.spawn(door::webhook::run(server.clone()));
        tasks.spawn(door::federation::run(server.clone()));
        // It ends after the doors: what they commit last is followed as well.
        let following = tokio::spawn(server.following().run(follower));
        let Addresses { edge, console, trust_domain, .. } = &addresses;
        tracing::info!(%edge, %console, %trust_domain, "server ready");
        Ok(Running { addresses, stopping, tasks, following, server, _lock: lock })
    }

    /// Where it can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The console without its door: a service to call in this process.
    pub fn console(&self) -> axum::Router {
        door::console::router(&self.server)
    }

    /// Ends every stream with a word, finishes what is being written, and closes the store.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let ended = timeout(STOP_WITHIN, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            self.tasks.shutdown().await;
        }
        self.following.abort();
        if let Err(error) = self.server.ledger_head.sign(&self.server.store, self.server.now()).await {
            fault("signing", &error);
        }
        if let Err(error) = self.server.revocations.keep(&self.server.config.data) {
            fault("revocation list", &error);
        }
        self.server.store.clone().close().await;
        tracing::info!("server stopped");
    }
}

/// On an older copy of the database: serves reading to the operator on this machine until it is decided.
pub(crate) async fn serve_reading(config: Config, why: ContinuityError) -> Result<(), StartError> {
    let path = config.data.join(door::local::SOCKET);
    let listener = door::local::bind(&path).map_err(|source| StartError::File { path, source })?;
    let store = Store::open_to_read(&config.database())?;
    Ok(door::console::set_back::serve(listener, store, config, why.to_string()).await?)
}

/// Takes as many descriptors as the system lets this process have: connections that are let in need one each.
fn raise_descriptors(limits: &crate::config::Limits) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A kernel that does not let us leaves the number we have.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = 2 * u64::try_from(limits.connections_max).unwrap_or(u64::MAX / 2) + DESCRIPTORS_RESERVED;
    if descriptors < needed {
        tracing::warn!(descriptors, needed, "fewer file descriptors than connections may be let in");
    }
}

/// For gateways, which show who they are.
fn edge_door(server: &Arc<Server>) -> Door {
    let (limits, at_edge) = (Limits::edge(&server.config.limits), server.clone());
    let noting = server.clone();
    let refused = move |who: Option<&SpiffeId>, from: IpAddr, why| {
        let who = who.map(SpiffeId::to_string).unwrap_or_default();
        noting.refused(Refused { cause: Cause::Gateway, who, from: from.to_string(), why });
    };
    let peers = Peers {
        trust: server.revocations.trust(),
        lists: server.revocations.watch(),
        refused: Box::new(refused),
    };
    Door {
        tls: Some(Box::new(move || at_edge.tls.edge())),
        peers: Some(peers),
        router: door::edge::router(server),
        limits,
        admission: limits.admission(),
        clock: server.clock.clone(),
    }
}

/// For operators, browsers and relying parties.
fn console_door(server: &Arc<Server>) -> Door {
    let (limits, at_console) = (Limits::console(&server.config.limits), server.clone());
    Door {
        tls: Some(Box::new(move || at_console.tls.console())),
        peers: None,
        router: door::console::router(server),
        limits,
        admission: limits.admission(),
        clock: server.clock.clone(),
    }
}

/// For agents and gateways of the JSON protocol, who show no certificate; `None`: none is configured.
async fn json_door(server: &Arc<Server>) -> Result<Option<(SocketAddr, TcpListener, Door)>, StartError> {
    let Some(settings) = &server.config.json_protocol else { return Ok(None) };
    let Some(address) = settings.listen else { return Ok(None) };
    let (address, listener) = bind(address).await?;
    let (limits, at_door) = (Limits::console(&server.config.limits), server.clone());
    let own = door::json::shown(settings)?;
    let door = Door {
        tls: Some(Box::new(move || own.clone().unwrap_or_else(|| at_door.tls.console()))),
        peers: None,
        router: door::json::whole(server),
        limits,
        admission: limits.admission(),
        clock: server.clock.clone(),
    };
    Ok(Some((address, listener, door)))
}

/// For a Prometheus beside the server.
async fn exporter(server: &Server) -> Result<Option<(SocketAddr, TcpListener)>, StartError> {
    match server.config.trust_api.as_ref().and_then(|api| api.metrics_listen) {
        Some(address) => bind(address).await.map(Some),
        None => Ok(None),
    }
}

async fn bind(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// Who has to have signed a policy. That a folder is empty does not mean that nobody has to.
pub(crate) fn load_signers(paths: &[PathBuf]) -> Result<PolicySigners, StartError> {
    let files = read_files(paths)?;
    for (path, bytes) in &files {
        SigningKey::from_certificate_or_spki(bytes)
            .map_err(|source| StartError::Signer { path: path.clone(), source })?;
    }
    if !paths.is_empty() && !(1..=SIGNERS_MAX).contains(&files.len()) {
        return Err(StartError::Signers { count: files.len() });
    }
    let signer = |source| StartError::Signer { path: PathBuf::from("policy_signers"), source };
    PolicySigners::new(files.iter().map(|(_, bytes)| bytes)).map_err(signer)
}

/// The files named, and those of the folders named, in order.
fn read_files(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Vec<u8>)>, StartError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::File { path, source }
    };
    let mut read = Vec::new();
    for path in paths {
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(failed(path))?;
            files = entries
                .collect::<Result<Vec<_>, _>>()
                .map_err(failed(path))?
                .iter()
                .map(fs::DirEntry::path)
                .collect();
            files.retain(|file| file.is_file());
            files.sort();
        }
        for file in files {
            let bytes = fs::read(&file).map_err(failed(&file))?;
            read.push((file, bytes));
        }
    }
    Ok(read)
}

/// Why the server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Telemetry cannot go where it is configured to.
    #[error(transparent)]
    Forward(#[from] DestinationError),
    /// What the door of the JSON protocol is to show.
    #[error(transparent)]
    JsonProtocol(#[from] door::json::CertificateError),
    /// A receiver of notices.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The provider that people sign in with.
    #[error(transparent)]
    Oidc(#[from] OidcLoadError),
    /// A file or folder.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file in the data folder.
    #[error(transparent)]
    DataFile(#[from] FileError),
    /// A signer of policies that is none.
    #[error("{}: not a key that can sign policies", path.display())]
    Signer {
        /// Which.
        path: PathBuf,
        /// Why.
        source: SigningKeyError,
    },
    /// No signer, or too many.
    #[error("policy_signers: {count} keys are there; 1 to {SIGNERS_MAX} can sign policies")]
    Signers {
        /// How many.
        count: usize,
    },
    /// The enrollment manifest cannot be used.
    #[error("the enrollment manifest cannot be used")]
    Manifest(#[from] ManifestError),
    /// A trust anchor or revocation list.
    #[error(transparent)]
    Endorsers(#[from] EndorsersError),
    /// A door that cannot be opened.
    #[error("{address}: cannot listen")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file of authorities by which servers outside are known.
    #[error(transparent)]
    WebRoots(#[from] NoWebRoots),
    /// A file of authorities whose certificates nodes are known by.
    #[error("{}", path.display())]
    X509PopAnchor {
        /// Which.
        path: PathBuf,
        /// Why.
        source: X509PopError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Database, keys and signed heads that do not belong together.
    #[error(transparent)]
    Continuity(#[from] ContinuityError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The policy in the store.
    #[error("the policy in force cannot be used")]
    Policy(#[from] PolicyLoadError),
}

/// Database, files, the operator's socket, the runtime's own.
const DESCRIPTORS_RESERVED: u64 = 256;
/// Streams are told to end at once; what is left is dropped.
const STOP_WITHIN: Duration = Duration::from_millis(1500);
