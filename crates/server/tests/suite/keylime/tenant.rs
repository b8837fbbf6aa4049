//! Operators with Keylime's tenant: what their certificates open, what they change bears their names, and what they are told.

use std::sync::Arc;

use assay_clock::Clock;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{CrlSet, PrivateKey, csr};
use data_encoding::BASE64;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::agent::{Agent, fixture};
use crate::fixture::Fixture;

/// An operator, by a certificate.
struct Tenant<'f> {
    fixture: &'f Fixture,
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl<'f> Tenant<'f> {
    async fn issued(fixture: &'f Fixture, route: &str, name: &str) -> Tenant<'f> {
        let key = PrivateKey::generate().unwrap();
        let request = json!({ "name": name, "csr": BASE64.encode(&csr::request(&key).unwrap()) });
        let answer = fixture.post(route, &request).await;
        let chain = CertificateDer::pem_slice_iter(answer["certificate"].as_str().unwrap().as_bytes());
        let chain = chain.map(|certificate| certificate.unwrap().to_vec()).collect();
        Tenant { fixture, chain, key: key.pkcs8().to_vec() }
    }

    async fn named(fixture: &'f Fixture, name: &str) -> Tenant<'f> {
        Tenant::issued(fixture, "/v1/operators", name).await
    }

    /// Status and body; `None`: the connection is refused.
    async fn asks(
        &self,
        is_registrar: bool,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let doors = self.fixture.running().addresses().keylime.clone().unwrap();
        let address = if is_registrar { doors.registrar } else { doors.verifier };
        let trust = TrustSource::new(Trust { bundle: self.fixture.bundle(), crls: CrlSet::bootstrapping() });
        let key = tls::certified_key(self.chain.clone(), &self.key).unwrap();
        let server: tls::AcceptPeer = Arc::new(|id| id.is_server());
        let mut config = tls::client_config(Some(key), trust, server, (&Clock::system()).into()).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request =
            Request::builder().method(method).uri(path).header(header::HOST, "keylime.example:8881");
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn registrar(&self, method: Method, path: &str) -> (u16, Value) {
        self.asks(true, method, path, &Value::Null).await.unwrap()
    }

    async fn verifier(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        self.asks(false, method, path, body).await.unwrap()
    }
}

/// What a tenant sends that was given no policy.
fn enrolment(agent: &Agent<'_>) -> Value {
    json!({
        "v": null, "cloudagent_ip": "127.0.0.1", "cloudagent_port": 9002, "verifier_ip": "127.0.0.1", "verifier_port": "8881",
        "tpm_policy": "{\"mask\": \"0x0\"}", "runtime_policy": "", "runtime_policy_name": "", "runtime_policy_key": "",
        "mb_policy": null, "mb_policy_name": "", "ima_sign_verification_keys": "", "metadata": "{}", "revocation_key": "",
        "accept_tpm_hash_algs": ["sha256"], "ak_tpm": BASE64.encode(&agent.device.ak.public_area()),
        "mtls_cert": "disabled", "supported_version": "2.5",
    })
}

const ONE: &str = "/v2.6/agents/press-1";

#[tokio::test]
async fn operators_list_add_look_and_delete_under_their_names() {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    assert_eq!(agent.attests().await.0, 202);
    let tenant = Tenant::named(&fixture, "ada").await;
    let (_, listed) = tenant.registrar(Method::GET, "/v2.6/agents/").await;
    assert_eq!(listed["results"], json!({ "uuids": ["press-1"] }));
    let (_, shown) = tenant.registrar(Method::GET, ONE).await;
    let results = &shown["results"];
    assert_eq!(results["aik_tpm"], BASE64.encode(&agent.device.ak.public_area()));
    assert_eq!((&results["regcount"], &results["mtls_cert"]), (&json!(1), &json!("disabled")));
    assert_eq!(tenant.registrar(Method::GET, "/v2.6/agents/press-2").await.0, 404);

    // It is judged since it registered; the tenant knows it once it was added.
    assert_eq!(tenant.verifier(Method::GET, ONE, &Value::Null).await.0, 404);
    let mut other = enrolment(&agent);
    other["ak_tpm"] = "AAEC".into();
    assert_eq!(tenant.verifier(Method::POST, ONE, &other).await.0, 400, "another AK");
    assert_eq!(tenant.verifier(Method::POST, ONE, &enrolment(&agent)).await.0, 200);
    assert_eq!(tenant.verifier(Method::POST, ONE, &enrolment(&agent)).await.0, 403, "it is there");
    let (_, status) = tenant.verifier(Method::GET, ONE, &Value::Null).await;
    let results = &status["results"];
    assert_eq!((&results["attestation_status"], &results["operational_state"]), (&json!("PASS"), &json!(3)));
    assert_eq!(
        (&results["v"], &results["verifier_ip"], &results["verifier_port"]),
        (&Value::Null, &json!("keylime.example"), &json!(8881))
    );
    let (_, listed) = tenant.verifier(Method::GET, "/v2.6/agents/?verifier=", &Value::Null).await;
    assert_eq!(listed["results"], json!({ "uuids": [["press-1"]] }));
    let (_, bulk) = tenant.verifier(Method::GET, "/v2.6/agents/?bulk=True&verifier=", &Value::Null).await;
    assert_eq!(bulk["results"]["press-1"]["hash_alg"], "sha256");

    agent.device.run_program("/opt/implant", b"unknown");
    assert_eq!(agent.attests().await.0, 202);
    let (_, status) = tenant.verifier(Method::GET, ONE, &Value::Null).await;
    assert_eq!(
        (&status["results"]["attestation_status"], &status["results"]["last_event_id"]),
        (&json!("FAIL"), &json!("ima-policy"))
    );
    assert_eq!(tenant.verifier(Method::PUT, &format!("{ONE}/reactivate"), &Value::Null).await.0, 200);
    assert_eq!(tenant.verifier(Method::DELETE, ONE, &Value::Null).await.0, 200);
    assert_eq!(tenant.verifier(Method::DELETE, ONE, &Value::Null).await.0, 404);
    assert_eq!(tenant.registrar(Method::DELETE, ONE).await.0, 200);
    assert_eq!(tenant.registrar(Method::GET, ONE).await.0, 404);
    assert_eq!(agent.begins().await.unwrap_err().status(), 404, "it has to register again");
    assert_eq!(agent.status().await, "suspect", "its device stays");

    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().clone();
    let by_ada: Vec<&str> = leaves
        .iter()
        .filter(|leaf| leaf["actor"] == "operator/ada")
        .map(|leaf| leaf["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        by_ada,
        ["keylime-agent.added", "device.approved", "keylime-agent.dropped", "keylime-agent.removed"]
    );
}

#[tokio::test]
async fn a_runtime_policy_of_keylimes_judges_who_is_added_with_it() {
    let fixture = fixture().await;
    let mut agent = Agent::registered(&fixture, "press-1").await;
    agent.open().await;
    let tenant = Tenant::named(&fixture, "ada").await;
    let digests: serde_json::Map<String, Value> = agent
        .device
        .ima
        .entries()
        .iter()
        .filter(|entry| entry.path() != "boot_aggregate")
        .map(|entry| (entry.path().to_owned(), json!([data_encoding::HEXLOWER.encode(entry.digest())])))
        .collect();
    let policy = json!({
        "meta": { "version": 1, "generator": 0 }, "release": 0, "digests": digests, "excludes": [], "keyrings": {},
        "ima": { "ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": null }, "ima-buf": {}, "verification-keys": "",
    });
    let encoded = BASE64.encode(policy.to_string().as_bytes());
    let named = "/v2.6/allowlists/presses";
    let body = json!({ "tpm_policy": "{}", "runtime_policy": encoded, "runtime_policy_key": "" });
    assert_eq!(tenant.verifier(Method::PUT, named, &body).await.0, 404, "there is none to change");
    assert_eq!(tenant.verifier(Method::POST, named, &json!({ "runtime_policy": "e30=" })).await.0, 400);
    assert_eq!(tenant.verifier(Method::POST, named, &body).await.0, 201);
    assert_eq!(tenant.verifier(Method::POST, named, &body).await.0, 403);
    let (_, listed) = tenant.verifier(Method::GET, "/v2.6/allowlists/", &Value::Null).await;
    assert_eq!(listed["results"], json!({ "runtimepolicy names": ["presses"] }));
    let mut adding = enrolment(&agent);
    adding["runtime_policy_name"] = "nothing".into();
    assert_eq!(tenant.verifier(Method::POST, ONE, &adding).await.0, 404);
    adding["runtime_policy_name"] = "presses".into();
    assert_eq!(tenant.verifier(Method::POST, ONE, &adding).await.0, 200);
    assert_eq!(agent.attests().await.0, 202);
    let status = fixture.status("press-1").await;
    assert_eq!(status["policy_in_force"], "keylime-presses v1", "{status}");
    assert_eq!(status["status"], "trusted", "{status}");
    agent.device.run_program("/opt/implant", b"unknown");
    assert_eq!(agent.attests().await.0, 202);
    assert_eq!(agent.status().await, "suspect");
    assert_eq!(tenant.verifier(Method::DELETE, named, &Value::Null).await.0, 204);
    assert_eq!(tenant.verifier(Method::GET, named, &Value::Null).await.0, 404);
}

#[tokio::test]
async fn no_certificate_of_ours_is_an_operator_but_an_operators() {
    let fixture = fixture().await;
    let agent = Agent::registered(&fixture, "press-1").await;
    assert_eq!(agent.ask_registrar(Method::GET, ONE, &Value::Null).await.status(), 403);
    assert_eq!(agent.ask_verifier(Method::GET, ONE, "").await.status(), 403);
    let gateway = Tenant::issued(&fixture, "/v1/gateways", "edge-1").await;
    assert_eq!(gateway.asks(true, Method::GET, ONE, &Value::Null).await, None);
    // One who is ended is cut off.
    let tenant = Tenant::named(&fixture, "ada").await;
    assert_eq!(tenant.registrar(Method::GET, ONE).await.0, 200);
    fixture.post("/v1/operators/ada/revoke", &json!({ "reason": "left" })).await;
    assert_eq!(tenant.asks(true, Method::GET, ONE, &Value::Null).await, None);
    assert_eq!(fixture.get("/v1/operators").await["operators"][0]["status"], "revoked");
}

#[tokio::test]
async fn anybody_may_ask_whether_a_quote_is_an_agents() {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    let asked = json!({ "data": { "attributes": { "evidence_requested": [{
        "evidence_type": "tpm_quote",
        "chosen_parameters": { "challenge": BASE64.encode(b"nonce1"), "selected_subjects": { "sha256": [0] } },
    }] } } });
    let shown = agent.device.keylime_evidence(&asked).unwrap();
    let data = shown["data"]["attributes"]["evidence_collected"][0]["data"].clone();
    let part = |name: &str| data[name].as_str().unwrap().replace('+', "%2B").replace('=', "%3D");
    let quote = format!("r{}:{}:{}", part("message"), part("signature"), part("subject_data"));
    let ask = async |nonce: &str, quote: &str| {
        let path =
            format!("/v2.6/verify/identity?agent_uuid=press-1&hash_alg=sha256&nonce={nonce}&quote={quote}");
        let answer = agent.ask_verifier(Method::GET, &path, "").await;
        (answer.status().as_u16(), super::agent::json(&answer)["results"]["valid"].as_u64())
    };
    assert_eq!(ask("nonce1", &quote).await, (200, Some(1)));
    assert_eq!(ask("nonce2", &quote).await, (200, Some(0)));
    assert_eq!(ask("nonce1", "rAAAA").await, (400, None));
}

#[tokio::test]
async fn anybody_may_have_evidence_judged_by_a_policy_that_comes_with_it() {
    let fixture = fixture().await;
    let mut agent = Agent::new(&fixture, "press-1");
    let asked = json!({ "data": { "attributes": { "evidence_requested": [{
        "evidence_type": "tpm_quote",
        "chosen_parameters": {
            "challenge": BASE64.encode(b"nonce1"), "selected_subjects": { "sha256": (0..24).collect::<Vec<u32>>() },
        },
    }] } } });
    let shown = agent.device.keylime_evidence(&asked).unwrap();
    let data = shown["data"]["attributes"]["evidence_collected"][0]["data"].clone();
    let part = |name: &str| data[name].as_str().unwrap().to_owned();
    let files: serde_json::Map<String, Value> = agent
        .device
        .ima
        .entries()
        .iter()
        .filter(|entry| entry.path() != "boot_aggregate")
        .map(|entry| (entry.path().to_owned(), json!([data_encoding::HEXLOWER.encode(entry.digest())])))
        .collect();
    let policy = json!({
        "meta": { "version": 1, "generator": 0 }, "release": 0, "digests": files, "excludes": [], "keyrings": {},
        "ima": { "ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": null }, "ima-buf": {}, "verification-keys": "",
    });
    let good = json!({ "type": "tpm", "data": {
        "quote": format!("r{}:{}:{}", part("message"), part("signature"), part("subject_data")), "nonce": "nonce1",
        "hash_alg": "sha256", "tpm_ek": BASE64.encode(agent.device.ek.public_area()),
        "tpm_ak": BASE64.encode(&agent.device.ak.public_area()), "ima_measurement_list": agent.device.ima.ascii_from(0),
        "mb_log": BASE64.encode(&agent.device.boot_log), "runtime_policy": policy,
    } });
    let judged = async |change: &dyn Fn(&mut Value)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        let body = evidence.to_string();
        let answer = agent.ask_verifier(Method::POST, "/v2.6/verify/evidence", &body).await;
        let results = super::agent::json(&answer)["results"].clone();
        (
            answer.status().as_u16(),
            results["valid"].as_bool(),
            results["failures"][0]["type"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(judged(&|_| {}).await, (200, Some(true), None));
    let without_log = judged(&|evidence| evidence["data"]["mb_log"] = Value::Null).await;
    assert_eq!(without_log, (200, Some(true), None), "no policy was given for the boot");
    let failed = |check: &str| (200, Some(false), Some(check.to_owned()));
    assert_eq!(judged(&|evidence| evidence["data"]["nonce"] = "nonce2".into()).await, failed("quote-nonce"));
    let list = agent.device.ima.ascii_from(1);
    assert_eq!(
        judged(&|evidence| evidence["data"]["ima_measurement_list"] = list.clone().into()).await,
        failed("ima-replay")
    );
    let unknown = |evidence: &mut Value| {
        evidence["data"]["runtime_policy"]["digests"] = json!({ "/nothing": ["00".repeat(32)] });
    };
    assert_eq!(judged(&unknown).await, failed("ima-policy"));
    assert_eq!(judged(&|evidence| evidence["data"]["runtime_policy"] = Value::Null).await.0, 400);
    assert_eq!(judged(&|evidence| evidence["type"] = "tee".into()).await.0, 400);
    assert_eq!(fixture.get("/v1/devices").await["devices"], json!([]));
}
