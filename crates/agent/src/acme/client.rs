//! One conversation with an authority: its directory, a nonce for each request, and answers that are bounded (RFC 8555, 6 and 7).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use assay_identity::PrivateKey;
use assay_identity::acme::{By, request};
use assay_identity::key::KeyError;
use http::uri::Uri;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The authority did not answer as one does.
#[derive(Debug, Error)]
pub enum AskError {
    /// No address of one.
    #[error("{0:?} is no address of an authority: give https://HOST/PATH")]
    Address(String),
    /// Nobody to recognise it by.
    #[error("{}: no certificate in it by which the authority's server could be recognised", .0.display())]
    Anchors(PathBuf),
    /// Not reached.
    #[error("{host} cannot be reached, or is not who it says it is (--ca names whom to believe): {source}")]
    Unreachable {
        /// Where.
        host: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not speak HTTP.
    #[error("the authority's server does not answer as HTTP does")]
    Http(#[from] hyper::Error),
    /// It does not answer.
    #[error("the authority's server does not answer within {WITHIN:?}")]
    Silent,
    /// It answers something else.
    #[error("what the authority's server sent is not what ACME has there: {0}")]
    Unreadable(&'static str),
    /// It said no.
    #[error("the authority's server answers {status}: {why}")]
    Problem {
        /// HTTP's word for it.
        status: StatusCode,
        /// In its words.
        why: String,
    },
    /// A request could not be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
}

/// An account's conversation with its authority.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    directory: Directory,
    key: PrivateKey,
    clock: Clock,
    account: Option<String>,
    nonce: Option<String>,
}

impl Client {
    /// Reads the directory.
    pub(super) async fn open(
        url: &str,
        anchors: &Path,
        key: PrivateKey,
        clock: Clock,
    ) -> Result<Client, AskError> {
        let none = || AskError::Anchors(anchors.to_owned());
        let pem = std::fs::read(anchors).map_err(|_| none())?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        if roots.is_empty() {
            return Err(none());
        }
        let tls = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        let answer = exchange(&tls, Method::GET, url, None).await?;
        let directory = read(&answer, "a directory")?;
        Ok(Client { tls, directory, key, clock, account: None, nonce: None })
    }

    /// Waits before something is asked again.
    pub(super) async fn pause(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// The account's key.
    pub(super) fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Where accounts are made.
    pub(super) fn account_address(&self) -> &str {
        &self.directory.new_account
    }

    /// Makes the account, or finds it.
    pub(super) async fn register(&mut self, agree: bool, binding: Option<Value>) -> Result<(), AskError> {
        let mut wanted = json!({});
        if agree {
            wanted["termsOfServiceAgreed"] = true.into();
        }
        if let Some(binding) = binding {
            wanted["externalAccountBinding"] = binding;
        }
        let url = self.directory.new_account.clone();
        let answer = self.ask(&url, &wanted.to_string()).await?;
        self.account = Some(location(&answer).ok_or(AskError::Unreadable("an account without an address"))?);
        Ok(())
    }

    /// Makes an order; with its address.
    pub(super) async fn new_order<T: DeserializeOwned>(
        &mut self,
        wanted: &Value,
    ) -> Result<(T, Option<String>), AskError> {
        let url = self.directory.new_order.clone();
        self.post(&url, &wanted.to_string()).await
    }

    /// Asks for something, with an empty payload for what is there; with the address of what was made.
    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        url: &str,
        payload: &str,
    ) -> Result<(T, Option<String>), AskError> {
        let answer = self.ask(url, payload).await?;
        Ok((read(&answer, "JSON")?, location(&answer)))
    }

    /// What is there, as text.
    pub(super) async fn text(&mut self, url: &str) -> Result<String, AskError> {
        let answer = self.ask(url, "").await?;
        String::from_utf8(answer.into_body().to_vec()).map_err(|_| AskError::Unreadable("text"))
    }

    /// An authority may call any nonce a bad one, and gives another with that.
    async fn ask(&mut self, url: &str, payload: &str) -> Result<Response<Bytes>, AskError> {
        let mut tries = 0;
        loop {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => self.fresh_nonce().await?,
            };
            let by = self.account.as_deref().map_or(By::Key, By::Account);
            let body = request(&self.key, by, (&nonce, url), payload)?;
            let answer = exchange(&self.tls, Method::POST, url, Some(body)).await?;
            self.nonce = replay_nonce(&answer);
            if answer.status().is_success() {
                return Ok(answer);
            }
            let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            tries += 1;
            let is_nonce = problem.get("type").and_then(Value::as_str) == Some(BAD_NONCE);
            if !is_nonce || tries >= NONCE_TRIES {
                let why = super::told(Some(&problem));
                return Err(AskError::Problem { status: answer.status(), why });
            }
        }
    }

    async fn fresh_nonce(&self) -> Result<String, AskError> {
        let answer = exchange(&self.tls, Method::HEAD, &self.directory.new_nonce, None).await?;
        replay_nonce(&answer).ok_or(AskError::Unreadable("a nonce"))
    }
}

/// One request on a connection of its own, within bounds of time and size.
async fn exchange(
    tls: &Arc<ClientConfig>,
    method: Method,
    url: &str,
    body: Option<String>,
) -> Result<Response<Bytes>, AskError> {
    timeout(WITHIN, exchange_slowly(tls, method, url, body)).await.map_err(|_| AskError::Silent)?
}

async fn exchange_slowly(
    tls: &Arc<ClientConfig>,
    method: Method,
    url: &str,
    body: Option<String>,
) -> Result<Response<Bytes>, AskError> {
    let no_address = || AskError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| no_address())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(no_address)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|_| no_address())?;
    let unreachable = |source| AskError::Unreachable { host: host.clone(), source };
    let port = authority.port_u16().unwrap_or(HTTPS_PORT);
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let ended = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::new(Bytes::from(body.clone().unwrap_or_default())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| no_address())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, authority.as_str().parse().map_err(|_| no_address())?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::VERSION));
    if body.is_some() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jose+json"));
    }
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| AskError::Unreadable("an answer of a few kilobytes"))?.to_bytes();
    ended.abort();
    Ok(Response::from_parts(head, body))
}

fn read<T: DeserializeOwned>(answer: &Response<Bytes>, what: &'static str) -> Result<T, AskError> {
    serde_json::from_slice(answer.body()).map_err(|_| AskError::Unreadable(what))
}

fn location(answer: &Response<Bytes>) -> Option<String> {
    Some(answer.headers().get(header::LOCATION)?.to_str().ok()?.to_owned())
}

fn replay_nonce(answer: &Response<Bytes>) -> Option<String> {
    Some(answer.headers().get("replay-nonce")?.to_str().ok()?.to_owned())
}

const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
const NONCE_TRIES: u32 = 5;
const HTTPS_PORT: u16 = 443;
/// A chain of RSA certificates has some ten kilobytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
const WITHIN: Duration = Duration::from_secs(30);
