//! The Workload API over a real socket, by an ordinary client.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_agent::ask::{Asker, Asks};
use assay_agent::door;
use assay_agent::door::local::Socket;
use assay_agent::holding::{Entry, Holding, Svid, Workload};
use assay_agent::workload::Engines;
use assay_identity::{Selector, TrustDomain};
use assay_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use assay_wire::workload::{X509BundlesRequest, X509svidRequest, X509svidResponse};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

pub struct Api {
    pub held: watch::Sender<Holding>,
    pub asks: Asks,
    pub socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Api {
    pub fn serve() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("workload.sock");
        let (held, holding) = watch::channel(Holding::default());
        let bound = Socket::bind(&socket).unwrap();
        let (asker, asks) = Asker::new();
        // No device is attached.
        let (_, linked) = watch::channel(None);
        let domain = TrustDomain::parse("example.org").unwrap();
        let clock = assay_clock::Clock::system();
        tokio::spawn(door::serve(bound, (holding, asker, linked), domain, Engines::default(), clock));
        Api { held, asks, socket, _folder: folder }
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

pub fn workload(id: &str, selectors: &str, svid: Option<u8>) -> Workload {
    let selector = |value: &str| Selector::parse("unix", value).unwrap();
    let selectors = selectors.split(' ').map(selector).collect();
    let spiffe_id = format!("spiffe://example.org/{id}");
    let entry = Arc::new(Entry { id: id.into(), spiffe_id, selectors, hint: id.into(), ..Entry::default() });
    let later = SystemTime::now() + Duration::from_secs(60);
    let svid = svid.map(|byte| Svid {
        chain: vec![vec![byte], vec![9]],
        key: vec![byte],
        renew_at: later,
        not_after: later,
    });
    Workload { entry, svid, ..Workload::default() }
}

/// Selectors of this test program, with spaces between them.
pub fn mine() -> String {
    format!("uid:{} path:{}", uid(), std::env::current_exe().unwrap().display())
}

pub fn uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

pub fn holding(workloads: Vec<Workload>) -> Holding {
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
    api.held.send_replace(holding(vec![workload("web", "uid:0 path:/no/such/program", Some(1))]));
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

#[tokio::test(flavor = "multi_thread")]
async fn finding_9_idle_connections_of_one_user_stop_neither_the_agent_nor_entitled_users() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![workload("web", &mine(), Some(1))]));
    let mut before = api.svids().await.unwrap();
    next(&mut before).await;
    let mut idle = Vec::new();
    for _ in 0..1100 {
        idle.push(UnixStream::connect(&api.socket).await.unwrap());
    }
    // All but the user's share are closed at once, and the others can be told apart by that.
    let mut open = 0;
    for stream in &idle {
        let closed = timeout(Duration::from_millis(20), stream.readable()).await;
        if closed.is_err() || stream.try_read(&mut [0; 64]).is_ok_and(|read| read > 0) {
            open += 1;
        }
    }
    assert!(open > 0 && open < 200, "{open}");
    // The agent has descriptors left, and the stream that was there goes on.
    api.held.send_replace(holding(vec![workload("web", &mine(), Some(2))]));
    assert_eq!(next(&mut before).await.svids[0].x509_svid_key, [2]);
    std::fs::File::open("/proc/self/status").unwrap();
    drop(idle);
    let again = async {
        loop {
            if let Ok(Ok(mut stream)) = timeout(Duration::from_secs(5), api.svids()).await {
                return next(&mut stream).await;
            }
        }
    };
    assert_eq!(again.await.svids.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_12_who_executes_another_program_is_another_caller() {
    let api = Api::serve();
    // Entitled is the program that the caller becomes, not the one that connects.
    let becomes = std::fs::canonicalize("/bin/sleep").unwrap();
    let of = |program: &Path| format!("uid:{} path:{}", uid(), program.display());
    api.held.send_replace(holding(vec![workload("sleep", &of(&becomes), Some(1))]));
    let at = |name: &str| api.socket.with_file_name(name);
    std::fs::write(at("request"), request_bytes()).unwrap();
    // The child waits until its parent is the entitled program, asks on the parent's connection, and notes what comes.
    let attack = r#"
        use Socket; $^F = 1000; my ($socket, $request, $answer, $program) = @ARGV;
        socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($socket)) or die;
        open(R, $request); local $/; my $asked = <R>; syswrite(S, $asked, 24); sysread(S, my $settings, 9);
        my $parent = $$; my $before = readlink("/proc/$parent/exe");
        if (!fork) {
            select(undef, undef, undef, 0.01) while readlink("/proc/$parent/exe") eq $before;
            syswrite(S, $asked, length($asked) - 24, 24); open(A, ">", $answer);
            for (1..3) { $SIG{ALRM} = sub { exit }; alarm 1; last unless sysread(S, my $got, 65536); syswrite(A, $got); }
            exit;
        }
        exec($program, "3");
    "#;
    let mut perl = std::process::Command::new("perl");
    perl.arg("-e").arg(attack).args([&api.socket, &at("request"), &at("answer"), &becomes]);
    tokio::task::spawn_blocking(move || assert!(perl.status().unwrap().success())).await.unwrap();
    let said = std::fs::read(at("answer")).unwrap();
    assert!(!said.is_empty(), "the agent answers");
    let holds = |text: &str| said.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!holds("spiffe://example.org/sleep"), "the child got the program's identity");
}

/// FetchX509SVID as an HTTP/2 client sends it first: RFC 9113 §3.4, §6.2; RFC 7541 §6.2.2.
fn request_bytes() -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("workload.spiffe.io", "true"),
    ];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let block: Vec<u8> =
        headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let frames = [frame(4, 0, 0, &[]), frame(1, 4, 1, &block), frame(0, 1, 1, &[0; 5])];
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.concat()].concat()
}
