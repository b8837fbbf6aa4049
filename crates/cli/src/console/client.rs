//! The console's client: one TLS connection and one HTTP/1.1 request per call, the server checked by its SPIFFE ID.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, SpiffeId, TrustDomain};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// A console that answers.
pub struct Client {
    address: String,
    token: String,
    tls: tokio_rustls::TlsConnector,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client for the console at `address`, whose certificate must chain to `bundle_pem`.
    pub fn new(address: String, trust_domain: &str, bundle_pem: &str, token: String) -> Result<Self> {
        let trust_domain = TrustDomain::parse(trust_domain).context("trust domain")?;
        let server = SpiffeId::server(&trust_domain);
        let bundle = Bundle::from_pem(trust_domain, bundle_pem.as_bytes()).context("trust bundle")?;
        let trust = TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() });
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
