//! An agent of Keylime's on a software device: what it asks at both doors.

use std::net::SocketAddr;

use assay_testkit::SoftwareDevice;
use assay_testkit::keylime::session;
use hyper::body::Bytes;
use hyper::{Method, Response};
use serde_json::Value;

use crate::fixture::{Fixture, header_text, learned};

/// A server with the doors open.
pub async fn fixture() -> Fixture {
    Fixture::with(|config| config.keylime = Some(keylime())).await
}

pub fn keylime() -> assay_server::Keylime {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    assay_server::Keylime { registrar: anywhere, verifier: anywhere, ..Default::default() }
}

/// An agent, and the token of its session.
pub struct Agent<'f> {
    pub fixture: &'f Fixture,
    pub id: String,
    pub device: SoftwareDevice,
    pub token: String,
}

impl<'f> Agent<'f> {
    pub fn new(fixture: &'f Fixture, id: &str) -> Agent<'f> {
        let (device, token) = (fixture.device(id), String::new());
        Agent { fixture, id: id.to_owned(), device, token }
    }

    /// One that is registered.
    pub async fn registered(fixture: &'f Fixture, id: &str) -> Agent<'f> {
        let agent = Agent::new(fixture, id);
        assert_eq!(agent.register().await, 200);
        agent
    }

    /// One that is registered, under a policy that knows it, and has a session.
    pub async fn known(fixture: &'f Fixture, id: &str) -> Agent<'f> {
        let mut agent = Agent::registered(fixture, id).await;
        fixture.put("/v1/policy", &policy(&mut agent.device)).await;
        agent.open().await;
        agent
    }

    pub async fn ask_registrar(&self, method: Method, path: &str, body: &Value) -> Response<Bytes> {
        let door = self.fixture.running().addresses().keylime.clone().unwrap().registrar;
        self.fixture
            .call_at(door, method, path, &[("content-type", "application/json")], body.to_string())
            .await
    }

    pub async fn ask_verifier(&self, method: Method, path: &str, body: &str) -> Response<Bytes> {
        let door = self.fixture.running().addresses().keylime.clone().unwrap().verifier;
        let bearer = format!("Bearer {}", self.token);
        let headers = [("content-type", "application/vnd.api+json"), ("authorization", bearer.as_str())];
        self.fixture.call_at(door, method, path, &headers, body.to_owned()).await
    }

    /// Shows its TPM; what it is given to open, or the status.
    pub async fn shows(&self, registration: &Value) -> Result<String, (u16, String)> {
        let answer =
            self.ask_registrar(Method::POST, &format!("/v2.5/agents/{}", self.id), registration).await;
        let body = json(&answer);
        match answer.status().as_u16() {
            200 => Ok(body["results"]["blob"].as_str().unwrap().to_owned()),
            status => Err((status, body["status"].as_str().unwrap().to_owned())),
        }
    }

    pub async fn activates(&self, proof: &Value) -> u16 {
        let path = format!("/v2.5/agents/{}", self.id);
        self.ask_registrar(Method::PUT, &path, proof).await.status().as_u16()
    }

    /// Registers and activates; the last status.
    pub async fn register(&self) -> u16 {
        match self.shows(&self.device.keylime_registration()).await {
            Ok(blob) => self.activates(&self.device.keylime_activation(&self.id, &blob).unwrap()).await,
            Err((status, _)) => status,
        }
    }

    /// Asks for a session: its number and the challenge.
    pub async fn begins_session(&self) -> (String, String) {
        let answer = self.ask_verifier(Method::POST, "/v3.0/sessions", &session(&self.id).to_string()).await;
        assert_eq!(answer.status(), 200);
        let body = json(&answer);
        let requested = &body["data"]["attributes"]["authentication_requested"][0];
        assert_eq!(requested["authentication_type"], "tpm_pop");
        let challenge = requested["chosen_parameters"]["challenge"].as_str().unwrap().to_owned();
        (body["data"]["id"].as_str().unwrap().to_owned(), challenge)
    }

    pub async fn proves(&self, session: &str, proof: &Value) -> Response<Bytes> {
        let path = format!("/v3.0/sessions/{session}");
        self.ask_verifier(Method::PATCH, &path, &proof.to_string()).await
    }

    /// Opens a session.
    pub async fn open(&mut self) {
        let (session, challenge) = self.begins_session().await;
        let proof = self.device.keylime_possession(&self.id, &challenge).unwrap();
        let answer = json(&self.proves(&session, &proof).await);
        let attributes = &answer["data"]["attributes"];
        assert_eq!(attributes["evaluation"], "pass", "{answer}");
        self.token = attributes["token"].as_str().unwrap().to_owned();
    }

    /// Begins an attestation: where its evidence goes, and what is asked for; or the answer.
    pub async fn begins(&self) -> Result<(String, Value), Response<Bytes>> {
        let path = format!("/v3.0/agents/{}/attestations", self.id);
        let body = self.device.keylime_capabilities().to_string();
        loop {
            let answer = self.ask_verifier(Method::POST, &path, &body).await;
            match answer.status().as_u16() {
                201 => {
                    let location = header_text(answer.headers(), "location").to_owned();
                    return Ok((location, json(&answer)));
                }
                // One after the other, a second apart.
                429 => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
                _ => return Err(answer),
            }
        }
    }

    pub async fn sends(&self, location: &str, evidence: &Value) -> Response<Bytes> {
        self.ask_verifier(Method::PATCH, location, &evidence.to_string()).await
    }

    /// One attestation: the status of the last answer, and when it is to come again.
    pub async fn attests(&mut self) -> (u16, Option<u64>) {
        let (location, asked) = match self.begins().await {
            Ok(begun) => begun,
            Err(answer) => return (answer.status().as_u16(), None),
        };
        let evidence = self.device.keylime_evidence(&asked).unwrap();
        let answer = self.sends(&location, &evidence).await;
        (answer.status().as_u16(), json(&answer)["meta"]["seconds_to_next_attestation"].as_u64())
    }

    pub async fn status(&self) -> String {
        self.fixture.status(&self.id).await["status"].as_str().unwrap().to_owned()
    }
}

/// The policy that a device is what it should be, which says nothing of banks.
pub fn policy(device: &mut SoftwareDevice) -> String {
    policy_with(device, "")
}

/// The same with these lines.
pub fn policy_with(device: &mut SoftwareDevice, more: &str) -> String {
    let mut policy: toml::Table = learned(device, more).parse().unwrap();
    let boots = policy.get_mut("boot").and_then(toml::Value::as_table_mut);
    boots.expect("a learned policy judges the boot").remove("banks").expect("and knows its banks");
    policy.to_string()
}

pub fn json(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_default()
}
