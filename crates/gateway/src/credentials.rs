//! The gateway's own SVID and bundle, read again when their files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use assay_identity::bundle::BundleError;
use assay_identity::key::KeyError;
use assay_identity::tls::{self, ClientIdentity, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, PrivateKey, SpiffeId, SvidError, TrustDomain, UnixTime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;

use crate::config::Config;

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
    Svid(#[from] SvidError),
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

/// What the gateway shows and trusts, in both directions.
pub(crate) struct Credentials {
    pub(crate) id: SpiffeId,
    pub(crate) not_after: UnixTime,
    /// Towards devices.
    pub(crate) server: Arc<ServerConfig>,
    /// Towards servers.
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) trust: Arc<TrustSource>,
}

/// The current [`Credentials`]; connections made from now on use what is current then.
pub(crate) struct CredentialSource {
    folder: PathBuf,
    trust_domain: TrustDomain,
    current: RwLock<Arc<Credentials>>,
}

impl CredentialSource {
    pub(crate) fn load(config: &Config) -> Result<Arc<Self>, CredentialsError> {
        let folder = config.credentials.clone();
        let trust_domain = config.trust_domain.clone();
        let current = RwLock::new(Arc::new(read(&folder, &trust_domain)?));
        Ok(Arc::new(CredentialSource { folder, trust_domain, current }))
    }

    pub(crate) fn current(&self) -> Arc<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files now and then; what cannot be used is logged, and the last good credentials stay.
    pub(crate) async fn keep_loaded(self: Arc<Self>) {
        let mut seen = modified(&self.folder);
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let found = modified(&self.folder);
            if found == seen {
                continue;
            }
            seen = found;
            match read(&self.folder, &self.trust_domain) {
                Ok(credentials) => {
                    tracing::info!(id = %credentials.id, "credentials read again");
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
                }
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "credentials kept"),
            }
        }
    }
}

fn read(folder: &Path, trust_domain: &TrustDomain) -> Result<Credentials, CredentialsError> {
    let chain: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&file(folder, CERTIFICATES)?)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| CredentialsError::Certificates)?;
    let key = PrivateKey::from_pem(&file(folder, KEY)?)?;
    let bundle = Bundle::from_pem(trust_domain.clone(), &file(folder, BUNDLE)?)?;
    let trust = TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() });

    let own = trust.verify(&chain, UnixTime::now())?;
    let id = own.spiffe_id().clone();
    if !id.is_gateway() {
        return Err(CredentialsError::NotAGateway { id });
    }
    let certified = tls::certified_key(chain, key.pkcs8())?;
    let anybody = ClientIdentity::Optional(Arc::new(|_| true));
    let server = tls::server_config(certified.clone(), trust.clone(), anybody)?;
    let client = tls::client_config(Some(certified), trust.clone(), Arc::new(SpiffeId::is_server))?;
    let (server, client) = (Arc::new(server), Arc::new(client));
    Ok(Credentials { id, not_after: own.not_after(), server, client, trust })
}

fn file(folder: &Path, name: &str) -> Result<Vec<u8>, CredentialsError> {
    let file = folder.join(name);
    std::fs::read(&file).map_err(|source| CredentialsError::Read { file, source })
}

fn modified(folder: &Path) -> [Option<SystemTime>; 3] {
    [CERTIFICATES, KEY, BUNDLE].map(|name| std::fs::metadata(folder.join(name)).ok()?.modified().ok())
}

const CERTIFICATES: &str = "credentials.pem";
const KEY: &str = "key.pem";
const BUNDLE: &str = "bundle.pem";
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
