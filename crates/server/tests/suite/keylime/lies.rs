//! Every way to lie at these doors: each gets the protocol's code, changes no record, and a challenge is answered once.

use assay_testkit::software_device::TpmKey;
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};
use assay_testkit::{EkMaker, SoftwareDevice};
use data_encoding::BASE64;
use hyper::Method;
use serde_json::{Value, json};

use super::agent::{Agent, fixture, json as body};
use crate::fixture::Fixture;

async fn nothing_stored(fixture: &Fixture) {
    assert_eq!(fixture.get("/v1/devices").await["devices"], json!([]));
    assert_eq!(fixture.count("SELECT COUNT(*) AS n FROM keylime_agents").await, 0);
}

/// What an agent shows that must be refused, and how.
async fn refused(change: impl FnOnce(&mut SoftwareDevice, &mut Value), expected: (u16, &str)) {
    let fixture = fixture().await;
    let mut agent = Agent::new(&fixture, "press-1");
    let mut registration = agent.device.keylime_registration();
    change(&mut agent.device, &mut registration);
    let (status, said) = agent.shows(&registration).await.unwrap_err();
    assert_eq!((status, said.split(':').next().unwrap()), expected, "{said}");
    nothing_stored(&fixture).await;
}

fn key(registration: &mut Value, member: &str, public: &[u8]) {
    registration[member] = BASE64.encode(public).into();
}

#[tokio::test]
async fn an_unrestricted_ak_is_refused() {
    let change = |_: &mut SoftwareDevice, registration: &mut Value| {
        key(registration, "aik_tpm", &TpmKey::generate(DEVICE_KEY).unwrap().public_area());
    };
    refused(change, (403, "ak-attributes")).await;
}

#[tokio::test]
async fn the_certificate_of_another_ek_is_refused() {
    let change = |device: &mut SoftwareDevice, registration: &mut Value| {
        let maker = EkMaker::new().unwrap();
        let other = SoftwareDevice::new("other", &maker).unwrap();
        key(registration, "ek_tpm", other.ek.public_area());
        assert_ne!(device.ek.spki(), other.ek.spki());
    };
    refused(change, (403, "ek-certificate-key")).await;
}

#[tokio::test]
async fn an_untrusted_maker_is_refused_and_so_is_no_certificate() {
    let change = |device: &mut SoftwareDevice, registration: &mut Value| {
        let maker = EkMaker::new().unwrap();
        device.ek_certificate = maker.certify(&device.ek).unwrap();
        device.ek_intermediates = vec![maker.issuing_ca().to_vec()];
        *registration = device.keylime_registration();
    };
    refused(change, (403, "ek-chain")).await;
    refused(|_, registration| registration["ekcert"] = "".into(), (403, "ek-chain")).await;
}

#[tokio::test]
async fn a_signing_key_is_no_ek() {
    let change = |_: &mut SoftwareDevice, registration: &mut Value| {
        key(registration, "ek_tpm", &TpmKey::generate(ATTESTATION_KEY).unwrap().public_area());
    };
    refused(change, (403, "ek-public")).await;
}

#[tokio::test]
async fn what_does_not_read_is_malformed() {
    for (member, value) in [("aik_tpm", "AR!A"), ("ek_tpm", ""), ("ekcert", "-----BEGIN CERTIFICATE-----\n!")]
    {
        let fixture = fixture().await;
        let agent = Agent::new(&fixture, "press-1");
        let mut registration = agent.device.keylime_registration();
        registration[member] = value.into();
        assert_eq!(agent.shows(&registration).await.unwrap_err().0, 400, "{member}");
        nothing_stored(&fixture).await;
    }
    refused(|_, registration| registration["aik_tpm"] = "AAAA".into(), (400, "ak-parse")).await;
}

#[tokio::test]
async fn an_iak_that_does_not_vouch_for_the_ak_is_refused_each_time() {
    let change = |device: &mut SoftwareDevice, registration: &mut Value| {
        let identity = EkMaker::new().unwrap().identity("id:00001014.7").unwrap();
        key(registration, "iak_tpm", &identity.iak.public_area());
        registration["iak_cert"] = BASE64.encode(&identity.iak_certificate).into();
        // The AK's own word in the place of the IAK's.
        let shown = device.keylime_possession("press-1", &BASE64.encode(b"press-1")).unwrap();
        let data = &shown["data"]["attributes"]["authentication_provided"][0]["data"];
        registration["iak_attest"] = data["message"].clone();
        registration["iak_sign"] = data["signature"].clone();
    };
    refused(change, (403, "iak-certify")).await;
}

#[tokio::test]
async fn a_wrong_tag_changes_nothing_and_the_challenge_is_spent() {
    let fixture = fixture().await;
    let agent = Agent::new(&fixture, "press-1");
    assert_eq!(agent.activates(&json!({ "auth_tag": "00" })).await, 404, "nothing waits");
    let blob = agent.shows(&agent.device.keylime_registration()).await.unwrap();
    let honest = agent.device.keylime_activation(&agent.id, &blob).unwrap();
    let of_another = agent.device.keylime_activation("press-2", &blob).unwrap();
    assert_eq!(agent.activates(&of_another).await, 400);
    assert_eq!(agent.activates(&honest).await, 404, "it was answered once");
    nothing_stored(&fixture).await;
    // A failed activation of one that is known forgets nothing of it.
    assert_eq!(agent.register().await, 200);
    agent.shows(&agent.device.keylime_registration()).await.unwrap();
    assert_eq!(agent.activates(&json!({ "auth_tag": "00ff" })).await, 400);
    assert_eq!(agent.status().await, "enrolled");
    assert_eq!(agent.activates(&json!({ "auth_tag": "no hex" })).await, 400);
    // A tag is for the last challenge, and for one.
    let blob = agent.shows(&agent.device.keylime_registration()).await.unwrap();
    let proof = agent.device.keylime_activation(&agent.id, &blob).unwrap();
    assert_eq!((agent.activates(&proof).await, agent.activates(&proof).await), (200, 404));
}

#[tokio::test]
async fn the_id_of_another_tpm_is_refused() {
    let fixture = fixture().await;
    let first = Agent::registered(&fixture, "press-1").await;
    let second = Agent::new(&fixture, "press-1");
    let (status, said) = second.shows(&second.device.keylime_registration()).await.unwrap_err();
    assert!(status == 403 && said.starts_with("other-identity"), "{status} {said}");
    assert_eq!(first.status().await, "enrolled");
    assert_eq!(fixture.get("/v1/devices").await["devices"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_its_section_nothing_listens_and_no_plain_registrar_without_its_name() {
    let without = Fixture::start().await;
    assert!(without.running().addresses().keylime.is_none());
    let with = fixture().await;
    assert!(with.running().addresses().keylime.clone().unwrap().plain_registrar.is_none());
}

#[tokio::test]
async fn a_session_is_for_who_has_the_ak_and_its_challenge_is_answered_once() {
    let fixture = fixture().await;
    let agent = Agent::registered(&fixture, "press-1").await;
    let other = Agent::new(&fixture, "press-1");
    // By another key; over another challenge; the same again; in another's name.
    let (session, challenge) = agent.begins_session().await;
    let forged = other.device.keylime_possession("press-1", &challenge).unwrap();
    assert_eq!(agent.proves(&session, &forged).await.status(), 401);
    let honest = agent.device.keylime_possession("press-1", &challenge).unwrap();
    assert_eq!(agent.proves(&session, &honest).await.status(), 404, "it is spent");
    let (session, _) = agent.begins_session().await;
    assert_eq!(agent.proves(&session, &honest).await.status(), 401, "it is of another challenge");
    let (session, challenge) = agent.begins_session().await;
    let others = agent.device.keylime_possession("press-2", &challenge).unwrap();
    assert_eq!(agent.proves(&session, &others).await.status(), 401);
    // Nobody learns before a proof who is known; who is not hears that it failed.
    let stranger = Agent::new(&fixture, "press-9");
    let (session, challenge) = stranger.begins_session().await;
    let proof = stranger.device.keylime_possession("press-9", &challenge).unwrap();
    let answer = stranger.proves(&session, &proof).await;
    assert_eq!(
        (answer.status().as_u16(), body(&answer)["data"]["attributes"]["evaluation"].as_str()),
        (200, Some("fail"))
    );
}

#[tokio::test]
async fn a_token_is_its_agents_alone() {
    let fixture = fixture().await;
    let first = Agent::known(&fixture, "press-1").await;
    let mut second = Agent::registered(&fixture, "press-2").await;
    second.token.clone_from(&first.token);
    assert_eq!(second.begins().await.unwrap_err().status(), 403);
    second.token = "never.given".to_owned();
    assert_eq!(second.begins().await.unwrap_err().status(), 401);
    assert_eq!(second.status().await, "enrolled");
}

#[tokio::test]
async fn evidence_is_for_the_challenge_that_is_open_once() {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    let (location, asked) = agent.begins().await.unwrap();
    let evidence = agent.device.keylime_evidence(&asked).unwrap();
    let (newer, _) = agent.begins().await.unwrap();
    // Of an older challenge, and the older evidence in answer to the newer one.
    assert_eq!(code(&agent.sends(&location, &evidence).await), (403, "old_attestation".to_owned()));
    assert_eq!(code(&agent.sends(&newer, &evidence).await), (403, "quote-nonce".to_owned()));
    assert_eq!(code(&agent.sends(&newer, &evidence).await), (403, "evidence_immutable".to_owned()));
    assert_eq!(agent.sends("/v3.0/agents/press-1/attestations/77", &evidence).await.status(), 404);
    assert_eq!(agent.status().await, "enrolled");
    // And honestly, by its other name.
    let (_, asked) = agent.begins().await.unwrap();
    let evidence = agent.device.keylime_evidence(&asked).unwrap();
    assert_eq!(agent.sends("/v3.0/agents/press-1/attestations/latest", &evidence).await.status(), 202);
    assert_eq!(agent.status().await, "trusted");
}

fn code(answer: &hyper::Response<hyper::body::Bytes>) -> (u16, String) {
    let code = body(answer)["errors"][0]["code"].as_str().unwrap_or_default().to_owned();
    (answer.status().as_u16(), code)
}

/// What an agent sends that is not its evidence, and how that is told. What it has stays as it is.
async fn not_evidence(change: impl Fn(&mut Value), expected: (u16, &str)) {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    assert_eq!(agent.attests().await.0, 202);
    agent.device.run_program("/usr/bin/true", b"new");
    let (location, asked) = agent.begins().await.unwrap();
    let mut evidence = agent.device.keylime_evidence(&asked).unwrap();
    change(&mut evidence);
    let (status, code) = code(&agent.sends(&location, &evidence).await);
    assert_eq!((status, code.as_str()), expected);
    assert_eq!(agent.status().await, "trusted");
}

fn part<'v>(evidence: &'v mut Value, at: usize, member: &str) -> &'v mut Value {
    &mut evidence["data"]["attributes"]["evidence_collected"][at]["data"][member]
}

#[tokio::test]
async fn what_is_not_the_devices_evidence_is_refused_and_takes_nothing() {
    not_evidence(|evidence| *part(evidence, 0, "message") = "!".into(), (400, "encoding")).await;
    not_evidence(|evidence| *part(evidence, 0, "subject_data") = "AAAA".into(), (400, "encoding")).await;
    not_evidence(
        |evidence| {
            let values = part(evidence, 0, "subject_data");
            let mut file = BASE64.decode(values.as_str().unwrap().as_bytes()).unwrap();
            file[150] ^= 1;
            *values = BASE64.encode(&file).into();
        },
        (403, "quote-pcr-digest"),
    )
    .await;
    not_evidence(
        |evidence| {
            let entries = part(evidence, 1, "entries");
            *entries = entries.as_str().unwrap().replace("/usr/bin/true", "/usr/bin/evil").into();
        },
        (403, "ima-template-digest"),
    )
    .await;
    not_evidence(|evidence| evidence["data"]["type"] = "error".into(), (400, "unexpected")).await;
}

#[tokio::test]
async fn a_list_that_ends_before_the_quote_is_asked_for_again_and_not_for_ever() {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    assert_eq!(agent.attests().await.0, 202);
    agent.device.run_program("/usr/bin/true", b"new");
    for expected in [202, 202, 403] {
        let (location, asked) = agent.begins().await.unwrap();
        let mut evidence = agent.device.keylime_evidence(&asked).unwrap();
        *part(&mut evidence, 1, "entries") = "".into();
        assert_eq!(agent.sends(&location, &evidence).await.status(), expected);
    }
    assert_eq!(agent.status().await, "trusted");
}

#[tokio::test]
async fn a_key_that_is_not_the_ak_is_not_asked() {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    let spare = SoftwareDevice::new("spare", &fixture.maker).unwrap();
    agent.device.ak = spare.ak;
    assert_eq!(code(&agent.begins().await.unwrap_err()), (400, "ak-public".to_owned()));
}

#[tokio::test]
async fn bodies_have_a_size_and_paths_are_those_that_there_are() {
    let fixture = fixture().await;
    let agent = Agent::known(&fixture, "press-1").await;
    let long = json!({ "ek_tpm": "A".repeat(200 << 10) });
    assert_eq!(agent.shows(&long).await.unwrap_err().0, 413);
    let answer = agent.ask_verifier(Method::POST, "/v3.0/sessions", &"x".repeat(8 << 10)).await;
    assert_eq!(answer.status(), 413);
    let answer = agent.ask_verifier(Method::POST, "/v3.0/agents/press-1/attestations", "{").await;
    assert_eq!(answer.status(), 400);
    assert_eq!(agent.ask_verifier(Method::GET, "/v3.0/nothing", "").await.status(), 404);
    let bad =
        Agent { fixture: &fixture, id: "press 1".into(), device: fixture.device("x"), token: String::new() };
    let answer = bad.ask_registrar(Method::POST, "/v2.5/agents/press%201", &json!({})).await;
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn a_challenge_that_is_not_answered_shortens_what_stands() {
    let fixture = Fixture::with(|config| {
        config.keylime = Some(super::agent::keylime());
        config.challenge_ttl_seconds = 1;
    })
    .await;
    let mut agent = Agent::registered(&fixture, "press-1").await;
    let more = "[freshness]\nevidence_age_max_seconds = 600\nunanswered_max_seconds = 5\n";
    fixture.put("/v1/policy", &super::agent::policy_with(&mut agent.device, more)).await;
    agent.open().await;
    assert_eq!(agent.attests().await.0, 202);
    agent.begins().await.unwrap();
    for _ in 0..100 {
        if fixture.status("press-1").await["reason"].as_str().unwrap().contains("not answered in time") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{}", fixture.status("press-1").await);
}
