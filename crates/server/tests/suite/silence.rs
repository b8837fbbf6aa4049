//! Devices that stop answering for themselves: what they hold ends by the bound that the policy gives to silence.

use std::time::Duration;

use assay_identity::{Crl, CrlSet, UnixTime, verify_svid};
use assay_testkit::edge::{Attachment, Grants};
use assay_testkit::software_device::lie::Lie;
use assay_testkit::{SoftwareDevice, System};
use serde_json::Value;
use tokio::time::timeout;
use tonic::Code;

use crate::fixture::{Fixture, attach_trusted, attest_again, code};

/// A server that challenges each second and waits a second, and a trusted device to which silence gives two more.
async fn attached() -> (Fixture, SoftwareDevice, Attachment, Grants) {
    let fixture = Fixture::with(|config| config.challenge_ttl_seconds = 1).await;
    let edge = fixture.edge().await;
    let (device, stream, held) = fixture.trusted_device(&edge, "press-1", SILENCE).await;
    (fixture, device, stream, held)
}

/// For how long the device's evidence stands, past its age.
async fn stands_for(fixture: &Fixture) -> u64 {
    let device = fixture.status("press-1").await;
    device["valid_until"].as_u64().unwrap() - device["evidence_at"].as_u64().unwrap()
}

async fn events(fixture: &Fixture) -> Vec<String> {
    let answer = fixture.get("/v1/devices/press-1").await;
    let kinds = answer["events"].as_array().unwrap().iter();
    kinds.map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}

async fn expired(fixture: &Fixture) -> Value {
    let falls = async {
        loop {
            let device = fixture.status("press-1").await;
            if device["status"] == "expired" && events(fixture).await[0] == "device.expired" {
                return device;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, falls).await.expect("it falls long before its evidence is too old")
}

#[tokio::test]
async fn finding_13_a_device_that_stops_answering_loses_its_grants_by_the_bound_of_its_policy() {
    let (fixture, device, mut stream, held) = attached().await;
    stream.changed().await.unwrap();
    let first = stream.challenge().await.unwrap();
    // It is asked once more on the same stream, and then the stream ends.
    let second = stream.challenge().await.unwrap();
    assert_ne!(first.nonce, second.nonce);
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
    assert!(stands_for(&fixture).await < AGE);
    assert_eq!(code(stream.challenge().await.unwrap_err()), (Code::DeadlineExceeded, "silent".to_owned()));
    // It comes again and says nothing: no time is won by that, nor by a restart.
    let bound = fixture.status("press-1").await["valid_until"].clone();
    let silent = fixture.edge().await.attach(&device).await.unwrap();
    let device = expired(&fixture).await;
    assert_eq!(device["valid_until"], bound);
    drop(silent);
    let peer =
        verify_svid(&held.device_svid, &fixture.bundle(), &CrlSet::bootstrapping(), UnixTime::now()).unwrap();
    let list = fixture.call(hyper::Method::GET, "/crl", &[], String::new()).await;
    assert!(Crl::parse(list.body()).unwrap().revokes(peer.serial()));
    let kinds = events(&fixture).await;
    assert_eq!(kinds[..2], ["device.expired", "device.unanswered"], "one leaf, however often it was silent");
}

#[tokio::test]
async fn finding_13_silence_is_remembered_over_a_restart() {
    let (mut fixture, _device, mut stream, _) = attached().await;
    stream.changed().await.unwrap();
    stream.challenge().await.unwrap();
    stream.challenge().await.unwrap();
    let bound = fixture.status("press-1").await["valid_until"].clone();
    fixture.restart().await;
    assert_eq!(fixture.status("press-1").await["valid_until"], bound);
    expired(&fixture).await;
}

#[tokio::test]
async fn finding_13_what_comes_too_late_is_no_offence_and_the_next_answer_makes_up_for_it() {
    let (fixture, mut device, mut stream, _) = attached().await;
    stream.changed().await.unwrap();
    let missed = stream.challenge().await.unwrap();
    let open = stream.challenge().await.unwrap();
    stream.answer(device.evidence(&missed).unwrap()).await.unwrap();
    stream.answer(device.evidence(&open).unwrap()).await.unwrap();
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
    assert_eq!(stands_for(&fixture).await, AGE);
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
}

#[tokio::test]
async fn finding_13_evidence_that_is_not_authentic_on_a_proven_stream_shortens_what_stands_and_moves_nothing()
{
    let (fixture, mut device, mut stream, _) = attached().await;
    let system = System::default();
    let known = system.programs.first().unwrap();
    for lie in [Lie::QuoteAltered, Lie::OtherNonce, Lie::ImaPathAltered] {
        // So that there is a list to lie about.
        device.run_program(&known.path, &known.contents);
        device.run_program(&known.path, &known.contents);
        stream.changed().await.unwrap();
        assert_eq!(stands_for(&fixture).await, AGE, "{lie:?}");
        let (family, reason) = code(stream.lie(&mut device, lie).await.unwrap_err());
        assert_eq!((family, reason.as_str()), (Code::Unauthenticated, lie.caught_by()));
        let told = fixture.status("press-1").await;
        assert_eq!(told["status"], "trusted", "{lie:?}: whoever carries evidence cannot make a device fall");
        assert!(stands_for(&fixture).await < AGE, "{lie:?}");
        expired(&fixture).await;
        // Unheard, not fallen: good evidence brings it back by itself.
        (stream, _) = attach_trusted(&fixture.edge().await, &mut device).await;
    }
}

#[tokio::test]
async fn finding_13_a_stream_that_is_not_proven_shortens_nothing() {
    let (fixture, mut device, mut stream, _) = attached().await;
    let edge = fixture.edge().await;
    let mut silent = edge.attach(&device).await.unwrap();
    assert_eq!(code(silent.verdict().await.unwrap_err()).1, "silent");
    let mut lying = edge.attach(&device).await.unwrap();
    assert_eq!(code(lying.lie(&mut device, Lie::QuoteAltered).await.unwrap_err()).1, "quote-signature");
    assert_eq!(stands_for(&fixture).await, AGE);
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
}

#[tokio::test]
async fn finding_13_whoever_hangs_up_on_a_challenge_has_not_answered_it() {
    let (fixture, mut device, mut stream, _) = attached().await;
    stream.changed().await.unwrap();
    stream.challenge().await.unwrap();
    drop(stream);
    expired(&fixture).await;
    assert!(events(&fixture).await.contains(&"device.unanswered".to_owned()));
    // Good evidence makes up for it.
    attach_trusted(&fixture.edge().await, &mut device).await;
    assert_eq!(stands_for(&fixture).await, AGE);
}

#[tokio::test]
async fn finding_13_a_connection_that_merely_ends_keeps_what_the_policy_gives_to_evidence() {
    let (fixture, _device, stream, _) = attached().await;
    gone(&fixture, stream).await;
    assert_eq!(stands_for(&fixture).await, AGE);
    assert!(!events(&fixture).await.contains(&"device.unanswered".to_owned()));
}

#[tokio::test]
async fn finding_13_the_policy_says_how_long_a_device_may_be_offline() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let policy = format!("{SILENCE}\noffline_max_seconds = 3");
    let (mut device, stream, _) = fixture.trusted_device(&edge, "press-1", &policy).await;
    assert_eq!(stands_for(&fixture).await, AGE, "while it is attached");
    gone(&fixture, stream).await;
    let told = expired(&fixture).await;
    assert!(told["valid_until"].as_u64().unwrap() - told["evidence_at"].as_u64().unwrap() < AGE);
    assert!(events(&fixture).await.contains(&"device.unanswered".to_owned()));
    // Who was merely away comes back by good evidence.
    let _attached = attach_trusted(&fixture.edge().await, &mut device).await;
    assert_eq!(stands_for(&fixture).await, AGE);
}

/// Hangs up between challenges, and waits until the server has noticed.
async fn gone(fixture: &Fixture, stream: Attachment) {
    drop(stream);
    let gone = async {
        while fixture.status("press-1").await["attached"] == true {
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, gone).await.unwrap();
}

const SILENCE: &str = "[freshness]\nevidence_age_max_seconds = 300\nunanswered_max_seconds = 2";
const AGE: u64 = 300;
const WITHIN: Duration = Duration::from_secs(30);
