//! Accepted telemetry goes on to OTLP endpoints: byte for byte, whatever they do meanwhile.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_server::ForwardConfig;
use assay_telemetry::otlp::{Encoding, Gap, OTLP_BATCH, OtlpBatch, Part, Signal};
use assay_testkit::SoftwareDevice;
use assay_testkit::edge::Edge;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::fixture::Fixture;

/// An OTLP endpoint that answers as it is told to, and 200 after that.
#[derive(Clone)]
struct Sink {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    path: String,
    media_type: String,
    device: String,
    body: Bytes,
}

impl Sink {
    /// The same by https, with a certificate that recognises it, PEM.
    async fn start_tls() -> (Sink, String) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder().with_no_client_auth();
        let tls = Arc::new(tls.with_single_cert(vec![cert.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink =
            Sink { address: listener.local_addr().unwrap(), heard: Arc::default(), answers: Arc::default() };
        let served = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sink, acceptor) = (served.clone(), tokio_rustls::TlsAcceptor::from(tls.clone()));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| sink.clone().answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        (sink, cert.pem())
    }

    async fn start(answers: &[u16]) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let sink = Sink { address: listener.local_addr().unwrap(), heard: Arc::default(), answers };
        let served = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = served.clone();
                let service = service_fn(move |request| sink.clone().answer(request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        sink
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let header = |name: &str| parts.headers.get(name).unwrap().to_str().unwrap().to_owned();
        let (path, media_type, device) =
            (parts.uri.path().to_owned(), header("content-type"), header("assay-device"));
        let body = body.collect().await.unwrap().to_bytes();
        let status = self.answers.lock().unwrap().pop_front().unwrap_or(200);
        if status == 200 {
            self.heard.lock().unwrap().push(Heard { path, media_type, device, body });
        }
        Ok(Response::builder().status(status).body(Full::default()).unwrap())
    }

    async fn hears(&self, count: usize) -> Vec<Heard> {
        let wait = async {
            while self.heard.lock().unwrap().len() < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(40), wait).await.expect("was not forwarded in time");
        self.heard.lock().unwrap().clone()
    }

    fn config(&self, name: &str) -> ForwardConfig {
        let endpoint = format!("http://{}/in/", self.address);
        ForwardConfig { name: name.into(), endpoint, ca: None, token_file: None }
    }
}

/// A span in protobuf, a log record in JSON, and a gap, which no endpoint knows.
fn parts(number: u8) -> Vec<Part> {
    // A field that nobody knows carries the number.
    let span = Bytes::from(vec![0x0a, 4, 0x12, 2, 0x12, 0, 0x78, number]);
    let log =
        format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{}}]}}]}}], \"n\": {number} }}");
    vec![
        Part::request(Signal::Traces, Encoding::Protobuf, span, 1).unwrap(),
        Part::gap(&Gap { requests: 1, ..Gap::default() }, 1),
        Part::request(Signal::Logs, Encoding::Json, log.into(), 1).unwrap(),
    ]
}

async fn submit(edge: &Edge, device: &mut SoftwareDevice, number: u8) {
    let payload = OtlpBatch { parts: parts(number) }.encode_to_vec();
    let mut statement = device.statement(&payload, None);
    (statement.payload_type, statement.items) = (OTLP_BATCH.to_owned(), 2);
    let request = device.submit(&statement, &payload).unwrap();
    assert!(edge.submit(request).await.unwrap().accepted);
}

fn expected(device: &SoftwareDevice, numbers: impl IntoIterator<Item = u8>) -> Vec<Heard> {
    let device = device.device_id.clone().unwrap();
    let parts = numbers.into_iter().flat_map(parts).filter(|part| part.signal() != Signal::Gap);
    let heard = parts.map(|part| Heard {
        path: format!("/in/v1/{}", part.signal().name().unwrap()),
        media_type: part.encoding().media_type().unwrap().to_owned(),
        device: device.clone(),
        body: part.body,
    });
    heard.collect()
}

#[tokio::test]
async fn every_request_arrives_as_it_was_over_failures_and_a_restart_and_nobody_waits_for_another() {
    let (sink, down) = (Sink::start(&[503, 200, 429]).await, Sink::start(&[503; 1000]).await);
    let forward = vec![sink.config("main"), down.config("down")];
    let mut fixture = Fixture::with(|config| config.forward = forward).await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    for number in 1..=3 {
        submit(&edge, &mut device, number).await;
    }
    assert_eq!(sink.hears(6).await, expected(&device, 1..=3));
    // What the other one waits for is kept over a restart, whether its run was packed meanwhile or not.
    assert_eq!(
        fixture.count("SELECT COUNT(*) AS n FROM telemetry_outbox WHERE destination = 'down'").await,
        3
    );
    fixture.restart().await;
    down.answers.lock().unwrap().clear();
    assert_eq!(down.hears(6).await, expected(&device, 1..=3));
    let edge = fixture.edge().await;
    submit(&edge, &mut device, 4).await;
    assert_eq!(sink.hears(8).await, expected(&device, 1..=4), "each once");
    down.hears(8).await;
    while fixture.count("SELECT COUNT(*) AS n FROM telemetry_outbox").await > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    // A destination that is no longer configured has no queue.
    down.answers.lock().unwrap().extend([503; 1000]);
    submit(&edge, &mut device, 5).await;
    sink.hears(10).await;
    fixture.restart_with(|config| drop(config.forward.pop())).await.unwrap();
    let waits = "SELECT COUNT(*) AS n FROM telemetry_outbox WHERE destination = 'down'";
    timeout(Duration::from_secs(10), async {
        while fixture.count(waits).await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_a_destination_refuses_for_good_is_counted_and_holds_nothing_up() {
    let sink = Sink::start(&[400, 200, 200]).await;
    let fixture = Fixture::with(|config| config.forward = vec![sink.config("main")]).await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    submit(&edge, &mut device, 1).await;
    submit(&edge, &mut device, 2).await;
    // The first request was refused; the one beside it and those behind it were not.
    assert_eq!(sink.hears(3).await, expected(&device, 1..=2)[1..]);
    let metrics = async || {
        let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
        String::from_utf8_lossy(metrics.body()).into_owned()
    };
    let wanted = [
        "assay_telemetry_forwarded_total{destination=\"main\",outcome=\"refused\"} 1",
        "assay_telemetry_forwarded_total{destination=\"main\",outcome=\"delivered\"} 1",
        "assay_telemetry_forward_waiting{destination=\"main\"} 0",
    ];
    let wait = async {
        loop {
            let text = metrics().await;
            if wanted.iter().all(|line| text.contains(line)) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap();
}

#[tokio::test]
async fn a_destination_by_https_gets_all_of_it_and_one_that_is_not_recognised_gets_nothing() {
    assay_identity::tls::install_crypto_provider();
    let ((sink, pem), (stranger, _)) = (Sink::start_tls().await, Sink::start_tls().await);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("sink.pem");
    std::fs::write(&ca, pem).unwrap();
    let at = |sink: &Sink, name: &str| ForwardConfig {
        endpoint: format!("https://localhost:{}/in", sink.address.port()),
        ca: Some(ca.clone()),
        ..sink.config(name)
    };
    let forward = vec![at(&sink, "main"), at(&stranger, "stranger")];
    let fixture = Fixture::with(|config| config.forward = forward).await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    submit(&edge, &mut device, 1).await;
    assert_eq!(sink.hears(2).await, expected(&device, [1]));
    // Whoever shows a certificate that was not named is told nothing, and it waits.
    let waits = "SELECT COUNT(*) AS n FROM telemetry_outbox WHERE destination = 'stranger'";
    sleep(Duration::from_secs(2)).await;
    assert_eq!((fixture.count(waits).await, stranger.heard.lock().unwrap().len()), (1, 0));
}

#[tokio::test]
async fn what_is_nothing_that_otlp_has_counts_as_refused_and_not_as_delivered() {
    let sink = Sink::start(&[]).await;
    let fixture = Fixture::with(|config| config.forward = vec![sink.config("main")]).await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut statement = device.statement(b"something else", None);
    statement.payload_type = "text/plain".to_owned();
    let request = device.submit(&statement, b"something else").unwrap();
    assert!(edge.submit(request).await.unwrap().accepted);
    submit(&edge, &mut device, 1).await;
    assert_eq!(sink.hears(2).await, expected(&device, [1]));
    let refused = "assay_telemetry_forwarded_total{destination=\"main\",outcome=\"refused\"} 1";
    let wait = async {
        loop {
            let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
            if String::from_utf8_lossy(metrics.body()).contains(refused) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap();
}
