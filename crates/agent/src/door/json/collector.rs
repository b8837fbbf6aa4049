//! A collector of the original, or a gateway before it: a nonce, then what the device key signed with it.

use std::sync::Arc;
use std::time::Duration;

use assay_telemetry::json_protocol::{HashAlgorithm, Value, key_hash, signed_bytes};
use data_encoding::HEXLOWER;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::{JsonProtocolConfig, JsonProtocolError};
use super::{object, text};
use crate::link::Linked;
use crate::tpm::TpmError;

/// Where it is, and what signs.
pub(super) struct Collector {
    authority: Authority,
    tls: TlsConnector,
    linked: Linked,
}

/// Why it did not get what was measured.
#[derive(Debug, Error)]
pub(super) enum CollectorError {
    #[error("the device is not attached, so that nothing signs")]
    NotAttached,
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error("the collector cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the collector: {0}")]
    Http(#[from] hyper::Error),
    #[error("the collector does not answer in time")]
    Silent,
    #[error("the collector gives no nonce")]
    Nonce,
    #[error("the collector answers {status}")]
    Refused {
        /// With what.
        status: u16,
    },
}

impl Collector {
    /// What is configured; `None`: nothing is.
    pub(super) fn load(
        config: &JsonProtocolConfig,
        linked: Linked,
    ) -> Result<Option<Collector>, JsonProtocolError> {
        let Some(collector) = config.collector.clone() else { return Ok(None) };
        let authority = collector.parse::<Uri>().ok().and_then(|uri| {
            let is_https = uri.scheme() == Some(&Scheme::HTTPS);
            uri.into_parts().authority.filter(|_| is_https)
        });
        let authority = authority.ok_or(JsonProtocolError::Collector { collector })?;
        let builder = ClientConfig::builder();
        let tls = match (&config.collector_ca, config.dangerous_unverified_collector) {
            (_, true) => {
                let anybody = Arc::new(Anybody(builder.crypto_provider().clone()));
                builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
            }
            (None, false) => return Err(JsonProtocolError::NoAnchors),
            (Some(path), false) => {
                let mut roots = RootCertStore::empty();
                let pem = std::fs::read(path).unwrap_or_default();
                roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
                if roots.is_empty() {
                    return Err(JsonProtocolError::Anchors { path: path.clone() });
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
        Ok(Some(Collector { authority, tls: TlsConnector::from(Arc::new(tls)), linked }))
    }

    /// Signs and sends; what the submission is called.
    pub(super) async fn send(
        &self,
        metrics: &Value,
        region: &Value,
        at: &str,
    ) -> Result<String, CollectorError> {
        let device = self.linked.borrow().as_ref().map(|link| link.device.clone());
        let device = device.ok_or(CollectorError::NotAttached)?;
        let name = key_hash(&device.key.spki());
        // Whose key it is for says what later versions ask for, and the first does not mind.
        let (status, body) =
            self.ask(Method::GET, &format!("/nonce?public_key_hash={name}"), Bytes::new()).await?;
        let nonce = serde_json::from_slice::<serde_json::Value>(&body).ok().filter(|_| status == 200);
        let nonce = nonce.and_then(|body| body.get("nonce")?.as_str().map(str::to_owned));
        let is_nonce =
            |nonce: &String| !nonce.is_empty() && nonce.len() <= NONCE_BYTES_MAX && nonce.is_ascii();
        let nonce = nonce.filter(is_nonce).ok_or(CollectorError::Nonce)?;
        let message = signed_bytes(metrics, region, &nonce);
        let digest = HashAlgorithm::Sha256.hash(&message);
        let signature = device.run(move |device| device.key.sign_message(&message)).await?;
        let body = object([
            ("metrics", metrics.clone()),
            ("geographic_region", region.clone()),
            ("nonce", text(&nonce)),
            ("signature", text(&HEXLOWER.encode(&signature))),
            ("digest", text(&HEXLOWER.encode(&digest))),
            ("algorithm", text(HashAlgorithm::Sha256.name())),
            ("timestamp", text(at)),
        ]);
        match self.ask(Method::POST, "/metrics", body.to_python().into()).await? {
            (200, _) => Ok(payload_id(&digest)),
            (status, body) => {
                let said: String = String::from_utf8_lossy(&body).chars().take(SAID_CHARACTERS_MAX).collect();
                tracing::warn!(status, said, "the collector refused what was measured");
                Err(CollectorError::Refused { status })
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(u16, Bytes), CollectorError> {
        timeout(WITHIN, self.exchange(method, path, body)).await.map_err(|_| CollectorError::Silent)?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(u16, Bytes), CollectorError> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, self.authority.port_u16().unwrap_or(443))).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let stream = self.tls.connect(name, stream).await?;
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its client.
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(host) = HeaderValue::try_from(self.authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        let response = client.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
    }
}

/// What the original calls a submission by.
pub(super) fn payload_id(digest: &[u8]) -> String {
    HEXLOWER.encode(digest.get(..8).unwrap_or(digest))
}

/// Recognises a collector whoever it is, where the operator wants it so.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const WITHIN: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 64 << 10;
const NONCE_BYTES_MAX: usize = 128;
const SAID_CHARACTERS_MAX: usize = 300;
