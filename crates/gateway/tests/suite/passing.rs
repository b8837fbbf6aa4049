//! What passes the gateway, and where it goes.

use assay_wire::edge::{
    DeviceMessage, EvidenceChanged, Hello, SubmitRequest, device_message, server_message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::domain::Domain;
use crate::edge::Server;
use crate::stage::{SOON, Stage, eventually};

fn hello(device_id: &str) -> DeviceMessage {
    let hello = Hello { device_id: device_id.to_owned(), ..Hello::default() };
    DeviceMessage { message: Some(device_message::Message::Hello(hello)) }
}

fn changed() -> DeviceMessage {
    DeviceMessage { message: Some(device_message::Message::Changed(EvidenceChanged {})) }
}

pub fn submit(bytes: usize) -> SubmitRequest {
    SubmitRequest { payload: vec![7; bytes].into(), ..SubmitRequest::default() }
}

#[tokio::test]
async fn year_12_a_gateway_has_metrics_and_every_series_from_the_start() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    let (status, text) = stage.get_text("/gateway/metrics").await;
    assert_eq!(status, 200);
    for series in [
        "assay_gateway_requests_total{outcome=\"passed\"} 0",
        "assay_gateway_requests_total{outcome=\"unavailable\"} 0",
        "assay_gateway_servers{state=\"healthy\"} 1",
        "assay_gateway_servers{state=\"unhealthy\"} 0",
    ] {
        assert!(text.lines().any(|line| line == series), "{series}\n{text}");
    }
    let number = |family: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{family} "))).unwrap();
        line.parse().unwrap()
    };
    assert!(number("assay_gateway_certificate_end_seconds") > 0);
    assert!(number("assay_gateway_revocation_list_end_seconds") > 0);
}

#[tokio::test]
async fn a_stream_crosses_both_ways_message_by_message_to_its_status() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    let mut client = stage.client(Some(stage.domain.key("/device"))).await;

    let (send, receive) = mpsc::channel(1);
    let mut answers = client.attach(ReceiverStream::new(receive)).await.unwrap().into_inner();
    for name in ["a", "b", "c"] {
        send.send(hello(name)).await.unwrap();
        // Each answer comes before the next message is sent: nothing waits for the end of the stream.
        let answer = answers.message().await.unwrap().unwrap();
        let Some(server_message::Message::Statement(signed)) = answer.message else {
            panic!("{answer:?}");
        };
        assert_eq!(signed.statement, name.as_bytes());
    }
    send.send(changed()).await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "that is all, 100 %"));
}

#[tokio::test]
async fn only_the_edge_protocol_passes() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    let (status, body) = stage.get("/assay.edge.v1.Edge/Submit").await;
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("unknown-path")));
    assert_eq!(stage.get("/").await.0, 404);

    let (status, body) = stage.get("/gateway/status").await;
    assert_eq!((status, body["status"].as_str()), (200, Some("ok")));
    assert_eq!(body["id"], "spiffe://example.org/assay/gateway/edge-1");
    assert_eq!(body["requests"]["unknown_path"], 2);
    assert!(!body.to_string().contains(&server.address.to_string()));
    let (status, body) = stage.get("/gateway/rate-limits").await;
    assert_eq!((status, body["limits"]["request_bytes_max"].as_u64()), (200, Some(4 << 20)));
    assert!(body["caller"]["connections"].as_u64() >= Some(1));
}

#[tokio::test]
async fn another_grpc_service_is_unimplemented() {
    use tonic::client::Grpc;
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    let tls = stage.connect(None).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(tls),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let service = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let mut grpc = Grpc::with_origin(service, "https://gateway".parse().unwrap());
    let path = "/assay.console.v1.Console/Revoke".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<SubmitRequest, SubmitRequest>::default();
    let status = grpc.unary(tonic::Request::new(submit(1)), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_server_that_goes_away_is_replaced() {
    let domain = Domain::new();
    let first = Server::start(&domain, "/assay/server").await;
    let second = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[first.address, second.address], |_| {}).await;
    let mut client = stage.client(None).await;
    eventually(async || (stage.get("/gateway/status").await.1["servers"]["healthy"] == 2).then_some(()))
        .await;

    let used = client.submit(submit(1)).await.unwrap().into_inner().reason;
    let (gone, left) = if used == first.address.to_string() { (first, second) } else { (second, first) };
    drop(gone);
    // A request already on its way may be lost; the next ones are not.
    eventually(async || client.submit(submit(1)).await.ok()).await;
    let answer = client.submit(submit(1)).await.unwrap().into_inner();
    assert_eq!(answer.reason, left.address.to_string());

    drop(left);
    let status = eventually(async || client.submit(submit(1)).await.err()).await;
    assert_eq!(status.code(), Code::Unavailable);
    let status = client.submit(submit(1)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no healthy server"));
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
}

#[tokio::test]
async fn a_stream_whose_server_goes_away_ends_as_unavailable() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    let mut client = stage.client(None).await;
    let (send, receive) = mpsc::channel(1);
    let mut answers = client.attach(ReceiverStream::new(receive)).await.unwrap().into_inner();
    send.send(hello("a")).await.unwrap();
    answers.message().await.unwrap().unwrap();
    drop(server);
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn nobody_but_a_server_is_taken_for_one() {
    let domain = Domain::new();
    let impostor = Server::start(&domain, "/assay/gateway/edge-1").await;
    let stranger = Server::start(&Domain::new(), "/assay/server").await;
    let stage = Stage::start(domain, &[impostor.address, stranger.address], |_| {}).await;
    let status = stage.client(None).await.submit(submit(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(stage.get("/gateway/status").await.1["servers"]["healthy"], 0);
}

#[tokio::test]
async fn changed_credentials_are_read_again() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    std::fs::write(stage.folder.path().join("key.pem"), "no key").unwrap();
    assert_eq!(stage.get("/gateway/status").await.0, 200);
    stage.domain.write_credentials("/assay/gateway/edge-2", stage.folder.path());
    let renewed = "spiffe://example.org/assay/gateway/edge-2";
    eventually(async || (stage.get("/gateway/status").await.1["id"] == renewed).then_some(())).await;
}

#[tokio::test]
async fn it_stops_within_two_seconds_streams_or_not() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let mut stage = Stage::start(domain, &[server.address], |_| {}).await;
    let mut client = stage.client(None).await;
    let (send, receive) = mpsc::channel(1);
    let mut answers = client.attach(ReceiverStream::new(receive)).await.unwrap().into_inner();
    send.send(hello("a")).await.unwrap();
    answers.message().await.unwrap().unwrap();

    stage.stop();
    let stopped = std::time::Instant::now();
    tokio::time::timeout(SOON, &mut stage.running).await.unwrap().unwrap().unwrap();
    assert!(stopped.elapsed().as_secs() < 2, "{:?}", stopped.elapsed());
    assert!(answers.message().await.is_err());
    assert!(stage.connect(None).await.is_err());
}
