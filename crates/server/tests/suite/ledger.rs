//! The ledger cannot be made anew by who can write the database.

use assay_identity::signed_note::NoteVerifier;
use assay_server::audit::{Head, Kind, Line};
use assay_server::ledger::{self, LedgerError};
use hyper::Method;
use serde_json::json;

use crate::fixture::Fixture;

async fn recorded() -> Fixture {
    let mut fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    fixture.stop().await;
    fixture
}

/// What somebody who can write the database does: another last leaf, with a chain that holds.
async fn make_anew(fixture: &Fixture) {
    let last: u64 = fixture.count("SELECT MAX(leaf) AS n FROM audit").await.try_into().unwrap();
    let before = fixture.text("SELECT HEX(hash) AS n FROM audit ORDER BY leaf DESC LIMIT 1 OFFSET 1").await;
    let hash = data_encoding::HEXUPPER.decode(before.as_bytes()).unwrap().try_into().unwrap();
    let mut head = Head { leaves: last, hash };
    let leaf = head.append(Line {
        kind: Kind::DeviceRevoked,
        at: assay_evidence::time::UnixTime(7),
        actor: "operator".to_owned(),
        subject: "spiffe://test/other".to_owned(),
        detail: "{}".to_owned(),
    });
    let hash = data_encoding::HEXUPPER.encode(&leaf.hash);
    let sql = format!(
        "UPDATE audit SET at = 7, kind = 'device.revoked', actor = 'operator', subject = 'spiffe://test/other',
             detail = '{{}}', hash = x'{hash}' WHERE leaf = {last}"
    );
    fixture.tamper_running(sql).await;
}

#[tokio::test]
async fn a_ledger_made_anew_is_not_the_one_that_was_signed() {
    let fixture = recorded().await;
    let honest = ledger::verify(fixture.data(), None, None).await.unwrap();
    assert_eq!(honest.signed, Some(honest.leaves), "a server that stops signs what it wrote last");
    make_anew(&fixture).await;
    let found = ledger::verify(fixture.data(), None, None).await;
    assert!(matches!(found, Err(LedgerError::OtherHead { .. })), "{found:?}");
    // Nor does it help to take the signed heads away with it, ...
    fixture.tamper("DELETE FROM ledger_heads").await;
    let found = ledger::verify(fixture.data(), None, None).await;
    assert!(matches!(found, Err(LedgerError::OtherHead { .. })), "{found:?}");
    // ... or to put one of another key in their place.
    std::fs::remove_file(fixture.data().join("ledger.head")).unwrap();
    let found = ledger::verify(fixture.data(), None, None).await;
    assert!(matches!(found, Err(LedgerError::Unsigned)), "{found:?}");
    let other = assay_identity::signed_note::NoteSigner::generate("test.assay.example/ledger").unwrap();
    let note = other.sign(&Head { leaves: 1, hash: [0; 32] }.to_text()).unwrap();
    std::fs::write(fixture.data().join("ledger.head"), note).unwrap();
    let found = ledger::verify(fixture.data(), None, None).await;
    assert!(matches!(found, Err(LedgerError::Note(_))), "{found:?}");
}

#[tokio::test]
async fn a_ledger_whose_end_was_cut_off_is_shorter_than_was_signed() {
    let fixture = recorded().await;
    let last = fixture.count("SELECT MAX(leaf) AS n FROM audit").await;
    let cut = format!("DELETE FROM events WHERE leaf = {last}; DELETE FROM audit WHERE leaf = {last}");
    fixture.tamper_running(cut).await;
    let found = ledger::verify(fixture.data(), None, None).await;
    assert!(matches!(found, Err(LedgerError::OtherHead { .. })), "{found:?}");
}

#[tokio::test]
async fn who_remembers_a_head_can_hold_the_ledger_to_it() {
    let fixture = Fixture::start().await;
    let text = async |path: &str| {
        let answer = fixture.call(Method::GET, path, &[], String::new()).await;
        String::from_utf8(answer.body().to_vec()).unwrap()
    };
    let key = text("/ledger/key").await;
    let note = text("/ledger/head").await;
    let head = Head::from_text(NoteVerifier::parse(&key).unwrap().open(&note).unwrap()).unwrap();
    let verified = ledger::verify(fixture.data(), Some(key.trim()), None).await.unwrap();
    assert!(verified.leaves >= head.leaves);
    let other = assay_identity::signed_note::NoteSigner::generate("test.assay.example/ledger").unwrap();
    let found = ledger::verify(fixture.data(), Some(&other.verifier().to_string()), None).await;
    assert!(matches!(found, Err(LedgerError::Note(_))), "{found:?}");
}
