//! The gateway's own SVID, the bundle, and the revocation list: what it shows and what it trusts.
//!
//! Certificate, key and bundle come from files that are read again when they change; of the operator's pair and the one
//! that the gateway renewed itself, the one that ends later counts. The list comes from a server and is kept in memory.
//! Devices are verified by a fresh list or not at all. A server may be met before there is one, for asking it for the
//! list: see `servers.rs`.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_clock::Clock;
use assay_identity::bundle::{BundleError, pem_certificates};
use assay_identity::crl::CrlError;
use assay_identity::key::KeyError;
use assay_identity::tls::{self, ClientIdentity, Trust, TrustSource};
use assay_identity::{
    Bundle, Crl, CrlSet, Moment, PrivateKey, SpiffeId, SvidError, TrustDomain, VerifiedPeer,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;
use tokio::sync::watch;

use crate::config::Config;
use crate::ledger::LedgerMemory;

/// Why the gateway's credentials cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("{}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key that others may read or write.
    #[error(
        "{}: its mode is {mode:o}, so others may have read or changed it. If nobody did: chmod 600",
        file.display()
    )]
    Open {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificates are not PEM.
    #[error("{CERTIFICATES}: not PEM certificates")]
    Certificates,
    /// The key is not one.
    #[error("{KEY}")]
    Key(#[from] KeyError),
    /// The bundle is not one.
    #[error("{BUNDLE}")]
    Bundle(#[from] BundleError),
    /// The certificate would convince nobody.
    #[error("{CERTIFICATES}: does not verify with {BUNDLE}")]
    Svid(#[source] SvidError),
    /// The certificate has ended.
    #[error(
        "{CERTIFICATES}: it ended at {ended}, and here it is {now}. If this clock is right: \
         assay gateway enroll --name {name} --out {}",
        folder.display()
    )]
    Ended {
        /// When it ended.
        ended: Moment,
        /// What time it is here.
        now: Moment,
        /// Whose it is.
        name: String,
        /// The folder it is in.
        folder: PathBuf,
    },
    /// The certificate is somebody else's.
    #[error("{CERTIFICATES}: {id} is not a gateway")]
    NotAGateway {
        /// Whose it is.
        id: SpiffeId,
    },
    /// Certificate and key do not belong together, or TLS cannot use them.
    #[error("certificate and key cannot be used for TLS")]
    Tls(#[from] rustls::Error),
}

/// What the gateway shows, in both directions.
pub(crate) struct Credentials {
    /// Whose they are, and until when.
    pub(crate) own: VerifiedPeer,
    /// Towards devices.
    pub(crate) server: Arc<ServerConfig>,
    /// Towards servers.
    pub(crate) client: Arc<ClientConfig>,
    /// The authority that certified it, DER.
    issuer: Vec<u8>,
}

/// A chain, leaf first, and its key.
pub(crate) struct Pair {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKey,
}

/// The current [`Credentials`]; connections made from now on use what is current then.
pub(crate) struct CredentialSource {
    folder: PathBuf,
    trust_domain: TrustDomain,
    current: watch::Sender<Arc<Credentials>>,
    /// What devices are verified with, and servers before they carry anything.
    trust: Arc<TrustSource>,
    /// What servers are met with.
    meeting: Arc<TrustSource>,
    /// Whether peers may speak HTTP/1.1.
    http1: bool,
    ledger: LedgerMemory,
    clock: Clock,
}

impl CredentialSource {
    pub(crate) fn load(config: &Config, clock: &Clock) -> Result<Arc<Self>, CredentialsError> {
        let (folder, trust_domain) = (config.credentials.clone(), config.trust_domain.clone());
        let bundle = read_bundle(&folder, &trust_domain)?;
        let trust = TrustSource::new(Trust { bundle: bundle.clone(), crls: CrlSet::default() });
        let meeting = TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() });
        let http1 = config.json_protocol.is_some();
        let current = watch::Sender::new(Arc::new(read(&folder, (&trust, &meeting, http1), clock)?));
        let ledger = LedgerMemory::load(&folder);
        let clock = clock.clone();
        Ok(Arc::new(CredentialSource { folder, trust_domain, current, trust, meeting, http1, ledger, clock }))
    }

    pub(crate) fn current(&self) -> Arc<Credentials> {
        self.current.borrow().clone()
    }

    /// Word of every other [`Credentials`].
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Credentials>> {
        self.current.subscribe()
    }

    /// What time it is.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What an operator does when the certificate cannot be renewed.
    pub(crate) fn advice(&self) -> String {
        let current = self.current();
        let name = current.own.spiffe_id().path().rsplit('/').next().unwrap_or_default();
        format!("assay gateway enroll --name {name} --out {}", self.folder.display())
    }

    /// What devices are verified with.
    pub(crate) fn trust(&self) -> &Arc<TrustSource> {
        &self.trust
    }

    /// What the servers showed of their ledger.
    pub(crate) fn ledger(&self) -> &LedgerMemory {
        &self.ledger
    }

    /// The number of the revocation list in force; 0: there is none yet.
    pub(crate) fn list_number(&self) -> u64 {
        self.trust.current().crls.number()
    }

    /// Takes a newer list that the authority signed; an older one changes nothing.
    pub(crate) fn take_list(&self, der: &[u8]) -> Result<(), CrlError> {
        let (list, same) = (Crl::parse(der)?, Crl::parse(der)?);
        list.verify(&self.current().issuer)?;
        if list.number() > self.list_number() {
            let bundle = self.trust.current().bundle.clone();
            tracing::debug!(number = list.number(), "revocation list taken");
            self.trust.replace(Trust { bundle: bundle.clone(), crls: CrlSet::from(vec![list]) });
            self.meeting.replace(Trust { bundle, crls: CrlSet::bootstrapping_with(vec![same]) });
        }
        Ok(())
    }

    /// Uses a renewed pair from now on, and keeps it for the next start.
    pub(crate) fn renew(&self, pair: Pair) -> Result<(), CredentialsError> {
        let text = format!("{}{}", pair.key.to_pem(), pem_certificates(&pair.chain));
        let credentials = credentials(pair, (&self.trust, &self.meeting, self.http1), &self.clock)?;
        tracing::info!(id = %credentials.own.spiffe_id(), "certificate renewed");
        self.replace(credentials);
        write(&self.folder, text.as_bytes())
    }

    /// Looks at the files now and then; what cannot be used is logged, and the last good credentials stay.
    pub(crate) async fn keep_loaded(self: Arc<Self>) {
        let mut seen = modified(&self.folder);
        loop {
            self.clock.sleep(LOOK_INTERVAL).await;
            let found = modified(&self.folder);
            if found == seen {
                continue;
            }
            seen = found;
            match self.load_again() {
                Ok(credentials) => {
                    tracing::info!(id = %credentials.own.spiffe_id(), "credentials read again");
                    self.replace(credentials);
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "credentials kept"),
            }
        }
    }

    fn load_again(&self) -> Result<Credentials, CredentialsError> {
        let bundle = read_bundle(&self.folder, &self.trust_domain)?;
        if bundle.to_der() != self.trust.current().bundle.to_der() {
            // Other authorities have lists of their own.
            self.trust.replace(Trust { bundle: bundle.clone(), crls: CrlSet::default() });
            self.meeting.replace(Trust { bundle, crls: CrlSet::bootstrapping() });
        }
        read(&self.folder, (&self.trust, &self.meeting, self.http1), &self.clock)
    }

    fn replace(&self, credentials: Credentials) {
        self.current.send_replace(Arc::new(credentials));
    }
}

/// What verifies peers, what servers are met with, and whether peers may speak HTTP/1.1.
type Trusting<'a> = (&'a Arc<TrustSource>, &'a Arc<TrustSource>, bool);

/// Of the operator's pair and the renewed one, what can be used and ends later.
fn read(folder: &Path, trust: Trusting<'_>, clock: &Clock) -> Result<Credentials, CredentialsError> {
    let credentials = |pair: Pair| {
        let name = name(&pair.chain);
        credentials(pair, trust, clock).map_err(|error| match error {
            CredentialsError::Svid(SvidError::Ended { ended, now }) => {
                CredentialsError::Ended { ended, now, name, folder: folder.to_owned() }
            }
            error => error,
        })
    };
    let given = given(folder).and_then(credentials);
    let renewed = match renewed(folder) {
        Ok(Some(pair)) => credentials(pair).ok(),
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the renewed certificate is left out");
            None
        }
    };
    match (given, renewed) {
        (Ok(given), Some(renewed)) if given.own.not_after() >= renewed.own.not_after() => Ok(given),
        (_, Some(renewed)) => Ok(renewed),
        (given, None) => given,
    }
}

fn credentials(
    pair: Pair,
    (trust, meeting, http1): Trusting<'_>,
    clock: &Clock,
) -> Result<Credentials, CredentialsError> {
    let own = meeting.verify(&pair.chain, clock.unix_time()).map_err(CredentialsError::Svid)?;
    if !own.spiffe_id().is_gateway() {
        return Err(CredentialsError::NotAGateway { id: own.spiffe_id().clone() });
    }
    let issuer = pair.chain.get(1).cloned().ok_or(CredentialsError::Certificates)?;
    let certified = tls::certified_key(pair.chain, pair.key.pkcs8())?;
    let anybody = ClientIdentity::Optional(Arc::new(|_| true));
    let mut server = tls::server_config(certified.clone(), trust.clone(), anybody, clock.into())?;
    if http1 {
        server.alpn_protocols.push(b"http/1.1".to_vec());
    }
    let client =
        tls::client_config(Some(certified), meeting.clone(), Arc::new(SpiffeId::is_server), clock.into())?;
    let (server, client) = (Arc::new(server), Arc::new(client));
    Ok(Credentials { own, server, client, issuer })
}

/// The name of the gateway that a chain is for; it is believed by nobody.
fn name(chain: &[Vec<u8>]) -> String {
    let id = chain.first().and_then(|leaf| assay_identity::x509_svid::presented_id(leaf).ok());
    id.and_then(|id| id.path().rsplit('/').next().map(str::to_owned)).unwrap_or_default()
}

fn given(folder: &Path) -> Result<Pair, CredentialsError> {
    let chain = certificates(&file(folder, CERTIFICATES)?)?;
    Ok(Pair { chain, key: PrivateKey::from_pem(&private(folder, KEY)?)? })
}

fn renewed(folder: &Path) -> Result<Option<Pair>, CredentialsError> {
    let text = match private(folder, RENEWED) {
        Err(CredentialsError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        text => text?,
    };
    Ok(Some(Pair { chain: certificates(&text)?, key: PrivateKey::from_pem(&text)? }))
}

/// The certificates of a PEM text.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, CredentialsError> {
    CertificateDer::pem_slice_iter(pem)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| CredentialsError::Certificates)
}

fn read_bundle(folder: &Path, trust_domain: &TrustDomain) -> Result<Bundle, CredentialsError> {
    Ok(Bundle::from_pem(trust_domain.clone(), &file(folder, BUNDLE)?)?)
}

fn file(folder: &Path, name: &str) -> Result<Vec<u8>, CredentialsError> {
    let file = folder.join(name);
    std::fs::read(&file).map_err(|source| CredentialsError::Read { file, source })
}

/// A file that is for its owner and, where a secret is mounted, its group to read; one that others may read or write is
/// refused, as they may have.
fn private(folder: &Path, name: &str) -> Result<Vec<u8>, CredentialsError> {
    let contents = file(folder, name)?;
    let file = folder.join(name);
    let mode = std::fs::metadata(&file).map_or(0, |file| file.permissions().mode());
    if mode & 0o027 != 0 {
        return Err(CredentialsError::Open { file, mode: mode & 0o777 });
    }
    Ok(contents)
}

/// Key and certificate are one file, so that no crash leaves one without the other.
fn write(folder: &Path, text: &[u8]) -> Result<(), CredentialsError> {
    let (file, unfinished) = (folder.join(RENEWED), folder.join(UNFINISHED));
    let written = || {
        let mut options = std::fs::OpenOptions::new();
        let mut handle = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        handle.write_all(text)?;
        handle.sync_all()?;
        std::fs::rename(&unfinished, &file)?;
        std::fs::File::open(folder)?.sync_all()
    };
    written().map_err(|source| CredentialsError::Write { file: file.clone(), source })
}

fn modified(folder: &Path) -> [Option<SystemTime>; 4] {
    [CERTIFICATES, KEY, BUNDLE, RENEWED]
        .map(|name| std::fs::metadata(folder.join(name)).ok()?.modified().ok())
}

const CERTIFICATES: &str = "credentials.pem";
const KEY: &str = "key.pem";
const BUNDLE: &str = "bundle.pem";
const RENEWED: &str = "renewed.pem";
const UNFINISHED: &str = "renewed.pem.new";
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
