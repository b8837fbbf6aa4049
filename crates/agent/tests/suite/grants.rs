//! What a device does with what it is granted: asks once, hands out only what verifies, drops all when told to.

use std::time::{Duration, SystemTime};

use assay_agent::holding::{Answer, AnswerError, Due, Entry, Granted, Grants, Holding};
use assay_identity::tls::{Trust, TrustSource};
use assay_identity::{CrlSet, PrivateKey, Serial};
use tokio::sync::watch;

use crate::authority::{Authority, trust_domain};

struct Device {
    authority: Authority,
    grants: Grants,
}

impl Device {
    fn new() -> Self {
        let authority = Authority::new();
        let trust = TrustSource::new(Trust { bundle: authority.bundle(), crls: CrlSet::default() });
        let (held, _) = watch::channel(Holding::default());
        Device { grants: Grants::new(held, trust, trust_domain()), authority }
    }

    fn granted(&self, entries: &[&str], revoked: &[Serial]) -> Granted {
        let entry = |id: &&str| Entry {
            id: (*id).into(),
            spiffe_id: format!("spiffe://example.org/{id}"),
            ..Entry::default()
        };
        Granted {
            bundle: self.authority.bundle().to_der(),
            crl: self.authority.crl(revoked, 1),
            entries: entries.iter().map(entry).collect(),
            ..Granted::default()
        }
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
        device.grants.apply(granted, SystemTime::now()).unwrap();
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
    device.grants.apply(granted, SystemTime::now()).unwrap();
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
    device.grants.apply(granted, SystemTime::now()).unwrap();
    let on_its_way = device.due();
    device.grants.withdraw("so".into(), Vec::new());
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
    device.grants.apply(same, SystemTime::now()).unwrap();
    assert!(device.holds_svid("web"), "nothing changed");
    // Revoked while the device was away: the entry is still granted, the old SVID is not.
    let revoked = device.granted(&["web"], &[serial]);
    device.grants.apply(revoked, SystemTime::now()).unwrap();
    assert!(!device.holds_svid("web"));
    assert_eq!(device.due().len(), 1);

    let (mut device, _) = Device::with_web();
    let without = device.granted(&[], &[]);
    device.grants.apply(without, SystemTime::now()).unwrap();
    assert!(device.grants.held().borrow().workloads.is_empty());
}

#[test]
fn no_workload_gets_an_svid_that_is_not_its_own() {
    let check = |path: &str, own_key: bool, own_authority: bool| {
        let mut device = Device::new();
        let granted = device.granted(&["web"], &[]);
        device.grants.apply(granted, SystemTime::now()).unwrap();
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
    device.grants.apply(granted, SystemTime::now()).unwrap();
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
