//! Who is told what, as it is configured.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use thiserror::Error;

use crate::audit::{Kind, Leaf};
use crate::door::outward::{Place, Url, anchors, is_name};
use crate::keys::{FileError, read_secret};
use crate::notice::{NoKey, NoticeKey, Severity};

/// A receiver of notices, as the configuration has it.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// What it is called in logs, metrics and by `assay webhook`. Under another name it starts with what comes next.
    pub name: String,
    /// Where notices are sent, such as `https://soc.example/assay`.
    pub url: String,
    /// Certificates that it is recognised by, PEM; needed with https.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A file with the secret that notices are signed with: `whsec_` and 24 to 64 random bytes in Base64.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The certificate, and those above it, that is shown to it, PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// What is graver than this or as grave is sent: `info`, `notice`, `warning` or `critical`.
    #[serde(default)]
    pub severity: Severity,
    /// Kinds of leaves, such as `device.revoked` or `device.*`; empty: all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// How old a notice may become while the receiver does not take it, before it is a dead letter.
    #[serde(default = "give_up_default")]
    pub give_up_after_seconds: u64,
}

/// A receiver that can be spoken to.
#[derive(Debug)]
pub struct Receiver {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) place: Place,
    /// Path and query.
    pub(super) path: Uri,
    pub(super) key: Option<NoticeKey>,
    pub(super) give_up_after_seconds: u64,
    severity: Severity,
    kinds: Vec<String>,
}

/// A receiver cannot be used as it is configured.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// Its name is none.
    #[error("webhook: {name:?} is no name: 1 to 32 of a-z, 0-9 and -, each once")]
    Name {
        /// What there is.
        name: String,
    },
    /// Its URL is none.
    #[error("webhook {name}: {url:?} is neither http://HOST:PORT/PATH nor https://HOST/PATH")]
    Url {
        /// Whose.
        name: String,
        /// What there is.
        url: String,
    },
    /// https without anybody to trust.
    #[error("webhook {name}: https needs ca, the certificates that the receiver is recognised by")]
    NoAnchors {
        /// Whose.
        name: String,
    },
    /// A receiver could not know who speaks.
    #[error(
        "webhook {name}: say secret_file, or certificate and key: otherwise anybody can send it notices in our name"
    )]
    Unsigned {
        /// Whose.
        name: String,
    },
    /// A client certificate goes with its key, and with TLS.
    #[error("webhook {name}: certificate and key go together, and with https")]
    HalfAnIdentity {
        /// Whose.
        name: String,
    },
    /// A pattern means no kind of leaf.
    #[error(
        "webhook {name}: there is no kind {kind:?}: docs/howto/webhooks.md has them all, and device.* means every one of devices"
    )]
    Kind {
        /// Whose.
        name: String,
        /// What there is.
        kind: String,
    },
    /// The secret is none.
    #[error("webhook {name}: {}: the secret {source}", path.display())]
    Secret {
        /// Whose.
        name: String,
        /// Which.
        path: PathBuf,
        /// Why.
        source: NoKey,
    },
    /// A file cannot be read.
    #[error("webhook {name}: {} cannot be read", path.display())]
    File {
        /// Whose.
        name: String,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A secret is not there, or others may have read it.
    #[error("webhook {name}: {why}")]
    Private {
        /// Whose.
        name: String,
        /// Which, and why.
        why: FileError,
    },
    /// A file has nothing in it that could be used.
    #[error("webhook {name}: {} has nothing in it that could be used", path.display())]
    Content {
        /// Whose.
        name: String,
        /// Which.
        path: PathBuf,
    },
}

impl Receiver {
    /// Reads what it needs.
    pub(crate) fn load(config: &WebhookConfig) -> Result<Receiver, WebhookError> {
        let name = config.name.clone();
        if !is_name(&name) {
            return Err(WebhookError::Name { name });
        }
        let bad = || WebhookError::Url { name: name.clone(), url: config.url.clone() };
        let Url { host, port, is_https, path } = Url::read(&config.url).ok_or_else(bad)?;
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        if !is_https && (config.certificate.is_some() || config.key.is_some()) {
            return Err(WebhookError::HalfAnIdentity { name });
        }
        if let Some(kind) = config.kinds.iter().find(|kind| !means_something(kind)) {
            return Err(WebhookError::Kind { name, kind: kind.clone() });
        }
        let key = config.secret_file.as_ref().map(|path| secret(config, path)).transpose()?;
        if key.is_none() && config.certificate.is_none() {
            return Err(WebhookError::Unsigned { name });
        }
        let tls = if is_https { Some(tls(config)?) } else { None };
        Ok(Receiver {
            name,
            url: config.url.clone(),
            place: Place { host, port, tls },
            path: path.into(),
            key,
            give_up_after_seconds: config.give_up_after_seconds,
            severity: config.severity,
            kinds: config.kinds.clone(),
        })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How grave a leaf is, if it is to be told of it.
    pub(super) fn wants(&self, leaf: &Leaf) -> Option<Severity> {
        let is_meant = self.kinds.is_empty() || self.kinds.iter().any(|kind| means(kind, &leaf.kind));
        let severity = Severity::of(leaf);
        (is_meant && severity >= self.severity).then_some(severity)
    }
}

/// `device.*`, or a kind itself.
fn means(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => kind.starts_with(beginning),
        None => pattern == kind,
    }
}

fn means_something(pattern: &str) -> bool {
    Kind::ALL.iter().any(|kind| means(pattern, kind.name()))
}

fn read(config: &WebhookConfig, path: &Path) -> Result<Vec<u8>, WebhookError> {
    let (name, path) = (config.name.clone(), path.to_owned());
    std::fs::read(&path).map_err(|source| WebhookError::File { name, path, source })
}

fn unusable(config: &WebhookConfig, path: &Path) -> WebhookError {
    WebhookError::Content { name: config.name.clone(), path: path.to_owned() }
}

fn private(config: &WebhookConfig, path: &Path) -> Result<Vec<u8>, WebhookError> {
    read_secret(path).map_err(|why| WebhookError::Private { name: config.name.clone(), why })
}

fn secret(config: &WebhookConfig, path: &Path) -> Result<NoticeKey, WebhookError> {
    let text = String::from_utf8(private(config, path)?).map_err(|_| unusable(config, path))?;
    let (name, path) = (config.name.clone(), path.to_owned());
    NoticeKey::read(&text).map_err(|source| WebhookError::Secret { name, path, source })
}

fn tls(config: &WebhookConfig) -> Result<Arc<ClientConfig>, WebhookError> {
    let path = config.ca.as_ref().ok_or_else(|| WebhookError::NoAnchors { name: config.name.clone() })?;
    let anchors = anchors(&read(config, path)?).ok_or_else(|| unusable(config, path))?;
    let client = ClientConfig::builder().with_root_certificates(anchors);
    let client = match (&config.certificate, &config.key) {
        (None, None) => client.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&read(config, certificate)?).flatten().collect();
            let secret = PrivateKeyDer::from_pem_slice(&private(config, key)?);
            let secret = secret.map_err(|_| unusable(config, key))?;
            client.with_client_auth_cert(chain, secret).map_err(|_| unusable(config, certificate))?
        }
        _ => return Err(WebhookError::HalfAnIdentity { name: config.name.clone() }),
    };
    Ok(Arc::new(client))
}

fn give_up_default() -> u64 {
    24 * 3600
}
