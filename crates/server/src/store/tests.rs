//! Every transaction against a real database file: what it does, what it refuses, and what a reopening finds.

use assay_evidence::time::UnixTime;
use assay_identity::signed_message::NodeId;
use assay_trust::assignment::{Assignment, Plan};
use assay_trust::labels::Selector;
use assay_trust::rollout::{Percent, Rollout};
use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use tempfile::TempDir;

use super::sql::sqlite::{migrations, options};

use super::*;
use crate::config::Place;
use crate::ledger::{self, LedgerError};

pub(super) const DEVICE: &str = "spiffe://test/spire/agent/tpm/aa";
const WORKLOAD: &str = "spiffe://test/web";
pub(super) const NOW: UnixTime = UnixTime(1_000);

pub(super) struct Fixture {
    folder: TempDir,
    database: Database,
    pub(super) store: Store,
}

impl Fixture {
    async fn new() -> Fixture {
        let folder = TempDir::new().unwrap();
        let database = Database::for_test(folder.path());
        let store = Store::open(&database).await.unwrap();
        Fixture { folder, database, store }
    }

    /// With a device at version 1, trusted.
    pub(super) async fn trusted() -> Fixture {
        let fixture = Fixture::new().await;
        fixture.store.commit(enroll(None, "enrolled", 0)).await.unwrap();
        fixture.store.commit(appraise(0, trust("trusted", 1), false)).await.unwrap();
        fixture
    }

    async fn reopen(self) -> Fixture {
        self.store.close().await;
        let store = Store::open(&self.database).await.unwrap();
        Fixture { store, ..self }
    }

    async fn leaves(&self) -> usize {
        self.store.audit_leaves(0, 1000).await.unwrap().len()
    }

    pub(super) async fn tamper(&self, sql: &'static str) {
        super::sql::tamper(&self.database, sql).await;
    }

    async fn verify(&self) -> Result<ledger::Verified, LedgerError> {
        let url = match &self.database {
            Database::Postgres(url) => Some(&**url),
            Database::File(_) => None,
        };
        ledger::verify(Place { data: self.folder.path(), database: url }, None, None).await
    }
}

pub(super) fn trust(status: &str, version: u64) -> TrustColumns {
    TrustColumns {
        status: status.to_owned(),
        tier: "affirming".to_owned(),
        valid_until: NOW.plus(100),
        evidence_at: NOW,
        reset_count: Some(3),
        version,
        record: "{}".to_owned(),
    }
}

fn device(status: &str, version: u64) -> DeviceRecord {
    DeviceRecord {
        id: DEVICE.to_owned(),
        name: "press-1".to_owned(),
        node: None,
        ek_public: vec![1],
        ek_certificate: vec![2],
        ek_intermediates: Vec::new(),
        identity: IdentityRecord { iak_public: vec![6], idevid_certificate: vec![7], ..Default::default() },
        ak_public: vec![3],
        device_key_public: vec![4],
        device_key_spki: vec![5],
        agent_version: "test".to_owned(),
        enrolled_at: NOW,
        labels: String::new(),
        trust: trust(status, version),
    }
}

pub(super) fn enroll(replaces: Option<u64>, status: &str, version: u64) -> EnrollDevice {
    EnrollDevice {
        device: device(status, version),
        replaces,
        on_word: false,
        keylime: None,
        detail: "{}".to_owned(),
    }
}

fn change(from_version: u64, trust: TrustColumns, withdraw: bool) -> Change {
    Change {
        device_id: DEVICE.to_owned(),
        from_version,
        trust,
        withdraw,
        at: NOW,
        actor: "server".to_owned(),
        detail: "{}".to_owned(),
    }
}

pub(super) fn appraise(from_version: u64, trust: TrustColumns, withdraw: bool) -> RecordAppraisal {
    let appraisal = AppraisalRecord {
        at: NOW,
        tier: trust.tier.clone(),
        policy: "base v1".to_owned(),
        findings: "[]".to_owned(),
        vector: "{}".to_owned(),
    };
    RecordAppraisal {
        change: change(from_version, trust, withdraw),
        appraisal,
        evidence: None,
        lost: Vec::new(),
    }
}

pub(super) fn svid(serial: &str, state_version: u64, entry_id: Option<&str>) -> RecordSvid {
    let svid = SvidRecord {
        serial: serial.to_owned(),
        spiffe_id: if entry_id.is_some() { WORKLOAD } else { DEVICE }.to_owned(),
        carrier: Carrier::Device {
            id: DEVICE.to_owned(),
            state_version,
            entry_id: entry_id.map(str::to_owned),
            entry_revision: 1,
            basis: assay_trust::Basis::Quote,
        },
        spki_sha256: "00".to_owned(),
        issued_at: NOW,
        not_after: NOW.plus(60),
        withdrawn_at: None,
    };
    RecordSvid { svid, actor: DEVICE.to_owned() }
}

fn entry(id: &str) -> CreateEntry {
    let entry = EntryRecord {
        id: id.to_owned(),
        spiffe_id: WORKLOAD.to_owned(),
        parent: DEVICE.to_owned(),
        selectors: vec!["unix:uid:1".parse().unwrap()],
        ttl_seconds: 60,
        dns_names: vec!["web".to_owned()],
        hint: String::new(),
        speaks_for_node: false,
        federates_with: Vec::new(),
        unquoted: false,
        jwt_ttl_seconds: 0,
        expires_at: UnixTime(0),
        created_at: NOW,
        revision: 1,
    };
    CreateEntry { entry, actor: "operator".to_owned() }
}

fn step(from_version: u64, revision: u64) -> PlanStep {
    let assignment =
        Assignment { selector: Selector::default(), name: "base".to_owned(), revision, rollout: None };
    PlanStep { from_version, assignment, at: NOW, by: "operator".to_owned(), forced: false }
}

fn set(from_version: u64, revision: u64) -> SetPolicy {
    SetPolicy { step: step(from_version, revision), policy: policy(revision) }
}

async fn in_force(fixture: &Fixture) -> Option<PolicyRecord> {
    let plan = fixture.store.plan().await.unwrap().plan;
    let revision = plan.assigned(&Selector::default()).ok()?.revision;
    Some(fixture.store.policy(revision).await.unwrap())
}

fn policy(revision: u64) -> PolicyRecord {
    PolicyRecord {
        envelope: None,
        revision,
        name: "base".to_owned(),
        version: revision,
        text: "name = 'base'".into(),
        digest: "00".to_owned(),
        set_at: NOW,
        set_by: "operator".to_owned(),
    }
}

fn telemetry(from_revision: u64, sequence: u64) -> AcceptTelemetry {
    AcceptTelemetry {
        device_id: DEVICE.to_owned(),
        chain: Chain::Device,
        state_version: 1,
        from_revision,
        position: format!("{{\"sequence\":{sequence}}}"),
        received_at: NOW,
        sequence,
        items: 4,
        location: "DE".to_owned(),
        continues: true,
        detail: "{}".to_owned(),
        statement: vec![1],
        signature: vec![2],
        payload: vec![3, 3],
        device_bytes_max: 1 << 20,
        destinations: ["sink".to_owned()].into(),
    }
}

fn is_conflict<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Conflict))
}

#[tokio::test]
async fn enroll_device_binds_once_and_rebinds_on_its_version_only() {
    let fixture = Fixture::new().await;
    fixture.store.commit(enroll(None, "enrolled", 0)).await.unwrap();
    let bound = |version| DeviceRecord { node: NodeId::new(0), ..device("enrolled", version) };
    assert_eq!(fixture.store.device(DEVICE).await.unwrap(), Some(bound(0)));
    assert!(is_conflict(fixture.store.commit(enroll(None, "enrolled", 0)).await));
    assert!(is_conflict(fixture.store.commit(enroll(Some(7), "enrolled", 8)).await));
    fixture.store.commit(enroll(Some(0), "enrolled", 1)).await.unwrap();
    // Bound anew it has the number that it had.
    assert_eq!(fixture.store.device(DEVICE).await.unwrap(), Some(bound(1)));
    assert_eq!(fixture.leaves().await, 2, "refusals leave no trace");
    assert!(fixture.store.device_named("press-1").await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_decided_on_older_evidence_does_not_overwrite_what_newer_evidence_said() {
    let fixture = Fixture::trusted().await;
    let of = |evidence_at| TrustColumns { evidence_at, ..trust("trusted", 1) };
    fixture.store.commit(appraise(1, of(NOW.plus(5)), false)).await.unwrap();
    assert!(is_conflict(fixture.store.commit(appraise(1, of(NOW.plus(4)), false)).await));
    fixture.store.commit(appraise(1, of(NOW.plus(5)), false)).await.unwrap();
}

#[tokio::test]
async fn what_was_decided_on_an_earlier_revision_of_an_entry_is_not_recorded() {
    let fixture = Fixture::trusted().await;
    let CreateEntry { entry, actor } = entry("web");
    fixture.store.commit(CreateEntry { entry: entry.clone(), actor: actor.clone() }).await.unwrap();
    let named = EntryRecord { dns_names: vec!["db".to_owned()], ..entry };
    let update = UpdateEntry { entry: named, at: NOW, actor };
    let Updated::To(now, _) = fixture.store.commit(update.clone()).await.unwrap() else { panic!() };
    assert_eq!(now.revision, 2);
    assert!(is_conflict(fixture.store.commit(update).await), "it follows revision 1");
    assert!(
        is_conflict(fixture.store.commit(svid("01", 1, Some("web"))).await),
        "it would bear the old name"
    );
    fixture.verify().await.unwrap();
}

#[tokio::test]
async fn an_svid_of_an_entry_with_a_condition_is_recorded_while_the_state_fulfils_it() {
    let fixture = Fixture::trusted().await;
    let pcr = format!("tpm:pcr:15:{}", "ab".repeat(32));
    let selectors = vec!["unix:uid:1".parse().unwrap(), pcr.parse().unwrap()];
    let CreateEntry { entry, actor } = entry("web");
    let create = CreateEntry { entry: EntryRecord { selectors, ..entry }, actor };
    let id = create.entry.id.clone();
    fixture.store.commit(create).await.unwrap();
    let state = |holding: serde_json::Value| {
        let record = serde_json::json!({
            "status": "trusted", "version": 1, "since": 1, "tier": "affirming", "policy": null, "evidence_at": 1,
            "valid_until": 2000, "reset_count": 3, "device_key": "aa", "needs_approval": false,
            "awaiting_approval": false, "approved": false, "reason": "", "holding": holding,
        });
        appraise(1, TrustColumns { record: record.to_string(), ..trust("trusted", 1) }, false)
    };
    let fulfilled = serde_json::json!([{ "type": "tpm", "value": pcr.split_once(':').unwrap().1 }]);
    fixture.store.commit(state(serde_json::json!([]))).await.unwrap();
    assert!(is_conflict(fixture.store.commit(svid("01", 1, Some(&id))).await));
    fixture.store.commit(state(fulfilled)).await.unwrap();
    fixture.store.commit(svid("01", 1, Some(&id))).await.unwrap();
    // It goes with the condition, and nothing else does.
    fixture.store.commit(svid("02", 1, None)).await.unwrap();
    let RecordAppraisal { change, appraisal, .. } = state(serde_json::json!([]));
    let lost = vec![LostEntry { id, spiffe_id: WORKLOAD.to_owned(), condition: pcr }];
    fixture.store.commit(RecordAppraisal { change, appraisal, evidence: None, lost }).await.unwrap();
    let listed = fixture.store.withdrawn_svids(NOW).await.unwrap().0;
    assert_eq!(listed.iter().map(|svid| svid.serial.as_str()).collect::<Vec<_>>(), ["01"]);
    fixture.verify().await.unwrap();
}

#[tokio::test]
async fn rebinding_withdraws_what_the_old_keys_held_and_starts_telemetry_anew() {
    let fixture = Fixture::trusted().await;
    fixture.store.commit(svid("01", 1, None)).await.unwrap();
    fixture.store.commit(telemetry(0, 1)).await.unwrap();
    let moved = fixture.store.commit(enroll(Some(1), "enrolled", 2)).await.unwrap();
    assert_eq!(moved.withdrawn.serials, [("01".to_owned(), NOW.plus(60))]);
    assert_eq!(fixture.store.telemetry_position(DEVICE, Chain::Device).await.unwrap(), None);
}

#[tokio::test]
async fn record_appraisal_moves_the_state_and_withdraws_in_one_step() {
    let fixture = Fixture::trusted().await;
    fixture.store.commit(svid("01", 1, None)).await.unwrap();
    fixture.store.commit(svid("02", 1, None)).await.unwrap();
    assert!(is_conflict(fixture.store.commit(appraise(0, trust("suspect", 2), true)).await));
    let moved = fixture.store.commit(appraise(1, trust("suspect", 2), true)).await.unwrap().moved;
    let withdrawn = moved.unwrap().withdrawn;
    assert_eq!(withdrawn.serials.len(), 2);
    assert_eq!(withdrawn.list_number, Some(1));
    let (withdrawn, number) = fixture.store.withdrawn_svids(NOW).await.unwrap();
    assert_eq!((withdrawn.len(), number), (2, 1));
    assert_eq!(fixture.store.device(DEVICE).await.unwrap().unwrap().trust, trust("suspect", 2));
    assert_eq!(fixture.store.last_appraisal(DEVICE).await.unwrap().unwrap().1.policy, "base v1");
    let kinds: Vec<_> =
        fixture.store.events(DEVICE, 10).await.unwrap().into_iter().map(|leaf| leaf.kind).collect();
    assert_eq!(kinds, ["device.appraised", "device.appraised", "device.enrolled"]);
}

#[tokio::test]
async fn renew_trust_writes_times_and_nothing_else() {
    let fixture = Fixture::trusted().await;
    let leaves = fixture.leaves().await;
    let renewed = TrustColumns { valid_until: NOW.plus(500), ..trust("trusted", 1) };
    let renew = RenewTrust { device_id: DEVICE.to_owned(), trust: renewed.clone() };
    fixture.store.renew(renew.clone()).await.unwrap();
    assert_eq!(fixture.store.device(DEVICE).await.unwrap().unwrap().trust, renewed);
    assert_eq!(fixture.leaves().await, leaves);
    fixture.store.commit(appraise(1, trust("suspect", 2), true)).await.unwrap();
    assert!(is_conflict(fixture.store.renew(renew).await), "a renewal cannot undo a withdrawal");
}

#[tokio::test]
async fn renewals_that_come_together_are_answered_each_for_itself() {
    let fixture = Fixture::trusted().await;
    let renew = |device: &str, version, seconds| {
        let trust = TrustColumns { valid_until: NOW.plus(seconds), ..trust("trusted", version) };
        fixture.store.renew(RenewTrust { device_id: device.to_owned(), trust })
    };
    let quoted = "spiffe://example/\"quoted\"";
    let outcomes = tokio::join!(
        renew(DEVICE, 1, 300),
        renew(quoted, 1, 300),
        renew(DEVICE, 9, 400),
        fixture.store.commit(appraise(1, trust("suspect", 2), true)),
        renew(DEVICE, 1, 500),
        renew(DEVICE, 2, 600),
    );
    assert!(outcomes.0.is_ok() && outcomes.3.is_ok() && outcomes.5.is_ok(), "{outcomes:?}");
    let refused = [outcomes.1, outcomes.2, outcomes.4];
    assert!(refused.into_iter().all(is_conflict), "unknown, of no version that was, and behind a fall");
    let kept = fixture.store.device(DEVICE).await.unwrap().unwrap().trust;
    assert_eq!((kept.version, kept.valid_until), (2, NOW.plus(600)));
}

#[tokio::test]
async fn the_reset_counter_kept_is_the_highest_seen() {
    let fixture = Fixture::trusted().await;
    let trust = TrustColumns { reset_count: Some(1), ..trust("trusted", 1) };
    fixture.store.renew(RenewTrust { device_id: DEVICE.to_owned(), trust }).await.unwrap();
    assert_eq!(fixture.store.device(DEVICE).await.unwrap().unwrap().trust.reset_count, Some(3));
}

#[tokio::test]
async fn expire_revoke_and_approve_are_on_record() {
    let fixture = Fixture::trusted().await;
    let due = fixture.store.devices_to_expire(NOW.plus(100), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert!(fixture.store.devices_to_expire(NOW.plus(99), 10).await.unwrap().is_empty());
    fixture.store.commit(svid("01", 1, None)).await.unwrap();
    let moved = fixture.store.commit(ExpireDevice(change(1, trust("expired", 2), true))).await.unwrap();
    assert_eq!(moved.withdrawn.serials.len(), 1);
    fixture.store.commit(set(1, 1)).await.unwrap();
    let policies = Some(RevisePolicies { step: step(2, 2), policies: vec![policy(2)] });
    let approve = ApproveDevice { change: change(2, trust("enrolled", 3), false), result: 1, policies };
    fixture.store.commit(approve).await.unwrap();
    fixture.store.commit(RevokeDevice(change(3, trust("revoked", 4), true))).await.unwrap();
    let kinds: Vec<_> =
        fixture.store.recent_events(3).await.unwrap().into_iter().map(|leaf| leaf.kind).collect();
    assert_eq!(kinds, ["device.revoked", "device.approved", "device.expired"]);
    assert_eq!(in_force(&fixture).await, Some(policy(2)));
    assert_eq!(fixture.store.device_counts().await.unwrap(), [("revoked".to_owned(), 1)]);
}

#[tokio::test]
async fn no_approval_without_its_policy() {
    let fixture = Fixture::trusted().await;
    fixture.store.commit(set(1, 1)).await.unwrap();
    let policies = Some(RevisePolicies { step: step(2, 2), policies: vec![policy(2)] });
    let approve = ApproveDevice { change: change(9, trust("enrolled", 10), false), result: 1, policies };
    assert!(is_conflict(fixture.store.commit(approve).await));
    let policies = Some(RevisePolicies { step: step(1, 2), policies: vec![policy(2)] });
    let approve = ApproveDevice {
        change: change(1, trust("enrolled", 2), false),
        result: 1,
        policies: policies.clone(),
    };
    assert!(is_conflict(fixture.store.commit(approve).await), "the plan has moved on");
    let approve = ApproveDevice { change: change(1, trust("enrolled", 2), false), result: 0, policies };
    assert!(is_conflict(fixture.store.commit(approve).await), "another result was looked at");
    assert_eq!(in_force(&fixture).await, Some(policy(1)));
    assert_eq!(fixture.store.last_policy_revision().await.unwrap(), 1);
}

#[tokio::test]
async fn no_svid_without_the_state_it_was_decided_on() {
    let fixture = Fixture::trusted().await;
    assert!(is_conflict(fixture.store.commit(svid("01", 0, None)).await));
    assert!(is_conflict(fixture.store.commit(svid("01", 1, Some("web"))).await), "no such entry");
    fixture.store.commit(entry("web")).await.unwrap();
    fixture.store.commit(svid("01", 1, Some("web"))).await.unwrap();
    fixture.store.commit(appraise(1, trust("suspect", 2), true)).await.unwrap();
    assert!(is_conflict(fixture.store.commit(svid("02", 2, None)).await), "suspect devices get nothing");
    let held = fixture.store.svids_of_device(DEVICE, NOW, 10).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].withdrawn_at, Some(NOW));
    assert!(fixture.store.standing_svids(&[DEVICE], NOW).await.unwrap().is_empty());
}

#[tokio::test]
async fn removing_an_entry_withdraws_its_svids_and_no_others() {
    let fixture = Fixture::trusted().await;
    fixture.store.commit(entry("web")).await.unwrap();
    fixture.store.commit(svid("01", 1, Some("web"))).await.unwrap();
    fixture.store.commit(svid("02", 1, None)).await.unwrap();
    assert_eq!(fixture.store.entries().await.unwrap(), [entry("web").entry]);
    let remove = |id: &str| RemoveEntry { id: id.to_owned(), at: NOW, actor: "operator".to_owned() };
    let withdrawn = fixture.store.commit(remove("web")).await.unwrap();
    assert_eq!(withdrawn.serials, [("01".to_owned(), NOW.plus(60))]);
    assert_eq!(fixture.store.standing_svids(&[DEVICE], NOW).await.unwrap(), [(DEVICE.to_owned(), 1)]);
    assert!(matches!(fixture.store.commit(remove("web")).await, Err(StoreError::Unknown("entry"))));
}

#[tokio::test]
async fn set_policy_takes_the_next_revision_only() {
    let fixture = Fixture::new().await;
    fixture.store.commit(set(1, 1)).await.unwrap();
    assert!(is_conflict(fixture.store.commit(set(2, 1)).await));
    assert!(is_conflict(fixture.store.commit(set(2, 3)).await));
    assert!(is_conflict(fixture.store.commit(set(1, 2)).await), "the plan has moved on");
    fixture.store.commit(set(2, 2)).await.unwrap();
    assert_eq!(in_force(&fixture).await, Some(policy(2)));
    assert_eq!(fixture.store.last_policy_version("base").await.unwrap(), 2);
    assert_eq!(fixture.store.last_policy_version("other").await.unwrap(), 0);
}

#[tokio::test]
async fn the_plan_moves_one_step_at_a_time_and_each_is_on_record() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    store.commit(set(1, 1)).await.unwrap();
    let rolling = |version, percent| {
        let rollout = Rollout { id: 2, union: 2, new: 3, percent: Percent::try_from(percent).unwrap() };
        let mut step = step(version, 1);
        step.assignment.rollout = Some(rollout);
        step
    };
    let start = |version| StartRollout { step: rolling(version, 10), union: policy(2), new: policy(3) };
    assert!(is_conflict(store.commit(start(1)).await));
    store.commit(start(2)).await.unwrap();
    assert!(is_conflict(store.commit(WidenRollout(rolling(2, 50))).await));
    store.commit(WidenRollout(rolling(3, 50))).await.unwrap();
    assert_eq!(store.plan().await.unwrap().plan.assignments(), [rolling(0, 50).assignment]);
    assert!(is_conflict(store.commit(AbortRollout(step(3, 1))).await));
    store.commit(AbortRollout(step(4, 1))).await.unwrap();
    assert_eq!(store.plan().await.unwrap().plan.assignments(), [step(0, 1).assignment]);
    store.commit(WidenRollout(rolling(5, 60))).await.unwrap();
    store.commit(FinishRollout(step(6, 3))).await.unwrap();
    assert_eq!(in_force(&fixture).await, Some(policy(3)));
    assert!(is_conflict(store.commit(UnassignPolicy(step(6, 3))).await));
    store.commit(UnassignPolicy(step(7, 3))).await.unwrap();
    let plan = store.plan().await.unwrap();
    assert_eq!((plan.version, plan.plan), (8, Plan::default()));
    let kinds: Vec<_> = store.audit_leaves(0, 10).await.unwrap().into_iter().map(|leaf| leaf.kind).collect();
    let expected = ["set", "started", "widened", "aborted", "widened", "finished", "unassigned"];
    assert!(
        kinds.len() == expected.len() && kinds.iter().zip(expected).all(|(kind, end)| kind.ends_with(end))
    );
    fixture.verify().await.unwrap();
}

#[tokio::test]
async fn labels_are_changed_from_what_they_were() {
    let fixture = Fixture::trusted().await;
    let label = |from: &str, to: &str| LabelDevice {
        device_id: DEVICE.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        plan_version: 1,
        forced: false,
        at: NOW,
        by: "operator".to_owned(),
    };
    fixture.store.commit(label("", "site=paris")).await.unwrap();
    assert!(is_conflict(fixture.store.commit(label("", "site=lyon")).await));
    assert_eq!(fixture.store.device(DEVICE).await.unwrap().unwrap().labels, "site=paris");
    assert_eq!(fixture.leaves().await, 3, "one line for one change");
    // What operators say is of the TPM, not of the keys below it.
    fixture.store.commit(enroll(Some(1), "enrolled", 2)).await.unwrap();
    assert_eq!(fixture.store.labelled_devices().await.unwrap()[0].labels, "site=paris");
    fixture.store.commit(RevokeDevice(change(2, trust("revoked", 3), true))).await.unwrap();
    assert_eq!(fixture.store.labelled_devices().await.unwrap(), [], "no policy judges it any more");
}

#[tokio::test]
async fn accept_telemetry_moves_the_chain_on_exactly_once() {
    let fixture = Fixture::trusted().await;
    let receipt = fixture.store.commit(telemetry(0, 1)).await.unwrap();
    assert!(is_conflict(fixture.store.commit(telemetry(0, 1)).await), "the first batch twice");
    fixture.store.commit(telemetry(1, 2)).await.unwrap();
    assert!(is_conflict(fixture.store.commit(telemetry(1, 2)).await), "a later batch twice");
    let position = fixture.store.telemetry_position(DEVICE, Chain::Device).await.unwrap().unwrap();
    assert_eq!(position.revision, 2);
    let batches = fixture.store.telemetry(Some(DEVICE), 10).await.unwrap();
    assert_eq!(batches.len(), 2);
    assert_eq!((batches[1].leaf, batches[1].payload_bytes), (receipt.leaf, 2));
    fixture.store.commit(appraise(1, trust("suspect", 2), true)).await.unwrap();
    assert!(is_conflict(fixture.store.commit(telemetry(2, 3)).await), "no longer trusted");
}

#[tokio::test]
async fn refuse_telemetry_keeps_the_last_few() {
    let fixture = Fixture::trusted().await;
    for sequence in 1..=150 {
        let refusal = RefuseTelemetry {
            device_id: DEVICE.to_owned(),
            chain: Chain::Device,
            sequence,
            at: NOW,
            code: "location-refused".to_owned(),
            reason: "elsewhere".to_owned(),
        };
        fixture.store.commit(refusal.clone()).await.unwrap();
        fixture.store.commit(refusal).await.unwrap();
    }
    let refusals = fixture.store.telemetry_refusals(Some(DEVICE), 1000).await.unwrap();
    assert_eq!(refusals.len(), 100);
    assert!(refusals.iter().all(|refusal| refusal.sequence > 50));
}

#[tokio::test]
async fn pruning_removes_old_rows_and_leaves_the_trail_whole() {
    let fixture = Fixture::trusted().await;
    fixture.store.commit(svid("01", 1, None)).await.unwrap();
    fixture.store.commit(telemetry(0, 1)).await.unwrap();
    let prune = PruneHistory {
        now: NOW.plus(1),
        telemetry_before: NOW.plus(1),
        telemetry_bytes_max: 1 << 20,
        svids_before: NOW.plus(61),
        evidence_before: NOW,
        evidence_bytes_max: 1 << 20,
    };
    let pruned = fixture.store.commit(prune).await.unwrap();
    assert_eq!((pruned.old, pruned.rows), (Dropped { runs: 1, batches: 1, bytes: 4 }, 1));
    // What went of telemetry is on record.
    assert_eq!(fixture.verify().await.unwrap().leaves, 5);
}

#[tokio::test]
async fn neighbours_in_a_batch_do_not_disturb_each_other() {
    let fixture = Fixture::trusted().await;
    let (store, mut waiting) = (&fixture.store, tokio::task::JoinSet::new());
    for number in 0..100_u64 {
        let store = store.clone();
        waiting.spawn(async move {
            let version = if number % 3 == 0 { 0 } else { 1 };
            store.commit(svid(&format!("{number:04x}"), version, None)).await.is_ok()
        });
    }
    let granted = waiting.join_all().await.into_iter().filter(|granted| *granted).count();
    assert_eq!(granted, 66);
    assert_eq!(store.svids_of_device(DEVICE, NOW, 1000).await.unwrap().len(), 66);
    assert_eq!(fixture.verify().await.unwrap().leaves, 2 + 66);
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let fixture = Fixture::trusted().await;
    fixture.store.commit(svid("01", 1, None)).await.unwrap();
    fixture.store.commit(RevokeDevice(change(1, trust("revoked", 2), true))).await.unwrap();
    let before = fixture.verify().await.unwrap();
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.verify().await.unwrap(), before);
    assert_eq!(fixture.store.withdrawn_svids(NOW).await.unwrap().1, 1);
    let number = fixture.store.commit(RenumberRevocationList { step: 1, at: NOW }).await.unwrap();
    assert!(number > 1, "{number}");
    let earlier = fixture.store.commit(RenumberRevocationList { step: 1, at: UnixTime(1) }).await.unwrap();
    assert_eq!(earlier, number + 1, "a clock that is set back takes no number back");
    fixture.store.commit(entry("web")).await.unwrap();
    assert_eq!(
        fixture.verify().await.unwrap().leaves,
        before.leaves + 1,
        "the chain goes on where it stopped"
    );
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_answered() {
    let fixture = Fixture::trusted().await;
    if fixture.database.file().is_none() {
        // What is PostgreSQL's to keep; what becomes of us when it goes is in `sql::postgres`.
        return;
    }
    fixture.store.commit(svid("01", 1, None)).await.unwrap();
    // What a killed process leaves behind: the file and its write-ahead log, never checkpointed or closed.
    let after = TempDir::new().unwrap();
    for file in std::fs::read_dir(fixture.folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), after.path().join(file.file_name())).unwrap();
    }
    let store = Store::open(&Database::File(after.path().join(FILE_NAME))).await.unwrap();
    assert_eq!(store.svids_of_device(DEVICE, NOW, 10).await.unwrap().len(), 1);
    assert_eq!(ledger::verify(after.path(), None, None).await.unwrap(), fixture.verify().await.unwrap());
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let fixture = Fixture::new().await;
    let store = fixture.store.clone();
    fixture.store.close().await;
    assert!(matches!(
        store.commit(RenumberRevocationList { step: 1, at: NOW }).await,
        Err(StoreError::Closed)
    ));
}

#[tokio::test]
async fn tampering_with_the_trail_is_found() {
    let fixture = Fixture::trusted().await;
    fixture.store.commit(svid("01", 1, None)).await.unwrap();
    assert_eq!(fixture.verify().await.unwrap().leaves, 3);
    fixture.tamper("UPDATE audit SET detail = '{\"tier\":\"affirming\"}' WHERE leaf = 1").await;
    let error = fixture.verify().await.unwrap_err().to_string();
    assert!(error.starts_with("leaf 1 does not hash"), "{error}");
}

#[tokio::test]
async fn a_removed_leaf_is_found() {
    let fixture = Fixture::trusted().await;
    fixture.tamper("DELETE FROM audit WHERE leaf = 0").await;
    let error = fixture.verify().await.unwrap_err().to_string();
    assert_eq!(error, "leaf 0 is missing: the next one present is 1");
}

#[tokio::test]
async fn a_trail_cut_off_at_its_end_is_found() {
    let fixture = Fixture::trusted().await;
    fixture.tamper("DELETE FROM audit WHERE leaf = 1").await;
    assert!(matches!(fixture.verify().await, Err(LedgerError::CutOff { leaves: 1, named: 1 })));
}

#[tokio::test]
async fn a_database_from_before_the_vector_is_upgraded_and_keeps_its_results() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE_NAME);
    let mut connection = options(&file).create_if_missing(true).connect().await.unwrap();
    let first = migrations().iter().take(1).cloned().collect();
    Migrator::with_migrations(first).run(&mut connection).await.unwrap();
    sqlx::raw_sql(
        "PRAGMA foreign_keys = OFF;
         INSERT INTO appraisals (leaf, device_id, at, tier, policy, findings) VALUES (0, 'd', 7, 'none', '', '[]')",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let store = Store::open(&Database::File(file)).await.unwrap();
    let (_, last) = store.last_appraisal("d").await.unwrap().unwrap();
    assert_eq!((last.at, last.tier.as_str(), last.vector.as_str()), (UnixTime(7), "none", ""));
    store.close().await;
}

#[tokio::test]
async fn in_a_database_from_before_assignments_the_last_policy_stays_in_force_for_everyone() {
    for policies in [0_u64, 1, 3] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE_NAME);
        let mut connection = options(&file).create_if_missing(true).connect().await.unwrap();
        let earlier = migrations().iter().filter(|migration| migration.version < 4).cloned().collect();
        Migrator::with_migrations(earlier).run(&mut connection).await.unwrap();
        for revision in 1..=policies {
            sqlx::query("INSERT INTO policies VALUES ($1, 'base', $1, 'text', 'digest', 7, 'operator')")
                .bind(stored(revision))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        sqlx::Connection::close(connection).await.unwrap();
        let store = Store::open(&Database::File(file)).await.unwrap();
        let plan = store.plan().await.unwrap();
        let expected: Vec<_> = (policies > 0).then(|| step(0, policies).assignment).into_iter().collect();
        assert_eq!((plan.version, plan.plan.assignments()), (1, expected.as_slice()));
        store.close().await;
    }
}

/// A transaction that leaves something behind and then fails as no transaction should.
#[derive(Clone)]
pub(super) struct Failing<const ALONE: bool>;

impl<const ALONE: bool> Transaction for Failing<ALONE> {
    type Output = ();

    const SINGLE_STATEMENT: bool = ALONE;

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        crate::store::sql::query("UPDATE devices SET name = 'broken'").execute(unit.connection()).await?;
        panic!("a fault of ours")
    }
}

#[tokio::test]
async fn a_panic_in_a_transaction_takes_back_that_one_alone() {
    let fixture = Fixture::trusted().await;
    let (before, faults) = (fixture.leaves().await, crate::outcome::faults());
    let (first, failed, last) = tokio::join!(
        fixture.store.commit(svid("01", 1, None)),
        fixture.store.commit(Failing::<false>),
        fixture.store.commit(svid("02", 1, None)),
    );
    assert!(first.is_ok() && last.is_ok() && matches!(failed, Err(StoreError::Panicked)), "{failed:?}");
    assert!(crate::outcome::faults() > faults);
    assert_eq!(fixture.store.device(DEVICE).await.unwrap().unwrap().name, "press-1");
    assert_eq!(fixture.leaves().await, before + 2);
    fixture.verify().await.unwrap();
}

#[tokio::test]
async fn a_writer_that_fails_begins_anew_from_what_is_on_disk() {
    let fixture = Fixture::trusted().await;
    let before = fixture.leaves().await;
    let (first, failed) =
        tokio::join!(fixture.store.commit(svid("01", 1, None)), fixture.store.commit(Failing::<true>));
    // Nobody is told that it was done who cannot rely on it.
    assert!(matches!(first, Err(StoreError::Interrupted)), "{first:?}");
    assert!(matches!(failed, Err(StoreError::Interrupted)), "{failed:?}");
    assert_eq!(fixture.store.device(DEVICE).await.unwrap().unwrap().name, "press-1");
    assert_eq!(fixture.leaves().await, before);
    fixture.store.commit(svid("02", 1, None)).await.unwrap();
    assert_eq!(fixture.leaves().await, before + 1);
    fixture.verify().await.unwrap();
    fixture.reopen().await.store.commit(svid("03", 1, None)).await.unwrap();
}
