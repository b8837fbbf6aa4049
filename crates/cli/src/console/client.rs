//! The console's client: one connection and one HTTP/1.1 request per call. Over TLS the server is checked by its SPIFFE ID,
//! and by its authority's revocation list before it is told the token; over the operator's socket it is whoever has the
//! data folder.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use assay_clock::Clock;
use assay_identity::crl::CRL_BYTES_MAX;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, SpiffeId, TrustDomain, verify_svid};
use assay_wire::console;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::failure::{Refused, Unreachable};

/// A console that answers.
pub struct Client {
    way: Way,
    /// For people, and the request's host.
    address: String,
    token: String,
    runtime: tokio::runtime::Runtime,
}

/// How the console is reached.
enum Way {
    /// The operator's socket in the server's data folder.
    Socket(PathBuf),
    /// TLS, and what verifies who is there.
    Tls { bundle: Arc<Bundle>, connector: tokio_rustls::TlsConnector },
}

type Sender = http1::SendRequest<Full<Bytes>>;

impl Client {
    /// A client for the console at `address`, whose certificate must chain to `bundle_pem`.
    pub fn new(address: String, trust_domain: &str, bundle_pem: &str, token: String) -> Result<Self> {
        let trust_domain = TrustDomain::parse(trust_domain).context("trust domain")?;
        let server = SpiffeId::server(&trust_domain);
        let bundle = Bundle::from_pem(trust_domain, bundle_pem.as_bytes()).context("trust bundle")?;
        // The list comes over the connection itself: see `check`.
        let trust = TrustSource::new(Trust { bundle: bundle.clone(), crls: CrlSet::bootstrapping() });
        let mut config =
            tls::client_config(None, trust, Arc::new(move |id| *id == server), (&Clock::system()).into())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Ok(Client {
            way: Way::Tls { bundle: Arc::new(bundle), connector },
            address,
            token,
            runtime: runtime()?,
        })
    }

    /// A client for the console behind the operator's socket.
    pub fn local(socket: PathBuf, token: String) -> Result<Self> {
        let address = "operator.invalid".to_owned();
        Ok(Client { way: Way::Socket(socket), address, token, runtime: runtime()? })
    }

    /// GETs JSON.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(Method::GET, path, "application/json", Vec::new())
    }

    /// POSTs JSON.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(Method::POST, path, "application/json", serde_json::to_vec(body)?)
    }

    /// POSTs JSON that is signed by these headers: status and answer, which may be a refusal.
    pub fn post_signed(&self, path: &str, headers: Vec<(&str, &str)>, body: &[u8]) -> Result<(u16, Value)> {
        let content_type = [(header::CONTENT_TYPE.as_str(), "application/json")];
        let headers: Vec<_> = content_type.into_iter().chain(headers).collect();
        let request = self.request_with(Method::POST, path, &headers, body.to_vec());
        let (status, body) = self.runtime.block_on(request)?;
        Ok((status.as_u16(), serde_json::from_slice(&body).context("the console's answer is not JSON")?))
    }

    /// PUTs JSON.
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(Method::PUT, path, "application/json", serde_json::to_vec(body)?)
    }

    /// PUTs text as it is.
    pub fn put_text<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T> {
        self.json(Method::PUT, path, "text/plain; charset=utf-8", body.into_bytes())
    }

    /// POSTs text as it is.
    pub fn post_text<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T> {
        self.json(Method::POST, path, "text/plain; charset=utf-8", body.into_bytes())
    }

    /// POSTs text and hands on each line of JSON of the answer as it comes; the work may take long, but not in
    /// silence.
    pub fn post_for_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        body: String,
        mut each: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        self.runtime.block_on(async {
            let body = body.into_bytes();
            let text = [(header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8")];
            let response = within(self.send(Method::POST, path, &text, body), &self.address).await?;
            let status = response.status();
            let mut body = response.into_body();
            let mut unread: Vec<u8> = Vec::new();
            while let Some(frame) = within(async { Ok(body.frame().await) }, &self.address).await? {
                let frame = frame.context("the console's answer broke off")?;
                unread.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
                if unread.len() > ANSWER_BYTES_MAX {
                    bail!("the console's answer is too long");
                }
                while let Some(end) =
                    unread.iter().position(|byte| *byte == b'\n').filter(|_| status.is_success())
                {
                    let rest = unread.split_off(end + 1);
                    each(read(&unread)?)?;
                    unread = rest;
                }
            }
            if status.is_success() { Ok(()) } else { Err(refusal(status, &unread)) }
        })
    }

    /// Lets a while pass.
    pub fn pause(&self, clock: &Clock, duration: std::time::Duration) {
        self.runtime.block_on(clock.sleep(duration));
    }

    /// DELETEs.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(Method::DELETE, path, "application/json", Vec::new())
    }

    /// GETs bytes, such as the CRL.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let (status, body) =
            self.runtime.block_on(self.request(Method::GET, path, "application/json", Vec::new()))?;
        if status.is_success() { Ok(body.to_vec()) } else { Err(refusal(status, &body)) }
    }

    fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<T> {
        let (status, body) = self.runtime.block_on(self.request(method, path, content_type, body))?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        read(&body)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes)> {
        let headers = [(header::CONTENT_TYPE.as_str(), content_type)];
        self.request_with(method, path, &headers, body).await
    }

    async fn request_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes)> {
        let answer = async {
            let response = self.send(method, path, headers, body).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| anyhow!("the console's answer broke off: {error}"))?
                .to_bytes();
            Ok((status, body))
        };
        within(answer, &self.address).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let unreachable = || self.unreachable("is the server running?");
        let mut sender = self.connect().await.with_context(unreachable)?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(Full::new(Bytes::from(body)))?).await.with_context(unreachable)
    }
}

impl Client {
    fn unreachable(&self, what: &'static str) -> Unreachable {
        Unreachable { address: self.address.clone(), what }
    }

    async fn connect(&self) -> Result<Sender> {
        match &self.way {
            Way::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path)
                    .await
                    .with_context(|| path.display().to_string())?;
                Ok(speak(stream).await?)
            }
            Way::Tls { bundle, connector } => {
                let tcp = tokio::net::TcpStream::connect(&self.address).await?;
                // The name is of no account: the server is known by its SPIFFE ID.
                let tls = connector.connect("assay.invalid".try_into()?, tcp).await?;
                let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
                let chain: Vec<Vec<u8>> = shown.iter().map(|der| der.to_vec()).collect();
                let mut sender = speak(tls).await?;
                self.check(&mut sender, &chain, bundle).await?;
                Ok(sender)
            }
        }
    }

    /// Looks the server's certificate up in its authority's list, which anyone may carry: here, the server itself.
    async fn check(&self, sender: &mut Sender, chain: &[Vec<u8>], bundle: &Bundle) -> Result<()> {
        let request =
            Request::get("/crl").header(header::HOST, &self.address).body(Full::new(Bytes::new()))?;
        let answer = sender.send_request(request).await?;
        let list = Limited::new(answer.into_body(), CRL_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| anyhow!("the revocation list broke off: {error}"))?
            .to_bytes();
        let lists = CrlSet::from_der([&list]).context("the revocation list")?;
        verify_svid(chain, bundle, &lists, Clock::system().unix_time())
            .context("the server's certificate")?;
        sender.ready().await.context("the console closed the connection")
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn within<T>(answer: impl Future<Output = Result<T>>, address: &str) -> Result<T> {
    tokio::time::timeout(ANSWER_WITHIN, answer)
        .await
        .map_err(|_| Unreachable { address: address.to_owned(), what: "no answer within 30 seconds" })?
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).context("the console's answer is not what this version of assay reads")
}

fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let said = serde_json::from_slice(body).map(|console::Refused { error }| error);
    let console::Refusal { code, message } = said.unwrap_or_else(|_| console::Refusal {
        code: "refused".to_owned(),
        message: "the console says no more".to_owned(),
    });
    anyhow::Error::new(Refused { status, code, message })
}

/// A fleet of 100,000 devices listed whole stays below it, and so does the longest IMA list in base64.
const ANSWER_BYTES_MAX: usize = 96 << 20;
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);
