//! Entries that ask something of the device itself: they stand while its last verified quote says so.

use std::time::Duration;

use assay_testkit::edge::protocol::{Challenge, PcrSelection};
use assay_testkit::edge::{Attachment, Edge, Grants, Message};
use assay_testkit::pcrs::Measurement;
use assay_testkit::{Bank, SoftwareDevice, policy_for};
use data_encoding::HEXLOWER;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fixture::{Fixture, attach_trusted, attest_again, learned};

fn entry(device: &SoftwareDevice, selectors: &[String]) -> Value {
    let selector = |text: &String| {
        let (kind, value) = text.split_once(':').unwrap();
        json!({ "type": kind, "value": value })
    };
    json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": device.device_id, "ttl_seconds": 600,
        "selectors": selectors.iter().map(selector).collect::<Vec<_>>(), "dns_names": [],
    })
}

fn pcr(device: &SoftwareDevice, index: u32) -> String {
    format!("tpm:pcr:{index}:{}", HEXLOWER.encode(device.pcrs.value(Bank::Sha256, index)))
}

fn extend(device: &mut SoftwareDevice, index: u32, words: &str) {
    let banks = device.pcrs.banks();
    device.pcrs.extend(&Measurement::of(&banks, index, words.as_bytes()));
}

/// A device that is trusted by its boot PCRs and files: what else its PCRs hold its policy does not look at.
async fn trusted(fixture: &Fixture, edge: &Edge) -> (SoftwareDevice, Attachment) {
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    fixture.put("/v1/policy", &policy_for("base", &[&device])).await;
    let (stream, _) = attach_trusted(edge, &mut device).await;
    (device, stream)
}

/// Answers challenges until the grants name so many entries.
async fn granted(stream: &mut Attachment, device: &mut SoftwareDevice, entries: usize) -> Grants {
    granted_when(stream, device, |grants| grants.entries.len() == entries).await
}

/// Answers challenges until the grants are as wanted.
async fn granted_when(
    stream: &mut Attachment,
    device: &mut SoftwareDevice,
    wanted: impl Fn(&Grants) -> bool,
) -> Grants {
    let found = async {
        loop {
            match stream.next().await.unwrap() {
                Message::Challenge(challenge) => {
                    let evidence = device.evidence(&challenge).unwrap();
                    stream.answer(evidence).await.unwrap();
                }
                Message::Grants(grants) if wanted(&grants) => return grants,
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(60), found).await.unwrap()
}

/// Status and body of what comes of an entry.
async fn create(fixture: &Fixture, entry: &Value) -> (u16, String) {
    let bearer = format!("Bearer {}", fixture.token());
    let headers = [("authorization", bearer.as_str())];
    let answer = fixture.call(Method::POST, "/v1/entries", &headers, entry.to_string()).await;
    (answer.status().as_u16(), String::from_utf8_lossy(answer.body()).into_owned())
}

/// Whether the workload gets an SVID, and else why not.
async fn svid(stream: &mut Attachment, device: &SoftwareDevice, entry: &str) -> Result<(), String> {
    let request = device.workload_request(stream.place(), entry).unwrap();
    stream.request_svid(request).await.unwrap();
    loop {
        if let Message::WorkloadSvid(answer) = stream.next().await.unwrap() {
            return if answer.denied.is_empty() { Ok(()) } else { Err(answer.denied) };
        }
    }
}

#[tokio::test]
async fn an_entry_with_a_pcr_stands_while_the_last_quote_has_its_value() {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream) = trusted(&fixture, &edge).await;
    extend(&mut device, 15, "one");
    let expected = pcr(&device, 15);
    let selectors = ["unix:uid:1000".to_owned(), expected.clone()];
    let created = fixture.post("/v1/entries", &entry(&device, &selectors)).await;
    let id = created["id"].as_str().unwrap().to_owned();

    // Of the device it is asked for at once, and the workload's part alone is told.
    let grants = granted(&mut stream, &mut device, 1).await;
    let told: Vec<&str> = grants.entries[0].selectors.iter().map(|one| one.value.as_str()).collect();
    assert_eq!(told, ["uid:1000"]);
    svid(&mut stream, &device, &id).await.unwrap();
    let standing =
        || fixture.count("SELECT COUNT(*) AS n FROM svids WHERE entry_id <> '' AND withdrawn_at = 0");
    assert_eq!(standing().await, 1);

    // Another value, and it is gone with what it gave; the device is as good as before.
    extend(&mut device, 15, "two");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
    let grants = granted(&mut stream, &mut device, 0).await;
    assert!(!grants.withdrawn && !grants.device_svid.is_empty());
    assert_eq!(standing().await, 0);
    assert_eq!(
        fixture
            .count(
                "SELECT COUNT(*) AS n FROM svids WHERE entry_id = '' AND device_id <> '' AND withdrawn_at = 0"
            )
            .await,
        1,
        "the device's own is untouched"
    );
    let refused = svid(&mut stream, &device, &id).await.unwrap_err();
    assert!(refused.starts_with("condition-unmet") && refused.contains(&expected), "{refused}");
    let trail = fixture.text("SELECT detail AS n FROM audit WHERE kind = 'entry.unmet'").await;
    assert!(trail.contains(&id) && trail.contains(&expected), "{trail}");
    drop(stream);

    // An entry for the value that it has now is met after a restart as before one.
    let selectors = ["unix:uid:1000".to_owned(), pcr(&device, 15)];
    let created = fixture.post("/v1/entries", &entry(&device, &selectors)).await;
    let (mut stream, grants) = attach_trusted(&edge, &mut device).await;
    assert_eq!(grants.entries.len(), 1, "what was asked before the first quote is in the first grants");
    svid(&mut stream, &device, created["id"].as_str().unwrap()).await.unwrap();
    drop(stream);
    fixture.restart().await;
    let edge = fixture.edge().await;
    let (_stream, grants) = attach_trusted(&edge, &mut device).await;
    assert_eq!(grants.entries.len(), 1);
    let standing = "SELECT COUNT(*) AS n FROM svids WHERE entry_id <> '' AND withdrawn_at = 0";
    assert_eq!(fixture.count(standing).await, 1, "a restart takes nothing");
}

#[tokio::test]
async fn a_pcr_that_is_not_quoted_fulfils_nothing() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream) = trusted(&fixture, &edge).await;
    // Of a bank that no policy looks at; this TPM does not have it.
    let selectors = ["unix:uid:1000".to_owned(), format!("tpm:pcr:15:{}", "00".repeat(48))];
    let created = fixture.post("/v1/entries", &entry(&device, &selectors)).await;
    // An agent that leaves out what entries look at answers the challenge well, and has no such entry.
    let challenge = loop {
        let challenge = stream.challenge().await.unwrap();
        if !challenge.watched.is_empty() {
            break challenge;
        }
        let evidence = device.evidence(&challenge).unwrap();
        stream.answer(evidence).await.unwrap();
    };
    let watched = PcrSelection { bank: "sha384".to_owned(), pcrs: vec![15] };
    assert_eq!(challenge.watched, [watched]);
    let evidence = device.evidence(&Challenge { watched: Vec::new(), ..challenge }).unwrap();
    stream.answer(evidence).await.unwrap();
    assert_eq!(stream.verdict().await.unwrap().state, "trusted");
    let refused = svid(&mut stream, &device, created["id"].as_str().unwrap()).await.unwrap_err();
    assert!(refused.starts_with("condition-unmet"), "{refused}");
}

#[tokio::test]
async fn an_entry_with_a_program_stands_if_the_kernel_measured_it_since_boot() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let measured = device.ima.entries().iter().find(|entry| entry.path() != "boot_aggregate").unwrap();
    let ima = |digest: &[u8]| format!("ima:sha256:{}", HEXLOWER.encode(digest));
    // The whole list was judged before the entry was made: it is looked through again.
    let selectors = ["unix:uid:1000".to_owned(), ima(measured.digest())];
    let known = fixture.post("/v1/entries", &entry(&device, &selectors)).await;
    let selectors = ["unix:uid:1000".to_owned(), ima(&[7; 32])];
    let unknown = fixture.post("/v1/entries", &entry(&device, &selectors)).await;
    let grants = granted(&mut stream, &mut device, 1).await;
    assert_eq!(grants.entries[0].id, known["id"].as_str().unwrap());
    assert_eq!(grants.entries[0].selectors.len(), 2, "whose program it is the agent says");
    svid(&mut stream, &device, &grants.entries[0].id).await.unwrap();
    // Later quotes tell of no more than what is new, and take nothing back.
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "trusted");
    svid(&mut stream, &device, &grants.entries[0].id).await.unwrap();
    let refused = svid(&mut stream, &device, unknown["id"].as_str().unwrap()).await.unwrap_err();
    assert!(refused.starts_with("condition-unmet"), "{refused}");
}

#[tokio::test]
async fn a_hash_of_another_tpm_is_never_this_ones() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let own = device.device_id.as_ref().unwrap().rsplit('/').next().unwrap().to_owned();
    let selectors = ["unix:uid:1000".to_owned(), format!("tpm:pub_hash:{own}")];
    fixture.post("/v1/entries", &entry(&device, &selectors)).await;
    granted(&mut stream, &mut device, 1).await;
    let other = format!("tpm:pub_hash:{}", "ab".repeat(32));
    let (status, said) = create(&fixture, &entry(&device, &["unix:uid:1000".to_owned(), other])).await;
    assert!(status == 400 && said.contains(&own), "it says which one the device has: {status} {said}");
}

#[tokio::test]
async fn what_never_matches_is_no_entry() {
    let fixture = Fixture::start().await;
    let device = fixture.known_device(&fixture.edge().await, "press-1", "").await;
    let hex = "ab".repeat(32);
    let mut long = entry(&device, &["unix:uid:7".into()]);
    long["dns_names"] = json!(["no name"]);
    for (body, status, says) in [
        (entry(&device, &["unix:usr:7".into()]), 400, "unix:user:7"),
        (entry(&device, &["unix:uid:7".into(), "unix:uid:8".into()]), 400, "together"),
        (entry(&device, &[format!("tpm:pcr:7:{hex}")]), 400, "unix:uid"),
        (entry(&device, &["unix:uid:7".into(), format!("tpm:pcr:24:{hex}")]), 400, "0 to 23"),
        (entry(&device, &["unix:uid:7".into(), format!("tpm:pcr:23:{hex}")]), 400, "reset"),
        (entry(&device, &["unix:uid:7".into(), format!("tpm:pcr:7:{}", "ab".repeat(20))]), 400, "SHA-1"),
        (entry(&device, &[format!("ima:sha256:{hex}")]), 400, "unix:uid"),
        (entry(&device, &[]), 400, "every process"),
        (long, 400, "\"no name\\\" is no DNS name"),
        (entry(&device, &["unix:uid:7".into()]), 200, ""),
        (entry(&device, &["unix:uid:007".into(), "unix:uid:7".into()]), 409, "says the same"),
    ] {
        let (answered, said) = create(&fixture, &body).await;
        assert!(answered == status && said.contains(says), "{body}: {answered} {said}");
    }
}

#[tokio::test]
async fn grace_for_a_restart_without_a_server_is_the_policys_and_not_for_what_a_quote_gives() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let grace = |seconds: u64| {
        format!("[freshness]\nevidence_age_max_seconds = 300\nrestart_offline_max_seconds = {seconds}")
    };
    let (mut device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    assert_eq!(grants.restart_offline, None, "off unless a policy says so");
    fixture.put("/v1/policy", &learned(&mut device, &grace(3600))).await;
    let told = granted_when(&mut stream, &mut device, |grants| grants.restart_offline.is_some()).await;
    let told = told.restart_offline.unwrap();
    let pcrs = told.pcrs.unwrap();
    assert_eq!((told.seconds, pcrs.bank.as_str()), (3600, "sha256"));
    assert!(
        pcrs.pcrs.contains(&7) && !pcrs.pcrs.contains(&10) && !pcrs.pcrs.contains(&11),
        "what grows is not among them"
    );

    let plain = ["unix:uid:1000".to_owned()];
    let (by_quote, hash) = (["unix:uid:1001".to_owned(), pcr(&device, 7)], device.device_id.clone().unwrap());
    let by_tpm = ["unix:uid:1002".to_owned(), format!("tpm:pub_hash:{}", hash.rsplit('/').next().unwrap())];
    for selectors in [plain.as_slice(), &by_quote, &by_tpm] {
        fixture.post("/v1/entries", &entry(&device, selectors)).await;
    }
    let entries = granted(&mut stream, &mut device, 3).await.entries;
    let kept =
        |uid: &str| entries.iter().find(|entry| entry.selectors[0].value == uid).map(|entry| !entry.by_quote);
    assert_eq!(["uid:1000", "uid:1001", "uid:1002"].map(kept), [Some(true), Some(false), Some(true)]);

    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    granted_when(&mut stream, &mut device, |grants| grants.restart_offline.is_none()).await;
}
