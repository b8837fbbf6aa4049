//! What the node's kubelet says of a pod: its list of pods, by HTTPS.
//!
//! Which pod and container a process is in, the kernel's control groups say; the kubelet says what they are. One list is asked for at
//! a time and serves all who wait for it. A kubelet tells of a container some time after it started it, so it is asked
//! again for a while.

mod pod;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use http::uri::Scheme;
use http::{StatusCode, Uri};
use hyper::body::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use self::pod::{ByUid, parse};
use self::tls::Signed;
use super::cgroup::Container;
use super::exchange::{self, ExchangeError};
pub(crate) use pod::InPod;

/// Where the node's kubelet answers, and how it and the agent know each other.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubelet {
    /// Its address: `https://127.0.0.1:10250`. By http only on this machine.
    pub url: String,
    /// The authority of its certificate, PEM.
    #[serde(default = "ca_default")]
    pub ca: PathBuf,
    /// The token that the agent shows it, read each time.
    #[serde(default = "token_default")]
    pub token: PathBuf,
}

fn ca_default() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt".into()
}

fn token_default() -> PathBuf {
    "/var/run/secrets/kubernetes.io/serviceaccount/token".into()
}

/// A kubelet could not say what a container is.
#[derive(Debug, Error)]
pub(crate) enum KubeletError {
    /// The configuration.
    #[error("{0:?} is no address of a kubelet: give https://HOST:PORT, or http:// on this machine")]
    Address(String),
    /// A file that it takes.
    #[error("{path}: cannot be read")]
    File { path: PathBuf, source: std::io::Error },
    /// No authority.
    #[error("{path}: no certificates in it")]
    Authority { path: PathBuf },
    /// Nobody answers there, or somebody else.
    #[error("no kubelet answers")]
    Unreachable(#[source] std::io::Error),
    /// It said no.
    #[error("the kubelet answered {0}: may the agent's service account get nodes/proxy?")]
    Status(StatusCode),
    /// The exchange broke.
    #[error("the kubelet does not answer")]
    Exchange(#[source] ExchangeError),
    /// It is no list of pods.
    #[error("the kubelet's answer does not read")]
    Json(#[from] serde_json::Error),
    /// It takes too long.
    #[error("the kubelet did not answer within {ANSWER_WITHIN:?}")]
    Silent,
    /// No pod of that number, or no such container in it.
    #[error("the kubelet knows no such container within {KNOWN_WITHIN:?}")]
    Unknown,
}

impl From<ExchangeError> for KubeletError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Status(status) => KubeletError::Status(status),
            error => KubeletError::Exchange(error),
        }
    }
}

/// The kubelet's list, shared by all callers of the moment.
#[derive(Debug)]
pub(crate) struct Pods {
    kubelet: Kubelet,
    clock: Clock,
    latest: Mutex<Option<(Instant, Arc<ByUid>)>>,
}

impl Pods {
    pub(crate) fn new(kubelet: Kubelet, clock: Clock) -> Self {
        Pods { kubelet, clock, latest: Mutex::default() }
    }

    /// What a container is, by the pod whose control group it is in.
    pub(crate) async fn describe(&self, pod_uid: &str, container: &Container) -> Result<InPod, KubeletError> {
        let until = self.clock.instant() + KNOWN_WITHIN;
        loop {
            let pods = self.list().await?;
            if let Some(pod) = pods.get(pod_uid)
                && let Some(own) = pod.container(&container.id)
            {
                return Ok(InPod { pod: pod.clone(), own: own.clone() });
            }
            if self.clock.instant() >= until {
                return Err(KubeletError::Unknown);
            }
            self.clock.sleep(LISTS_APART).await;
        }
    }

    /// A list that is no older than it takes to ask for another.
    async fn list(&self) -> Result<Arc<ByUid>, KubeletError> {
        let mut latest = self.latest.lock().await;
        if let Some((_, pods)) = latest.as_ref().filter(|(at, _)| self.clock.instant() < *at + LISTS_APART) {
            return Ok(pods.clone());
        }
        let answer = timeout(ANSWER_WITHIN, self.kubelet.ask()).await;
        let pods = Arc::new(parse(&answer.map_err(|_| KubeletError::Silent)??)?);
        *latest = Some((self.clock.instant(), pods.clone()));
        Ok(pods)
    }
}

impl Kubelet {
    async fn ask(&self) -> Result<Bytes, KubeletError> {
        let refused = || KubeletError::Address(self.url.clone());
        let uri: Uri = self.url.parse().map_err(|_| refused())?;
        let (host, port) = (uri.host().ok_or_else(refused)?, uri.port_u16().ok_or_else(refused)?);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let connect = async || TcpStream::connect((host, port)).await.map_err(KubeletError::Unreachable);
        match uri.scheme() {
            // The port for reading alone, which asks for no token, is for this machine's programs.
            Some(scheme) if *scheme == Scheme::HTTP && is_here => {
                Ok(exchange::get(connect().await?, ("/pods", host, None), ANSWER_BYTES_MAX).await?)
            }
            Some(scheme) if *scheme == Scheme::HTTPS => {
                let name = ServerName::try_from(host.to_owned()).map_err(|_| refused())?;
                let config = self.tls((!is_here).then(|| name.clone()))?;
                let stream = TlsConnector::from(Arc::new(config)).connect(name, connect().await?).await;
                let stream = stream.map_err(KubeletError::Unreachable)?;
                let token = read(&self.token)?;
                Ok(exchange::get(stream, ("/pods", host, Some(token.trim())), ANSWER_BYTES_MAX).await?)
            }
            _ => Err(refused()),
        }
    }

    /// On this machine it is known by whoever signed its certificate, which names the node.
    fn tls(&self, named: Option<ServerName<'static>>) -> Result<ClientConfig, KubeletError> {
        let verifier = Signed { roots: roots(&self.ca)?, named };
        let config = ClientConfig::builder_with_provider(verifier.provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| KubeletError::Unreachable(std::io::Error::other(error)))?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Ok(config.with_no_client_auth())
    }
}

fn read(path: &Path) -> Result<String, KubeletError> {
    std::fs::read_to_string(path).map_err(|source| KubeletError::File { path: path.to_owned(), source })
}

fn roots(path: &Path) -> Result<RootCertStore, KubeletError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(read(path)?.as_bytes()).flatten() {
        let _ = roots.add(certificate);
    }
    match roots.is_empty() {
        true => Err(KubeletError::Authority { path: path.to_owned() }),
        false => Ok(roots),
    }
}

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A pod has some ten kilobytes, and a node a few hundred of them.
const ANSWER_BYTES_MAX: usize = 32 << 20;
const LISTS_APART: Duration = Duration::from_millis(500);
/// The caller waits meanwhile, as it does for an SVID that is being signed.
const KNOWN_WITHIN: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use assay_identity::authority::{AuthorityTemplate, sign_root};
    use assay_identity::x509_svid::{SvidTemplate, issue};
    use assay_identity::{Issuer, PrivateKey, Selector, Serial, SpiffeId, TrustDomain, tls};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::super::cgroup::Engine;
    use super::*;

    const ID: &str = "4c4fcc7c6a0d3b1a8d2e5f60718293a4b5c6d7e8f90112233445566778899aab";
    const POD: &str = "2c48913c-b29f-11e7-9350-020968147796";

    /// As a kubelet of version 1.31 answers, shortened to what is read and some of what is not.
    fn pods() -> String {
        let pod = serde_json::json!({
            "metadata": {
                "name": "web-7f9c-x2x4z", "namespace": "shop", "uid": POD, "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app": "web", "tier": "" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7f9c",
                    "uid": "a1f1e9a0-0000-4000-8000-000000000001", "controller": true }],
            },
            "spec": { "serviceAccountName": "web", "nodeName": "node-1", "containers": [] },
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{ "name": "init", "image": "init:1", "imageID": "init@sha256:01",
                    "containerID": format!("containerd://{}", "1".repeat(64)) }],
                "containerStatuses": [
                    { "name": "web", "image": "registry.example/web:2", "imageID": "registry.example/web@sha256:02",
                      "containerID": format!("containerd://{ID}"), "ready": true },
                    { "name": "side", "image": "side:1", "imageID": "side@sha256:03",
                      "containerID": format!("containerd://{}", "2".repeat(64)) },
                ],
            },
        });
        serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "items": [pod] }).to_string()
    }

    fn container(id: &str) -> Container {
        Container { id: id.to_owned(), engine: Engine::Cri, pod: Some(POD.to_owned()) }
    }

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str, body: &str) -> String {
        let mut asked = vec![0; 4096];
        let read = stream.read(&mut asked).await.unwrap();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    }

    /// A kubelet's port for reading, that answers so one time after the other.
    async fn reading_port(answers: Vec<(&'static str, String)>) -> Kubelet {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for (status, body) in answers {
                let asked = answer(listener.accept().await.unwrap().0, status, &body).await;
                assert!(asked.starts_with("GET /pods HTTP/1.1"), "{asked}");
                assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
            }
        });
        Kubelet { url, ca: "/none".into(), token: "/none".into() }
    }

    #[tokio::test]
    async fn a_kubelets_word_is_held_against_selectors() {
        let kubelet = reading_port(vec![("200 OK", pods())]).await;
        let found = Pods::new(kubelet, Clock::system()).describe(POD, &container(ID)).await.unwrap();
        let check = |value: &str, expected| {
            let Ok(Selector::K8s(wanted)) = format!("k8s:{value}").parse() else { panic!("{value}") };
            assert_eq!(found.has(&wanted), expected, "{value}");
        };
        check("ns:shop", true);
        check("ns:other", false);
        check("sa:web", true);
        check("sa:default", false);
        check("container-name:web", true);
        check("container-name:side", false);
        check("container-image:registry.example/web:2", true);
        check("container-image:registry.example/web@sha256:02", true);
        check("container-image:side:1", false);
        check("node-name:node-1", true);
        check("pod-label:app:web", true);
        check("pod-label:tier:", true);
        check("pod-label:app:db", false);
        check("pod-owner:ReplicaSet:web-7f9c", true);
        check("pod-owner:Job:web-7f9c", false);
        check("pod-owner-uid:ReplicaSet:a1f1e9a0-0000-4000-8000-000000000001", true);
        check(&format!("pod-uid:{POD}"), true);
        check("pod-name:web-7f9c-x2x4z", true);
        check("pod-image:side:1", true);
        check("pod-image:init:1", false);
        check("pod-image-count:2", true);
        check("pod-init-image:init:1", true);
        check("pod-init-image-count:1", true);
    }

    #[tokio::test]
    async fn a_container_that_the_kubelet_does_not_know_yet_is_waited_for() {
        let before = pods().replace(ID, &"3".repeat(64));
        let pods =
            Pods::new(reading_port(vec![("200 OK", before), ("200 OK", pods())]).await, Clock::system());
        // One list serves both.
        let (one, other) = (container(ID), container(ID));
        let (one, other) = tokio::join!(pods.describe(POD, &one), pods.describe(POD, &other));
        assert!(one.is_ok() && other.is_ok());
    }

    #[tokio::test]
    async fn whoever_is_no_kubelet_or_says_no_says_nothing_of_a_pod() {
        let refused = async |kubelet| {
            Pods::new(kubelet, Clock::system()).describe(POD, &container(ID)).await.unwrap_err()
        };
        let no = reading_port(vec![("403 Forbidden", String::new())]).await;
        assert!(matches!(refused(no).await, KubeletError::Status(StatusCode::FORBIDDEN)));
        let not_json = reading_port(vec![("200 OK", "no".to_owned())]).await;
        assert!(matches!(refused(not_json).await, KubeletError::Json(_)));
        for url in ["http://192.0.2.1:10255", "ftp://127.0.0.1:1", "127.0.0.1:10250", "https://127.0.0.1", ""]
        {
            let kubelet = Kubelet { url: url.to_owned(), ca: "/none".into(), token: "/none".into() };
            let error = refused(kubelet).await;
            assert!(matches!(error, KubeletError::Address(_)), "{url}: {error:?}");
        }
        // Two pods of one number are none.
        let twice = serde_json::from_str::<serde_json::Value>(&pods()).unwrap()["items"][0].clone();
        let list = serde_json::json!({ "items": [twice, twice] }).to_string();
        assert!(parse(list.as_bytes()).unwrap().is_empty());
    }

    /// An authority, and a certificate of it with its key.
    fn certified() -> (String, Vec<u8>, PrivateKey) {
        let (now, domain) =
            (assay_identity::UnixTime::now().as_secs(), TrustDomain::parse("cluster").unwrap());
        let at = |seconds: u64| assay_identity::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (not_before, not_after) = (at(now - 60), at(now + 600));
        let root = AuthorityTemplate {
            trust_domain: domain.clone(),
            name: "kubelets".into(),
            serial: Serial::from_random([1; 16]),
            not_before,
            not_after,
        };
        let key = PrivateKey::generate().unwrap();
        let issuer = Issuer::new(sign_root(&root, &key).unwrap(), key).unwrap();
        let key = PrivateKey::generate().unwrap();
        let template = SvidTemplate {
            spiffe_id: SpiffeId::parse("spiffe://cluster/node-1").unwrap(),
            dns_names: vec!["node-1".into()],
            ip_addresses: Vec::new(),
            spki: key.spki(),
            serial: Serial::from_random([2; 16]),
            not_before,
            not_after,
        };
        let leaf = issue(&template, &issuer).unwrap().der().to_vec();
        let root = assay_identity::bundle::pem_certificates(&[issuer.certificate().to_vec()]);
        (root, leaf, key)
    }

    #[tokio::test]
    async fn a_kubelet_is_known_by_its_authority_and_gets_the_token_only_then() {
        tls::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let (root, leaf, key) = certified();
        let (other_root, ..) = certified();
        let path = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let (ca, other_ca, token) =
            (path("ca", &root), path("other", &other_root), path("token", "secret\n"));
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
        let config = config.with_single_cert(vec![leaf.into()], key.into()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let Ok(stream) = acceptor.accept(listener.accept().await.unwrap().0).await else { continue };
                said.send(answer(stream, "200 OK", &pods()).await).unwrap();
            }
        });
        let kubelet = |host: &str, ca: &Path| Kubelet {
            url: format!("https://{host}:{port}"),
            ca: ca.to_owned(),
            token: token.clone(),
        };
        for (host, ca) in [("127.0.0.1", &other_ca), ("localhost", &ca)] {
            let error = Pods::new(kubelet(host, ca), Clock::system())
                .describe(POD, &container(ID))
                .await
                .unwrap_err();
            assert!(matches!(error, KubeletError::Unreachable(_)), "{host}: {error}");
        }
        assert!(heard.try_recv().is_err(), "nobody was shown the token");
        Pods::new(kubelet("127.0.0.1", &ca), Clock::system()).describe(POD, &container(ID)).await.unwrap();
        assert!(heard.recv().await.unwrap().contains("Bearer secret\r\n"));
    }
}
