//! The console's client: one TLS connection and one HTTP/1.1 request per call, the server checked by its SPIFFE ID.
//!
//! Where the server is and who the operator is come from the server's data folder unless they are given.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, SpiffeId, TrustDomain};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// How to reach the console.
#[derive(clap::Args, Clone, Debug)]
pub struct Console {
    /// The server's data folder; address, bundle and token are read from it unless given.
    #[arg(long, env = "ASSAY_DATA", default_value = "assay-data", global = true)]
    pub data: PathBuf,
    /// Address of the console, such as 127.0.0.1:8445.
    #[arg(long, env = "ASSAY_CONSOLE", global = true)]
    pub console: Option<String>,
    /// The trust bundle in PEM.
    #[arg(long, env = "ASSAY_BUNDLE", global = true)]
    pub bundle: Option<PathBuf>,
    /// File with the operator's token.
    #[arg(long, env = "ASSAY_TOKEN_FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// The trust domain.
    #[arg(long, env = "ASSAY_TRUST_DOMAIN", global = true)]
    pub trust_domain: Option<String>,
}

/// What every verb that asks the console takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Asking {
    #[command(flatten)]
    pub console: Console,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// A console that answers.
pub struct Client {
    address: String,
    token: String,
    tls: tokio_rustls::TlsConnector,
    runtime: tokio::runtime::Runtime,
}

impl Console {
    /// Reads address, bundle and token, and makes a client of them.
    pub fn client(&self) -> Result<Client> {
        let addresses = self.addresses();
        let address = match (&self.console, &addresses) {
            (Some(address), _) => address.trim_start_matches("https://").trim_end_matches('/').to_owned(),
            (None, Some(addresses)) => addresses
                .get("console")
                .and_then(Value::as_str)
                .context("addresses.json of the data folder names no console")?
                .to_owned(),
            (None, None) => "127.0.0.1:8445".to_owned(),
        };
        let bundle_file = self.bundle.clone().unwrap_or_else(|| self.data.join("bundle.pem"));
        let pem = std::fs::read_to_string(&bundle_file).with_context(|| {
            format!("{}: no trust bundle; name the server's data folder with --data", bundle_file.display())
        })?;
        let trust_domain = match (&self.trust_domain, &addresses) {
            (Some(name), _) => name.clone(),
            (None, Some(addresses)) => addresses
                .get("trust_domain")
                .and_then(Value::as_str)
                .context("addresses.json names no trust domain")?
                .to_owned(),
            (None, None) => {
                bail!("which trust domain? say --trust-domain, or --data with the server's folder")
            }
        };
        let token_file = self.token_file.clone().unwrap_or_else(|| self.data.join("operator.token"));
        let token = std::fs::read_to_string(&token_file)
            .with_context(|| format!("{}: no operator token", token_file.display()))?
            .trim()
            .to_owned();
        Client::new(address, &trust_domain, &pem, token)
    }

    fn addresses(&self) -> Option<Value> {
        let text = std::fs::read(self.data.join("addresses.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

impl Client {
    /// A client for the console at `address`, whose certificate must chain to `bundle_pem`.
    pub fn new(address: String, trust_domain: &str, bundle_pem: &str, token: String) -> Result<Self> {
        let trust_domain = TrustDomain::parse(trust_domain).context("trust domain")?;
        let server = SpiffeId::server(&trust_domain);
        let bundle = Bundle::from_pem(trust_domain, bundle_pem.as_bytes()).context("trust bundle")?;
        let trust = TrustSource::new(Trust { bundle, crls: CrlSet::default() });
        let mut config = tls::client_config(None, trust, Arc::new(move |id| *id == server))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Client { address, token, tls: tokio_rustls::TlsConnector::from(Arc::new(config)), runtime })
    }

    /// GETs JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, "application/json", Vec::new())
    }

    /// POSTs JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::POST, path, "application/json", body.to_string().into_bytes())
    }

    /// PUTs text as it is.
    pub fn put_text(&self, path: &str, body: String) -> Result<Value> {
        self.json(Method::PUT, path, "text/plain; charset=utf-8", body.into_bytes())
    }

    /// POSTs text as it is.
    pub fn post_text(&self, path: &str, body: String) -> Result<Value> {
        self.json(Method::POST, path, "text/plain; charset=utf-8", body.into_bytes())
    }

    /// POSTs text and hands on each line of JSON of the answer as it comes; the work may take long, but not in
    /// silence.
    pub fn post_for_lines(
        &self,
        path: &str,
        body: String,
        mut each: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        self.runtime.block_on(async {
            let body = body.into_bytes();
            let response =
                within(self.send(Method::POST, path, "text/plain; charset=utf-8", body), &self.address)
                    .await?;
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
                    each(serde_json::from_slice(&unread).context("the console's answer is not JSON")?)?;
                    unread = rest;
                }
            }
            if status.is_success() { Ok(()) } else { Err(refusal(status, &unread)) }
        })
    }

    /// DELETEs.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.json(Method::DELETE, path, "application/json", Vec::new())
    }

    /// GETs bytes, such as the CRL.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let (status, body) =
            self.runtime.block_on(self.request(Method::GET, path, "application/json", Vec::new()))?;
        if status.is_success() { Ok(body.to_vec()) } else { Err(refusal(status, &body)) }
    }

    fn json(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Result<Value> {
        let (status, body) = self.runtime.block_on(self.request(method, path, content_type, body))?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).context("the console's answer is not JSON")
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes)> {
        let answer = async {
            let response = self.send(method, path, content_type, body).await?;
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
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let unreachable = || format!("console at {}: is the server running?", self.address);
        let tcp = tokio::net::TcpStream::connect(&self.address).await.with_context(unreachable)?;
        // The name is of no account: the server is known by its SPIFFE ID.
        let name = "assay.invalid".try_into()?;
        let tls = self.tls.connect(name, tcp).await.with_context(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))?;
        sender.send_request(request).await.with_context(unreachable)
    }
}

async fn within<T>(answer: impl Future<Output = Result<T>>, address: &str) -> Result<T> {
    tokio::time::timeout(ANSWER_WITHIN, answer)
        .await
        .map_err(|_| anyhow!("console at {address}: no answer within {ANSWER_WITHIN:?}"))?
}

/// `id` as one path segment.
pub fn segment(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Reads a text file a person wrote, within a bound.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    if size > bytes_max {
        bail!("{}: {size} bytes, more than the {bytes_max} that are accepted", path.display());
    }
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|value| Some(value.get("error")?.get("message")?.as_str()?.to_owned()));
    match message {
        Some(message) => anyhow!("{message} ({})", status.as_u16()),
        None => anyhow!("the console answered {status}"),
    }
}

/// A fleet of 100,000 devices listed whole stays below it, and so does the longest IMA list in base64.
const ANSWER_BYTES_MAX: usize = 96 << 20;
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("a/../b?c#d"), "a%2F..%2Fb%3Fc%23d");
        assert_eq!(segment("edge-1.site_2~x"), "edge-1.site_2~x");
    }
}
