//! A disk that is full: what is withdrawn stays withdrawn, at once, and is on record once there is room.
//!
//! On a real file system of some megabytes: the test runs itself again in a mount namespace of its own, which any user may
//! make where the kernel is told so.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use assay_identity::{Crl, Serial};
use assay_testkit::SoftwareDevice;
use assay_testkit::edge::{Attachment, Edge, Message};
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::{Method, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::fixture::{Fixture, attach_trusted, attest_again};

/// Runs a test whose temporary folder is a file system of so many megabytes; `None`: this is that run.
fn in_a_small_room(test: &str, megabytes: u32) -> Option<()> {
    if std::env::var_os(ROOM).is_some() {
        return None;
    }
    let room = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$TMPDIR\" && exec \"$@\"");
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env("TMPDIR", room.path())
        .env(ROOM, "1")
        .status()
        .unwrap();
    assert!(status.success(), "in its own namespace (unshare --user --mount): {status}");
    Some(())
}

/// Takes every byte that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for bytes in [1 << 20, 4096, 1] {
        while file.write_all(&vec![1; bytes]).is_ok() {}
    }
}

/// One request, and what it is answered with.
async fn ask(fixture: &Fixture, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let bearer = format!("Bearer {}", fixture.token());
    let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer);
    let answer = fixture.running().console().oneshot(request.body(Body::from(body.to_string())).unwrap());
    let (parts, body) = answer.await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

async fn create(fixture: &Fixture, number: u32) -> (u16, Value) {
    let entry = json!({
        "spiffe_id": format!("spiffe://test.assay.example/workload-{number}"), "parent": "press-4",
        "selectors": [{ "type": "unix", "value": format!("uid:{number}") }],
    });
    ask(fixture, Method::POST, "/v1/entries", &entry).await
}

/// Its stream hears within a second that nothing is granted any more.
async fn hears_of_its_end(stream: &mut Attachment) {
    let withdrawn = async {
        loop {
            match stream.next().await.unwrap() {
                Message::Grants(grants) if grants.withdrawn => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), withdrawn).await.unwrap();
}

async fn is_listed(fixture: &Fixture, device: &SoftwareDevice) -> bool {
    let shown = fixture.get(&format!("/v1/devices/{}", device.name)).await;
    let serials = shown["grants"].as_array().unwrap().iter();
    let serials: Vec<Serial> =
        serials.map(|grant| Serial::from_hex(grant["serial"].as_str().unwrap()).unwrap()).collect();
    assert!(!serials.is_empty());
    let list = Crl::parse(fixture.call(Method::GET, "/crl", &[], String::new()).await.body()).unwrap();
    serials.iter().all(|serial| list.revokes(serial))
}

async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it did not happen within 10 s");
}

#[test]
fn year_5_namespace_a_full_disk_stops_no_withdrawal() {
    if in_a_small_room("disk::year_5_namespace_a_full_disk_stops_no_withdrawal", 64).is_some() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(full_disk());
}

async fn full_disk() {
    let fixture = Fixture::start().await;
    let edge: Edge = fixture.edge().await;
    let (one, mut one_stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut others = Vec::new();
    for name in ["press-2", "press-3", "press-4"] {
        let mut device = fixture.device(name);
        edge.enroll(&mut device).await.unwrap();
        let (stream, _) = attach_trusted(&edge, &mut device).await;
        others.push((device, stream));
    }
    let [(mut two, mut two_stream), (three, mut three_stream), _] =
        others.try_into().unwrap_or_else(|_| panic!());
    let mut entries = Vec::new();
    for number in 0..400 {
        let (status, entry) = create(&fixture, number).await;
        assert_eq!(status, 200, "{entry}");
        entries.push(entry["id"].as_str().unwrap().to_owned());
    }

    // Somebody else's file takes the disk, and what grows is refused with a reason.
    let hog: PathBuf = std::env::temp_dir().join("hog");
    fill(&hog);
    let mut number = 1000;
    let refused = until(async || {
        number += 1;
        let (status, answer) = create(&fixture, number).await;
        (status != 200).then_some((status, answer))
    })
    .await;
    assert_eq!((refused.0, &refused.1["error"]["code"]), (503, &json!("disk-full")), "{}", refused.1);
    until(async || {
        let (_, health) = ask(&fixture, Method::GET, "/health", &Value::Null).await;
        let is_said = health["sentences"].to_string().contains("the disk is full");
        (health["status"] == "degraded" && is_said).then_some(())
    })
    .await;

    // What withdraws is done and on record: by an operator's word, and by a result.
    let path = "/v1/devices/press-1/revoke";
    let (status, answer) = ask(&fixture, Method::POST, path, &json!({ "reason": "stolen" })).await;
    assert_eq!((status, &answer["device"]["status"]), (200, &json!("revoked")), "{answer}");
    hears_of_its_end(&mut one_stream).await;
    assert!(is_listed(&fixture, &one).await);
    two.run_program("/opt/implant", b"unknown");
    assert_eq!(attest_again(&mut two_stream, &mut two).await.state, "suspect");
    hears_of_its_end(&mut two_stream).await;
    assert!(is_listed(&fixture, &two).await);

    // The reserve is gone as well. A fall is in force all the same.
    fill(&std::env::temp_dir().join("second-hog"));
    for entry in &entries {
        let path = format!("/v1/entries/{entry}");
        let (status, answer) = ask(&fixture, Method::DELETE, &path, &Value::Null).await;
        if status == 503 {
            assert_eq!(answer["error"]["code"], "disk-full");
            break;
        }
        assert_eq!(status, 200, "{answer}");
        assert_ne!(Some(entry), entries.last(), "the disk is not full");
    }
    let path = "/v1/devices/press-3/revoke";
    let (status, answer) = ask(&fixture, Method::POST, path, &json!({ "reason": "stolen" })).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("unrecorded")), "{answer}");
    hears_of_its_end(&mut three_stream).await;
    assert_eq!(fixture.status("press-3").await["status"], "revoked");
    let listed = fixture.get("/v1/devices?name=press-3").await;
    assert_eq!(listed["devices"][0]["status"], "revoked", "{listed}");
    until(async || is_listed(&fixture, &three).await.then_some(())).await;
    let sentences = until(async || {
        let (_, health) = ask(&fixture, Method::GET, "/health", &Value::Null).await;
        let sentences = health["sentences"].to_string();
        sentences.contains("not on record").then_some(sentences)
    });
    assert!(sentences.await.contains("1 devices have fallen"));
    let leaves = async || {
        let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].clone();
        leaves.as_array().unwrap().clone()
    };
    let revoked = |leaves: &[Value]| leaves.iter().filter(|leaf| leaf["kind"] == "device.revoked").count();
    assert_eq!(revoked(&leaves().await), 1);

    // There is room again: what is owed comes first, and everything is as it was.
    std::fs::remove_file(&hog).unwrap();
    std::fs::remove_file(std::env::temp_dir().join("second-hog")).unwrap();
    number = 2000;
    until(async || {
        number += 1;
        (create(&fixture, number).await.0 == 200).then_some(())
    })
    .await;
    let leaves = leaves().await;
    assert_eq!(revoked(&leaves), 2);
    let three_id = json!(three.device_id.clone().unwrap());
    let is_of_three = |leaf: &Value| leaf["kind"] == "device.revoked" && leaf["subject"] == three_id;
    let recorded = leaves.iter().position(is_of_three).unwrap();
    let created = leaves.iter().rposition(|leaf| leaf["kind"] == "entry.created").unwrap();
    assert!(recorded < created, "{leaves:?}");
    until(async || {
        let (_, health) = ask(&fixture, Method::GET, "/health", &Value::Null).await;
        (health["status"] == "ok").then_some(())
    })
    .await;
    assert!(fixture.data().join("reserve").exists());
    assay_server::ledger::verify(fixture.data(), None, None).await.unwrap();
}

const ROOM: &str = "ASSAY_TEST_SMALL_ROOM";
