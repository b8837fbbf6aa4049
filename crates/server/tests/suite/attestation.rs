//! A device's standing stream: evidence becomes grants, and grants fall with it.

use std::time::{Duration, Instant};

use assay_identity::{Crl, CrlSet, verify_svid};
use assay_testkit::edge::Message;
use assay_testkit::edge::protocol::{Challenge, Evidence};
use assay_testkit::software_device::lie::Lie;
use assay_testkit::tamper::ima_entries;
use assay_testkit::{SoftwareDevice, System};
use hyper::Method;
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;

use crate::fixture::{Fixture, attach_trusted, attest_again, code, learned};

fn now() -> assay_identity::UnixTime {
    assay_identity::UnixTime::now()
}

#[tokio::test]
async fn without_a_policy_nothing_is_granted() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    let mut stream = edge.attach(&device).await.unwrap();
    let verdict = stream.attest(&mut device).await.unwrap();
    assert_eq!((verdict.tier.as_str(), verdict.findings[0].check.as_str()), ("none", "policy-present"));
    let grants = stream.grants().await.unwrap();
    assert!(grants.withdrawn && grants.device_svid.is_empty() && grants.reason.contains("No policy"));
    // The policy arrives: the device is challenged at once and trusted.
    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "trusted");
    assert!(!stream.grants().await.unwrap().withdrawn);
}

#[tokio::test]
async fn good_evidence_brings_an_svid_for_the_tpms_key() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let crls = CrlSet::from_der([&grants.crl]).unwrap();
    let peer = verify_svid(&grants.device_svid, &fixture.bundle(), &crls, now()).unwrap();
    assert_eq!(peer.spiffe_id().as_str(), device.device_id.clone().unwrap());
    assert_eq!(peer.spki(), device.device_key.spki());
    let status = fixture.status("press-1").await;
    assert_eq!(
        (&status["status"], &status["attached"], &status["svids"]),
        (&json!("trusted"), &json!(true), &json!(1))
    );
    let trust = fixture.get(&format!("/trust/status?id={}", peer.spiffe_id())).await;
    assert_eq!((&trust["status"], &trust["tier"]), (&json!("trusted"), &json!("affirming")));
}

#[tokio::test]
async fn an_unknown_program_withdraws_everything_and_approval_brings_it_back() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut victim, mut stream, held) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut witness = fixture.device("press-2");
    edge.enroll(&mut witness).await.unwrap();
    let (mut witness_stream, _) = attach_trusted(&edge, &mut witness).await;

    victim.run_program("/tmp/implant", b"evil");
    stream.changed().await.unwrap();
    let challenge = stream.challenge().await.unwrap();
    assert!(challenge.ima_from_entry > 0 && !challenge.boot_log_wanted, "only what is new is asked for");
    let evidence = victim.evidence(&challenge).unwrap();
    let sent = Instant::now();
    stream.answer(evidence).await.unwrap();
    let verdict = stream.verdict().await.unwrap();
    let grants = stream.grants().await.unwrap();
    let took = sent.elapsed();
    assert_eq!((verdict.tier.as_str(), verdict.state.as_str()), ("contraindicated", "suspect"));
    assert!(verdict.findings[0].message.contains("/tmp/implant"), "{verdict:?}");
    assert!(grants.withdrawn && grants.device_svid.is_empty());
    assert!(took < Duration::from_millis(1000), "withdrawn after {took:?}");

    // The list names what fell, the door of relying parties has it, and the other device was told.
    let peer = verify_svid(&held.device_svid, &fixture.bundle(), &CrlSet::bootstrapping(), now()).unwrap();
    let told = timeout(Duration::from_secs(1), witness_stream.grants()).await.unwrap().unwrap();
    assert!(!told.withdrawn);
    assert!(Crl::parse(&told.crl).unwrap().revokes(peer.serial()));
    let mut heard = grants;
    while !Crl::parse(&heard.crl).unwrap().revokes(peer.serial()) {
        heard = timeout(Duration::from_secs(1), stream.grants()).await.unwrap().unwrap();
        assert!(heard.withdrawn);
    }
    let crls = CrlSet::from_der([&heard.crl]).unwrap();
    assert!(verify_svid(&held.device_svid, &fixture.bundle(), &crls, now()).is_err());
    assert_eq!(fixture.status("press-2").await["status"], "trusted");
    let explained = fixture.get("/v1/devices/press-1/explain").await;
    assert_eq!(explained["findings"][0]["claim"], "/tmp/implant");
    assert!(explained["grants"][0]["withdrawn_at"].is_u64());

    // Still there, still refused.
    assert_eq!(attest_again(&mut stream, &mut victim).await.tier, "contraindicated");

    let approval = fixture.approve("press-1").await;
    assert_eq!(
        (&approval["approved"][0]["path"], &approval["policy"]["version"]),
        (&json!("/tmp/implant"), &json!(2))
    );
    let verdict = stream.attest(&mut victim).await.unwrap();
    assert_eq!(verdict.state, "trusted", "{verdict:?}");
    assert!(!stream.grants().await.unwrap().withdrawn);
}

#[tokio::test]
async fn what_was_judged_is_not_asked_for_again_until_a_new_boot() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().len();
    for _ in 0..3 {
        assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
    }
    let after = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().len();
    assert_eq!(after, leaves, "nothing changed, nothing is recorded");

    device.boot(&System::default());
    stream.changed().await.unwrap();
    let first = stream.challenge().await.unwrap();
    assert!(!first.boot_log_wanted);
    stream.answer(device.evidence(&first).unwrap()).await.unwrap();
    // The counter in the quote says that what was left out is needed after all.
    let second = stream.challenge().await.unwrap();
    assert!(second.boot_log_wanted && second.ima_from_entry == 0);
    stream.answer(device.evidence(&second).unwrap()).await.unwrap();
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
}

#[tokio::test]
async fn finding_3_an_impostor_cannot_make_a_device_fall() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut impostor = fixture.device("press-9");
    impostor.device_id.clone_from(&device.device_id);
    let mut other = edge.attach(&impostor).await.unwrap();
    let refusal = code(other.attest(&mut impostor).await.unwrap_err());
    assert_eq!(refusal, (Code::Unauthenticated, "quote-signature".to_owned()));
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
}

#[tokio::test]
async fn evidence_answers_one_challenge_once() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    stream.changed().await.unwrap();
    let challenge = stream.challenge().await.unwrap();
    let evidence = device.evidence(&challenge).unwrap();
    stream.answer(evidence.clone()).await.unwrap();
    stream.verdict().await.unwrap();
    stream.answer(evidence.clone()).await.unwrap();
    let refusal = code(stream.verdict().await.unwrap_err());
    assert_eq!(refusal, (Code::Unauthenticated, "quote-nonce".to_owned()));
    // On another stream it is no better.
    let mut stream = edge.attach(&device).await.unwrap();
    stream.challenge().await.unwrap();
    stream.answer(evidence).await.unwrap();
    assert_eq!(code(stream.verdict().await.unwrap_err()).1, "quote-nonce");
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
}

#[tokio::test]
async fn a_challenge_left_unanswered_ends_the_stream() {
    let fixture = Fixture::with(|config| config.challenge_ttl_seconds = 1).await;
    let edge = fixture.edge().await;
    let device = fixture.known_device(&edge, "press-1", "").await;
    let mut stream = edge.attach(&device).await.unwrap();
    stream.challenge().await.unwrap();
    assert_eq!(code(stream.verdict().await.unwrap_err()), (Code::DeadlineExceeded, "silent".to_owned()));
    assert_eq!(fixture.status("press-1").await["status"], "enrolled");
}

#[tokio::test]
async fn who_is_not_enrolled_is_not_let_in() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let unknown = format!("spiffe://test.assay.example/spire/agent/tpm/{}", "0".repeat(64));
    let mut stream = edge.attach_as(&unknown).await.unwrap();
    assert_eq!(code(stream.challenge().await.unwrap_err()), (Code::NotFound, "not-enrolled".to_owned()));
    let mut stream = edge.attach_as("press-1").await.unwrap();
    assert_eq!(code(stream.challenge().await.unwrap_err()), (Code::InvalidArgument, "device-id".to_owned()));
}

#[tokio::test]
async fn revocation_reaches_the_stream_and_ends_it() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (device, mut stream, held) = fixture.trusted_device(&edge, "press-1", "").await;
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    let grants = timeout(Duration::from_secs(1), stream.grants()).await.unwrap().unwrap();
    assert!(grants.withdrawn && grants.reason.contains("stolen"), "{grants:?}");
    let peer = verify_svid(&held.device_svid, &fixture.bundle(), &CrlSet::bootstrapping(), now()).unwrap();
    let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    assert!(Crl::parse(crl.body()).unwrap().revokes(peer.serial()));
    assert_eq!(code(stream.grants().await.unwrap_err()), (Code::PermissionDenied, "revoked".to_owned()));
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(code(stream.challenge().await.unwrap_err()), (Code::PermissionDenied, "revoked".to_owned()));
}

#[tokio::test]
async fn a_second_stream_of_the_same_device_takes_over() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut first, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let (_second, _) = attach_trusted(&edge, &mut device).await;
    let ended = loop {
        match first.next().await {
            Ok(_) => {}
            Err(error) => break code(error),
        }
    };
    assert_eq!(ended, (Code::Aborted, "replaced".to_owned()));
    assert_eq!(fixture.status("press-1").await["attached"], true);
}

#[tokio::test]
async fn stale_evidence_expires_and_takes_the_svid_along() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let policy = "[freshness]\nevidence_age_max_seconds = 1";
    let (_device, mut stream, held) = fixture.trusted_device(&edge, "press-1", policy).await;
    let grants = timeout(Duration::from_secs(5), stream.grants()).await.unwrap().unwrap();
    assert!(grants.withdrawn, "{grants:?}");
    let peer = verify_svid(&held.device_svid, &fixture.bundle(), &CrlSet::bootstrapping(), now()).unwrap();
    let again = timeout(Duration::from_secs(1), stream.grants()).await;
    let crl = again.map_or(grants.crl, |grants| grants.unwrap().crl);
    assert!(Crl::parse(&crl).unwrap().revokes(peer.serial()));
    assert_eq!(fixture.status("press-1").await["status"], "expired");
}

#[tokio::test]
async fn devices_are_challenged_by_the_clock() {
    let fixture = Fixture::with(|config| config.attest_interval_seconds = 1).await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let verdict = timeout(Duration::from_secs(5), stream.attest(&mut device)).await.unwrap().unwrap();
    assert_eq!(verdict.state, "trusted");
}

#[tokio::test]
async fn a_restart_keeps_every_state_and_asks_for_nothing_that_is_kept() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, held) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    fixture.post("/v1/devices/press-2/revoke", &json!({ "reason": "lost" })).await;
    fixture.restart().await;
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
    assert_eq!(fixture.status("press-2").await["status"], "revoked");
    let edge = fixture.edge().await;
    let mut stream = edge.attach(&device).await.unwrap();
    let challenge = stream.challenge().await.unwrap();
    assert!(!challenge.boot_log_wanted && challenge.ima_from_entry == device.ima.entries().len() as u64);
    stream.answer(device.evidence(&challenge).unwrap()).await.unwrap();
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
    let grants = stream.grants().await.unwrap();
    verify_svid(&grants.device_svid, &fixture.bundle(), &CrlSet::bootstrapping(), now()).unwrap();
    assert_ne!(grants.device_svid[0], held.device_svid[0]);
    assert_ne!(grants.crl, held.crl);
    assert!(Crl::parse(&grants.crl).unwrap().number() > Crl::parse(&held.crl).unwrap().number());
}

#[tokio::test]
async fn stopping_tells_the_streams_and_takes_less_than_two_seconds() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let started = Instant::now();
    fixture.stop().await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(code(stream.next().await.unwrap_err()), (Code::Unavailable, "shutting-down".to_owned()));
}

/// The binary list that was asked for without its last entries, under the quote as it is.
fn cut_short(device: &mut SoftwareDevice, challenge: &Challenge, missing: usize) -> Evidence {
    let mut evidence = device.evidence(challenge).unwrap();
    let entries = ima_entries(&evidence.ima_log);
    evidence.ima_log.truncate(entries[entries.len() - missing].start);
    evidence
}

#[tokio::test]
async fn a_list_read_too_early_is_asked_for_again_without_penalty() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, held) = fixture.trusted_device(&edge, "press-1", "").await;
    let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().len();
    let system = System::default();
    let known = system.programs.first().unwrap();
    device.run_program(&known.path, &known.contents);
    device.run_program(&known.path, &known.contents);
    stream.changed().await.unwrap();
    // One of the two new entries is missing, then both are.
    for missing in [1, 2] {
        let challenge = stream.challenge().await.unwrap();
        assert!(challenge.ima_from_entry > 0);
        let evidence = cut_short(&mut device, &challenge, missing);
        stream.answer(evidence).await.unwrap();
    }
    let challenge = timeout(Duration::from_secs(1), stream.challenge()).await.unwrap().unwrap();
    stream.answer(device.evidence(&challenge).unwrap()).await.unwrap();
    let verdict = stream.verdict().await.unwrap();
    assert_eq!(verdict.state, "trusted", "{verdict:?}");
    let after = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().len();
    assert_eq!(after, leaves, "nothing happened to it");
    let peer = verify_svid(&held.device_svid, &fixture.bundle(), &CrlSet::bootstrapping(), now()).unwrap();
    let trust = fixture.get(&format!("/trust/status?id={}", peer.spiffe_id())).await;
    assert_eq!(trust["status"], json!("trusted"));
}

#[tokio::test]
async fn a_list_that_stays_short_is_no_answer() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    device.run_program("/tmp/implant", b"evil");
    // On another stream everything is judged anew, with what is kept of the boot; that this may be damaged is one more
    // reason to ask.
    for asked in [3, 4] {
        if asked == 3 {
            stream.changed().await.unwrap();
        } else {
            stream = edge.attach(&device).await.unwrap();
        }
        let mut challenges = 0;
        let refusal = loop {
            match stream.next().await {
                Ok(Message::Challenge(challenge)) => {
                    challenges += 1;
                    let evidence = cut_short(&mut device, &challenge, 1);
                    stream.answer(evidence).await.unwrap();
                }
                Ok(Message::Verdict(verdict)) => panic!("{verdict:?}"),
                Ok(_) => {}
                Err(error) => break code(error),
            }
        };
        assert_eq!(refusal, (Code::Unauthenticated, "ima-replay".to_owned()));
        assert_eq!(challenges, asked);
    }
    assert_eq!(fixture.status("press-1").await["status"], "trusted", "until its evidence is too old");
}

#[tokio::test]
async fn finding_3_what_the_ak_did_not_sign_ends_the_stream_and_moves_no_state() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    for lie in Lie::ALL.into_iter().filter(|lie| !lie.is_the_devices_word()) {
        let name = format!("{lie:?}");
        let mut device: SoftwareDevice = fixture.known_device(&edge, &name, "").await;
        let (mut stream, _) = attach_trusted(&edge, &mut device).await;
        let held = fixture.status(&name).await;
        let before = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().len();
        // A new boot, so that the whole evidence is there to lie about.
        device.boot(&System::default());
        stream.changed().await.unwrap();
        let challenge = stream.challenge().await.unwrap();
        stream.answer(device.evidence(&challenge).unwrap()).await.unwrap();
        let refusal = code(stream.lie(&mut device, lie).await.unwrap_err());
        assert_eq!(refusal, (Code::Unauthenticated, lie.caught_by().to_owned()), "{lie:?}");
        let told = fixture.status(&name).await;
        for word in ["status", "tier", "since", "evidence_at", "svids", "policy"] {
            assert_eq!(told[word], held[word], "{lie:?}");
        }
        assert!(told["valid_until"].as_u64() < held["valid_until"].as_u64(), "{lie:?}: it was not heard");
        let leaves = fixture.get("/v1/audit?limit=1000").await["leaves"].as_array().unwrap().clone();
        let new: Vec<&str> = leaves[before..].iter().map(|leaf| leaf["kind"].as_str().unwrap()).collect();
        // That somebody tried it is on record, in a share of its own.
        let new: Vec<&str> = new.into_iter().filter(|kind| *kind != "security.refused").collect();
        assert_eq!(new, ["device.unanswered"], "{lie:?}: nothing else happened to the device");
        // And the device goes on as soon as nobody is in the way.
        let mut stream = edge.attach(&device).await.unwrap();
        assert_eq!(stream.attest(&mut device).await.unwrap().state, "trusted", "{lie:?}");
    }
}

#[tokio::test]
async fn every_lie_that_the_ak_signs_is_caught_by_its_own_check() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    for lie in Lie::ALL.into_iter().filter(|lie| lie.is_the_devices_word()) {
        let mut device: SoftwareDevice = fixture.known_device(&edge, &format!("{lie:?}"), "").await;
        let (mut stream, _) = attach_trusted(&edge, &mut device).await;
        // A new boot, so that the whole evidence is there to lie about; an old one is such a lie by itself.
        let boot = if lie == Lie::ResetCounterBack { None } else { Some(System::default()) };
        boot.iter().for_each(|system| device.boot(system));
        stream.changed().await.unwrap();
        let challenge = stream.challenge().await.unwrap();
        let first = match boot {
            Some(_) => device.evidence(&challenge),
            None => lie.tell(&mut device, &challenge),
        };
        stream.answer(first.unwrap()).await.unwrap();
        let verdict = stream.lie(&mut device, lie).await.unwrap();
        let checks: Vec<&str> = verdict.findings.iter().map(|finding| finding.check.as_str()).collect();
        assert!(checks.contains(&lie.caught_by()), "{lie:?}: {checks:?}");
        assert_ne!(verdict.state, "trusted", "{lie:?}");
        while let Ok(Message::Grants(grants)) = stream.next().await {
            if grants.withdrawn {
                break;
            }
        }
    }
}
