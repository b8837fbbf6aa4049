//! Evidence that is kept: what a device need not tell twice, and results that can be judged again.

use assay_server::archive::KeptResult;
use assay_testkit::edge::{Attachment, Edge};
use assay_testkit::edge::{Grants, Message};
use assay_testkit::software_device::lie::Lie;
use assay_testkit::{SoftwareDevice, System};
use hyper::Method;
use serde_json::{Value, json};

use crate::access::{page, signed_in};
use crate::fixture::{Fixture, attach_trusted, attest_again, learned};

/// How many entries the device has, and so from which one on it is asked when all are kept.
fn entries(device: &SoftwareDevice) -> u64 {
    device.ima.entries().len() as u64
}

/// Takes the next challenge, answers it, and says from where it asked and whether for the boot log.
async fn answer_once(stream: &mut Attachment, device: &mut SoftwareDevice) -> (u64, bool) {
    let challenge = stream.challenge().await.unwrap();
    stream.answer(device.evidence(&challenge).unwrap()).await.unwrap();
    (challenge.ima_from_entry, challenge.boot_log_wanted)
}

/// A trusted device under a policy that lets anything run below /tmp/ok and reports violations.
async fn trusted_leniently(
    fixture: &Fixture,
    edge: &Edge,
    name: &str,
) -> (SoftwareDevice, Attachment, Grants) {
    let mut device = fixture.device(name);
    edge.enroll(&mut device).await.unwrap();
    let mut policy: toml::Table = learned(&mut device, "").parse().unwrap();
    let ima = policy["ima"].as_table_mut().unwrap();
    ima.insert("exclude".to_owned(), vec!["/tmp/ok/**"].into());
    ima.insert("violations".to_owned(), "report".into());
    fixture.put("/v1/policy", &policy.to_string()).await;
    let (stream, grants) = attach_trusted(edge, &mut device).await;
    (device, stream, grants)
}

/// Answers every challenge with a lie until there is a verdict.
async fn lie_until_judged(stream: &mut Attachment, device: &mut SoftwareDevice, lie: Lie) {
    loop {
        match stream.next().await.unwrap() {
            Message::Challenge(challenge) => {
                stream.answer(lie.tell(device, &challenge).unwrap()).await.unwrap();
            }
            Message::Verdict(_) => return,
            _ => {}
        }
    }
}

async fn results(fixture: &Fixture, device: &str) -> Vec<Value> {
    let answer = fixture.get(&format!("/v1/results?device={device}&limit=1000")).await;
    answer["results"].as_array().unwrap().clone()
}

/// Judges every result of the device again and fails unless each is what is on record.
async fn all_judge_again(fixture: &Fixture, device: &str) -> Vec<KeptResult> {
    let mut all = Vec::new();
    for result in results(fixture, device).await {
        assert_eq!(result["evidence_kept"], true, "{result}");
        let kept = fixture.get(&format!("/v1/results/{}/evidence", result["id"])).await;
        let kept: KeptResult = serde_json::from_value(kept).unwrap();
        let again = kept.judge_again().unwrap();
        assert!(kept.is_on_record(&again), "{result}\nagain: {again:?}");
        all.push(kept);
    }
    all
}

fn checks(result: &KeptResult) -> Vec<&str> {
    result.findings.as_array().unwrap().iter().map(|finding| finding["check"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn after_a_restart_only_what_is_new_is_asked_for() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = trusted_leniently(&fixture, &edge, "press-1").await;
    for number in 0..3 {
        device.run_program(&format!("/tmp/ok/part-{number}"), b"part");
        assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
    }
    let (before, kept) = (entries(&device), results(&fixture, "press-1").await.len());
    fixture.restart().await;
    device.run_program("/tmp/ok/after", b"part");
    let edge = fixture.edge().await;
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(answer_once(&mut stream, &mut device).await, (before, false));
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
    assert_eq!(results(&fixture, "press-1").await.len(), kept, "the same result is recorded once");
    // And again: what came after the first restart is kept as well.
    fixture.restart().await;
    let edge = fixture.edge().await;
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(answer_once(&mut stream, &mut device).await, (entries(&device), false));
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
    all_judge_again(&fixture, "press-1").await;
}

#[tokio::test]
async fn a_suspect_device_whose_list_grows_sends_only_what_is_new() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = trusted_leniently(&fixture, &edge, "press-1").await;
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    for number in 0..4 {
        let told = entries(&device);
        device.run_program(&format!("/tmp/implant-{number}"), b"evil too");
        device.run_program(&format!("/tmp/ok/{number}"), b"harmless");
        stream.changed().await.unwrap();
        assert_eq!(answer_once(&mut stream, &mut device).await, (told, false), "{number}");
        let verdict = stream.verdict().await.unwrap();
        let named = verdict.findings.iter().filter(|finding| finding.claim.starts_with("/tmp/implant"));
        assert_eq!((verdict.tier.as_str(), named.count()), ("contraindicated", number + 2), "{verdict:?}");
    }
    // Whoever sends the whole list all the same is judged by it, and a new stream is told nothing of an earlier one's.
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().findings.len(), 5);
    // What was judged is the whole, and is kept as such.
    all_judge_again(&fixture, "press-1").await;
}

#[tokio::test]
async fn a_challenge_that_cannot_be_answered_is_followed_by_another_at_once() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = trusted_leniently(&fixture, &edge, "press-1").await;
    stream.changed().await.unwrap();
    let first = stream.challenge().await.unwrap();
    stream.cannot_answer(&first).await.unwrap();
    let second = stream.challenge().await.unwrap();
    assert_ne!(first.nonce, second.nonce);
    // One that is not open any more is no matter.
    stream.cannot_answer(&first).await.unwrap();
    stream.answer(device.evidence(&second).unwrap()).await.unwrap();
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
}

#[tokio::test]
async fn another_policy_is_judged_over_everything_and_asks_for_nothing() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let policy = learned(&mut device, "");
    // A program that was good all along is taken out: it was measured long before.
    let without = policy.replace("/usr/bin/bash", "/usr/bin/zsh");
    assert_ne!(policy, without);
    fixture.put("/v1/policy?force=true", &without).await;
    assert_eq!(answer_once(&mut stream, &mut device).await, (entries(&device), false));
    let verdict = stream.verdict().await.unwrap();
    assert_eq!(verdict.tier, "contraindicated");
    assert!(verdict.findings[0].message.contains("/usr/bin/bash"), "{verdict:?}");
    fixture.put("/v1/policy", &policy).await;
    assert_eq!(answer_once(&mut stream, &mut device).await, (entries(&device), false));
    assert_eq!(stream.verdict().await.unwrap().tier, "affirming");
    all_judge_again(&fixture, "press-1").await;
}

#[tokio::test]
async fn a_life_of_results_judges_to_the_same_again() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = trusted_leniently(&fixture, &edge, "press-1").await;
    device.run_program("/usr/bin/bash", b"/usr/bin/bash of the release");
    attest_again(&mut stream, &mut device).await;
    device.violate("/var/log/journal");
    assert_eq!(attest_again(&mut stream, &mut device).await.findings[0].check, "ima-violation");
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    device.run_program("/tmp/second", b"evil too");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    fixture.restart().await;
    let edge = fixture.edge().await;
    let mut stream = edge.attach(&device).await.unwrap();
    assert_eq!(answer_once(&mut stream, &mut device).await, (entries(&device), false));
    assert_eq!(stream.verdict().await.unwrap().tier, "contraindicated");
    device.run_program("/tmp/third", b"evil as well");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    device.boot(&System::default());
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "affirming");
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");

    let all = all_judge_again(&fixture, "press-1").await;
    let tiers: Vec<&str> = all.iter().rev().map(|result| result.tier.as_str()).collect();
    assert_eq!(tiers[..4], ["affirming", "affirming", "contraindicated", "contraindicated"], "{tiers:?}");
    assert_eq!(tiers.last(), Some(&"contraindicated"));
    // What is kept with a result is what was judged: changed, it is another result.
    let mut changed = all.last().unwrap().clone();
    let mut quote = changed.evidence.quote.to_vec();
    quote[40] ^= 1;
    changed.evidence.quote = quote.into();
    assert!(!changed.is_on_record(&changed.judge_again().unwrap()));
}

#[tokio::test]
async fn results_judge_again_by_the_endorsers_of_then() {
    let lists = tempfile::tempdir().unwrap();
    let fixture = Fixture::with(|config| {
        config.idevid_anchors = config.ek_anchors.clone();
        config.ek_crls = vec![lists.path().to_owned()];
    })
    .await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    device.identity = Some(fixture.maker.identity("7").unwrap());
    edge.enroll(&mut device).await.unwrap();
    fixture.put("/v1/policy", &learned(&mut device, "[endorsement]\nidevid = \"required\"")).await;
    let (mut stream, _) = attach_trusted(&edge, &mut device).await;
    let maker = &fixture.maker;
    let serial = device.ek.certificate_serial();
    let (stale, revoked) = (maker.stale_revocation_list(&[&[7]]).unwrap(), maker.revoke(&[&serial]).unwrap());
    for (list, tier) in [(revoked, "contraindicated"), (stale, "affirming")] {
        std::fs::write(lists.path().join("maker.crl"), list).unwrap();
        assert_eq!(stream.attest(&mut device).await.unwrap().tier, tier);
    }
    let (kept, bare): (Vec<Value>, Vec<Value>) =
        results(&fixture, "press-1").await.into_iter().partition(|result| result["evidence_kept"] == true);
    let mut said = Vec::new();
    for result in kept.iter().rev() {
        let answer = fixture.get(&format!("/v1/results/{}/evidence", result["id"])).await;
        let kept: KeptResult = serde_json::from_value(answer).unwrap();
        let again = kept.judge_again().unwrap();
        assert!(kept.is_on_record(&again), "{result}\nagain: {again:?}");
        said.push((kept.tier.clone(), checks(&kept).first().map(|check| (*check).to_owned())));
    }
    let first = |tier: &str, check: Option<&str>| (tier.to_owned(), check.map(str::to_owned));
    assert_eq!(
        said,
        [
            first("affirming", None),
            first("contraindicated", Some("ek-revoked")),
            first("affirming", Some("endorsement-policy")),
        ]
    );
    // That it fell before it showed anything is on record too, and there is no evidence of that.
    let fell: Vec<&Value> = bare.iter().map(|result| &result["tier"]).collect();
    assert_eq!(fell, ["contraindicated"]);

    // A policy is tried with the lists of then: the last of them is out of date.
    let policy = fixture.get("/v1/policy").await["text"].as_str().unwrap().to_owned();
    let (report, _) = try_policy(&fixture, &policy, 3600).await;
    assert_eq!((&report["devices"]["unchanged"], &report["changes"]), (&json!(1), &json!([])), "{report}");
    let stricter = policy.replace("stale_crl = \"report\"", "stale_crl = \"refuse\"");
    assert_ne!(stricter, policy);
    let (report, _) = try_policy(&fixture, &stricter, 0).await;
    assert_eq!(report["devices"]["would_fall"], 1, "{report}");
    assert_eq!(report["causes"][0]["claim"], "revocation list of CN=Example TPM EK CA", "{report}");
}

#[tokio::test]
async fn every_lie_judges_to_the_same_again() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    // What the AK did not sign is not judged, and leaves no result.
    for lie in Lie::ALL.into_iter().filter(|lie| lie.is_the_devices_word()) {
        let name = format!("{lie:?}");
        let (mut device, mut stream, _) = fixture.trusted_device(&edge, &name, "").await;
        // Once beside what is known of the boot, and once when nothing is.
        for is_new_boot in [false, true] {
            if is_new_boot {
                device.boot(&System::default());
            }
            stream.changed().await.unwrap();
            lie_until_judged(&mut stream, &mut device, lie).await;
        }
        let all = all_judge_again(&fixture, &name).await;
        assert!(all.iter().any(|result| checks(result).contains(&lie.caught_by())), "{lie:?}");
    }
}

#[tokio::test]
async fn a_damaged_store_costs_a_device_nothing() {
    for damage in [
        "UPDATE blob_contents SET content = zeroblob(length(content))",
        "UPDATE ima_parts SET to_entry = to_entry - 1",
        "DELETE FROM ima_parts",
        "UPDATE evidence SET boot_log = zeroblob(32)",
        "UPDATE boots SET ima_entries = ima_entries + 1",
        "UPDATE blobs SET bytes = 99999999999",
    ] {
        let mut fixture = Fixture::start().await;
        let edge = fixture.edge().await;
        let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
        fixture.stop().await;
        fixture.tamper(damage).await;
        fixture.restart().await;
        let edge = fixture.edge().await;
        let mut stream = edge.attach(&device).await.unwrap();
        answer_once(&mut stream, &mut device).await;
        assert_eq!(answer_once(&mut stream, &mut device).await, (0, true), "{damage}");
        assert_eq!(stream.verdict().await.unwrap().state, "trusted", "{damage}");
        let events = fixture.get("/v1/devices/press-1").await["events"].as_array().unwrap().len();
        assert_eq!(events, 2, "{damage}: enrolled and appraised once, and nothing happened to it");
        // It was kept anew.
        fixture.restart().await;
        let mut stream = fixture.edge().await.attach(&device).await.unwrap();
        assert_eq!(answer_once(&mut stream, &mut device).await, (entries(&device), false), "{damage}");
        assert_eq!(stream.verdict().await.unwrap().state, "trusted", "{damage}");
    }
}

#[tokio::test]
async fn a_boot_that_is_told_in_another_form_is_asked_for_whole() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let binary = entries(&device);
    fixture.restart().await;
    device.ima_ascii = true;
    device.run_program("/usr/bin/bash", b"/usr/bin/bash of the release");
    let mut stream = fixture.edge().await.attach(&device).await.unwrap();
    assert_eq!(answer_once(&mut stream, &mut device).await, (binary, false));
    assert_eq!(answer_once(&mut stream, &mut device).await, (0, true));
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
    device.run_program("/usr/bin/mount", b"/usr/bin/mount of the release");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
    // In the ASCII form it goes on.
    fixture.restart().await;
    let mut stream = fixture.edge().await.attach(&device).await.unwrap();
    assert_eq!(answer_once(&mut stream, &mut device).await, (entries(&device), false));
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
    all_judge_again(&fixture, "press-1").await;
}

#[tokio::test]
async fn what_is_refused_is_said() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let bearer = format!("Bearer {}", fixture.token());
    let get = async |path: &str| {
        let answer = fixture.call(Method::GET, path, &[("authorization", &bearer)], String::new()).await;
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        (answer.status().as_u16(), body["error"]["code"].clone())
    };
    assert_eq!(get("/v1/results/99999/evidence").await, (404, json!("unknown-result")));
    assert_eq!(get("/v1/results?device=press-9").await, (404, json!("unknown-device")));
    assert_eq!(get("/v1/results").await.0, 400);
}

/// Tries a policy, and answers the report and how far the progress went.
async fn try_policy(fixture: &Fixture, text: &str, since_seconds: u64) -> (Value, u64) {
    try_policy_for(fixture, text, since_seconds, "").await
}

/// The same, for the devices with some labels.
async fn try_policy_for(fixture: &Fixture, text: &str, since_seconds: u64, selector: &str) -> (Value, u64) {
    let bearer = format!("Bearer {}", fixture.token());
    let path = format!("/v1/policy/try?since_seconds={since_seconds}&selector={selector}");
    let answer = fixture.call(Method::POST, &path, &[("authorization", &bearer)], text.to_owned()).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let lines: Vec<Value> = std::str::from_utf8(answer.body())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = lines[0]["progress"]["of"].as_u64().unwrap();
    (lines.last().unwrap()["report"].clone(), of)
}

#[tokio::test]
async fn a_policy_is_tried_before_anyone_is_judged_by_it() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut fleet = Vec::new();
    for number in 0..4 {
        fleet.push(trusted_leniently(&fixture, &edge, &format!("press-{number}")).await);
    }
    let mut silent = fixture.device("press-9");
    edge.enroll(&mut silent).await.unwrap();
    // Two run a program that another policy would not have; one of them has started anew without it.
    for (device, stream, _) in fleet.iter_mut().take(2) {
        device.run_program("/tmp/ok/feed", b"feed");
        attest_again(stream, device).await;
        device.violate("/var/log/journal");
        attest_again(stream, device).await;
    }
    let (device, stream, _) = &mut fleet[1];
    device.boot(&System::default());
    attest_again(stream, device).await;

    let before = fixture.get("/v1/audit?limit=1000").await;
    let policy = fixture.get("/v1/policy").await["text"].as_str().unwrap().to_owned();
    let (report, of) = try_policy(&fixture, &policy, 0).await;
    assert_eq!(of, 4, "each device's last evidence");
    assert_eq!(report["devices"]["unchanged"], 4, "{report}");
    assert_eq!(report["devices"]["without_evidence"], 1);
    assert_eq!((&report["changes"], &report["causes"]), (&json!([]), &json!([])));

    let stricter = policy.replace("/tmp/ok/**", "/tmp/none/**");
    assert_ne!(stricter, policy);
    let (report, _) = try_policy(&fixture, &stricter, 0).await;
    let devices = &report["devices"];
    assert_eq!((&devices["would_fall"], &devices["unchanged"]), (&json!(1), &json!(3)), "{report}");
    let change = &report["changes"][0];
    assert_eq!((&change["device"], &change["from"]), (&json!("press-0"), &json!("affirming")));
    assert_eq!((&change["to"], &change["now"]), (&json!("contraindicated"), &json!(true)));
    let cause = &report["causes"][0];
    assert_eq!((&cause["claim"], &cause["devices"]), (&json!("/tmp/ok/feed"), &json!(1)), "{report}");
    // What was recorded earlier says that the other would have fallen too.
    let (report, _) = try_policy(&fixture, &stricter, 3600).await;
    let devices = &report["devices"];
    assert_eq!((&devices["would_fall"], &devices["would_have_fallen"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(report["causes"][0]["examples"], json!(["press-0", "press-1"]), "{report}");
    assert_eq!(report["results"]["unreadable"], 0);

    // Nobody was harmed, and nothing is on record.
    assert_eq!(fixture.get("/v1/audit?limit=1000").await, before);
    for number in 0..4 {
        assert_eq!(fixture.status(&format!("press-{number}")).await["status"], "trusted");
    }
    // It says what comes: with the policy in force, that very device falls for that very reason.
    fixture.put("/v1/policy?force=true", &stricter).await;
    for (number, (device, stream, _)) in fleet.iter_mut().enumerate() {
        let verdict = stream.attest(device).await.unwrap();
        assert_eq!(verdict.tier == "contraindicated", number == 0, "{number} {verdict:?}");
    }
    let (report, _) = try_policy(&fixture, &policy, 0).await;
    assert_eq!(report["devices"]["would_rise"], 1, "{report}");

    // For a label, it is tried on the devices that have it, and they are nobody else's concern then.
    fixture.post("/v1/devices/press-0/labels", &json!({ "set": ["hall=3"] })).await;
    let (report, _) = try_policy_for(&fixture, &policy, 0, "hall%3D3").await;
    assert_eq!((&report["devices"]["would_rise"], &report["results"]["judged"]), (&json!(1), &json!(1)));
    assert_eq!((&report["devices"]["without_evidence"], &report["selector"]), (&json!(0), &json!("hall=3")));
    fixture.put("/v1/policy?selector=hall%3D3", &policy).await;
    let (report, _) = try_policy(&fixture, &policy, 0).await;
    assert_eq!(report["results"]["judged"], 3, "{report}");
}

#[tokio::test]
async fn a_policy_that_is_none_is_not_tried() {
    let fixture = Fixture::start().await;
    let bearer = format!("Bearer {}", fixture.token());
    let headers = [("authorization", bearer.as_str())];
    let answer = fixture.call(Method::POST, "/v1/policy/try", &headers, "name = 3".to_owned()).await;
    assert_eq!(answer.status(), 400);
    let policy = learned(&mut fixture.device("press-1"), "");
    let (report, of) = try_policy(&fixture, &policy, 9).await;
    assert_eq!((of, &report["results"]["judged"]), (0, &json!(0)));
}

#[tokio::test]
async fn a_fallen_device_is_explained_by_what_changed_since_it_was_good() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let changes = async || fixture.get("/v1/devices/press-1/explain").await["changes"].clone();
    assert_eq!(changes().await, json!([]), "nothing changed since it is good");
    // The same again, measured once more: good evidence that is younger than the result.
    device.run_program("/usr/bin/bash", b"/usr/bin/bash of the release");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "affirming");
    let updated = System { kernel: "6.12.10-amd64".to_owned(), ..System::default() };
    device.boot(&updated);
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    let told = changes().await;
    let kernel = told.as_array().unwrap().iter().find(|change| change["cause"] == "kernel").unwrap();
    let message = kernel["message"].as_str().unwrap();
    assert!(message.contains("6.12.9-amd64") && message.contains("6.12.10-amd64"), "{told}");
    // Falling again for another reason: it is still held against what was good.
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    let told = changes().await;
    assert!(told.to_string().contains("/tmp/implant") && told.to_string().contains("6.12.10"), "{told}");
}

#[tokio::test]
async fn what_says_nothing_new_is_not_kept_again() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = trusted_leniently(&fixture, &edge, "press-1").await;
    let pieces = async || fixture.count("SELECT COUNT(*) AS n FROM evidence").await;
    let entries = async || fixture.count("SELECT SUM(to_entry - from_entry) AS n FROM ima_parts").await;
    let rest = async || fixture.count("SELECT COUNT(*) AS n FROM evidence WHERE LENGTH(ima_rest) > 0").await;
    assert_eq!(pieces().await, 1);
    for _ in 0..3 {
        attest_again(&mut stream, &mut device).await;
    }
    assert_eq!(pieces().await, 1, "nothing new");
    device.run_program("/tmp/ok/feed", b"feed");
    attest_again(&mut stream, &mut device).await;
    assert_eq!((pieces().await, entries().await), (2, device.ima.entries().len() as i64), "the list grew");
    // From its first bad entry on the device sends everything each time; it is kept once.
    for number in 0..4 {
        device.run_program(&format!("/tmp/implant-{number}"), b"evil");
        assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
        attest_again(&mut stream, &mut device).await;
        assert_eq!((pieces().await, entries().await), (3 + number, device.ima.entries().len() as i64));
    }
    assert_eq!(rest().await, 0);
    assert_eq!(fixture.count("SELECT COUNT(*) AS n FROM boots").await, 1);
    device.boot(&System::default());
    attest_again(&mut stream, &mut device).await;
    assert_eq!(
        (pieces().await, fixture.count("SELECT COUNT(*) AS n FROM boots").await),
        (7, 2),
        "a new boot"
    );
    all_judge_again(&fixture, "press-1").await;
}

#[tokio::test]
async fn evidence_that_finds_no_room_keeps_no_result_from_its_record() {
    let fixture = Fixture::with(|config| config.evidence_bytes_max = 1 << 20).await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = trusted_leniently(&fixture, &edge, "press-1").await;
    // A list that alone is more than all there is room for.
    for number in 0..24_000_u32 {
        device.run_program(&format!("/tmp/ok/{number}"), &number.to_le_bytes());
    }
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    let results = results(&fixture, "press-1").await;
    assert_eq!(
        (&results[0]["tier"], &results[0]["evidence_kept"]),
        (&json!("contraindicated"), &json!(false))
    );
    let bearer = format!("Bearer {}", fixture.token());
    let path = format!("/v1/results/{}/evidence", results[0]["id"]);
    let answer = fixture.call(Method::GET, &path, &[("authorization", &bearer)], String::new()).await;
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(body["error"]["code"], "evidence-not-kept");
    // And the device goes on as if there were no store of evidence.
    device.run_program("/tmp/ok/more", b"more");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    device.boot(&System::default());
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "affirming");
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
}

#[tokio::test]
async fn results_are_recorded_though_no_evidence_can_be_kept_at_all() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    fixture.stop().await;
    fixture.tamper("DELETE FROM evidence_usage").await;
    fixture.restart().await;
    device.run_program("/tmp/implant", b"evil");
    let mut stream = fixture.edge().await.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().tier, "contraindicated");
    let results = results(&fixture, "press-1").await;
    assert_eq!(
        (&results[0]["tier"], &results[0]["evidence_kept"]),
        (&json!("contraindicated"), &json!(false))
    );
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    assert_eq!(fixture.status("press-1").await["status"], "suspect");
}

/// What systemd measured is told once on a stream and known from then on, by whatever is kept as well.
#[tokio::test]
async fn what_user_space_measured_is_explained_by_its_own_log() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    device.say(15, "machine-id", "machine-id:4691595be6a345f1833cc75fab63e475");
    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    let log = device.measure_log.clone();
    let is_explained = |verdict: &assay_testkit::edge::protocol::Verdict| {
        assert_eq!(verdict.state, "trusted", "{verdict:?}");
        verdict.findings.iter().all(|finding| finding.check != "event-log-replay")
    };
    let mut stream = edge.attach(&device).await.unwrap();
    assert!(is_explained(&stream.attest(&mut device).await.unwrap()));
    // It is not sent again, until it has something new.
    device.measure_log.clear();
    assert!(is_explained(&attest_again(&mut stream, &mut device).await));
    device.say(15, "filesystem", "file-system:/:ext4");
    let new = std::mem::take(&mut device.measure_log);
    assert!(!is_explained(&attest_again(&mut stream, &mut device).await));
    device.measure_log = [log, new].concat();
    assert!(is_explained(&attest_again(&mut stream, &mut device).await));
    // What is kept says the same again.
    all_judge_again(&fixture, "press-1").await;
}

#[tokio::test]
async fn a_result_is_judged_again_and_its_evidence_read_aloud() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = trusted_leniently(&fixture, &edge, "press-1").await;
    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.tier, "contraindicated");
    let good = results(&fixture, "press-1").await.last().unwrap()["id"].as_u64().unwrap();

    // The last one, as it is found without a number.
    let last = fixture.get("/v1/devices/press-1/evidence").await;
    assert_eq!(
        (&last["tier"], &last["again"]["is_same"]),
        (&json!("contraindicated"), &json!(true)),
        "{last}"
    );
    let stages = last["reading"]["stages"].as_array().unwrap();
    let whats: Vec<&str> = stages.iter().map(|stage| stage["what"].as_str().unwrap()).collect();
    assert_eq!((whats.first(), whats.last()), (Some(&"firmware"), Some(&"files")));
    let newest = &last["reading"]["files"]["latest"][0];
    assert_eq!((&newest["path"], &newest["standing"]), (&json!("/tmp/implant"), &json!("refused")));
    let seven = last["reading"]["pcrs"].as_array().unwrap().iter().find(|pcr| pcr["index"] == 7).unwrap();
    assert!(seven["lines"].as_array().unwrap().iter().any(|line| line["holds"] == true), "{seven}");

    // An earlier one by its number: that file was not there.
    let first = fixture.get(&format!("/v1/devices/press-1/evidence?result={good}")).await;
    assert_eq!((&first["tier"], &first["again"]["is_same"]), (&json!("affirming"), &json!(true)), "{first}");
    assert_ne!(first["reading"]["files"]["latest"][0]["path"], "/tmp/implant");

    // A page for people, and nothing of another device's under this one's name.
    let cookie = signed_in(&fixture, &fixture.token()).await;
    let (status, html) = page(&fixture, &cookie, "/devices/press-1/evidence").await;
    assert_eq!(status, 200);
    for said in ["to the last word", "/tmp/implant", "Secure Boot", "pcr.sha256.7", "read aloud"] {
        assert!(html.contains(said), "{said}: {html}");
    }
    let _other = fixture.trusted_device(&edge, "press-2", "").await;
    for path in [
        format!("/v1/devices/press-2/evidence?result={good}"),
        "/v1/devices/press-1/evidence?result=99999".to_owned(),
    ] {
        let bearer = format!("Bearer {}", fixture.token());
        assert_eq!(fixture.ask(Method::GET, &path, &bearer, String::new()).await, 404, "{path}");
    }
}
