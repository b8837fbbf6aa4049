//! Database, keys and what was signed last belong together, or the server does not start.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_identity::{Crl, CrlSet, TrustDomain, UnixTime, verify_svid};
use assay_server::continuity::{ContinuityError, Resumed, resume};
use assay_server::ledger::{self, LedgerError};
use assay_server::{FileError, StartError};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::fixture::{Fixture, TRUST_DOMAIN};

/// A server that stopped, with a device.
async fn stopped() -> Fixture {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    edge.enroll(&mut fixture.device("press-1")).await.unwrap();
    fixture.stop().await;
    fixture
}

async fn refused(fixture: &mut Fixture) -> ContinuityError {
    match fixture.start_again().await {
        Err(StartError::Continuity(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn keys(fixture: &Fixture) -> PathBuf {
    fixture.data().join("keys")
}

fn swap(one: &Path, other: &Path) {
    let between = one.with_extension("between");
    fs::rename(one, &between).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(between, other).unwrap();
}

#[tokio::test]
async fn year_3_keys_that_are_lost_are_not_replaced_in_silence() {
    let mut fixture = stopped().await;
    let away = fixture.folder().join("away");
    for name in ["root.key", "root.pem", "issuing.key", "issuing.pem", "ledger.key"] {
        let file = keys(&fixture).join(name);
        fs::rename(&file, &away).unwrap();
        let error = refused(&mut fixture).await;
        let (said, stem) = (error.to_string(), name.split('.').next().unwrap());
        assert!(said.contains(stem) && said.contains("put the folder back from a backup"), "{name}: {said}");
        assert!(!file.exists(), "{name}: nothing is made anew");
        fs::rename(&away, &file).unwrap();
    }
    fs::rename(keys(&fixture), &away).unwrap();
    let error = refused(&mut fixture).await;
    assert!(matches!(error, ContinuityError::Keys { what: "root.key and root.pem", .. }), "{error}");
    assert!(!keys(&fixture).exists());
    // Nor is a whole folder of another server's good, however well it fits together.
    let other = stopped().await;
    fs::rename(other.data().join("keys"), keys(&fixture)).unwrap();
    let error = refused(&mut fixture).await;
    assert!(matches!(error, ContinuityError::Keys { .. }), "{error}");
    swap(&keys(&fixture), &away);
    fixture.start_again().await.unwrap();
}

#[tokio::test]
async fn year_3_a_database_of_a_build_that_noted_no_keys_is_not_given_new_ones() {
    let mut fixture = stopped().await;
    fixture.tamper("DELETE FROM authority").await;
    let away = fixture.folder().join("away");
    fs::rename(keys(&fixture), &away).unwrap();
    let error = refused(&mut fixture).await;
    assert!(matches!(error, ContinuityError::Keys { .. }), "{error}");
    fs::rename(&away, keys(&fixture)).unwrap();
    fixture.start_again().await.unwrap();
    fixture.stop().await;
    assert_eq!(fixture.count("SELECT COUNT(*) AS n FROM authority").await, 1, "noted now");
}

#[tokio::test]
async fn year_4_an_older_database_revives_nothing() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let peer = verify_svid(&grants.device_svid, &fixture.bundle(), &CrlSet::bootstrapping(), UnixTime::now());
    let peer = peer.unwrap();
    let serial = peer.serial().clone();
    fixture.stop().await;
    let (database, earlier) = (fixture.data().join("assay.db"), fixture.folder().join("earlier.db"));
    fs::copy(&database, &earlier).unwrap();
    // A start and a stop as they should be lose nothing.
    fixture.start_again().await.unwrap();
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    let before = list(&fixture).await;
    assert!(before.revokes(&serial));
    fixture.stop().await;
    fs::copy(&earlier, &database).unwrap();

    let (leaves, signed) = match refused(&mut fixture).await {
        ContinuityError::SetBack { leaves, signed } => (leaves, signed),
        other => panic!("{other}"),
    };
    assert!(leaves < signed);
    let found = ledger::verify(fixture.data(), None, None).await;
    assert!(matches!(found, Err(LedgerError::OtherHead { .. })), "{found:?}");
    // It takes a decision on this very copy.
    let other = resume(fixture.data(), signed).await;
    assert!(matches!(other, Err(ContinuityError::OtherLeaves { found }) if found == leaves), "{other:?}");
    refused(&mut fixture).await;
    let resumed = resume(fixture.data(), leaves).await.unwrap();
    assert!(matches!(resumed, Resumed { still_withdrawn: 1.., .. }), "{resumed:?}");
    let again = resume(fixture.data(), leaves).await;
    assert!(matches!(again, Err(ContinuityError::NotSetBack)), "{again:?}");

    fixture.start_again().await.unwrap();
    let after = list(&fixture).await;
    assert!(after.revokes(&serial), "what was withdrawn stays withdrawn");
    assert!(after.number() > before.number(), "{} {}", after.number(), before.number());
    let trail = fixture.get("/v1/audit?limit=1000").await;
    let resumed = trail["leaves"].as_array().unwrap().iter().find(|leaf| leaf["kind"] == "ledger.resumed");
    assert_eq!(resumed.unwrap()["detail"]["signed"], signed, "{trail}");
    let running = resume(fixture.data(), leaves).await;
    assert!(matches!(running, Err(ContinuityError::File(FileError::InUse { .. }))), "{running:?}");
    fixture.stop().await;
    ledger::verify(fixture.data(), None, None).await.unwrap();
}

/// One request on the operator's socket; `None`: nobody answers there.
async fn on_the_socket(fixture: &Fixture, method: Method, path: &str, token: &str) -> Option<(u16, Value)> {
    let stream = UnixStream::connect(fixture.data().join("operator.sock")).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {token}")).body(Empty::new()).unwrap();
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some((parts.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default()))
}

/// Until health says so.
async fn is(fixture: &Fixture, status: &str) -> Value {
    for _ in 0..400 {
        match on_the_socket(fixture, Method::GET, "/health", &fixture.token()).await {
            Some((200, health)) if health["status"] == status => return health,
            _ => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
    panic!("it is not {status}");
}

#[tokio::test]
async fn year_4_an_older_database_is_there_to_be_read_until_it_is_decided() {
    let mut fixture = stopped().await;
    let (database, earlier) = (fixture.data().join("assay.db"), fixture.folder().join("earlier.db"));
    fs::copy(&database, &earlier).unwrap();
    fixture.start_again().await.unwrap();
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    fixture.stop().await;
    fs::copy(&earlier, &database).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = assay_server::run(fixture.config(), async move { drop(stopped.await) });
    let (ran, ()) = tokio::join!(server, read_and_decide(&fixture, stop));
    ran.unwrap();
    ledger::verify(fixture.data(), None, None).await.unwrap();
}

async fn read_and_decide(fixture: &Fixture, stop: tokio::sync::oneshot::Sender<()>) {
    let health = is(fixture, "set-back").await;
    let token = fixture.token();
    let leaves = fixture.count("SELECT COUNT(*) AS n FROM audit").await;
    let decide = format!("assay ledger resume --leaves {leaves}");
    assert!(health["sentences"].to_string().contains(&decide), "{health}");
    // What the copy has is there to be looked at.
    let ask = async |method, path| on_the_socket(fixture, method, path, &token).await.unwrap();
    let (status, devices) = ask(Method::GET, "/v1/devices?name=press-1").await;
    assert_eq!((status, &devices["devices"][0]["status"]), (200, &json!("enrolled")), "{devices}");
    let (_, trail) = ask(Method::GET, "/v1/audit?limit=1000").await;
    assert_eq!(trail["leaves"].as_array().unwrap().len() as i64, leaves);
    // Whatever records or signs is refused, with what to decide.
    for (method, path) in [
        (Method::POST, "/v1/devices/press-1/revoke"),
        (Method::PUT, "/v1/policy"),
        (Method::POST, "/v1/gateways"),
        (Method::GET, "/crl"),
    ] {
        let (status, answer) = ask(method, path).await;
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("set-back")), "{path}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(&decide), "{answer}");
    }
    let (status, _) = on_the_socket(fixture, Method::GET, "/v1/devices", "another").await.unwrap();
    assert_eq!((status, fixture.count("SELECT COUNT(*) AS n FROM audit").await), (401, leaves));

    // Decided, it starts by itself.
    resume(fixture.data(), u64::try_from(leaves).unwrap()).await.unwrap();
    is(fixture, "ok").await;
    stop.send(()).unwrap();
}

#[tokio::test]
async fn year_4_a_head_that_was_taken_away_or_altered_is_not_passed_over() {
    let mut fixture = stopped().await;
    let head = fixture.data().join("ledger.head");
    let note = fs::read_to_string(&head).unwrap();
    fs::write(&head, note.replace('—', "-")).unwrap();
    let error = refused(&mut fixture).await;
    assert!(matches!(error, ContinuityError::Head(_)), "{error}");
    // Within the first hour there is one head, which a crash may leave without its file.
    fixture.tamper("INSERT INTO ledger_heads SELECT hour - 1, leaves, note FROM ledger_heads").await;
    fs::remove_file(&head).unwrap();
    let leaves = match refused(&mut fixture).await {
        ContinuityError::NoHead { leaves, .. } => leaves,
        other => panic!("{other}"),
    };
    resume(fixture.data(), leaves).await.unwrap();
    fixture.start_again().await.unwrap();
}

#[tokio::test]
async fn what_nobody_served_is_not_made_by_a_look() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("mistyped");
    assert!(matches!(resume(&nowhere, 1).await, Err(ContinuityError::NoServer)));
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn another_trust_domain_is_told_as_such() {
    let mut fixture = stopped().await;
    fixture.start_again().await.unwrap();
    let other = TrustDomain::parse("other.example").unwrap();
    let error = fixture.restart_with(|config| config.trust_domain = other).await.unwrap_err().to_string();
    assert!(error.contains("other.example is configured") && error.contains(TRUST_DOMAIN), "{error}");
}

#[tokio::test]
async fn year_4_lists_of_the_next_run_lie_above_even_if_the_clock_is_behind() {
    let mut fixture = Fixture::start().await;
    let before = list(&fixture).await.number();
    fixture.stop().await;
    // As if the run before had been years ahead.
    fixture.tamper("UPDATE revocation_list SET number = number * 2").await;
    fixture.start_again().await.unwrap();
    let after = list(&fixture).await.number();
    assert!(after >= 2 * before + (1 << 20), "{after} after {before}");
}

#[tokio::test]
async fn year_11_a_key_that_others_may_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let mut fixture = stopped().await;
    for name in ["root.key", "issuing.key", "ledger.key", "jwt.key", "results.key"] {
        let file = keys(&fixture).join(name);
        for mode in [0o644, 0o660, 0o777] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let said = fixture.start_again().await.unwrap_err().to_string();
            assert!(said.contains(&format!("{mode:o}")) && said.contains("chmod 600"), "{name}: {said}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fixture.start_again().await.unwrap();
}

async fn list(fixture: &Fixture) -> Crl {
    let answer = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    Crl::parse(answer.body()).unwrap()
}
