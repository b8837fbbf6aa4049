//! Roll-outs: a fleet is taken from one version of its policy to the next, and no device falls on the way.

use assay_testkit::edge::{Attachment, Edge};
use assay_testkit::{SoftwareDevice, System};
use hyper::Method;
use serde_json::{Value, json};

use crate::access::{form, page, signed_in, token, word};
use crate::assignment::{is_left_alone, refusal};
use crate::fixture::{Fixture, attach_trusted, attest_again, learned};

const START: &str = "/v1/policies/rollouts";

fn updated() -> System {
    System { kernel: "6.12.10-amd64".into(), ..System::default() }
}

/// The policy of the updated system.
fn next_version(fixture: &Fixture, more: &str) -> String {
    let mut sample = fixture.device("sample");
    sample.boot(&updated());
    learned(&mut sample, more)
}

/// Devices that the first version trusts, attached.
async fn fleet<const N: usize>(fixture: &Fixture, edge: &Edge) -> [(SoftwareDevice, Attachment); N] {
    let mut fleet = Vec::new();
    for number in 1..=N {
        let mut device = fixture.device(&format!("press-{number}"));
        edge.enroll(&mut device).await.unwrap();
        if number == 1 {
            fixture.put("/v1/policy", &learned(&mut device, "")).await;
        }
        let (stream, _) = attach_trusted(edge, &mut device).await;
        fleet.push((device, stream));
    }
    fleet.try_into().unwrap_or_else(|_| panic!("as many as asked for"))
}

/// Answers challenges until there is a verdict: a new boot is asked twice.
async fn update(device: &mut SoftwareDevice, stream: &mut Attachment) -> String {
    device.boot(&updated());
    stream.changed().await.unwrap();
    let partial = stream.challenge().await.unwrap();
    stream.answer(device.evidence(&partial).unwrap()).await.unwrap();
    let verdict = stream.attest(device).await.unwrap();
    format!("{} {}", verdict.state, verdict.policy)
}

async fn judged(device: &mut SoftwareDevice, stream: &mut Attachment) -> String {
    let verdict = stream.attest(device).await.unwrap();
    format!("{} {}", verdict.state, verdict.policy)
}

async fn on_union(fixture: &Fixture) -> u64 {
    fixture.get("/v1/policies").await["assignments"][0]["rollout"]["devices"].as_u64().unwrap()
}

#[tokio::test]
async fn the_page_names_whoever_keeps_a_rollout_from_its_end() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let [(mut one, mut stream)] = fleet(&fixture, &edge).await;
    fixture.post_text(&format!("{START}?percent=100"), &next_version(&fixture, "")).await;
    judged(&mut one, &mut stream).await;
    let author = signed_in(&fixture, &token(&fixture, "pia", "policy-author", "").await).await;
    let operator = signed_in(&fixture, &token(&fixture, "olga", "operator", "").await).await;
    let (_, list) = page(&fixture, &author, "/policies").await;
    assert!(list.contains("/policies/base") && list.contains("to v3: 1 of 1 devices"), "{list}");
    let (_, html) = page(&fixture, &author, "/policies/base").await;
    for shown in ["Roll-out to v3", "Would fall", "press-1", "1 of 1 devices", "the first version"] {
        assert!(html.contains(shown), "{shown}: {html}");
    }
    let (_, third) = page(&fixture, &author, "/policies/base?version=3").await;
    assert!(third.contains("Against v2") && third.contains("no longer"), "{third}");
    let word_of = |html: &str| format!("word={}", word(html));
    // An operator looks; whoever would fall keeps it from its end; taking it back is the author's.
    assert!(!page(&fixture, &operator, "/policies/base").await.1.contains("Finish"));
    assert_eq!(form(&fixture, &operator, "/policies/base/finish", &word_of(&html)).await.0, 403);
    assert_eq!(form(&fixture, &author, "/policies/base/finish", &word_of(&html)).await.0, 409);
    assert_eq!(
        form(&fixture, &author, "/policies/base/widen", &format!("{}&percent=0", word_of(&html))).await.0,
        400
    );
    let (status, said) = form(&fixture, &author, "/policies/base/abort", &word_of(&html)).await;
    assert_eq!(status, 303, "{said}");
    assert!(!page(&fixture, &author, "/policies/base?done=aborted").await.1.contains("Roll-out to"));
    let (missing, _) = page(&fixture, &author, "/policies/none").await;
    assert_eq!(missing, 404);
}

#[tokio::test]
async fn old_and_new_devices_stay_trusted_until_all_are_updated() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let [(mut one, mut one_stream), (mut other, mut other_stream)] = fleet(&fixture, &edge).await;

    let text = next_version(&fixture, "");
    let started = fixture.post_text(&format!("{START}?percent=100"), &text).await;
    let rollout = &started["rollout"];
    assert_eq!(
        [&started["version"], &rollout["union_version"], &rollout["new_version"], &rollout["devices"]],
        [&json!(1), &json!(2), &json!(3), &json!(2)]
    );
    assert_eq!(judged(&mut one, &mut one_stream).await, "trusted base v2");
    assert_eq!(judged(&mut other, &mut other_stream).await, "trusted base v2");
    assert_eq!(update(&mut one, &mut one_stream).await, "trusted base v2");
    assert_eq!(attest_again(&mut other_stream, &mut other).await.state, "trusted");

    let finish = format!("{START}/base/finish");
    let (status, code, message) = refusal(&fixture, Method::POST, &finish, "").await;
    assert_eq!((status, code.as_str()), (409, "would-fall"));
    assert!(message.starts_with("one device would fall:\n  press-2: PCR 4 ("), "{message}");
    let waiting = fixture.get(&format!("{START}/base")).await["would_fall"].clone();
    assert_eq!(waiting.as_array().unwrap().len(), 1, "{waiting}");
    assert_eq!(waiting[0]["name"], "press-2");

    assert_eq!(update(&mut other, &mut other_stream).await, "trusted base v2");
    let finished = fixture.post(&finish, &json!({})).await;
    assert_eq!((&finished["version"], &finished["would_fall"]), (&json!(3), &json!([])));
    assert_eq!(judged(&mut one, &mut one_stream).await, "trusted base v3");
    assert_eq!(judged(&mut other, &mut other_stream).await, "trusted base v3");
    let plan = fixture.get("/v1/policies").await;
    assert_eq!(
        (&plan["assignments"][0]["version"], &plan["assignments"][0]["rollout"]),
        (&json!(3), &Value::Null)
    );
    // What was good before the update no longer is.
    one.boot(&System::default());
    one_stream.changed().await.unwrap();
    let partial = one_stream.challenge().await.unwrap();
    one_stream.answer(one.evidence(&partial).unwrap()).await.unwrap();
    assert_eq!(judged(&mut one, &mut one_stream).await, "suspect base v3");
}

#[tokio::test]
async fn a_device_of_which_nothing_is_kept_is_not_known_to_stand() {
    let fixture = Fixture::with(|config| config.evidence_bytes_max = 0).await;
    let edge = fixture.edge().await;
    let [(mut device, mut stream)] = fleet(&fixture, &edge).await;
    fixture.post_text(&format!("{START}?percent=100"), &next_version(&fixture, "")).await;
    judged(&mut device, &mut stream).await;
    let finish = format!("{START}/base/finish");
    let (status, _, message) = refusal(&fixture, Method::POST, &finish, "").await;
    assert_eq!(status, 409);
    assert!(message.contains("press-1: no evidence of it is kept"), "{message}");
    let finished = fixture.post(&finish, &json!({ "force": true })).await;
    assert_eq!(finished["would_fall"][0]["name"], "press-1");
    assert_eq!(judged(&mut device, &mut stream).await, "suspect base v3", "as was accepted");
}

#[tokio::test]
async fn an_aborted_roll_out_leaves_the_old_policy_alone_in_force() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let [(mut one, mut one_stream), (mut other, mut other_stream)] = fleet(&fixture, &edge).await;
    let text = next_version(&fixture, "");
    fixture.post_text(&format!("{START}?percent=100"), &text).await;
    judged(&mut one, &mut one_stream).await;
    judged(&mut other, &mut other_stream).await;
    assert_eq!(update(&mut one, &mut one_stream).await, "trusted base v2");
    let aborted = fixture.post(&format!("{START}/base/abort"), &json!({ "force": true })).await;
    assert_eq!(aborted, json!({ "name": "base", "version": 1 }));
    assert_eq!(judged(&mut one, &mut one_stream).await, "suspect base v1");
    assert_eq!(judged(&mut other, &mut other_stream).await, "trusted base v1");
    // Versions are never used again.
    let started = fixture.post_text(START, &text).await;
    assert_eq!(started["rollout"]["new_version"], 5);
}

#[tokio::test]
async fn a_roll_out_reaches_more_devices_step_by_step_and_asks_only_them() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut fleet = fleet::<4>(&fixture, &edge).await;
    let text = next_version(&fixture, "");
    fixture.post_text(&format!("{START}?percent=1"), &text).await;
    let mut included: Vec<String> = Vec::new();
    for percent in [1, 50, 100] {
        if percent > 1 {
            fixture.post(&format!("{START}/base/widen"), &json!({ "percent": percent })).await;
        }
        for (device, stream) in &mut fleet {
            let in_force = fixture.status(&device.name).await["policy_in_force"].clone();
            if in_force == "base v2" && !included.contains(&device.name) {
                assert_eq!(judged(device, stream).await, "trusted base v2");
                included.push(device.name.clone());
            } else {
                let expected = if included.contains(&device.name) { "base v2" } else { "base v1" };
                assert_eq!(in_force, expected, "{}: nobody moves back", device.name);
                assert!(is_left_alone(stream).await, "{} at {percent} %", device.name);
            }
        }
        assert_eq!(on_union(&fixture).await, included.len() as u64);
    }
    assert_eq!(included.len(), 4);
}

#[tokio::test]
async fn a_restart_in_the_middle_changes_nothing() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let [(mut one, mut one_stream), (mut other, _)] = fleet(&fixture, &edge).await;
    let text = next_version(&fixture, "");
    fixture.post_text(&format!("{START}?percent=100"), &text).await;
    judged(&mut one, &mut one_stream).await;
    let before = fixture.get("/v1/policies").await;
    fixture.restart().await;
    assert_eq!(fixture.get("/v1/policies").await, before);
    let edge = fixture.edge().await;
    one.boot(&updated());
    for device in [&mut one, &mut other] {
        let mut stream = edge.attach(device).await.unwrap();
        assert_eq!(judged(device, &mut stream).await, "trusted base v2");
    }
    fixture.post(&format!("{START}/base/abort"), &json!({ "force": true })).await;
    fixture.restart().await;
    assert_eq!(fixture.get("/v1/policies").await["assignments"][0]["rollout"], Value::Null);
}

#[tokio::test]
async fn of_two_operators_at_once_one_is_told_that_the_other_was_first() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let _device = fixture.known_device(&edge, "press-1", "").await;
    let text = next_version(&fixture, "");
    let start = || refusal(&fixture, Method::POST, START, &text);
    let (one, other) = tokio::join!(start(), start());
    let mut outcomes = [one, other].map(|(status, code, _)| (status, code));
    outcomes.sort();
    assert_eq!(outcomes, [(200, String::new()), (409, "rollout-under-way".to_owned())]);
    let (abort, finish) = (format!("{START}/base/abort"), format!("{START}/base/finish"));
    let end = |path| refusal(&fixture, Method::POST, path, "{\"force\":true}");
    let (one, other) = tokio::join!(end(abort.as_str()), end(finish.as_str()));
    let mut outcomes = [one, other].map(|(status, code, _)| (status, code));
    outcomes.sort();
    assert_eq!(outcomes, [(200, String::new()), (404, "no-rollout".to_owned())]);
}

#[tokio::test]
async fn what_is_approved_during_a_roll_out_stays_approved_however_it_ends() {
    for end in ["abort", "finish"] {
        let fixture = Fixture::start().await;
        let edge = fixture.edge().await;
        let [(mut device, mut stream)] = fleet(&fixture, &edge).await;
        let more = next_version(&fixture, "");
        fixture.post_text(&format!("{START}?percent=100"), &more).await;
        judged(&mut device, &mut stream).await;
        if end == "finish" {
            update(&mut device, &mut stream).await;
        }
        device.run_program("/opt/tool", b"new");
        assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
        stream.grants().await.unwrap();
        let approval = fixture.approve("press-1").await;
        assert_eq!(approval["approved"][0]["path"], "/opt/tool");
        assert_eq!(approval["policy"]["version"], 5, "old, union and new have a version more each");
        assert_eq!(judged(&mut device, &mut stream).await, "trusted base v5");
        assert_eq!(on_union(&fixture).await, 1, "the roll-out is as far as it was");
        fixture.post(&format!("{START}/base/{end}"), &json!({ "force": true })).await;
        let expected = if end == "abort" { "trusted base v4" } else { "trusted base v6" };
        assert_eq!(judged(&mut device, &mut stream).await, expected);
        let text = fixture.get("/v1/policy").await["text"].as_str().unwrap().to_owned();
        assert!(text.contains("/opt/tool"));
    }
}

#[tokio::test]
async fn an_approval_never_makes_a_policy_judge_files_that_did_not() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let [(mut device, mut stream)] = fleet(&fixture, &edge).await;
    let mut without_files: toml::Table = next_version(&fixture, "").parse().unwrap();
    without_files.remove("ima");
    let path = format!("{START}?percent=100&force=true");
    fixture.post_text(&path, &without_files.to_string()).await;
    judged(&mut device, &mut stream).await;
    device.run_program("/opt/tool", b"new");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    let approval = fixture.approve("press-1").await;
    assert_eq!(approval["policy"]["version"], 5);
    let new = fixture.get("/v1/policies").await["assignments"][0]["rollout"]["new_version"].clone();
    assert_eq!(new, 3, "it accepts any file as it is");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_what_to_do() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let text = next_version(&fixture, "");
    let (status, code, _) = refusal(&fixture, Method::POST, START, &text).await;
    assert_eq!((status, code.as_str()), (404, "not-assigned"), "nothing is in force yet");
    let _device = fixture.known_device(&edge, "press-1", "").await;
    let same = fixture.get("/v1/policy").await["text"].as_str().unwrap().to_owned();
    let mut renamed: toml::Table = text.parse().unwrap();
    renamed.insert("name".to_owned(), "edge".into());
    let renamed = renamed.to_string();
    let stricter = next_version(&fixture, "[freshness]\nevidence_age_max_seconds = 60");
    let at = |rest: &str| format!("{START}{rest}");
    let check = async |path: String, body: &str, status: u16, code: &str, says: &str| {
        let (found_status, found_code, message) = refusal(&fixture, Method::POST, &path, body).await;
        assert_eq!((found_status, found_code.as_str()), (status, code), "{path}: {message}");
        assert!(message.contains(says), "{path}: {message}");
    };
    check(at("?percent=0"), &text, 400, "percent", "1 to 100").await;
    check(at("?percent=101"), &text, 400, "percent", "1 to 100").await;
    check(at("?selector=site%3Dparis"), &text, 404, "not-assigned", "devices with site=paris").await;
    check(at(""), "name = 3", 400, "policy", "line 1").await;
    check(at(""), &same, 409, "nothing-changes", "base v1 says the same").await;
    check(at(""), &renamed, 409, "other-policy", "base is in force for every device").await;
    check(at(""), &stricter, 409, "policies-disagree", "freshness.evidence_age_max_seconds").await;
    check(at("/base/widen"), r#"{"percent":50}"#, 404, "no-rollout", "base").await;
    check(at("/base/finish"), "", 404, "no-rollout", "base").await;
    check(at("/base/abort"), "", 404, "no-rollout", "base").await;
    assert_eq!(fixture.get("/v1/policy?name=base").await["version"], 1, "nothing was stored");

    let forced = fixture.post_text(&at("?percent=20&force=true"), &stricter).await;
    assert_eq!(forced["rollout"]["percent"], 20);
    check(at(""), &text, 409, "rollout-under-way", "finish or abort").await;
    check(at("/base/widen"), r#"{"percent":20}"#, 409, "not-wider", "20 %").await;
    check(at("/base/widen"), r#"{"percent":1000}"#, 400, "percent", "1 to 100").await;
    let put = refusal(&fixture, Method::PUT, "/v1/policy", &text).await;
    assert_eq!((put.0, put.1.as_str()), (409, "rollout-under-way"));
    let unassign = refusal(&fixture, Method::POST, "/v1/policies/unassign", r#"{"selector":""}"#).await;
    assert_eq!((unassign.0, unassign.1.as_str()), (409, "rollout-under-way"));
}
