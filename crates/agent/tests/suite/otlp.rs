//! Programs of the device speak OTLP to the agent, byte by byte, and what they send arrives signed, once and whole.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use assay_telemetry::otlp::{Encoding, Part, Signal};
use assay_testkit::Machine;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::bench::Bench;
use crate::counterpart::{Collecting, Counterpart};
use crate::run::{Agent, config};
use crate::workload_api::mine;

/// An ExportTraceServiceRequest with so many spans, and a field that nobody knows.
fn spans(count: u8) -> Bytes {
    let spans = [0x12, 0].repeat(count.into());
    let scope = [&[0x12, spans.len() as u8], spans.as_slice()].concat();
    [&[0x0a, scope.len() as u8], scope.as_slice(), &[0x78, 1]].concat().into()
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

fn framed(flag: u8, message: &[u8]) -> Bytes {
    [&[flag], (message.len() as u32).to_be_bytes().as_slice(), message].concat().into()
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The code in the trailers, or, where there is no body, in the headers.
    fn grpc_status(&self) -> &str {
        let found = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"));
        found.unwrap().to_str().unwrap()
    }
}

/// Addresses that the agent is served at.
struct Addresses {
    grpc: String,
    http: String,
}

impl Addresses {
    /// As the agent that has just been started says.
    async fn of(state: &Path) -> Addresses {
        let file = state.join("addresses.json");
        loop {
            if let Ok(text) = std::fs::read_to_string(&file)
                && let Ok(addresses) = serde_json::from_str::<serde_json::Value>(&text)
            {
                std::fs::remove_file(file).unwrap();
                let at = |name: &str| addresses[name].as_str().unwrap().to_owned();
                return Addresses { grpc: at("otlp_grpc"), http: at("otlp_http") };
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let stream = TokioIo::new(TcpStream::connect(&self.http).await.unwrap());
        let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(client.send_request(request.body(Full::new(body)).unwrap()).await.unwrap()).await
    }

    async fn post(&self, path: &str, media_type: &str, body: impl Into<Bytes>) -> Answer {
        self.http("POST", path, &[("content-type", media_type)], body.into()).await
    }

    async fn grpc(&self, service: &str, encoding: &str, body: Bytes) -> Answer {
        let stream = TokioIo::new(TcpStream::connect(&self.grpc).await.unwrap());
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{}/opentelemetry.proto.collector.{service}/Export", self.grpc);
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", encoding);
        answer(client.send_request(request.body(Full::new(body)).unwrap()).await.unwrap()).await
    }
}

async fn answer(response: hyper::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Answer { status: parts.status, headers: parts.headers, trailers, body: collected.to_bytes() }
}

/// Between two attempts to hand something in.
const PAUSE_LONGEST: Duration = Duration::from_secs(120);
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const TRACES: &str = "trace.v1.TraceService";

/// A device with an agent that serves OTLP and says nothing of itself.
struct Device {
    bench: Bench,
    config: assay_agent::config::Config,
    _machine: Machine,
    counterpart: Counterpart,
}

impl Device {
    async fn start() -> (Device, Agent, Addresses) {
        let bench = Bench::new();
        let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
        let counterpart = Counterpart::start(mine()).await;
        let mut config = config(&bench, &machine, &counterpart);
        config.telemetry_interval = None;
        (config.otlp_grpc, config.otlp_http) =
            (Some(([127, 0, 0, 1], 0).into()), Some(([127, 0, 0, 1], 0).into()));
        let device = Device { bench, config, _machine: machine, counterpart };
        let (agent, addresses) = device.run().await;
        (device, agent, addresses)
    }

    async fn run(&self) -> (Agent, Addresses) {
        let agent = Agent::start(self.config.clone());
        (agent, Addresses::of(&self.bench.path("state")).await)
    }

    fn server(&self, collecting: Collecting) {
        self.counterpart.collected.lock().unwrap().collecting = collecting;
    }

    fn attempts(&self) -> usize {
        self.counterpart.collected.lock().unwrap().attempts
    }

    /// Waits until so many parts were taken in.
    async fn collected(&self, count: usize) -> Vec<Part> {
        let wait = async {
            loop {
                let parts = self.counterpart.collected.lock().unwrap().parts.clone();
                if parts.len() >= count {
                    return parts;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PAUSE_LONGEST * 2, wait).await.expect("was not handed in in time")
    }

    /// Waits for one more attempt, which may be the longest pause of the back-off away.
    async fn attempted(&self, more_than: usize) {
        let wait = async {
            while self.attempts() <= more_than {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PAUSE_LONGEST * 2, wait).await.expect("was not tried in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_requests_arrive_byte_for_byte_and_what_is_none_is_refused_as_otlp_says() {
    let (device, agent, at) = Device::start().await;
    let json =
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}], "x": 1 }"#;
    let ok = at.post("/v1/traces", PROTOBUF, spans(3)).await;
    assert_eq!(
        (ok.status, ok.headers["content-type"].as_bytes(), ok.body.len()),
        (StatusCode::OK, PROTOBUF.as_bytes(), 0)
    );
    let ok = at.post("/v1/logs", "Application/JSON; charset=utf-8", json).await;
    assert_eq!(
        (ok.status, ok.headers["content-type"].as_bytes(), &ok.body[..]),
        (StatusCode::OK, JSON.as_bytes(), &b"{}"[..])
    );
    let packed = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    assert_eq!(at.http("POST", "/v1/traces", &packed, gzip(&spans(4))).await.status, StatusCode::OK);
    let ok = at.grpc(TRACES, "identity", framed(0, &spans(5))).await;
    assert_eq!((ok.status, ok.grpc_status(), &ok.body[..]), (StatusCode::OK, "0", &[0; 5][..]));
    assert_eq!(at.grpc(TRACES, "gzip", framed(1, &gzip(&spans(6)))).await.grpc_status(), "0");
    // Nothing in it is a success, and nothing to sign.
    assert_eq!(at.post("/v1/metrics", PROTOBUF, Bytes::new()).await.status, StatusCode::OK);
    assert_eq!(at.grpc("metrics.v1.MetricsService", "identity", framed(0, b"")).await.grpc_status(), "0");

    let parts = device.collected(5).await;
    let found: Vec<_> =
        parts.iter().map(|part| (part.signal(), part.encoding(), part.items, part.body.clone())).collect();
    let trace = |count: u8| (Signal::Traces, Encoding::Protobuf, u64::from(count), spans(count));
    let log = (Signal::Logs, Encoding::Json, 1, Bytes::from_static(json.as_bytes()));
    assert_eq!(found, [trace(3), log, trace(4), trace(5), trace(6)]);

    let refused = async |method: &str, path: &str, headers: &[(&str, &str)], body: Bytes| {
        let answer = at.http(method, path, headers, body).await;
        assert!(!answer.body.is_empty(), "a Status");
        answer.status.as_u16()
    };
    let protobuf = [("content-type", PROTOBUF)];
    assert_eq!(refused("POST", "/v1/profiles", &protobuf, spans(1)).await, 404);
    assert_eq!(refused("POST", "/v1/traces/", &protobuf, spans(1)).await, 404);
    assert_eq!(refused("GET", "/v1/traces", &protobuf, Bytes::new()).await, 405);
    assert_eq!(refused("POST", "/v1/traces", &[("content-type", "text/plain")], spans(1)).await, 415);
    assert_eq!(refused("POST", "/v1/traces", &[], spans(1)).await, 415);
    let zstd = [("content-type", PROTOBUF), ("content-encoding", "zstd")];
    assert_eq!(refused("POST", "/v1/traces", &zstd, spans(1)).await, 415);
    assert_eq!(refused("POST", "/v1/traces", &protobuf, Bytes::from_static(b"garbage")).await, 400);
    assert_eq!(refused("POST", "/v1/traces", &packed, spans(1)).await, 400);
    let bad = at.post("/v1/traces", JSON, r#"{"resourceSpans":NaN}"#).await;
    let status: serde_json::Value = serde_json::from_slice(&bad.body).unwrap();
    assert_eq!((bad.status, &status["code"]), (StatusCode::BAD_REQUEST, &3.into()));
    // Too long as it came, and as it is unpacked; and not to be tried again.
    let bomb = gzip(&vec![0; 64 << 20 | 1]);
    let long = at.http("POST", "/v1/traces", &packed, bomb.clone()).await;
    assert_eq!((long.status, long.headers.get("retry-after")), (StatusCode::PAYLOAD_TOO_LARGE, None));
    assert_eq!(at.post("/v1/traces", PROTOBUF, vec![0; 4 << 20]).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let long = at.grpc(TRACES, "gzip", framed(1, &bomb)).await;
    assert_eq!((long.grpc_status(), long.headers.get("grpc-status-details-bin")), ("8", None));
    assert_eq!(at.grpc("profiles.v1.ProfilesService", "identity", framed(0, b"")).await.grpc_status(), "12");
    assert_eq!(at.grpc(TRACES, "zstd", framed(1, b"")).await.grpc_status(), "12");
    assert_eq!(at.grpc(TRACES, "identity", framed(0, b"garbage")).await.grpc_status(), "3");
    assert_eq!(at.grpc(TRACES, "identity", Bytes::from_static(&[0, 0, 0])).await.grpc_status(), "3");
    agent.stop().await;
    assert_eq!(device.collected(5).await.len(), 5, "nothing of what was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_nothing_that_was_answered_is_lost_or_doubled_while_the_server_is_away_or_an_answer_is() {
    let (device, agent, at) = Device::start().await;
    device.server(Collecting::Away);
    for count in 1..=3 {
        assert_eq!(at.post("/v1/traces", PROTOBUF, spans(count)).await.status, StatusCode::OK);
    }
    device.attempted(0).await;
    // Signed, not sent; and started again.
    agent.stop().await;
    let (agent, at) = device.run().await;
    assert_eq!(at.post("/v1/traces", PROTOBUF, spans(4)).await.status, StatusCode::OK);
    device.attempted(device.attempts()).await;
    device.server(Collecting::Mute);
    device.collected(3).await;
    device.attempted(device.attempts()).await;
    device.server(Collecting::Takes);
    let counts = async |expected: usize| {
        let parts = device.collected(expected).await;
        parts.iter().map(|part| part.items).collect::<Vec<_>>()
    };
    assert_eq!(counts(4).await, [1, 2, 3, 4]);
    // A device that is not trusted keeps what it has, and is heard once it is again.
    device.server(Collecting::Denies);
    assert_eq!(at.post("/v1/traces", PROTOBUF, spans(5)).await.status, StatusCode::OK);
    device.attempted(device.attempts()).await;
    device.server(Collecting::Takes);
    assert_eq!(counts(5).await, [1, 2, 3, 4, 5]);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(counts(5).await, [1, 2, 3, 4, 5], "each once");
    let statements = device.counterpart.collected.lock().unwrap().statements.clone();
    assert!(statements.len() >= 3);
    agent.stop().await;
}
