//! A life: registered, trusted, fallen, approved, rebooted, away, back, and known to both protocols.

use assay_testkit::{SoftwareDevice, System};
use hyper::Method;
use serde_json::json;

use super::agent::{Agent, fixture, json as body, policy};
use crate::fixture::attach_trusted;

#[tokio::test]
async fn an_agent_of_keylimes_is_a_device_like_any_other() {
    let fixture = fixture().await;
    let mut agent = Agent::registered(&fixture, "d432fbb3-d2f1-4a97-9ef7-75bd81c00000").await;
    let status = fixture.status(&agent.id).await;
    assert_eq!(status["status"], "enrolled");
    assert_eq!(status["agent_version"], "keylime");
    fixture.put("/v1/policy", &policy(&mut agent.device)).await;
    agent.open().await;
    assert_eq!(agent.attests().await, (202, Some(3600)));
    let status = fixture.status(&agent.id).await;
    assert_eq!(
        (status["status"].as_str(), status["attached"].as_bool()),
        (Some("trusted"), Some(true)),
        "{status}"
    );

    // An unknown program takes its trust, with the reason, and only what is new of the list was asked for.
    agent.device.run_program("/opt/implant", b"unknown");
    let (location, asked) = agent.begins().await.unwrap();
    let requested = asked["data"]["attributes"]["evidence_requested"].as_array().unwrap().clone();
    let kinds: Vec<_> = requested.iter().map(|one| one["evidence_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tpm_quote", "ima_log"]);
    assert!(requested[1]["chosen_parameters"]["starting_offset"].as_u64().unwrap() > 1, "{asked}");
    let evidence = agent.device.keylime_evidence(&asked).unwrap();
    assert_eq!(agent.sends(&location, &evidence).await.status(), 202);
    let explained = fixture.get(&format!("/v1/devices/{}", agent.id)).await;
    assert_eq!(explained["device"]["status"], "suspect");
    assert!(explained["findings"].to_string().contains("/opt/implant"), "{explained}");

    // What an operator accepts is accepted, and a reboot is a new epoch, attested whole.
    fixture.approve(&agent.id).await;
    assert_eq!(agent.attests().await.0, 202);
    assert_eq!(agent.status().await, "trusted");
    agent.device.boot(&System::default());
    assert_eq!(agent.attests().await, (202, Some(1)), "it is asked for everything");
    assert_eq!(agent.attests().await, (202, Some(3600)));
    let status = fixture.status(&agent.id).await;
    assert_eq!((status["status"].as_str(), status["reset_count"].as_u64()), (Some("trusted"), Some(2)));

    // No grant is made to a key that it does not have.
    assert_eq!(status["svids"], 0);
    // Revoked, it is told so wherever it comes.
    fixture.post(&format!("/v1/devices/{}/revoke", agent.id), &json!({ "reason": "stolen" })).await;
    assert_eq!(agent.attests().await.0, 403);
    assert_eq!(agent.register().await, 403);
    let (session, challenge) = agent.begins_session().await;
    let proof = agent.device.keylime_possession(&agent.id, &challenge).unwrap();
    assert_eq!(agent.proves(&session, &proof).await.status(), 403);
}

#[tokio::test]
async fn registering_again_changes_nothing_and_a_restart_of_the_server_asks_for_the_rest() {
    let mut fixture = fixture().await;
    let mut device = fixture.device("press-1");
    {
        let mut agent = Agent { fixture: &fixture, id: "press-1".into(), device, token: String::new() };
        assert_eq!(agent.register().await, 200);
        fixture.put("/v1/policy", &policy(&mut agent.device)).await;
        agent.open().await;
        assert_eq!(agent.attests().await.0, 202);
        assert_eq!(agent.register().await, 200);
        assert_eq!(agent.status().await, "trusted");
        device = agent.device;
    }
    let leaves = fixture.get("/v1/audit").await["leaves"].as_array().unwrap().len();
    fixture.restart().await;
    let mut agent = Agent { fixture: &fixture, id: "press-1".into(), device, token: "gone".into() };
    assert_eq!(agent.attests().await.0, 401, "tokens are in memory alone");
    agent.open().await;
    let (location, asked) = agent.begins().await.unwrap();
    let requested = &asked["data"]["attributes"]["evidence_requested"];
    assert_eq!(requested.as_array().unwrap().len(), 2, "the boot log is kept: {requested}");
    assert!(requested[1]["chosen_parameters"]["starting_offset"].as_u64().unwrap() > 1, "{requested}");
    let evidence = agent.device.keylime_evidence(&asked).unwrap();
    assert_eq!(agent.sends(&location, &evidence).await.status(), 202);
    assert_eq!(agent.status().await, "trusted");
    let bound = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().clone();
    let of = |kind: &str| bound.iter().filter(|leaf| leaf["kind"] == kind).count();
    assert_eq!((of("keylime-agent.bound"), of("device.enrolled"), leaves > 0), (1, 1, true));
}

#[tokio::test]
async fn a_tpm_with_both_agents_is_one_device_and_ours_speaks_for_it() {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    assert_eq!(agent.attests().await.0, 202);
    // The same TPM with our agent, whose AK is another.
    let mut ours = fixture.device("press-1");
    let edge = fixture.edge().await;
    ours.ek_certificate = agent.device.ek_certificate.clone();
    std::mem::swap(&mut ours.ek, &mut agent.device.ek);
    edge.enroll(&mut ours).await.unwrap();
    std::mem::swap(&mut ours.ek, &mut agent.device.ek);
    assert_eq!(fixture.get("/v1/devices").await["devices"].as_array().unwrap().len(), 1);
    ours.clock.reset_count = 10;
    let (_stream, grants) = attach_trusted(&edge, &mut ours).await;
    assert!(!grants.device_svid.is_empty());
    // What Keylime's agent shows neither takes nor gives anything, and it goes on as it is.
    agent.device.run_program("/opt/implant", b"unknown");
    agent.open().await;
    assert_eq!(agent.attests().await, (202, Some(3600)));
    assert_eq!(agent.register().await, 200);
    let status = fixture.status("press-1").await;
    assert_eq!((status["status"].as_str(), status["svids"].as_u64()), (Some("trusted"), Some(1)), "{status}");
}

#[tokio::test]
async fn a_policy_that_knows_its_banks_refuses_who_cannot_show_them() {
    let fixture = fixture().await;
    let mut agent = Agent::registered(&fixture, "press-1").await;
    fixture.put("/v1/policy", &crate::fixture::learned(&mut agent.device, "")).await;
    agent.open().await;
    assert_eq!(agent.attests().await.0, 202);
    let explained = fixture.get("/v1/devices/press-1").await;
    assert_eq!(explained["device"]["status"], "suspect");
    assert_eq!(explained["findings"][0]["check"], "pcr-banks", "{explained}");
}

#[tokio::test]
async fn an_agent_that_lost_its_ak_registers_anew_and_is_judged_anew() {
    let fixture = fixture().await;
    let mut agent = Agent::known(&fixture, "press-1").await;
    assert_eq!(agent.attests().await.0, 202);
    let spare = SoftwareDevice::new("spare", &fixture.maker).unwrap();
    agent.device.ak = spare.ak;
    assert_eq!(agent.register().await, 200);
    assert_eq!(agent.status().await, "enrolled");
    agent.open().await;
    assert_eq!(agent.attests().await.0, 202);
    assert_eq!(agent.status().await, "trusted");
}

#[tokio::test]
async fn what_is_spoken_is_said_and_a_requests_number_comes_back() {
    let fixture = fixture().await;
    let agent = Agent::new(&fixture, "press-1");
    let answer = agent.ask_registrar(Method::GET, "/version", &json!({})).await;
    assert_eq!(body(&answer)["results"]["current_version"], "2.6");
    let door = fixture.running().addresses().keylime.clone().unwrap().registrar;
    let traced =
        fixture.call_at(door, Method::GET, "/version", &[("x-request-id", "ab<12")], String::new()).await;
    assert_eq!(crate::fixture::header_text(traced.headers(), "x-request-id"), "ab12");
    let answer = agent.ask_registrar(Method::POST, "/v1.0/agents/press-1", &json!({})).await;
    assert_eq!(answer.status(), 400);
    assert!(body(&answer)["status"].as_str().unwrap().contains("API version not supported: v1.0"));
}
