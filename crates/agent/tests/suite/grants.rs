//! What a device does with what it is granted: asks once, hands out only what verifies, drops all when told to.

use std::time::{Duration, SystemTime};

use assay_agent::holding::{
    Answer, AnswerError, Due, Entry, Granted, Grants, Holding, Remembered, TrustError,
};
use assay_identity::tls::{Trust, TrustSource};
use assay_identity::{CrlSet, PrivateKey, Serial};
use tokio::sync::watch;

use crate::authority::{Authority, trust_domain};

struct Device {
    authority: Authority,
    grants: Grants,
    announcements: u64,
}

impl Device {
    fn new() -> Self {
        let authority = Authority::new();
        let trust = TrustSource::new(Trust { bundle: authority.bundle(), crls: CrlSet::bootstrapping() });
        let (held, _) = watch::channel(Holding::default());
        Device {
            grants: Grants::new(held, trust, trust_domain(), Remembered::default()),
            authority,
            announcements: 0,
        }
    }

    /// Announces these serials as revoked, and makes what these entries grant.
    fn granted(&mut self, entries: &[&str], revoked: &[Serial]) -> Granted {
        self.announcements += 1;
        let (signed, announced) = self.authority.announced(revoked, self.announcements);
        self.grants.announced(&signed, announced, SystemTime::now()).unwrap();
        let entry = |id: &&str| Entry {
            id: (*id).into(),
            spiffe_id: format!("spiffe://example.org/{id}"),
            ..Entry::default()
        };
        Granted { entries: entries.iter().map(entry).collect(), ..Granted::default() }
    }

    fn due(&mut self) -> Vec<Due> {
        self.grants.due(SystemTime::now()).unwrap()
    }

    /// Answers a request with an SVID for `path` that lives for so many seconds.
    fn answer(
        &mut self,
        due: &Due,
        path: &str,
        spki: &[u8],
        seconds: u64,
    ) -> (Result<(), AnswerError>, Serial) {
        let (svid, serial) = self.authority.svid(path, spki, seconds);
        let answer = Answer { request_id: due.request_id().into(), svid: vec![svid], denied: String::new() };
        (self.grants.answered(answer, SystemTime::now()), serial)
    }

    /// A device that holds the SVID of one entry, with the SVID's serial.
    fn with_web() -> (Self, Serial) {
        let mut device = Device::new();
        let granted = device.granted(&["web"], &[]);
        device.grants.apply(granted, SystemTime::now());
        let due = device.due();
        let [due] = due.as_slice() else { panic!("one is due") };
        let (taken, serial) = device.answer(due, "/web", &due.key().spki(), 3600);
        taken.unwrap();
        assert!(device.holds_svid("web"));
        (device, serial)
    }

    fn holds_svid(&self, id: &str) -> bool {
        let holding = self.grants.held().borrow();
        holding.workloads.iter().any(|workload| workload.entry.id == id && workload.svid.is_some())
    }
}

#[test]
fn each_entry_is_asked_for_once_until_it_is_due_again() {
    let (mut device, _) = Device::with_web();
    assert!(device.due().is_empty());
    let granted = device.granted(&["web", "api"], &[]);
    device.grants.apply(granted, SystemTime::now());
    let due = device.due();
    assert_eq!(due.iter().map(Due::entry_id).collect::<Vec<_>>(), ["api"]);
    // It is on its way, and asked for again only when the answer is overdue.
    assert!(device.due().is_empty());
    assert_eq!(device.grants.due(SystemTime::now() + Duration::from_secs(20)).unwrap().len(), 1);
}

#[test]
fn an_svid_is_renewed_at_half_of_its_life() {
    let (mut device, _) = Device::with_web();
    let at = |seconds| SystemTime::now() + Duration::from_secs(seconds);
    assert!(device.grants.due(at(1300)).unwrap().is_empty());
    assert_eq!(device.grants.due(at(2300)).unwrap().len(), 1);
    assert!(device.holds_svid("web"), "the old one serves meanwhile");
}

#[test]
fn withdrawal_leaves_nothing() {
    let (mut device, _) = Device::with_web();
    let granted = device.granted(&["web", "api"], &[]);
    device.grants.apply(granted, SystemTime::now());
    let on_its_way = device.due();
    device.grants.withdraw("so".into());
    {
        let holding = device.grants.held().borrow();
        assert_eq!(holding.withdrawn.as_deref(), Some("so"));
        assert!(holding.workloads.is_empty() && holding.device_svid.is_empty() && holding.bundle.is_empty());
    }
    // An answer that crossed the withdrawal brings nothing back.
    let due = on_its_way.first().unwrap();
    device.answer(due, "/api", &due.key().spki(), 3600).0.unwrap();
    assert!(device.due().is_empty() && !device.holds_svid("api"));
}

#[test]
fn what_is_absent_or_revoked_is_dropped() {
    let (mut device, serial) = Device::with_web();
    let same = device.granted(&["web"], &[]);
    device.grants.apply(same, SystemTime::now());
    assert!(device.holds_svid("web"), "nothing changed");
    // Revoked while the device was away: the entry is still granted, the old SVID is not.
    let revoked = device.granted(&["web"], &[serial]);
    device.grants.apply(revoked, SystemTime::now());
    assert!(!device.holds_svid("web"));
    assert_eq!(device.due().len(), 1);

    let (mut device, _) = Device::with_web();
    let without = device.granted(&[], &[]);
    device.grants.apply(without, SystemTime::now());
    assert!(device.grants.held().borrow().workloads.is_empty());
}

#[test]
fn no_workload_gets_an_svid_that_is_not_its_own() {
    let check = |path: &str, own_key: bool, own_authority: bool| {
        let mut device = Device::new();
        let granted = device.granted(&["web"], &[]);
        device.grants.apply(granted, SystemTime::now());
        let due = device.due();
        let due = due.first().unwrap();
        let spki = if own_key { due.key().spki() } else { PrivateKey::generate().unwrap().spki() };
        if !own_authority {
            device.authority = Authority::new();
        }
        let (taken, _) = device.answer(due, path, &spki, 3600);
        assert_eq!(taken.is_ok(), device.holds_svid("web"));
        // A bad answer is not asked for again at once.
        assert!(device.due().is_empty());
        taken.is_ok()
    };
    assert!(check("/web", true, true));
    assert!(!check("/db", true, true));
    assert!(!check("/web", false, true));
    assert!(!check("/web", true, false));
}

#[test]
fn a_denial_is_asked_about_later() {
    let mut device = Device::new();
    let granted = device.granted(&["web"], &[]);
    device.grants.apply(granted, SystemTime::now());
    let due = device.due();
    let request_id = due.first().unwrap().request_id().to_owned();
    let denied = Answer { request_id, denied: "no".into(), svid: Vec::new() };
    device.grants.answered(denied, SystemTime::now()).unwrap();
    assert!(device.due().is_empty());
    assert_eq!(device.grants.due(SystemTime::now() + Duration::from_secs(15)).unwrap().len(), 1);
}

#[test]
fn an_expired_svid_is_taken_out() {
    let (device, _) = Device::with_web();
    let held = device.grants.held();
    held.send_modify(|holding| assert!(!holding.expire(SystemTime::now())));
    held.send_modify(|holding| assert!(holding.expire(SystemTime::now() + Duration::from_secs(4000))));
    assert!(!device.holds_svid("web"));
}

#[test]
fn finding_1_only_the_voice_of_known_authorities_changes_whom_the_device_believes() {
    let (mut device, _) = Device::with_web();
    let now = SystemTime::now();
    let bundle = |device: &Device| device.grants.held().borrow().bundle.clone();
    let before = bundle(&device);
    let mut refused = |signed, announced, why: fn(&TrustError) -> bool| {
        let error = device.grants.announced(&signed, announced, now).unwrap_err();
        assert!(why(&error), "{error:?}");
        assert_eq!(bundle(&device), before);
        assert!(device.holds_svid("web"));
    };
    // A stranger's root with its own list and its own voice.
    let stranger = Authority::new();
    let (signed, announced) = stranger.announced(&[], 9);
    refused(signed, announced, |error| matches!(error, TrustError::Signer(_)));
    // The stranger's root under a signature that was for something else.
    let authority = Authority::new();
    let (signed, _) = authority.announced(&[], 9);
    let (_, announced) = stranger.announced(&[], 9);
    refused(signed, announced, |error| matches!(error, TrustError::Signer(_)));
}

#[test]
fn finding_1_numbers_and_versions_never_go_back() {
    let (mut device, _) = Device::with_web();
    let now = SystemTime::now();
    let (signed, announced) = device.authority.announced(&[], 7);
    let (older, old) = device.authority.announced(&[], 6);
    device.grants.announced(&signed, announced.clone(), now).unwrap();
    let error = device.grants.announced(&older, old, now).unwrap_err();
    assert!(matches!(error, TrustError::Older { found: 6, known: 7, .. }));
    device.grants.announced(&signed, announced, now).unwrap();
    device.grants.note(4).unwrap();
    assert!(matches!(device.grants.note(3), Err(TrustError::Older { .. })));
    assert_eq!((device.grants.remembered().number, device.grants.remembered().state_version), (7, 4));

    // What is signed as one thing is no other, and a revoked voice is none.
    let word = device.authority.signed(b"word");
    device.grants.hear(&word, now).unwrap();
    let as_trust = device.authority.trust(b"word");
    assert!(matches!(device.grants.hear(&as_trust, now), Err(TrustError::NotAmong)));
    let alone = assay_agent::holding::Signed { place: (0, 1), ..as_trust };
    assert!(matches!(device.grants.hear(&alone, now), Err(TrustError::Signature(_))));
    // Of what is signed together each counts as itself, in its own place.
    for place in [(0, 3), (1, 3), (2, 2), (2, 4), (0, 0)] {
        let moved = assay_agent::holding::Signed { place, ..word.clone() };
        assert!(device.grants.hear(&moved, now).is_err(), "{place:?}");
    }
    let other = assay_agent::holding::Signed { statement: b"words".to_vec(), ..word.clone() };
    assert!(matches!(device.grants.hear(&other, now), Err(TrustError::Signature(_))));
    let path_of_a_server =
        device.authority.svid("/assay/server", &PrivateKey::generate().unwrap().spki(), 60).0;
    let of_a_server = assay_agent::holding::Signed { signer: vec![path_of_a_server], ..word };
    assert!(matches!(device.grants.hear(&of_a_server, now), Err(TrustError::NotTheVoice { .. })));
}
