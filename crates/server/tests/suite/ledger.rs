//! The ledger cannot be made anew by who can write the database.

use assay_identity::signed_note::NoteVerifier;
use assay_identity::tlog::{self, Checkpoint, Hash, Tile};
use assay_server::audit::{Head, Kind, Line};
use assay_server::ledger::{self, LedgerError, Log};
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

/// A trail of some hundred leaves, so that tiles become whole.
async fn long() -> Fixture {
    let fixture = Fixture::start().await;
    for number in 0..300 {
        let entry = json!({
            "spiffe_id": format!("spiffe://test.assay.example/w{number}"), "ttl_seconds": 600,
            "parent": format!("spiffe://test.assay.example/spire/agent/tpm/{}", "0".repeat(64)),
            "selectors": [{ "type": "unix", "value": "uid:7" }],
        });
        fixture.post("/v1/entries", &entry).await;
    }
    fixture
}

#[tokio::test]
async fn the_trail_is_a_log_in_tiles_that_others_can_check() {
    let mut fixture = long().await;
    fixture.restart().await;
    let verifier = NoteVerifier::parse(&text(&fixture, "/ledger/key").await).unwrap();
    let note = text(&fixture, "/ledger/checkpoint").await;
    let checkpoint = Checkpoint::from_text(verifier.open(&note).unwrap()).unwrap();
    assert_eq!(checkpoint.origin, verifier.name());
    assert!(checkpoint.size >= 300, "{checkpoint:?}");
    // From what it serves alone: hashes are those of the entries, and lead to the root.
    let mut leaves: Vec<Hash> = Vec::new();
    for tile in Tile::all(checkpoint.size) {
        let served = bytes(&fixture, &format!("/ledger/{tile}")).await;
        match tile.level {
            None => {
                let mut rest = served.as_slice();
                while let Some((length, entry)) = rest.split_first_chunk::<2>() {
                    let (entry, after) = entry.split_at(u16::from_be_bytes(*length).into());
                    leaves.push(tlog::leaf_hash(entry));
                    rest = after;
                }
            }
            Some(0) => {
                let first = tile.first().unwrap() as usize;
                assert_eq!(served, leaves[first..first + tile.width as usize].concat());
            }
            Some(_) => {
                assert_eq!(served, leaves.chunks_exact(256).map(tlog::root).collect::<Vec<_>>().concat())
            }
        }
    }
    assert_eq!((leaves.len() as u64, tlog::root(&leaves)), (checkpoint.size, checkpoint.root));
    // Only what is in the tree that was signed, and only to who may read the trail.
    for path in ["0/999", "0/000.p/0", "9/000", "entries/001.p/255", "x"] {
        let asked = format!("/ledger/tile/{path}");
        assert_eq!(
            fixture.ask(Method::GET, &asked, &format!("Bearer {}", fixture.token()), String::new()).await,
            404,
            "{path}"
        );
    }
    assert_eq!(fixture.ask(Method::GET, "/ledger/tile/0/000", "", String::new()).await, 401);
    assert_eq!(fixture.ask(Method::GET, "/ledger/checkpoint", "", String::new()).await, 200);
    // What is exported is the same.
    let folder = tempfile::tempdir().unwrap();
    let log = Log::export(fixture.data(), folder.path()).await.unwrap();
    for tile in Tile::all(log.checkpoint().size) {
        let exported = std::fs::read(folder.path().join(tile.to_string())).unwrap();
        assert_eq!(exported, bytes(&fixture, &format!("/ledger/{tile}")).await, "{tile}");
    }
    let (leaf, proof) = log.inclusion(7).unwrap();
    let Checkpoint { size, root, .. } = *log.checkpoint();
    assert!(tlog::includes((7, leaf), size, &proof, &root));
    let (old, proof) = log.consistency(200).unwrap();
    assert_eq!(old, tlog::root(&leaves[..200]));
    assert!(tlog::is_consistent((200, &old), (size, &root), &proof));
    assert!(matches!(log.inclusion(size), Err(LedgerError::NoProof { .. })));
    assert!(log.consistency(0).is_err() && log.consistency(size + 1).is_err());
}

#[tokio::test]
async fn a_tree_that_is_damaged_is_made_again_and_leaves_that_were_altered_are_not_gone_on_from() {
    let mut fixture = long().await;
    fixture.stop().await;
    let honest = ledger::verify(fixture.data(), None, None).await.unwrap();
    assert_eq!(honest.checkpoint, Some(honest.leaves));
    fixture.tamper("UPDATE ledger_tiles SET root = zeroblob(32)").await;
    fixture.start_again().await.unwrap();
    let note = text(&fixture, "/ledger/checkpoint").await;
    assert!(note.starts_with("test.assay.example/ledger\n30"), "{note}");
    fixture.stop().await;
    assert!(ledger::verify(fixture.data(), None, None).await.unwrap().checkpoint > honest.checkpoint);
    assert_eq!(fixture.count("SELECT COUNT(*) AS n FROM ledger_tiles WHERE root = zeroblob(32)").await, 0);
    // The chain at its end is as it was signed, and a leaf in the middle is not.
    fixture.tamper("UPDATE audit SET detail = '{}' WHERE leaf = 290").await;
    assert!(matches!(ledger::verify(fixture.data(), None, None).await, Err(LedgerError::Chain(_))));
    assert!(matches!(Log::open(fixture.data()).await, Err(LedgerError::OtherTree { .. })));
    let refused = fixture.start_again().await.unwrap_err().to_string();
    assert!(refused.contains("a leaf was altered or taken away"), "{refused}");
}

async fn text(fixture: &Fixture, path: &str) -> String {
    String::from_utf8(bytes(fixture, path).await).unwrap()
}

async fn bytes(fixture: &Fixture, path: &str) -> Vec<u8> {
    let bearer = format!("Bearer {}", fixture.token());
    let answer = fixture.call(Method::GET, path, &[("authorization", &bearer)], String::new()).await;
    assert_eq!(answer.status(), 200, "{path}");
    answer.body().to_vec()
}
