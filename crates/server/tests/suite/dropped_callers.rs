//! Whatever a commit brings happens although the caller went away: every request that changes something is dropped at
//! every place where it waits, and afterwards memory says what the store says.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use assay_identity::{Crl, Serial};
use assay_testkit::edge::Message;
use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::fixture::{Fixture, attach_trusted, attest_again, learned};

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Polls a future until it has waited so many times, and drops it there. Whether it came to its end before.
async fn dropped_after(waits: usize, future: impl Future) -> bool {
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(woken.clone());
    let mut future = pin!(future);
    for _ in 0..waits {
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return true;
        }
        woken.0.notified().await;
    }
    matches!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(_))
}

/// Fails unless what the server tells from memory becomes what its database says.
async fn memory_follows(fixture: &Fixture, what: &str) {
    let agree = async {
        loop {
            match differs(fixture).await {
                None => return,
                Some(_) => tokio::task::yield_now().await,
            }
        }
    };
    // The follower is the only one who could still bring it about; a reconciliation would count.
    if timeout(Duration::from_secs(10), agree).await.is_err() {
        panic!("{what}: {:?}", differs(fixture).await);
    }
    let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    assert!(metrics.contains("assay_mended_total 0"), "{what}: memory had to be mended\n{metrics}");
}

async fn differs(fixture: &Fixture) -> Option<String> {
    let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    let crl = Crl::parse(crl.body()).unwrap();
    let withdrawn = fixture
        .text("SELECT COALESCE(GROUP_CONCAT(serial), '') AS n FROM svids WHERE withdrawn_at > 0")
        .await;
    for serial in withdrawn.split(',').filter(|serial| !serial.is_empty()) {
        if !crl.revokes(&Serial::from_hex(serial).unwrap()) {
            return Some(format!("{serial} fell and is not on the list"));
        }
    }
    let in_force = fixture.get("/v1/policies").await["assignments"].clone();
    let mut told: Vec<String> = in_force
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}={}", one["selector"].as_str().unwrap(), one["version"]))
        .collect();
    told.sort();
    let stored = fixture
        .text(
            "SELECT COALESCE(GROUP_CONCAT(line), '') AS n FROM (SELECT selector || '=' || version AS line
             FROM assignments JOIN policies ON policies.revision = assignments.revision ORDER BY selector)",
        )
        .await;
    (told.join(",") != stored).then(|| format!("in force {told:?}, stored {stored}"))
}

/// A request that changes something, made anew each time.
type Change = fn(&Fixture, &Value, usize) -> (Method, String, String);

const CHANGES: [(&str, Change); 11] = [
    ("entry create", |_, known, turn| {
        let entry = json!({
            "spiffe_id": format!("spiffe://test.assay.example/web-{turn}"), "parent": known["id"], "ttl_seconds": 600,
            "selectors": [{ "type": "unix", "value": "uid:1" }],
        });
        (Method::POST, "/v1/entries".to_owned(), entry.to_string())
    }),
    ("entry delete", |_, known, _| {
        (Method::DELETE, format!("/v1/entries/{}", known["entry"].as_str().unwrap()), String::new())
    }),
    ("policy set", |_, known, turn| {
        let text = format!("{}\n# {turn}", known["policy"].as_str().unwrap());
        (Method::PUT, "/v1/policy?selector=site%3Dparis".to_owned(), text)
    }),
    ("policy unassign", |_, _, _| {
        (Method::POST, "/v1/policies/unassign".to_owned(), json!({ "selector": "site=paris" }).to_string())
    }),
    ("rollout start", |_, known, _| {
        let path = "/v1/policies/rollouts?percent=10&force=true".to_owned();
        (Method::POST, path, known["next"].as_str().unwrap().to_owned())
    }),
    ("rollout widen", |_, _, turn| {
        let percent = json!({ "percent": 11 + turn });
        (Method::POST, "/v1/policies/rollouts/base/widen".to_owned(), percent.to_string())
    }),
    ("rollout finish", |_, _, _| {
        let force = json!({ "force": true }).to_string();
        (Method::POST, "/v1/policies/rollouts/base/finish".to_owned(), force)
    }),
    ("label", |_, _, turn| {
        let labels = json!({ "set": [format!("turn={turn}")] });
        (Method::POST, "/v1/devices/press-1/labels".to_owned(), labels.to_string())
    }),
    ("revoke", |_, _, _| {
        let reason = json!({ "reason": "stolen" }).to_string();
        (Method::POST, "/v1/devices/press-1/revoke".to_owned(), reason)
    }),
    ("readmit", |_, _, _| (Method::POST, "/v1/devices/press-1/readmit".to_owned(), String::new())),
    ("gateway revoke", |_, _, _| {
        let reason = json!({ "reason": "taken over" }).to_string();
        (Method::POST, "/v1/gateways/edge-9/revoke".to_owned(), reason)
    }),
];

/// What goes before a change so that there is something to change, each time.
async fn prepare(fixture: &Fixture, name: &str, known: &mut Value, turn: usize) {
    let policies = fixture.get("/v1/policies").await["assignments"].clone();
    let is_rolled_out = policies.as_array().unwrap().iter().any(|one| !one["rollout"].is_null());
    let headers = authorization(fixture);
    let quietly = async |method, path: &str, body: String| {
        fixture.call(method, path, &[("authorization", &headers)], body).await;
    };
    match name {
        "entry delete" => {
            let entry = CHANGES[0].1(fixture, known, 1000 + turn).2;
            let entry = fixture.post("/v1/entries", &serde_json::from_str(&entry).unwrap()).await;
            known["entry"] = entry["id"].clone();
            svid_of(fixture, known, entry["id"].as_str().unwrap()).await;
        }
        "policy unassign" => {
            let (method, path, body) = CHANGES[2].1(fixture, known, 1000 + turn);
            quietly(method, &path, body).await;
        }
        "rollout start" if is_rolled_out => {
            quietly(Method::POST, "/v1/policies/rollouts/base/abort", String::new()).await;
        }
        "rollout widen" | "rollout finish" if !is_rolled_out => {
            let (method, path, body) = CHANGES[4].1(fixture, known, turn);
            quietly(method, &path, body).await;
        }
        "gateway revoke" => drop(fixture.door("edge-9").await),
        "revoke" => quietly(Method::POST, "/v1/devices/press-1/readmit", String::new()).await,
        "readmit" => {
            let (method, path, body) = CHANGES[8].1(fixture, known, turn);
            quietly(method, &path, body).await;
        }
        _ => {}
    }
}

/// Has the database hold an SVID of the entry, as if a workload had asked.
async fn svid_of(fixture: &Fixture, known: &Value, entry: &str) {
    let now = assay_identity::UnixTime::now().as_secs();
    let sql = format!(
        "INSERT INTO svids (serial, spiffe_id, device_id, entry_id, spki_sha256, state_version, issued_at, not_after,
             withdrawn_at, leaf) VALUES ('{entry}', 'spiffe://test.assay.example/web', '{}', '{entry}', '00', 1, {now},
             {now} + 600, 0, 0)",
        known["id"].as_str().unwrap()
    );
    fixture.tamper_running(sql).await;
}

fn authorization(fixture: &Fixture) -> String {
    format!("Bearer {}", fixture.token())
}

#[tokio::test]
async fn finding_5_a_caller_that_goes_away_takes_nothing_of_its_change_along() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let policy = learned(&mut device, "");
    let next = learned(&mut device, "[freshness]\nevidence_age_max_seconds = 600");
    let mut known = json!({ "id": device.device_id, "policy": policy, "next": next });
    let headers = authorization(&fixture);
    for (name, change) in CHANGES {
        let mut ended = false;
        // Each turn goes one await further; a request has a few dozen at most.
        for turn in 0..200 {
            prepare(&fixture, name, &mut known, turn).await;
            let (method, path, body) = change(&fixture, &known, turn);
            ended = dropped_after(turn, fixture.ask(method, &path, &headers, body)).await;
            memory_follows(&fixture, &format!("{name}, dropped after {turn} waits")).await;
            if ended {
                break;
            }
        }
        assert!(ended, "{name} never came to its end");
    }
}

#[tokio::test]
async fn finding_5_a_stream_hears_of_a_revocation_whose_caller_went_away() {
    for waits in 0..12 {
        let fixture = Fixture::start().await;
        let edge = fixture.edge().await;
        let (_device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
        let reason = json!({ "reason": "stolen" }).to_string();
        let headers = authorization(&fixture);
        let revoke = fixture.ask(Method::POST, "/v1/devices/press-1/revoke", &headers, reason);
        dropped_after(waits, revoke).await;
        if fixture.status("press-1").await["status"] != "revoked" {
            continue;
        }
        let withdrawn = async {
            loop {
                if let Message::Grants(grants) = stream.next().await.unwrap()
                    && grants.withdrawn
                {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), withdrawn).await.unwrap_or_else(|_| panic!("dropped after {waits}"));
    }
}

#[tokio::test]
async fn an_enrollment_and_an_approval_whose_device_went_away_are_followed() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    device.run_program("/tmp/tool", b"tool");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let approval = fixture.approval("press-1").await.to_string();
    let headers = authorization(&fixture);
    for waits in 0..200 {
        let approve = fixture.ask(Method::POST, "/v1/devices/press-1/approve", &headers, approval.clone());
        let ended = dropped_after(waits, approve).await;
        memory_follows(&fixture, &format!("approve, dropped after {waits} waits")).await;
        if ended {
            break;
        }
    }
    stream.changed().await.unwrap();
    let verdict = loop {
        let verdict = stream.attest(&mut device).await.unwrap();
        if verdict.state == "trusted" {
            break verdict;
        }
    };
    assert_eq!(verdict.policy, "base v2");
    drop(stream);
    attach_trusted(&edge, &mut device).await;
    edge.enroll(&mut device).await.unwrap();
    memory_follows(&fixture, "enroll").await;
}
