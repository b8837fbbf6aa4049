//! The door for signed messages: who gets as far as the TPM, and what is refused before.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_agent::holding::{Holding, Workload};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::workload_api::{Api, holding, mine, workload};

async fn ask(
    socket: &Path,
    (method, path, header): (Method, &str, Option<&str>),
    body: String,
) -> (StatusCode, Value) {
    let stream = TokioIo::new(UnixStream::connect(socket).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "agent");
    if let Some(value) = header {
        request = request.header("workload.spiffe.io", value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

const GOOD: (Method, &str, Option<&str>) = (Method::POST, "/sign-message", Some("true"));

fn wanted() -> Value {
    json!({
        "audience": "assay", "method": "POST", "path": "/x?y=1", "body_sha256": "0".repeat(64), "data": { "a": 1.0 },
    })
}

fn speaker(selectors: &str) -> Workload {
    let mut workload = workload("press", selectors, None);
    let mut entry = (*workload.entry).clone();
    entry.speaks_for_node = true;
    workload.entry = Arc::new(entry);
    workload
}

#[tokio::test]
async fn only_a_workload_of_an_entry_that_says_so_gets_as_far_as_the_tpm() {
    let api = Api::serve();
    let check = async |held: Holding, expected: StatusCode, says: &str| {
        api.held.send_replace(held);
        let (status, answer) = ask(&api.socket, GOOD, wanted().to_string()).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == expected && message.contains(says), "{status} {answer}");
    };
    check(Holding::default(), StatusCode::SERVICE_UNAVAILABLE, "has not heard").await;
    check(holding(Vec::new()), StatusCode::FORBIDDEN, "no entry's selectors").await;
    check(holding(vec![speaker("uid:4294967294")]), StatusCode::FORBIDDEN, "no entry's selectors").await;
    check(holding(vec![workload("web", &mine(), None)]), StatusCode::FORBIDDEN, "speak for the device").await;
    // One entry of several is enough, and a fallen device has none. Here no device is attached.
    let both = vec![workload("web", &mine(), None), speaker(&mine())];
    check(holding(both), StatusCode::SERVICE_UNAVAILABLE, "not attached").await;
    check(Holding::withdrawn("fell".into(), Vec::new()), StatusCode::FORBIDDEN, "withdrawn").await;
}

#[tokio::test]
async fn what_is_no_request_for_a_message_is_refused_with_its_place() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![speaker(&mine())]));
    for (asked, expected, code) in [
        ((Method::POST, "/", Some("true")), StatusCode::NOT_FOUND, "no-route"),
        ((Method::POST, "/SpiffeWorkloadAPI/FetchX509SVID", Some("true")), StatusCode::NOT_FOUND, "no-route"),
        ((Method::GET, "/sign-message", Some("true")), StatusCode::METHOD_NOT_ALLOWED, "method"),
        ((Method::POST, "/sign-message", None), StatusCode::BAD_REQUEST, "header"),
        ((Method::POST, "/sign-message", Some("yes")), StatusCode::BAD_REQUEST, "header"),
    ] {
        let (status, answer) = ask(&api.socket, asked, wanted().to_string()).await;
        assert_eq!((status, &answer["error"]["code"]), (expected, &json!(code)), "{answer}");
    }
    let with = |member: &str, value: Value| {
        let mut wanted = wanted();
        wanted[member] = value;
        wanted.to_string()
    };
    let without = |member: &str| {
        let mut wanted = wanted();
        wanted.as_object_mut().unwrap().remove(member);
        wanted.to_string()
    };
    let twice = wanted().to_string().replace("\"audience\"", "\"audience\":\"other\",\"audience\"");
    for (body, says) in [
        (with("audience", json!("")), "audience"),
        (with("audience", json!(7)), "string"),
        (with("method", json!("post")), "method"),
        (with("path", json!("x")), "path"),
        (with("path", json!("/x y")), "path"),
        (with("path", json!("/x\r\ny")), "path"),
        (with("body_sha256", json!("0")), "body_sha256"),
        (with("body_sha256", json!("A".repeat(64))), "body_sha256"),
        (with("from_node", json!(3)), "from_node"),
        (with("timestamp", json!(3)), "timestamp"),
        (without("data"), "data"),
        (twice, "audience"),
        ("{".to_owned(), "EOF"),
        (String::new(), "EOF"),
    ] {
        let (status, answer) = ask(&api.socket, GOOD, body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == StatusCode::BAD_REQUEST && message.contains(says), "{body}: {answer}");
    }
    let (status, _) = ask(&api.socket, GOOD, with("audience", json!("a".repeat(90 << 10)))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn who_begins_and_says_no_more_keeps_nobody_waiting() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![speaker(&mine())]));
    let begun = "POST /sign-message HTTP/1.1\r\nhost: agent\r\nworkload.spiffe.io: true\r\ncontent-length: 9\r\n\r\n{";
    let mut idle = Vec::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(&api.socket).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    // While they wait there is no place, and before long there is.
    let mut statuses = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    while statuses.last() != Some(&StatusCode::SERVICE_UNAVAILABLE) && Instant::now() < until {
        statuses.push(ask(&api.socket, GOOD, wanted().to_string()).await.0);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(statuses.last(), Some(&StatusCode::SERVICE_UNAVAILABLE), "{statuses:?}");
    assert!(
        statuses.iter().rev().skip(1).all(|status| *status == StatusCode::TOO_MANY_REQUESTS),
        "{statuses:?}"
    );
    let mut told = String::new();
    idle[0].read_to_string(&mut told).await.ok();
    assert!(told.starts_with("HTTP/1.1 413"), "{told}");
}
