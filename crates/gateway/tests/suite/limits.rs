//! What does not pass, and how that is said.

use std::num::NonZeroU32;

use assay_gateway::{Config, ConfigError, GatewayError};
use assay_wire::edge::EnrollRequest;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::domain::Domain;
use crate::edge::Server;
use crate::passing::submit;
use crate::stage::{SOON, Stage, eventually};

/// Completes when the other end closes; whatever it says before is not looked at.
async fn closed(mut connection: impl tokio::io::AsyncRead + Unpin) {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(SOON, connection.read_to_end(&mut bytes)).await.unwrap();
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_again() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |limits| {
        limits.svid_requests_per_second = NonZeroU32::MIN;
        limits.svid_requests_burst = NonZeroU32::new(2).unwrap();
    })
    .await;
    let mut client = stage.client(Some(stage.domain.key("/device"))).await;
    for _ in 0..2 {
        client.submit(submit(1)).await.unwrap();
    }
    let status = client.submit(submit(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert!((1..=1000).contains(&pushback.parse::<u32>().unwrap()), "{pushback}");
    // google.rpc.Status, its details an Any of google.rpc.RetryInfo.
    assert!(String::from_utf8_lossy(status.details()).contains("google.rpc.RetryInfo"));

    // The same device without its name has the address's rate, and so has another device.
    stage.client(None).await.submit(submit(1)).await.unwrap();
    stage.client(Some(stage.domain.key("/other"))).await.submit(submit(1)).await.unwrap();
}

#[tokio::test]
async fn an_address_has_its_own_rate() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |limits| {
        limits.address_requests_per_second = NonZeroU32::MIN;
        limits.address_requests_burst = NonZeroU32::MIN;
    })
    .await;
    let mut client = stage.client(None).await;
    client.submit(submit(1)).await.unwrap();
    assert_eq!(client.submit(submit(1)).await.unwrap_err().code(), Code::ResourceExhausted);
    let (status, body) = stage.get("/gateway/status").await;
    assert_eq!((status, body["error"]["code"].as_str()), (429, Some("too-many-requests")));
}

#[tokio::test]
async fn an_oversized_request_is_refused_and_the_connection_goes_on() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |limits| limits.request_bytes_max = 100_000).await;
    let mut client = stage.client(None).await;
    let largest = 100_000 - 5 - (submit(99_000).encoded_len() - 99_000);
    for (bytes, passes) in [(largest, true), (largest + 1, false), (5_000_000, false), (10, true)] {
        let answer = client.submit(submit(bytes)).await;
        match answer {
            Ok(answer) => assert!(passes && answer.into_inner().ledger_sequence == bytes as u64, "{bytes}"),
            Err(status) => {
                assert!(!passes, "{bytes}: {status}");
                assert_eq!(status.code(), Code::ResourceExhausted, "{bytes}: {status}");
            }
        }
    }
    assert_eq!(stage.get("/gateway/status").await.1["requests"]["too_large"], 2);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |limits| limits.request_seconds = 1).await;
    let mut client = stage.client(None).await;
    let requests = tokio_stream::pending::<EnrollRequest>();
    let status = match client.enroll(requests).await {
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn half_open_and_idle_connections_are_dropped() {
    let domain = Domain::new();
    let stage = Stage::start(domain, &["127.0.0.1:1".parse().unwrap()], |limits| {
        limits.handshake_seconds = 1;
        limits.idle_seconds = 1;
    })
    .await;
    let silent = TcpStream::connect(stage.gateway).await.unwrap();
    let mut stuttering = TcpStream::connect(stage.gateway).await.unwrap();
    stuttering.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    let without_http = stage.connect(None).await.unwrap();
    let mut without_request = stage.connect(None).await.unwrap();
    // RFC 9113 §3.4: the preface and empty SETTINGS.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    without_request.write_all(preface).await.unwrap();
    tokio::join!(closed(silent), closed(stuttering), closed(without_http), closed(without_request));
    eventually(async || (stage.get("/gateway/status").await.1["connections"] == 1).then_some(())).await;
}

#[tokio::test]
async fn a_client_may_come_without_a_certificate_but_not_with_a_foreign_one() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    stage.client(None).await.submit(submit(1)).await.unwrap();
    stage.client(Some(stage.domain.key("/device"))).await.submit(submit(1)).await.unwrap();

    let foreign = Domain::new().key("/device");
    // In TLS 1.3 the client is done before the server has judged it: the refusal is the first thing it reads.
    let refused = match stage.connect(Some(foreign)).await {
        Ok(mut connection) => connection.read_u8().await.map(|_| ()).unwrap_err(),
        Err(error) => error,
    };
    assert!(refused.to_string().contains("alert"), "{refused}");
}

#[tokio::test]
async fn connections_of_one_address_are_counted() {
    let domain = Domain::new();
    let stage = Stage::start(domain, &["127.0.0.1:1".parse().unwrap()], |limits| {
        limits.connections_per_address_max = 2;
    })
    .await;
    let first = stage.connect(None).await.unwrap();
    let second = stage.connect(None).await.unwrap();
    closed(TcpStream::connect(stage.gateway).await.unwrap()).await;
    drop(first);
    let third = eventually(async || stage.connect(None).await.ok()).await;
    drop((second, third));
}

#[tokio::test]
async fn headers_are_bounded() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |limits| limits.header_bytes_max = 2_000).await;
    let mut client = stage.client(None).await;
    let mut request = tonic::Request::new(submit(1));
    request.metadata_mut().insert("filler", "x".repeat(3_000).parse().unwrap());
    assert!(client.submit(request).await.is_err());
    client.submit(submit(1)).await.unwrap();
}

#[tokio::test]
async fn a_gateway_does_not_start_with_what_it_cannot_use() {
    let domain = Domain::new();
    let folder = tempfile::tempdir().unwrap();
    let config = |servers: &[&str]| Config {
        trust_domain: domain.name.clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        servers: servers.iter().map(|server| (*server).to_owned()).collect(),
        credentials: folder.path().to_owned(),
        addresses_file: None,
        json_protocol: None,
        limits: assay_gateway::Limits::default(),
    };
    let refused = assay_gateway::run(config(&[]), async {}).await;
    assert!(matches!(refused, Err(GatewayError::Config(ConfigError::NoServers))));
    let refused = assay_gateway::run(config(&["127.0.0.1:1"]), async {}).await;
    assert!(matches!(refused, Err(GatewayError::Credentials(_))));
    domain.write_credentials("/device", folder.path());
    let refused = assay_gateway::run(config(&["127.0.0.1:1"]), async {}).await.unwrap_err();
    let GatewayError::Credentials(error) = refused else { panic!("{refused}") };
    assert_eq!(error.to_string(), "credentials.pem: spiffe://example.org/device is not a gateway");
}
