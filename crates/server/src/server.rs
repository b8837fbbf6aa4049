//! Everything the server is made of, put together: what every request gets a share of.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use assay_evidence::ima::{SigningKey, SigningKeyError};
use assay_identity::SpiffeId;
use assay_identity::tls::{self, ClientIdentity};
use assay_trust::policy::{PolicySigners, SIGNERS_MAX};
use rustls::ServerConfig;
use serde::Serialize;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api;
use crate::api::listen::Limits;
use crate::boot_logs::BootLogs;
use crate::clock;
use crate::config::Config;
use crate::endorsers::{EndorsersError, EndorsersInForce};
use crate::entries::Entries;
use crate::keys::{self, Authority, FileError, KeysError, OperatorToken, ResultKey, ServerCertificate};
use crate::maintenance;
use crate::metrics::Metrics;
use crate::policy::{Policies, PolicyChangeError};
use crate::revocation::RevocationList;
use crate::session::registry::Registry;
use crate::store::{Store, StoreError};
use crate::verifier::Verifier;

/// The parts, shared by every request and stream.
#[derive(Debug)]
pub(crate) struct Server {
    pub config: Config,
    pub store: Store,
    pub authority: Arc<Authority>,
    pub revocations: RevocationList,
    pub policies: Policies,
    pub endorsers: EndorsersInForce,
    pub entries: Entries,
    pub registry: Arc<Registry>,
    pub verifier: Verifier,
    pub boot_logs: Arc<BootLogs>,
    pub metrics: Metrics,
    pub operator: OperatorToken,
    pub result_key: ResultKey,
    pub sign_ins: api::SignIns,
    pub enrollments: Arc<Semaphore>,
    /// One policy is tried at a time.
    pub trials: Arc<Semaphore>,
    pub doors: Doors,
    /// Changes once, when everything has to come to an end.
    pub shutdown: watch::Receiver<bool>,
}

/// What TLS shows at each door; replaced as a whole when the certificate is renewed.
#[derive(Debug)]
pub(crate) struct Doors {
    edge: RwLock<Arc<ServerConfig>>,
    console: RwLock<Arc<ServerConfig>>,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
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
    /// The trust domain it serves.
    pub trust_domain: String,
}

impl Running {
    /// Opens the data folder, binds both doors and starts to serve.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        tls::install_crypto_provider();
        let lock = take_data_folder(&config.data)?;
        let (stopping, shutdown) = watch::channel(false);
        let server = Arc::new(Server::open(config, shutdown.clone()).await?);
        let edge = bind(server.config.edge).await?;
        let console = bind(server.config.console).await?;
        let addresses = Addresses {
            edge: edge.0,
            console: console.0,
            trust_domain: server.config.trust_domain.to_string(),
        };
        let json = serde_json::to_vec_pretty(&addresses).unwrap_or_default();
        keys::write_public(&server.config.data.join("addresses.json"), &json)?;

        let mut tasks = JoinSet::new();
        let limits = Limits::of(&server.config.limits);
        let (at_edge, at_console) = (server.clone(), server.clone());
        let edge_tls = move || at_edge.doors.edge();
        let console_tls = move || at_console.doors.console();
        let (edge_api, console_api) = (api::grpc::router(&server), api::http::router(&server));
        tasks.spawn(api::listen::serve(edge.1, edge_tls, edge_api, limits, shutdown.clone()));
        tasks.spawn(api::listen::serve(console.1, console_tls, console_api, limits, shutdown));
        tasks.spawn(maintenance::run(server.clone()));
        let Addresses { edge, console, trust_domain } = &addresses;
        tracing::info!(%edge, %console, %trust_domain, "server ready");
        Ok(Running { addresses, stopping, tasks, server, _lock: lock })
    }

    /// Where it can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Ends every stream with a word, finishes what is being written, and closes the store.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let ended = timeout(STOP_WITHIN, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            self.tasks.shutdown().await;
        }
        self.server.store.clone().close().await;
        tracing::info!("server stopped");
    }
}

impl Server {
    async fn open(config: Config, shutdown: watch::Receiver<bool>) -> Result<Server, StartError> {
        let now = clock::now();
        let folder = config.data.join("keys");
        let store = Store::open(&config.database()).await?;
        let authority = Arc::new(Authority::open(&folder, &config.trust_domain, now)?);
        keys::write_public(&config.data.join("bundle.pem"), authority.bundle().to_pem().as_bytes())?;
        let operator = OperatorToken::open(&config.data, &folder)?;
        let result_key = ResultKey::open(&folder)?;
        let revocations =
            RevocationList::open(&store, authority.clone(), config.crl_ttl_seconds, now).await?;
        let certificate =
            ServerCertificate::issue(&authority, &store, &config.names, config.server_svid_ttl_seconds, now)
                .await?;
        let doors = Doors::new(&revocations, &certificate)?;
        let policies = Policies::open(&store, load_signers(&config.policy_signers)?).await?;
        if policies.current().plan.assignments().is_empty() {
            tracing::warn!("no policy is set, so no device will be trusted: assay policy set FILE");
        }
        let endorsers = EndorsersInForce::open(&config)?;
        if endorsers.current().eks.is_empty() {
            tracing::warn!("ek_anchors names no certificate, so only devices that a policy lists can enroll");
        }
        let limits = &config.limits;
        Ok(Server {
            entries: Entries::open(&store, &config.trust_domain).await?,
            registry: Arc::new(Registry::new(limits)),
            verifier: Verifier::new(limits.verifications_max),
            boot_logs: Arc::default(),
            enrollments: Arc::new(Semaphore::new(limits.enrollments_max)),
            trials: Arc::new(Semaphore::new(1)),
            metrics: Metrics::new(),
            sign_ins: api::SignIns::default(),
            store,
            authority,
            revocations,
            policies,
            endorsers,
            operator,
            result_key,
            doors,
            shutdown,
            config,
        })
    }
}

impl Doors {
    fn new(revocations: &RevocationList, certificate: &ServerCertificate) -> Result<Doors, KeysError> {
        let (edge, console) = configurations(revocations, certificate)?;
        Ok(Doors { edge: RwLock::new(edge), console: RwLock::new(console) })
    }

    /// Shows another certificate from the next handshake on.
    pub(crate) fn renew(
        &self,
        revocations: &RevocationList,
        certificate: &ServerCertificate,
    ) -> Result<(), KeysError> {
        let (edge, console) = configurations(revocations, certificate)?;
        *self.edge.write().unwrap_or_else(PoisonError::into_inner) = edge;
        *self.console.write().unwrap_or_else(PoisonError::into_inner) = console;
        Ok(())
    }

    fn edge(&self) -> Arc<ServerConfig> {
        self.edge.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn console(&self) -> Arc<ServerConfig> {
        self.console.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Gateways have to show who they are; browsers and operators' tools need not.
fn configurations(
    revocations: &RevocationList,
    certificate: &ServerCertificate,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), KeysError> {
    let gateways = ClientIdentity::Required(Arc::new(SpiffeId::is_gateway));
    let edge = tls::server_config(certificate.key.clone(), revocations.trust(), gateways)?;
    let mut console = tls::server_config(certificate.key.clone(), revocations.trust(), ClientIdentity::None)?;
    console.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(edge), Arc::new(console)))
}

/// Makes the data folder and keeps other servers out of it: the audit trail has one writer.
fn take_data_folder(data: &Path) -> Result<File, StartError> {
    keys::private_folder(data)?;
    let path = data.join("lock");
    let lock = File::create(&path).map_err(|source| StartError::File { path: path.clone(), source })?;
    lock.try_lock().map_err(|_| StartError::InUse { path: data.to_owned() })?;
    Ok(lock)
}

async fn bind(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// Who has to have signed a policy. That a folder is empty does not mean that nobody has to.
fn load_signers(paths: &[PathBuf]) -> Result<PolicySigners, StartError> {
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
    /// Another server has the data folder.
    #[error("{}: another server is running on this data folder", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
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
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The policy in the store.
    #[error("the policy in force cannot be used")]
    Policy(#[from] PolicyChangeError),
}

/// Streams are told to end at once; what is left is dropped.
const STOP_WITHIN: Duration = Duration::from_millis(1500);
