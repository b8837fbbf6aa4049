//! Federation: bundles that are fetched, what is not believed, and workloads of two trust domains that meet.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_clock::Clock;
use assay_identity::jws::{JwkSet, Usage};
use assay_identity::tls::{self, ClientIdentity, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, PrivateKey, TrustDomain, csr, jwt_svid};
use assay_testkit::SoftwareDevice;
use assay_testkit::edge::Attachment;
use assay_testkit::edge::protocol::ForeignBundle;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{Fixture, TRUST_DOMAIN};
use crate::workloads::{ask, ask_token};

const OTHER: &str = "other.assay.example";

/// A server of another trust domain.
async fn other() -> Fixture {
    Fixture::with(|config| config.trust_domain = TrustDomain::parse(OTHER).unwrap()).await
}

fn url(of: &Fixture) -> String {
    format!("https://{}/spiffe-bundle", of.running().addresses().console)
}

/// What a trust domain publishes.
async fn published(of: &Fixture) -> Value {
    let answer = of.call(Method::GET, "/spiffe-bundle", &[], String::new()).await;
    serde_json::from_slice(answer.body()).unwrap()
}

/// As an operator of one makes a relationship with the other, whose bundle was handed over.
async fn relate(one: &Fixture, other: &Fixture) -> Value {
    let domain = other.config().trust_domain;
    let relate = json!({
        "trust_domain": domain.as_str(), "url": url(other),
        "endpoint_spiffe_id": format!("spiffe://{domain}/assay/server"), "bundle": published(other).await,
    });
    one.post("/v1/federations", &relate).await
}

/// A request that is refused: its status, and what is said.
async fn refused(fixture: &Fixture, method: Method, path: &str, body: &Value) -> (u16, String) {
    let bearer = format!("Bearer {}", fixture.token());
    let answer = fixture.call(method, path, &[("authorization", &bearer)], body.to_string()).await;
    let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), said["error"]["message"].as_str().unwrap_or_default().to_owned())
}

async fn fetched(fixture: &Fixture, domain: &str) -> Value {
    for _ in 0..200 {
        let one = fixture.get(&format!("/v1/federations/{domain}")).await;
        if one["fetched_at"].is_number() {
            return one;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{}", fixture.get("/v1/federations").await)
}

/// A workload with an entry that federates, on a trusted device.
struct Workload {
    device: SoftwareDevice,
    stream: Attachment,
    entry: String,
    key: PrivateKey,
    chain: Vec<Vec<u8>>,
    believes: Vec<ForeignBundle>,
}

impl Workload {
    async fn of(fixture: &Fixture, federates_with: &str) -> Workload {
        let edge = fixture.edge().await;
        let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
        let domain = fixture.config().trust_domain;
        let entry = json!({
            "spiffe_id": format!("spiffe://{domain}/web"), "parent": device.device_id,
            "selectors": [{ "type": "unix", "value": "uid:1000" }], "federates_with": [federates_with],
        });
        let entry = fixture.post("/v1/entries", &entry).await["id"].as_str().unwrap().to_owned();
        let grants = stream.grants().await.unwrap();
        assert_eq!(grants.entries[0].federates_with, [federates_with]);
        let key = PrivateKey::generate().unwrap();
        let request =
            device.workload_request_for(stream.place(), &entry, csr::request(&key).unwrap()).unwrap();
        let chain = ask(&mut stream, request).await.svid;
        Workload { device, stream, entry, key, chain, believes: grants.foreign_bundles }
    }

    /// What it verifies others with: the bundle that came over the stream, and nothing else.
    fn trust(&self, domain: &str) -> Arc<TrustSource> {
        let [foreign] = self.believes.as_slice() else { panic!("{:?}", self.believes.len()) };
        assert_eq!(foreign.trust_domain, domain);
        let bundle = Bundle::from_der(TrustDomain::parse(domain).unwrap(), &foreign.bundle).unwrap();
        TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() })
    }

    fn shows(&self) -> Arc<rustls::sign::CertifiedKey> {
        tls::certified_key(self.chain.clone(), self.key.pkcs8()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_of_two_trust_domains_meet_and_each_is_held_against_its_own_bundle() {
    let (ours, theirs) = (Fixture::start().await, other().await);
    relate(&ours, &theirs).await;
    relate(&theirs, &ours).await;
    for (fixture, domain) in [(&ours, OTHER), (&theirs, TRUST_DOMAIN)] {
        let one = fetched(fixture, domain).await;
        assert_eq!((&one["failure"], &one["x509_authorities"]), (&Value::Null, &json!(1)), "{one}");
    }
    let mut here = Workload::of(&ours, OTHER).await;
    let there = Workload::of(&theirs, TRUST_DOMAIN).await;

    // Mutual TLS, each with what its own server told its device.
    let accept: tls::AcceptPeer = Arc::new(|id| id.path() == "/web");
    let clock = Clock::system();
    let server = tls::server_config(
        there.shows(),
        there.trust(TRUST_DOMAIN),
        ClientIdentity::Required(accept.clone()),
        (&clock).into(),
    );
    let client =
        |trust| tls::client_config(Some(here.shows()), trust, accept.clone(), (&clock).into()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    let meet = async |config| {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.map(|_| said)
    };
    assert_eq!(meet(client(here.trust(OTHER))).await.unwrap(), "hello");
    // Their workload does not pass for one of ours: bundles are not one pool.
    let own = TrustSource::new(Trust { bundle: ours.bundle(), crls: CrlSet::bootstrapping() });
    assert!(meet(client(own)).await.is_err());

    // Tokens, by the keys that came with the bundle.
    let request = here.device.token_request(here.stream.place(), &here.entry, &["db"]).unwrap();
    let token = ask_token(&mut here.stream, request).await.token;
    let keys = JwkSet::from_json(&there.believes[0].jwt_keys, Usage::JwtSvid).unwrap();
    let now = assay_identity::UnixTime::now();
    let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let svid = jwt_svid::verify(&token, (&domain, &keys), Some("db"), now).unwrap().svid;
    assert_eq!(svid.spiffe_id.as_str(), format!("spiffe://{TRUST_DOMAIN}/web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bundle_reaches_the_devices_that_it_is_for_and_what_is_of_the_past_does_not() {
    let (ours, mut theirs) = (Fixture::start().await, other().await);
    relate(&ours, &theirs).await;
    fetched(&ours, OTHER).await;
    let mut here = Workload::of(&ours, OTHER).await;
    // The other trust domain signs tokens with another key.
    let console = theirs.running().addresses().console;
    theirs.stop().await;
    let key = theirs.data().join("keys/jwt.key");
    std::fs::remove_file(key).unwrap();
    theirs.start_again().await.unwrap();
    let update = json!({
        "trust_domain": OTHER, "url": url(&theirs), "endpoint_spiffe_id": format!("spiffe://{OTHER}/assay/server"),
    });
    assert_ne!(console, theirs.running().addresses().console);
    ours.put(&format!("/v1/federations/{OTHER}"), &update.to_string()).await;
    let grants = loop {
        let grants = here.stream.grants().await.unwrap();
        if grants.foreign_bundles[0].jwt_keys != here.believes[0].jwt_keys {
            break grants;
        }
    };
    assert_eq!(grants.foreign_bundles[0].bundle, here.believes[0].bundle);
    let again = ours.post(&format!("/v1/federations/{OTHER}/refresh"), &Value::Null).await;
    assert_eq!(again, json!({ "trust_domain": OTHER, "changed": false }));

    // An operator may set an older one; the trail has who had each.
    ours.put(
        &format!("/v1/federations/{OTHER}/bundle"),
        &json!({ "bundle": published(&theirs).await }).to_string(),
    )
    .await;
    let trail = ours.get("/v1/audit?limit=1000").await;
    let of = |kind: &str| {
        let leaves = trail["leaves"].as_array().unwrap().iter();
        let mine =
            leaves.filter(|leaf| leaf["kind"] == kind && leaf["subject"] == format!("spiffe://{OTHER}"));
        mine.map(|leaf| leaf["actor"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("federation.set"), ["operator", "operator"]);
    assert!(of("federation.bundle-set").contains(&"server".to_owned()), "{trail:#}");
    // Nothing is fetched any more, and what is there stays.
    ours.delete(&format!("/v1/federations/{OTHER}")).await;
    let one = ours.get(&format!("/v1/federations/{OTHER}")).await;
    assert_eq!((&one["endpoint"], &one["entries"]), (&Value::Null, &json!(1)));
    assert_eq!(
        refused(&ours, Method::DELETE, &format!("/v1/federations/{OTHER}"), &Value::Null).await.0,
        404
    );

    // Its bundle is not forgotten while somebody is to believe it; then workloads hear of it at once.
    let bundle = format!("/v1/federations/{OTHER}/bundle");
    let (status, said) = refused(&ours, Method::DELETE, &bundle, &Value::Null).await;
    assert_eq!(status, 409, "{said}");
    assert!(said.contains("1 entries federate"), "{said}");
    ours.delete(&format!("{bundle}?entries=dissociate")).await;
    loop {
        let grants = here.stream.grants().await.unwrap();
        if grants.foreign_bundles.is_empty() && grants.entries[0].federates_with.is_empty() {
            break;
        }
    }
    assert_eq!(ours.get("/v1/federations").await["federations"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_federate_with_those_whose_bundle_is_there() {
    let (ours, theirs) = (Fixture::start().await, other().await);
    let edge = ours.edge().await;
    let (device, mut stream, _) = ours.trusted_device(&edge, "press-1", "").await;
    let entry = |with: Value| {
        json!({
            "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/web"), "parent": device.device_id,
            "selectors": [{ "type": "unix", "value": "uid:1000" }], "federates_with": with,
        })
    };
    let (status, said) = refused(&ours, Method::POST, "/v1/entries", &entry(json!([OTHER]))).await;
    assert_eq!(status, 400);
    assert!(said.contains("no bundle of \"other.assay.example\""), "{said}");
    ours.put(
        &format!("/v1/federations/{OTHER}/bundle"),
        &json!({ "bundle": published(&theirs).await }).to_string(),
    )
    .await;
    let id = ours.post("/v1/entries", &entry(json!([format!("spiffe://{OTHER}"), OTHER]))).await;
    assert_eq!(id["federates_with"], json!([OTHER]));
    assert_eq!(stream.grants().await.unwrap().foreign_bundles.len(), 1);
    // With its bundle the entry goes, and what it gave.
    ours.delete(&format!("/v1/federations/{OTHER}/bundle?entries=remove")).await;
    assert_eq!(ours.get("/v1/entries").await["entries"], json!([]));

    // What is no relationship is refused with its place.
    let relate = |domain: &str, url: &str, id: Value| json!({ "trust_domain": domain, "url": url, "endpoint_spiffe_id": id });
    let long = format!("https://a/{}", "a".repeat(1024));
    for (body, says) in [
        (relate(TRUST_DOMAIN, "https://a/", Value::Null), "own"),
        (relate("a b", "https://a/", Value::Null), "trust_domain"),
        (relate(OTHER, "http://a/", Value::Null), "url"),
        (relate(OTHER, "https:///a", Value::Null), "url"),
        (relate(OTHER, "https://u:p@a/", Value::Null), "url"),
        (relate(OTHER, &long, Value::Null), "url"),
        (relate(OTHER, "https://a/", json!("https://a")), "endpoint_spiffe_id"),
        (relate(OTHER, "https://a/", json!("spiffe://other.assay.example")), "endpoint_spiffe_id"),
    ] {
        let (status, said) = refused(&ours, Method::POST, "/v1/federations", &body).await;
        assert_eq!(status, 400, "{body}: {said}");
        assert!(said.contains(says), "{body}: {said}");
    }
    // Our own bundle is nobody else's.
    let own = json!({ "bundle": published(&ours).await });
    let (status, said) = refused(&ours, Method::PUT, &format!("/v1/federations/{OTHER}/bundle"), &own).await;
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("another trust domain"), "{said}");
    let nobody = json!({ "bundle": { "keys": [] } });
    assert_eq!(refused(&ours, Method::PUT, &format!("/v1/federations/{OTHER}/bundle"), &nobody).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_believed_for_the_id_that_it_shows() {
    let (ours, theirs) = (Fixture::start().await, other().await);
    let bundle = published(&theirs).await;
    let path = format!("/v1/federations/{OTHER}/refresh");
    // Nothing to know it by.
    let unknown = json!({
        "trust_domain": OTHER, "url": url(&theirs), "endpoint_spiffe_id": format!("spiffe://{OTHER}/assay/server"),
    });
    ours.post("/v1/federations", &unknown).await;
    let (status, said) = refused(&ours, Method::POST, &path, &Value::Null).await;
    assert_eq!(status, 503);
    assert!(said.contains("give one to begin with"), "{said}");
    // Another ID, another trust domain's, and an endpoint that is ours and speaks for them.
    for (url, id) in [
        (url(&theirs), format!("spiffe://{OTHER}/web")),
        (url(&theirs), format!("spiffe://{TRUST_DOMAIN}/assay/server")),
        (url(&ours), format!("spiffe://{OTHER}/assay/server")),
        (url(&ours), format!("spiffe://{TRUST_DOMAIN}/assay/server")),
    ] {
        let update = json!({ "trust_domain": OTHER, "url": url, "endpoint_spiffe_id": id, "bundle": bundle });
        ours.put(&format!("/v1/federations/{OTHER}"), &update.to_string()).await;
        let (status, said) = refused(&ours, Method::POST, &path, &Value::Null).await;
        assert_eq!(status, 503, "{url} {id}: {said}");
    }
    let one = ours.get(&format!("/v1/federations/{OTHER}")).await;
    assert!(one["failure"].is_string() && one["x509_authorities"] == 1, "{one}");
}

/// An endpoint that the web knows by a name, and answers as it is told to.
struct WebEndpoint {
    url: String,
    anchor: String,
    answer: Arc<Mutex<(u16, String)>>,
}

impl WebEndpoint {
    async fn start() -> WebEndpoint {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/bundle", listener.local_addr().unwrap().port());
        let answer = Arc::new(Mutex::new((200, String::new())));
        let told = answer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let told = told.clone();
                let service = service_fn(move |_| {
                    let (status, body) = told.lock().unwrap().clone();
                    let answer = Response::builder().status(status).header("location", "https://localhost/");
                    async move { Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(body))).unwrap()) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        WebEndpoint { url, anchor: cert.pem(), answer }
    }

    fn answers(&self, status: u16, body: impl Into<String>) {
        *self.answer.lock().unwrap() = (status, body.into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_web_knows_is_fetched_within_bounds_and_replaces_nothing_unless_it_is_good() {
    let (endpoint, theirs) = (WebEndpoint::start().await, other().await);
    let folder = tempfile::tempdir().unwrap();
    let anchor = folder.path().join("web.pem");
    std::fs::write(&anchor, &endpoint.anchor).unwrap();
    let ours = Fixture::with(|config| config.federation_anchors = vec![anchor.clone()]).await;
    let mut bundle = published(&theirs).await;
    bundle["spiffe_sequence"] = json!(7);
    endpoint.answers(200, bundle.to_string());
    ours.post("/v1/federations", &json!({ "trust_domain": OTHER, "url": endpoint.url })).await;
    let one = fetched(&ours, OTHER).await;
    assert_eq!((&one["sequence"], &one["x509_authorities"]), (&json!(7), &json!(1)), "{one}");

    let path = format!("/v1/federations/{OTHER}/refresh");
    let mut older = bundle.clone();
    older["spiffe_sequence"] = json!(6);
    let long = format!("{{\"keys\":[],\"a\":\"{}\"}}", "a".repeat(64 << 10));
    for (status, body, says) in [
        (302, String::new(), "status 302"),
        (404, bundle.to_string(), "status 404"),
        (200, String::new(), "empty"),
        (200, long, "longer than"),
        (200, "<html>".to_owned(), "no bundle"),
        (200, published(&ours).await.to_string(), "no bundle"),
        (200, older.to_string(), "number 6, and 7"),
    ] {
        endpoint.answers(status, body);
        let (_, said) = refused(&ours, Method::POST, &path, &Value::Null).await;
        let one = ours.get(&format!("/v1/federations/{OTHER}")).await;
        let failure = one["failure"].as_str().unwrap_or_default();
        assert!(failure.contains(says), "{says}: {said} {failure}");
        assert_eq!(one["sequence"], 7, "{says}");
    }
    // That all of it was taken back is a bundle, and believed.
    endpoint.answers(200, json!({ "keys": [], "spiffe_sequence": 8 }).to_string());
    ours.post(&path, &Value::Null).await;
    let one = ours.get(&format!("/v1/federations/{OTHER}")).await;
    assert_eq!(
        (&one["sequence"], &one["x509_authorities"], &one["failure"]),
        (&json!(8), &json!(0), &Value::Null)
    );

    // Under another name than its certificate has, and to whom its authority is nobody, it is not known.
    let update = json!({ "trust_domain": OTHER, "url": endpoint.url.replace("localhost", "127.0.0.1") });
    ours.put(&format!("/v1/federations/{OTHER}"), &update.to_string()).await;
    assert_eq!(refused(&ours, Method::POST, &path, &Value::Null).await.0, 503);
    theirs.post("/v1/federations", &json!({ "trust_domain": TRUST_DOMAIN, "url": endpoint.url })).await;
    let refresh = format!("/v1/federations/{TRUST_DOMAIN}/refresh");
    assert_eq!(refused(&theirs, Method::POST, &refresh, &Value::Null).await.0, 503);
}
