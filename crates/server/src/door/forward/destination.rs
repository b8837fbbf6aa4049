//! Where telemetry goes, as it is configured.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderValue;
use rustls::ClientConfig;
use serde::Deserialize;
use thiserror::Error;

use crate::door::outward::{Place, Url, anchors, is_name};
use crate::keys::{FileError, read_secret};

/// A destination, as the configuration has it.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// What it is called in logs, metrics and the queue. Under another name it starts with an empty queue.
    pub name: String,
    /// Its OTLP over HTTP, such as `http://127.0.0.1:4318`; `/v1/metrics` and the like are put behind it.
    pub endpoint: String,
    /// Certificates that it is recognised by, PEM; needed with https.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A file with a bearer token for it.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

/// A destination that can be spoken to.
#[derive(Debug)]
pub struct Destination {
    name: String,
    pub(super) place: Place,
    pub(super) path: String,
    pub(super) authorization: Option<HeaderValue>,
}

/// A destination cannot be used as it is configured.
#[derive(Debug, Error)]
pub enum DestinationError {
    /// Its name is none.
    #[error("forward: {name:?} is no name: 1 to 32 of a-z, 0-9 and -, each once")]
    Name {
        /// What there is.
        name: String,
    },
    /// Its endpoint is none.
    #[error("forward {name}: {endpoint:?} is neither http://HOST:PORT nor https://HOST:PORT")]
    Endpoint {
        /// Whose.
        name: String,
        /// What there is.
        endpoint: String,
    },
    /// https without anybody to trust.
    #[error("forward {name}: https needs ca, the certificates that the endpoint is recognised by")]
    NoAnchors {
        /// Whose.
        name: String,
    },
    /// A file cannot be read.
    #[error("forward {name}: {} cannot be read", path.display())]
    File {
        /// Whose.
        name: String,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A token is not there, or others may have read it.
    #[error("forward {name}: {why}")]
    Private {
        /// Whose.
        name: String,
        /// Which, and why.
        why: FileError,
    },
    /// A file has no certificate, or no token, in it.
    #[error("forward {name}: {} has nothing in it that could be used", path.display())]
    Content {
        /// Whose.
        name: String,
        /// Which.
        path: PathBuf,
    },
}

impl Destination {
    /// Reads what it needs.
    pub(crate) fn load(config: &ForwardConfig) -> Result<Destination, DestinationError> {
        let name = config.name.clone();
        if !is_name(&name) {
            return Err(DestinationError::Name { name });
        }
        let bad = || DestinationError::Endpoint { name: name.clone(), endpoint: config.endpoint.clone() };
        let Url { host, port, is_https, path } = Url::read(&config.endpoint).ok_or_else(bad)?;
        let port = port.unwrap_or(if is_https { 443 } else { 4318 });
        let path = path.path().trim_end_matches('/').to_owned();
        let tls = if is_https { Some(tls(config)?) } else { None };
        let authorization = config.token_file.as_ref().map(|path| authorization(config, path)).transpose()?;
        Ok(Destination { name, place: Place { host, port, tls }, path, authorization })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn read(config: &ForwardConfig, path: &Path) -> Result<Vec<u8>, DestinationError> {
    let (name, path) = (config.name.clone(), path.to_owned());
    std::fs::read(&path).map_err(|source| DestinationError::File { name, path, source })
}

fn tls(config: &ForwardConfig) -> Result<Arc<ClientConfig>, DestinationError> {
    let path = config.ca.as_ref().ok_or_else(|| DestinationError::NoAnchors { name: config.name.clone() })?;
    let nobody = || DestinationError::Content { name: config.name.clone(), path: path.to_owned() };
    let anchors = anchors(&read(config, path)?).ok_or_else(nobody)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(anchors).with_no_client_auth()))
}

fn authorization(config: &ForwardConfig, path: &Path) -> Result<HeaderValue, DestinationError> {
    let unusable = || DestinationError::Content { name: config.name.clone(), path: path.to_owned() };
    let private = |why| DestinationError::Private { name: config.name.clone(), why };
    let token = String::from_utf8(read_secret(path).map_err(private)?).map_err(|_| unusable())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| unusable())?;
    if token.trim().is_empty() {
        return Err(unusable());
    }
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_spoken_to_is_refused_with_the_reason() {
        let check = |name: &str, endpoint: &str, says: &str| {
            let config =
                ForwardConfig { name: name.into(), endpoint: endpoint.into(), ca: None, token_file: None };
            let error = Destination::load(&config).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        check("", "http://a:1", "no name");
        check("Sink", "http://a:1", "no name");
        check("sink", "ftp://a:1", "neither http://");
        check("sink", "a:1", "neither http://");
        check("sink", "https://a:1", "needs ca");
        let config = ForwardConfig {
            name: "sink".into(),
            endpoint: "http://sink.example/otlp/".into(),
            ca: None,
            token_file: None,
        };
        let loaded = Destination::load(&config).unwrap();
        assert_eq!(
            (loaded.place.host.as_str(), loaded.place.port, loaded.path.as_str()),
            ("sink.example", 4318, "/otlp")
        );
    }
}
