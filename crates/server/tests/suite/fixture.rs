//! A server on free ports with a maker it trusts, an operator's client, and devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use assay_clock::Clock;
use assay_evidence::tpm::banks::BankStatement;
use assay_evidence::verify::{Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, PrivateKey, TrustDomain, csr};
use assay_server::{Config, Running, StartError};
use assay_testkit::edge::protocol::{Challenge, PcrSelection, Verdict};
use assay_testkit::edge::{Attachment, Door, Edge, EdgeError, Grants};
use assay_testkit::{EkMaker, SoftwareDevice};
use assay_wire::pcr::values_from_wire;
use axum::body::Body;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{HeaderMap, Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tower::ServiceExt;

pub const TRUST_DOMAIN: &str = "test.assay.example";

pub struct Fixture {
    _folder: TempDir,
    pub maker: EkMaker,
    config: Config,
    running: Option<Running>,
}

impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Fixture {
        Fixture::try_with(change).await.unwrap()
    }

    /// Or why the server does not start.
    pub async fn try_with(change: impl FnOnce(&mut Config)) -> Result<Fixture, String> {
        let folder = TempDir::new().unwrap();
        let maker = EkMaker::new().unwrap();
        std::fs::write(folder.path().join("maker.pem"), maker.root_ca_pem()).unwrap();
        let mut config = Config {
            data: folder.path().join("data"),
            trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
            edge: ([127, 0, 0, 1], 0).into(),
            console: ([127, 0, 0, 1], 0).into(),
            ek_anchors: vec![folder.path().join("maker.pem")],
            attest_interval_seconds: 3600,
            ..Config::default()
        };
        change(&mut config);
        let running = Running::start(config.clone()).await.map_err(|error| error.to_string())?;
        Ok(Fixture { _folder: folder, maker, config, running: Some(running) })
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub async fn restart(&mut self) {
        if self.running.is_some() {
            self.stop().await;
        }
        self.running = Some(Running::start(self.config.clone()).await.unwrap());
    }

    /// Starts a server that was stopped, if it does.
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        self.running = Some(Running::start(self.config.clone()).await?);
        Ok(())
    }

    /// Stops the server and says whether it starts with another configuration.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), StartError> {
        self.stop().await;
        change(&mut self.config);
        self.running = Some(Running::start(self.config.clone()).await?);
        Ok(())
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// What the server is configured with.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// The folder with what the server is configured with.
    pub fn folder(&self) -> &std::path::Path {
        self._folder.path()
    }

    pub fn data(&self) -> &std::path::Path {
        &self.config.data
    }

    /// Changes the database behind the server's back; it must not run.
    pub async fn tamper(&self, sql: &'static str) {
        let options =
            SqliteConnectOptions::new().filename(self.config.data.join("assay.db")).foreign_keys(false);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// A number `n` out of the database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        let options = SqliteConnectOptions::new().filename(self.config.data.join("assay.db")).read_only(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::query(sql).fetch_one(&mut connection).await.unwrap().get("n")
    }

    /// A text `n` out of the database.
    pub async fn text(&self, sql: &'static str) -> String {
        let options = SqliteConnectOptions::new().filename(self.config.data.join("assay.db")).read_only(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::query(sql).fetch_one(&mut connection).await.unwrap().get("n")
    }

    /// Changes the database behind the server's back while it runs.
    pub async fn tamper_running(&self, sql: String) {
        let options =
            SqliteConnectOptions::new().filename(self.config.data.join("assay.db")).foreign_keys(false);
        let mut connection = options.busy_timeout(Duration::from_secs(5)).connect().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// One request of an operator within this task: dropped, its handler is dropped where it waits.
    pub fn ask(&self, method: Method, path: &str, bearer: &str, body: String) -> impl Future<Output = u16> {
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer);
        let response = self.running().console().oneshot(request.body(Body::from(body)).unwrap());
        async { response.await.unwrap().status().as_u16() }
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.data().join("operator.token")).unwrap().trim().to_owned()
    }

    pub fn bundle(&self) -> Bundle {
        let pem = std::fs::read(self.data().join("bundle.pem")).unwrap();
        Bundle::from_pem(self.config.trust_domain.clone(), &pem).unwrap()
    }

    pub fn device(&self, name: &str) -> SoftwareDevice {
        SoftwareDevice::new(name, &self.maker).unwrap()
    }

    /// A way to the edge, as a gateway has it.
    pub async fn edge(&self) -> Edge {
        Edge::connect(&self.door("edge-1").await).await.unwrap()
    }

    pub async fn door(&self, gateway: &str) -> Door {
        let key = PrivateKey::generate().unwrap();
        let request = json!({ "name": gateway, "csr": BASE64.encode(&csr::request(&key).unwrap()) });
        let answer = self.post("/v1/gateways", &request).await;
        let chain = CertificateDer::pem_slice_iter(answer["certificate"].as_str().unwrap().as_bytes())
            .map(|certificate| certificate.unwrap().to_vec())
            .collect();
        self.door_showing(Some((chain, key.pkcs8().to_vec())))
    }

    pub fn door_showing(&self, identity: Option<(Vec<Vec<u8>>, Vec<u8>)>) -> Door {
        Door {
            address: self.running().addresses().edge.to_string(),
            spiffe_id: format!("spiffe://{}/assay/server", self.config.trust_domain),
            roots: self.bundle().authorities().map(<[u8]>::to_vec).collect(),
            identity,
        }
    }

    /// An honest device, enrolled, under a policy that knows it and these extra lines.
    pub async fn known_device(&self, edge: &Edge, name: &str, more: &str) -> SoftwareDevice {
        let mut device = self.device(name);
        edge.enroll(&mut device).await.unwrap();
        self.put("/v1/policy", &learned(&mut device, more)).await;
        device
    }

    /// The same, attached and trusted; with its grants.
    pub async fn trusted_device(
        &self,
        edge: &Edge,
        name: &str,
        more: &str,
    ) -> (SoftwareDevice, Attachment, Grants) {
        let mut device = self.known_device(edge, name, more).await;
        let (stream, grants) = attach_trusted(edge, &mut device).await;
        (device, stream, grants)
    }

    pub async fn get(&self, path: &str) -> Value {
        self.json(Method::GET, path, String::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.json(Method::POST, path, body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: &str) -> Value {
        self.json(Method::POST, path, body.to_owned()).await
    }

    pub async fn put(&self, path: &str, body: &str) -> Value {
        self.json(Method::PUT, path, body.to_owned()).await
    }

    pub async fn delete(&self, path: &str) -> Value {
        self.json(Method::DELETE, path, String::new()).await
    }

    /// What approves the files that the last result refused, as it names them.
    pub async fn approval(&self, name: &str) -> Value {
        let device = self.get(&format!("/v1/devices/{name}")).await;
        let findings = device["findings"].as_array().unwrap().iter();
        let files: Vec<Value> = findings
            .filter(|finding| finding["check"] == "ima-policy")
            .map(|finding| json!({ "path": finding["claim"], "digest": finding["found"] }))
            .collect();
        json!({ "result": device["result"], "files": files })
    }

    /// Approves them; the answer.
    pub async fn approve(&self, name: &str) -> Value {
        let approval = self.approval(name).await;
        self.post(&format!("/v1/devices/{name}/approve"), &approval).await
    }

    /// What `/v1/devices/<name>` says of the device itself.
    pub async fn status(&self, name: &str) -> Value {
        self.get(&format!("/v1/devices/{name}")).await["device"].clone()
    }

    async fn json(&self, method: Method, path: &str, body: String) -> Value {
        let answer =
            self.call(method, path, &[("authorization", &format!("Bearer {}", self.token()))], body).await;
        let status = answer.status();
        let value: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        assert!(status.is_success(), "{path}: {status} {value}");
        value
    }

    /// One request to the console over HTTP/2, as `curl` makes it: its status, and how many bytes of the body the server
    /// took before it answered.
    pub async fn call_http2(&self, method: Method, path: &str, bearer: &str, body: Vec<u8>) -> (u16, usize) {
        let trust = TrustSource::new(Trust { bundle: self.bundle(), crls: CrlSet::bootstrapping() });
        let mut config =
            tls::client_config(None, trust, Arc::new(|id| id.is_server()), (&Clock::system()).into())
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.running().addresses().console).await.unwrap();
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let chunks: Vec<Bytes> = body.chunks(1 << 14).map(Bytes::copy_from_slice).collect();
        let chunks = tokio_stream::iter(chunks).map(move |chunk| {
            counter.fetch_add(chunk.len(), Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Frame::data(chunk))
        });
        let response = sender.send_request(request.body(StreamBody::new(chunks)).unwrap()).await.unwrap();
        (response.status().as_u16(), taken.load(Ordering::Relaxed))
    }

    /// One request to the console with these headers.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Response<Bytes> {
        self.call_at(self.running().addresses().console, method, path, headers, body).await
    }

    /// The same to another door of the server that asks for no certificate.
    pub async fn call_at(
        &self,
        address: std::net::SocketAddr,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Response<Bytes> {
        let (parts, body) = self.open_at(address, method, path, headers, body).await.into_parts();
        // What has no end is opened, and read by whoever means to.
        if header_text(&parts.headers, "content-type") == "text/event-stream" {
            return Response::from_parts(parts, Bytes::new());
        }
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    /// The same, with an answer that may go on for long.
    pub async fn open_at(
        &self,
        address: std::net::SocketAddr,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: String,
    ) -> Response<Incoming> {
        let trust = TrustSource::new(Trust { bundle: self.bundle(), crls: CrlSet::bootstrapping() });
        let mut config =
            tls::client_config(None, trust, Arc::new(|id| id.is_server()), (&Clock::system()).into())
                .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }
}

/// Attaches, attests and waits for the grants.
pub async fn attach_trusted(edge: &Edge, device: &mut SoftwareDevice) -> (Attachment, Grants) {
    let mut stream = edge.attach(device).await.unwrap();
    let verdict = stream.attest(device).await.unwrap();
    assert_eq!(verdict.state, "trusted", "{verdict:?}");
    let grants = stream.grants().await.unwrap();
    assert!(!grants.withdrawn, "{grants:?}");
    (stream, grants)
}

/// Says that something changed and answers the challenge that follows.
pub async fn attest_again(stream: &mut Attachment, device: &mut SoftwareDevice) -> Verdict {
    stream.changed().await.unwrap();
    stream.attest(device).await.unwrap()
}

/// The policy that this device is what it should be.
pub fn learned(device: &mut SoftwareDevice, more: &str) -> String {
    let selection = vec![PcrSelection { bank: "sha256".to_owned(), pcrs: (0..24).collect() }];
    let challenge = Challenge {
        nonce: vec![7; 32],
        expires_in_seconds: 30,
        selection,
        boot_log_wanted: true,
        ima_from_entry: 0,
        stream: Vec::new(),
        banks_wanted: true,
        watched: Vec::new(),
        time_seconds: 0,
    };
    let sent = device.evidence(&challenge).unwrap();
    let quote = sent.quote.unwrap();
    let pcrs: Vec<_> = quote
        .pcrs
        .iter()
        .map(|pcr| assay_wire::edge::PcrValue {
            bank: pcr.bank.clone(),
            index: pcr.index,
            digest: pcr.digest.clone().into(),
        })
        .collect();
    let evidence = Evidence {
        ak_public: &device.ak.public_area(),
        quotes: vec![QuoteEvidence {
            label: "quote",
            message: &quote.message,
            signature: &quote.signature,
            pcrs: values_from_wire(&pcrs).unwrap(),
            nonce: &challenge.nonce,
            ak_public: None,
        }],
        boot_log: sent.boot_log.as_deref(),
        measure_log: sent.measure_log.as_deref(),
        ima_log: Some(ImaLog::Binary(&sent.ima_log)),
        ima_from_entry: 0,
        banks: sent.banks.as_ref().map(|banks| BankStatement {
            capability: &banks.capability,
            message: &banks.message,
            signature: &banks.signature,
            nonce: &challenge.nonce,
        }),
    };
    let verification = verify(&evidence, &Expectation::default());
    let claims = verification.claims.unwrap_or_else(|| panic!("{:?}", verification.failures));
    let policy = assay_trust::learn("base", &[], &[&claims]).unwrap();
    let mut table: toml::Table = policy.to_toml().parse().unwrap();
    for (key, value) in more.parse::<toml::Table>().unwrap() {
        table.insert(key, value);
    }
    table.to_string()
}

pub fn code(error: EdgeError) -> (tonic::Code, String) {
    match error {
        EdgeError::Refused(status) => {
            let reason =
                status.metadata().get("assay-reason").map(|value| value.to_str().unwrap().to_owned());
            (status.code(), reason.unwrap_or_default())
        }
        error => panic!("not a refusal: {error:?}"),
    }
}

pub fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}
