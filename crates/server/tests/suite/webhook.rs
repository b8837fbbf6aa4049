//! What is on record is told outside: signed, in order, through outages and restarts, and to each receiver for itself.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_server::{Severity, WebhookConfig};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::fixture::Fixture;

/// A receiver that answers as it is told to, and 204 after that.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    async fn start(answers: &[u16]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let receiver = Receiver { address: listener.local_addr().unwrap(), heard: Arc::default(), answers };
        let served = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = served.clone();
                let service = service_fn(move |request| receiver.clone().answer(request));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        receiver
    }

    /// The same by https, to whoever shows a certificate that this one signed; with the one that recognises it, PEM.
    async fn start_tls(client: &rcgen::CertifiedKey<KeyPair>) -> (Receiver, String) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut clients = rustls::RootCertStore::empty();
        clients.add(client.cert.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(clients)).build().unwrap();
        let tls = rustls::ServerConfig::builder().with_client_cert_verifier(clients);
        let tls = Arc::new(tls.with_single_cert(vec![cert.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Receiver { address, heard: Arc::default(), answers: Arc::default() };
        let served = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (receiver, acceptor) = (served.clone(), tokio_rustls::TlsAcceptor::from(tls.clone()));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| receiver.clone().answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        (receiver, cert.pem())
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        assert_eq!((parts.method, parts.uri.path()), (Method::POST, "/hook"));
        let body = body.collect().await.unwrap().to_bytes();
        let status = self.answers.lock().unwrap().pop_front().unwrap_or(204);
        if status == 204 {
            self.heard.lock().unwrap().push((parts.headers, body));
        }
        Ok(Response::builder().status(status).body(Full::default()).unwrap())
    }

    async fn hears(&self, count: usize) -> Vec<Value> {
        let wait = async {
            while self.heard.lock().unwrap().len() < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), wait).await.expect("was not told in time");
        self.heard.lock().unwrap().iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }

    fn config(&self, name: &str, folder: &Path) -> WebhookConfig {
        let secret = folder.join("secret");
        write_private(&secret, SECRET);
        let config = json!({
            "name": name, "url": format!("http://{}/hook", self.address), "secret_file": secret,
        });
        serde_json::from_value(config).unwrap()
    }
}

fn write_private(path: &Path, contents: &str) {
    std::fs::write(path, contents).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// HMAC-SHA-256 of the receiver's own, by openssl.
fn signature(over: &[u8]) -> String {
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(over).unwrap();
    format!("v1,{}", data_encoding::BASE64.encode(&openssl.wait_with_output().unwrap().stdout))
}

async fn enrolled_and_revoked(fixture: &Fixture, name: &str) {
    let edge = fixture.edge().await;
    edge.enroll(&mut fixture.device(name)).await.unwrap();
    let revoke = json!({ "reason": format!("{name} is gone") });
    fixture.post(&format!("/v1/devices/{name}/revoke"), &revoke).await;
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_fall_is_told_signed_and_in_order() {
    let folder = tempfile::TempDir::new().unwrap();
    let receiver = Receiver::start(&[]).await;
    let config = receiver.config("soc", folder.path());
    let fixture = Fixture::with(|server| server.webhook = vec![config]).await;
    enrolled_and_revoked(&fixture, "press-1").await;

    let events = receiver.hears(1).await;
    assert_eq!(kinds(&events), ["assay.device.revoked"], "enrolling is no warning");
    let event = &events[0];
    assert_eq!((&event["severity"], &event["data"]["device"]), (&json!("critical"), &json!("press-1")));
    assert_eq!(event["data"]["detail"]["reason"], "press-1 is gone");
    let (headers, body) = receiver.heard.lock().unwrap()[0].clone();
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(header("webhook-id"), event["id"].as_str().unwrap());
    let over =
        [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), &body].concat();
    assert_eq!(header("webhook-signature"), signature(&over));

    let leaf = event["data"]["leaf"].as_u64().unwrap();
    let trail = fixture.get(&format!("/v1/audit?after={}&limit=1", leaf - 1)).await["leaves"][0].clone();
    assert_eq!((&trail["kind"], &trail["hash"]), (&json!("device.revoked"), &event["data"]["hash"]));
}

#[tokio::test]
async fn by_https_both_ends_show_who_they_are() {
    assay_identity::tls::install_crypto_provider();
    let folder = tempfile::TempDir::new().unwrap();
    let ours = rcgen::generate_simple_self_signed(["assay".to_owned()]).unwrap();
    let (ca, certificate, key) =
        (folder.path().join("ca.pem"), folder.path().join("ours.pem"), folder.path().join("ours.key"));
    std::fs::write(&certificate, ours.cert.pem()).unwrap();
    write_private(&key, &ours.signing_key.serialize_pem());
    let (receiver, pem) = Receiver::start_tls(&ours).await;
    std::fs::write(&ca, pem).unwrap();
    let url = format!("https://localhost:{}/hook", receiver.address.port());
    let config = json!({ "name": "soc", "url": url, "ca": ca, "certificate": certificate, "key": key });
    let known: WebhookConfig = serde_json::from_value(config).unwrap();
    // Without a certificate the receiver takes nothing, and it waits.
    let nobody = WebhookConfig {
        name: "nobody".to_owned(),
        certificate: None,
        key: None,
        ..receiver.config("nobody", folder.path())
    };
    let nobody = WebhookConfig { url: known.url.clone(), ca: known.ca.clone(), ..nobody };
    let fixture = Fixture::with(|server| server.webhook = vec![known, nobody]).await;
    enrolled_and_revoked(&fixture, "press-1").await;
    assert_eq!(kinds(&receiver.hears(1).await), ["assay.device.revoked"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(receiver.heard.lock().unwrap().len(), 1);
    let listed = fixture.get("/v1/webhooks").await["webhooks"].clone();
    assert!(listed[1]["behind"].as_u64().unwrap() > 0, "{listed}");
}

#[tokio::test]
async fn an_outage_and_a_restart_lose_nothing_and_others_do_not_wait() {
    let folder = tempfile::TempDir::new().unwrap();
    let (busy, well) = (Receiver::start(&[503; 3]).await, Receiver::start(&[]).await);
    let mut all = well.config("well", folder.path());
    (all.severity, all.kinds) = (Severity::Info, vec!["device.*".to_owned()]);
    let webhook = vec![busy.config("busy", folder.path()), all];
    let mut fixture = Fixture::with(|server| server.webhook = webhook).await;
    for name in ["press-1", "press-2"] {
        enrolled_and_revoked(&fixture, name).await;
    }
    let told = well.hears(4).await;
    let enrolled_and_revoked = ["assay.device.enrolled", "assay.device.revoked"];
    assert_eq!(kinds(&told), [enrolled_and_revoked, enrolled_and_revoked].concat());
    fixture.restart().await;
    let told = busy.hears(2).await;
    let reasons: Vec<&Value> = told.iter().map(|event| &event["data"]["detail"]["reason"]).collect();
    assert_eq!(reasons, ["press-1 is gone", "press-2 is gone"], "in the order of the trail, each once");
    let listed = fixture.get("/v1/webhooks").await["webhooks"].clone();
    assert_eq!((&listed[0]["name"], &listed[0]["dead_letters"]), (&json!("busy"), &json!(0)));
    assert_eq!(well.heard.lock().unwrap().len(), 4, "what was told is not told again");
}

#[tokio::test]
async fn what_a_receiver_refuses_is_a_dead_letter_that_can_be_sent_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let receiver = Receiver::start(&[400, 410]).await;
    let config = receiver.config("soc", folder.path());
    let fixture = Fixture::with(|server| server.webhook = vec![config]).await;
    for name in ["press-1", "press-2", "press-3"] {
        enrolled_and_revoked(&fixture, name).await;
    }
    let told = receiver.hears(1).await;
    assert_eq!(told[0]["data"]["device"], "press-3", "a refusal holds nobody up");
    let letters = async || loop {
        let letters = fixture.get("/v1/webhooks/soc/letters").await["letters"].clone();
        if letters.as_array().unwrap().len() == 2 {
            break letters;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let letters = timeout(Duration::from_secs(30), letters()).await.unwrap();
    assert_eq!(letters[0]["kind"], "device.revoked");
    assert_eq!(letters[0]["reason"], "it answers 400 Bad Request");
    let one = json!({ "leaves": [letters[1]["leaf"]] });
    assert_eq!(fixture.post("/v1/webhooks/soc/again", &one).await["again"], 1);
    assert_eq!(receiver.hears(2).await[1]["data"]["device"], "press-2");
    assert_eq!(fixture.post("/v1/webhooks/soc/again", &json!({})).await["again"], 1);
    assert_eq!(receiver.hears(3).await[2]["data"]["device"], "press-1");
    let token = format!("Bearer {}", fixture.token());
    let again = fixture.ask(Method::POST, "/v1/webhooks/soc/again", &token, r#"{"leaves":[1]}"#.to_owned());
    assert_eq!(again.await, 404);
    assert_eq!(fixture.ask(Method::GET, "/v1/webhooks/nobody/letters", &token, String::new()).await, 404);
}

type Change<'a> = &'a dyn Fn(&mut WebhookConfig);

#[tokio::test]
async fn a_receiver_that_could_not_know_who_speaks_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let receiver = Receiver::start(&[]).await;
    let good = receiver.config("soc", folder.path());
    let short = folder.path().join("short");
    write_private(&short, "whsec_c2hvcnQ=");
    let open = folder.path().join("open");
    std::fs::write(&open, SECRET).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o640)).unwrap();
    let cases: [(&str, Change); 9] = [
        ("no name", &|webhook| webhook.name = "S O C".to_owned()),
        ("neither http://", &|webhook| webhook.url = "ftp://soc".to_owned()),
        ("needs ca", &|webhook| webhook.url = "https://soc/hook".to_owned()),
        ("in our name", &|webhook| webhook.secret_file = None),
        ("24 to 64 random bytes", &|webhook| webhook.secret_file = Some(short.clone())),
        ("640", &|webhook| webhook.secret_file = Some(open.clone())),
        ("cannot be read", &|webhook| webhook.secret_file = Some(folder.path().join("none"))),
        ("go together", &|webhook| webhook.key = Some(short.clone())),
        ("no kind \"device.fell\"", &|webhook| webhook.kinds = vec!["device.fell".to_owned()]),
    ];
    for (says, change) in cases {
        let mut webhook = good.clone();
        change(&mut webhook);
        let error = Fixture::try_with(|server| server.webhook = vec![webhook]).await.err().unwrap();
        assert!(error.contains(says), "{error}");
    }
    let twice = vec![good.clone(), good];
    let error = Fixture::try_with(|server| server.webhook = twice).await.err().unwrap();
    assert!(error.contains("each once"), "{error}");
}

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
