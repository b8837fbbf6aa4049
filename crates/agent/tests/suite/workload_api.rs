//! The Workload API over a real socket, by an ordinary client.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assay_agent::holding::{Holding, Svid, Workload};
use assay_agent::workload_api::Listener;
use assay_identity::TrustDomain;
use assay_wire::edge::{Selector, WorkloadEntry};
use assay_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use assay_wire::workload::{X509BundlesRequest, X509svidRequest, X509svidResponse};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

struct Api {
    held: watch::Sender<Holding>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Api {
    fn serve() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("workload.sock");
        let (held, holding) = watch::channel(Holding::default());
        let listener = Listener::bind(&socket).unwrap();
        tokio::spawn(listener.serve(holding, TrustDomain::parse("example.org").unwrap()));
        Api { held, socket, _folder: folder }
    }

    async fn svids(&self) -> Result<Streaming<X509svidResponse>, tonic::Status> {
        let mut client = connect(&self.socket).await;
        Ok(client.fetch_x509svid(with_header(X509svidRequest {})).await?.into_inner())
    }

    async fn refusal(&self) -> Code {
        self.svids().await.unwrap().message().await.unwrap_err().code()
    }
}

pub async fn connect(socket: &Path) -> SpiffeWorkloadApiClient<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { std::io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    SpiffeWorkloadApiClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

pub fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

fn workload(id: &str, selector: &str, svid: Option<u8>) -> Workload {
    let selectors = vec![Selector { r#type: "unix".into(), value: selector.into() }];
    let spiffe_id = format!("spiffe://example.org/{id}");
    let entry =
        WorkloadEntry { id: id.into(), spiffe_id, selectors, hint: id.into(), ..WorkloadEntry::default() };
    let later = SystemTime::now() + Duration::from_secs(60);
    let svid = svid.map(|byte| Svid {
        chain: vec![vec![byte], vec![9]],
        key: vec![byte],
        renew_at: later,
        not_after: later,
    });
    Workload { entry, svid }
}

pub fn mine() -> String {
    format!("path:{}", std::env::current_exe().unwrap().display())
}

fn holding(workloads: Vec<Workload>) -> Holding {
    Holding { ready: true, bundle: vec![7], crl: vec![8], workloads, ..Holding::default() }
}

async fn next(stream: &mut Streaming<X509svidResponse>) -> X509svidResponse {
    timeout(Duration::from_secs(5), stream.message()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_request_without_the_header_is_refused() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![workload("web", &mine(), Some(1))]));
    let mut client = connect(&api.socket).await;
    let refused = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut lying = Request::new(X509BundlesRequest {});
    lying.metadata_mut().insert("workload.spiffe.io", "yes".parse().unwrap());
    assert_eq!(client.fetch_x509_bundles(lying).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn unready_is_unavailable_and_nobody_is_denied() {
    let api = Api::serve();
    assert_eq!(api.refusal().await, Code::Unavailable);
    api.held.send_replace(holding(vec![workload("web", "path:/no/such/program", Some(1))]));
    assert_eq!(api.refusal().await, Code::PermissionDenied);
    api.held.send_replace(Holding::withdrawn("contraindicated".into(), Vec::new()));
    assert_eq!(api.refusal().await, Code::PermissionDenied);
}

#[tokio::test]
async fn a_stream_tells_the_whole_state_at_once_and_after_every_change() {
    let api = Api::serve();
    let (web, other) = (workload("web", &mine(), Some(1)), workload("db", "uid:4294967294", Some(2)));
    api.held.send_replace(holding(vec![web.clone(), other.clone()]));
    let mut stream = api.svids().await.unwrap();
    let first = next(&mut stream).await;
    let [svid] = first.svids.as_slice() else { panic!("{first:?}") };
    assert_eq!(svid.spiffe_id, "spiffe://example.org/web");
    assert_eq!(
        (svid.x509_svid.as_slice(), svid.x509_svid_key.as_slice()),
        ([1, 9].as_slice(), [1].as_slice())
    );
    assert_eq!((svid.bundle.as_slice(), svid.hint.as_str()), ([7].as_slice(), "web"));
    assert_eq!(first.crl, [[8]]);

    // What does not concern the caller is no message; the next one is the renewed SVID.
    api.held.send_replace(holding(vec![web.clone(), workload("db", "uid:4294967294", Some(3))]));
    api.held.send_replace(holding(vec![workload("web", &mine(), Some(4)), other.clone()]));
    assert_eq!(next(&mut stream).await.svids[0].x509_svid_key, [4]);

    api.held
        .send_replace(holding(vec![workload("web", &mine(), Some(4)), workload("api", &mine(), Some(5))]));
    assert_eq!(next(&mut stream).await.svids.len(), 2);

    api.held.send_replace(Holding::withdrawn("contraindicated".into(), Vec::new()));
    let ended = timeout(Duration::from_secs(5), stream.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
    assert!(!ended.message().contains("contraindicated"), "the reason is for operators");
}

#[tokio::test]
async fn a_caller_waits_for_an_svid_that_is_on_its_way() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![workload("web", &mine(), None)]));
    let mut stream = api.svids().await.unwrap();
    api.held.send_replace(holding(vec![workload("web", &mine(), Some(1))]));
    assert_eq!(next(&mut stream).await.svids.len(), 1);
}

#[tokio::test]
async fn bundles_are_for_those_with_an_identity() {
    let api = Api::serve();
    let mut client = connect(&api.socket).await;
    api.held.send_replace(holding(vec![workload("db", "uid:4294967294", Some(2))]));
    let mut denied =
        client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap().into_inner();
    assert_eq!(denied.message().await.unwrap_err().code(), Code::PermissionDenied);
    api.held.send_replace(holding(vec![workload("web", &mine(), None)]));
    let mut stream =
        client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap().into_inner();
    let bundles = stream.message().await.unwrap().unwrap().bundles;
    assert_eq!(bundles.get("spiffe://example.org").map(Vec::as_slice), Some([7].as_slice()));
}
