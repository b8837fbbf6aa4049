//! What evidence takes, what goes when, and what is shared.

use super::*;
use crate::store::tests::{DEVICE, Fixture, NOW, appraise, trust};
use crate::store::{PruneHistory, blob_hash};

/// Kilobytes that do not pack, different for each number.
fn noise(number: u8, kilobytes: usize) -> Vec<u8> {
    let seed = (0..kilobytes * 32).scan([number; 32], |hash, _| {
        *hash = blob_hash(hash);
        Some(*hash)
    });
    seed.flatten().collect()
}

struct Keeping<'a> {
    fixture: &'a Fixture,
    bytes_max: u64,
}

impl Keeping<'_> {
    async fn blob(&self, content: &[u8]) -> NewBlob {
        self.fixture.store.new_blob(content, false).await.unwrap()
    }

    async fn new_boot(&self) -> ToldBoot {
        ToldBoot::New(NewBoot {
            ak_public: vec![3],
            endorsement: self.blob(b"certificate").await,
            anchors: self.blob(b"anchors").await,
            ima_ascii: false,
        })
    }

    /// Evidence of a boot whose list grows to so many entries by this part.
    async fn evidence(&self, boot: ToldBoot, at: UnixTime, part: Option<(u64, &[u8])>) -> NewEvidence {
        NewEvidence {
            boot,
            part: match part {
                Some((to_entry, entries)) => Some(NewPart { to_entry, blob: self.blob(entries).await }),
                None => None,
            },
            boot_log: Some(self.blob(b"boot log").await),
            ima_rest: None,
            judged: EvidenceColumns {
                at,
                policy_revision: 0,
                last_counters: None,
                nonce: vec![7; 32],
                quote: vec![8; 100],
                boot_log_judged: true,
                known_entries: None,
                ima_from: 0,
                ima_shared: part.map_or(0, |(to_entry, _)| to_entry),
                ima_ascii: false,
                attested: Some(part.map_or(0, |(to_entry, _)| to_entry)),
                basis: None,
            },
            bytes_max: self.bytes_max,
            device_bytes_max: self.bytes_max,
        }
    }

    async fn keep(&self, evidence: NewEvidence) -> Option<Kept> {
        let renew = RenewTrust { device_id: DEVICE.to_owned(), trust: trust("trusted", 1) };
        self.fixture.store.commit(KeepEvidence { renew, evidence }).await.unwrap()
    }

    /// Evidence of a boot of its own, with a list of its own of some kilobytes.
    async fn keep_boot(&self, number: u8, at: UnixTime, kilobytes: usize) -> Option<Kept> {
        let list = noise(number, kilobytes);
        self.keep(self.evidence(self.new_boot().await, at, Some((1, &list))).await).await
    }

    async fn count(&self, sql: &'static str) -> i64 {
        query(sql).fetch_one(&self.fixture.store.readers).await.unwrap().try_get("n").unwrap()
    }

    async fn prune(&self, before: UnixTime, bytes_max: u64) -> u64 {
        let prune = PruneHistory {
            now: before,
            telemetry_bytes_max: 0,
            telemetry_before: UnixTime(0),
            svids_before: UnixTime(0),
            evidence_before: before,
            evidence_bytes_max: bytes_max,
        };
        self.fixture.store.commit(prune).await.unwrap().rows
    }

    /// What is counted is what is there, and nothing is there that nobody names.
    async fn check_sums(&self) {
        let counted = self.count("SELECT bytes AS n FROM evidence_usage").await;
        let blobs = self.count("SELECT COALESCE(SUM(LENGTH(content)), 0) AS n FROM blob_contents").await;
        let rows = self.count("SELECT COALESCE(SUM(512 + LENGTH(quote)), 0) AS n FROM evidence").await;
        assert_eq!(counted, blobs + rows);
        assert_eq!(
            self.count("SELECT CAST(COALESCE(SUM(stored), 0) AS BIGINT) AS n FROM blobs").await,
            blobs
        );
        let users = self.count("SELECT CAST(COALESCE(SUM(users), 0) AS BIGINT) AS n FROM blobs").await;
        let named = self
            .count(
                "SELECT (SELECT COUNT(*) FROM ima_parts) + 2 * (SELECT COUNT(*) FROM boots)
                     + (SELECT COUNT(*) FROM evidence WHERE LENGTH(boot_log) > 0)
                     + (SELECT COUNT(*) FROM evidence WHERE LENGTH(ima_rest) > 0) AS n",
            )
            .await;
        assert_eq!(users, named);
    }
}

fn keeping(fixture: &Fixture) -> Keeping<'_> {
    Keeping { fixture, bytes_max: 1 << 20 }
}

#[tokio::test]
async fn each_content_is_kept_once_and_each_list_grows() {
    let fixture = Fixture::trusted().await;
    let keeping = keeping(&fixture);
    let first =
        keeping.keep(keeping.evidence(keeping.new_boot().await, NOW, Some((2, b"ab"))).await).await.unwrap();
    assert_eq!(first, Kept { id: 1, boot: 1 });
    let grown = ToldBoot::Known { id: 1, entries: 2 };
    let second = keeping.keep(keeping.evidence(grown, NOW, Some((5, b"cde"))).await).await.unwrap();
    assert_eq!(second, Kept { id: 2, boot: 1 });
    let store = &fixture.store;
    assert_eq!(store.ima_list(1, 5).await.unwrap(), b"abcde");
    assert_eq!(store.ima_list(1, 2).await.unwrap(), b"ab");
    assert!(store.ima_list(1, 3).await.is_err(), "a list ends where a part does");
    // The same contents in another boot take no more room.
    let blobs = keeping.count("SELECT COUNT(*) AS n FROM blobs").await;
    keeping.keep(keeping.evidence(keeping.new_boot().await, NOW, Some((2, b"ab"))).await).await.unwrap();
    assert_eq!(keeping.count("SELECT COUNT(*) AS n FROM blobs").await, blobs);
    keeping.check_sums().await;
    let last = store.last_verified_evidence(DEVICE).await.unwrap().unwrap();
    assert_eq!((last.id, last.boot, last.told.ima_entries), (3, 3, 2));
}

#[tokio::test]
async fn what_builds_on_what_is_gone_or_has_grown_is_not_kept() {
    let fixture = Fixture::trusted().await;
    let keeping = keeping(&fixture);
    let unknown = ToldBoot::Known { id: 9, entries: 0 };
    assert_eq!(keeping.keep(keeping.evidence(unknown, NOW, None).await).await, None);
    keeping.keep(keeping.evidence(keeping.new_boot().await, NOW, Some((2, b"ab"))).await).await.unwrap();
    let overtaken = ToldBoot::Known { id: 1, entries: 1 };
    assert_eq!(keeping.keep(keeping.evidence(overtaken, NOW, Some((3, b"bc"))).await).await, None);
    let known = ToldBoot::Known { id: 1, entries: 2 };
    let mut based = keeping.evidence(known, NOW, None).await;
    based.judged.basis = Some(77);
    assert_eq!(keeping.keep(based).await, None);
    keeping.check_sums().await;
    // That evidence is not kept keeps no result from being recorded.
    let mut record = appraise(1, trust("suspect", 2), true);
    record.evidence = Some(keeping.evidence(ToldBoot::Known { id: 9, entries: 0 }, NOW, None).await);
    let recorded = fixture.store.commit(record).await.unwrap();
    assert_eq!(recorded.evidence, None);
    assert_eq!(fixture.store.last_appraisal(DEVICE).await.unwrap().unwrap().1.tier, "affirming");
    assert!(fixture.store.evidence_of_result(recorded.moved.unwrap().leaf.index).await.unwrap().is_none());
}

#[tokio::test]
async fn the_oldest_makes_room() {
    let fixture = Fixture::trusted().await;
    let keeping = Keeping { fixture: &fixture, bytes_max: 40 << 10 };
    for number in 1..=20 {
        assert!(keeping.keep_boot(number, NOW, 8).await.is_some(), "{number}");
        let bytes = keeping.count("SELECT bytes AS n FROM evidence_usage").await;
        assert!(bytes <= 40 << 10, "{bytes}");
        keeping.check_sums().await;
    }
    let oldest = keeping.count("SELECT MIN(id) AS n FROM evidence").await;
    assert!((15..=20).contains(&oldest), "{oldest}");
    assert_eq!(keeping.keep_boot(99, NOW, 64).await, None, "more than all the room there is");
    assert_eq!(keeping.count("SELECT MAX(id) AS n FROM evidence").await, 20, "and nothing went for it");
}

#[tokio::test]
async fn less_room_is_made_in_steps() {
    let fixture = Fixture::trusted().await;
    let keeping = keeping(&fixture);
    for number in 1..=30 {
        keeping.keep_boot(number, NOW, 1).await.unwrap();
    }
    assert_eq!(keeping.prune(UnixTime(0), 1 << 20).await, 0);
    assert!(keeping.prune(UnixTime(0), 1 << 10).await > 0);
    assert_eq!(keeping.count("SELECT COUNT(*) AS n FROM blob_contents").await, 0);
    keeping.check_sums().await;
}

#[tokio::test]
async fn age_spares_the_last_of_a_device_and_what_others_build_on() {
    let fixture = Fixture::trusted().await;
    let keeping = keeping(&fixture);
    keeping.keep_boot(1, NOW, 1).await.unwrap();
    let second = keeping.keep_boot(2, NOW, 1).await.unwrap();
    // It did not verify, and the second says what was known.
    let mut third = keeping.evidence(ToldBoot::Known { id: second.boot, entries: 1 }, NOW, None).await;
    (third.judged.attested, third.judged.basis) = (None, Some(second.id));
    keeping.keep(third).await.unwrap();
    assert_eq!(keeping.prune(NOW.plus(1), 1 << 20).await, 1, "the first, and nothing else");
    assert_eq!(keeping.count("SELECT MIN(id) AS n FROM evidence").await, 2);
    keeping.keep_boot(4, NOW, 1).await.unwrap();
    assert_eq!(keeping.prune(NOW.plus(1), 1 << 20).await, 1, "the third, which builds on the second");
    assert_eq!(keeping.prune(NOW.plus(1), 1 << 20).await, 1);
    assert_eq!(keeping.prune(NOW.plus(1), 1 << 20).await, 0);
    assert_eq!(keeping.count("SELECT id AS n FROM evidence").await, 4);
    assert_eq!(keeping.count("SELECT COUNT(*) AS n FROM boots").await, 1);
    keeping.check_sums().await;
}

#[tokio::test]
async fn a_content_that_went_meanwhile_is_packed_again() {
    let fixture = Fixture::trusted().await;
    let keeping = keeping(&fixture);
    let list = noise(1, 32);
    keeping.keep_boot(1, NOW, 32).await.unwrap();
    // Seen to be there, and so not packed; then it goes.
    let seen = keeping.evidence(keeping.new_boot().await, NOW, Some((1, &list))).await;
    assert_eq!(keeping.prune(UnixTime(0), 1 << 10).await, 1);
    let renew = RenewTrust { device_id: DEVICE.to_owned(), trust: trust("trusted", 1) };
    let overtaken = fixture.store.commit(KeepEvidence { renew, evidence: seen }).await;
    assert!(matches!(overtaken, Err(StoreError::Conflict)));
    keeping.check_sums().await;
    assert!(keeping.keep_boot(1, NOW, 32).await.is_some());
}

#[tokio::test]
async fn a_damaged_content_is_none_until_it_is_kept_anew() {
    let fixture = Fixture::trusted().await;
    let keeping = keeping(&fixture);
    let kept = keeping.keep_boot(1, NOW, 32).await.unwrap();
    fixture.tamper("UPDATE blob_contents SET content = hash").await;
    let list = async || fixture.store.ima_list(kept.boot, 1).await;
    assert!(matches!(list().await, Err(StoreError::Corrupt { .. })));
    let mut again = keeping.evidence(keeping.new_boot().await, NOW, None).await;
    let blob = fixture.store.new_blob(&noise(1, 32), true).await.unwrap();
    again.part = Some(NewPart { to_entry: 1, blob });
    keeping.keep(again).await.unwrap();
    assert_eq!(list().await.unwrap(), noise(1, 32));
}

#[tokio::test]
async fn a_device_that_lies_all_day_keeps_the_last_of_its_lies() {
    let fixture = Fixture::trusted().await;
    let keeping = keeping(&fixture);
    let good = keeping.keep_boot(1, NOW, 1).await.unwrap();
    for number in 0..40 {
        let mut lie = keeping.evidence(keeping.new_boot().await, NOW, None).await;
        (lie.judged.attested, lie.ima_rest) = (None, Some(keeping.blob(&noise(number, 1)).await));
        keeping.keep(lie).await.unwrap();
        keeping.check_sums().await;
    }
    assert_eq!(keeping.count("SELECT COUNT(*) AS n FROM evidence WHERE attested < 0").await, 32);
    assert_eq!(fixture.store.last_verified_evidence(DEVICE).await.unwrap().unwrap().id, good.id);
}
