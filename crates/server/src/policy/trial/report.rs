//! What a trial found, added up: which devices would change tier, and for which causes.

use std::collections::{BTreeMap, BTreeSet};

use assay_evidence::time::UnixTime;
use assay_trust::labels::Selector;
use assay_trust::policy::Coverage;
use assay_trust::{CompiledPolicy, Finding, Tier};

use super::Scope;
use super::batch::Tried;

/// The sums so far.
#[derive(Debug)]
pub(super) struct Tally {
    devices: BTreeMap<String, Device>,
    causes: BTreeMap<Shape, Counted>,
    results: u64,
    unreadable: u64,
    without_evidence: usize,
}

/// What happens to one device.
#[derive(Debug, Default)]
struct Device {
    name: String,
    now: Option<Change>,
    /// The first recorded result that would have been a fall.
    past: Option<Change>,
}

/// What makes findings of many devices one cause: the check, what it is about, and the sentence without digests.
type Shape = (&'static str, String, String);

#[derive(Debug)]
struct Counted {
    finding: Finding,
    devices: BTreeSet<String>,
    results: u64,
}

/// One change of tier.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// What people call the device.
    pub device: String,
    /// Its SPIFFE ID.
    pub id: String,
    /// What its tier is.
    pub from: Tier,
    /// What it would be.
    pub to: Tier,
    /// When the evidence was judged.
    pub at: UnixTime,
    /// The recorded result, where it is one.
    pub result: Option<u64>,
    /// Whether it is how the device would stand now, and not only how it would have stood.
    pub now: bool,
    /// Why.
    pub reason: String,
}

/// What a trial says.
#[derive(Debug)]
pub(crate) struct Report {
    /// The policy's name.
    pub name: String,
    /// The version that it would be.
    pub version: u64,
    /// What the policy covers of a device, and what not.
    pub coverage: Coverage,
    /// From when on recorded results were judged, beside each device's last evidence.
    pub since: Option<UnixTime>,
    /// Whom the policy would be for.
    pub selector: Selector,
    /// What would become of them.
    pub devices: Devices,
    /// Pieces of evidence that were judged.
    pub judged: u64,
    /// Pieces that cannot be judged again.
    pub unreadable: u64,
    /// Falls first.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub changes_left_off: u64,
    /// The most frequent first.
    pub causes: Vec<Cause>,
    /// How many more there are.
    pub causes_left_off: u64,
}

/// Each device counts once, for the first of these that it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Devices {
    pub would_fall: u64,
    pub would_have_fallen: u64,
    pub would_rise: u64,
    pub otherwise_changed: u64,
    pub unchanged: u64,
    pub without_evidence: u64,
}

/// Why devices would fall.
#[derive(Debug)]
pub(crate) struct Cause {
    /// As it was made of the first of them.
    pub finding: Finding,
    /// How many devices.
    pub devices: u64,
    /// How many pieces of evidence.
    pub results: u64,
    /// Some of the devices.
    pub examples: Vec<String>,
}

impl Tally {
    pub(super) fn new(without_evidence: usize) -> Tally {
        Tally {
            devices: BTreeMap::new(),
            causes: BTreeMap::new(),
            results: 0,
            unreadable: 0,
            without_evidence,
        }
    }

    /// Adds what became of one piece of evidence.
    pub(super) fn add(&mut self, outcome: Tried) {
        let Tried { tried, result } = outcome;
        let Some(result) = result else {
            self.unreadable += 1;
            return;
        };
        self.results += 1;
        let (id, name) = (tried.record.device_id.clone(), tried.device_name.clone());
        let change = Change {
            device: name.clone(),
            id: id.clone(),
            from: tried.before(),
            to: result.tier(),
            at: tried.record.judged.at,
            result: tried.record.leaf,
            now: tried.is_last,
            reason: result.reason().to_owned(),
        };
        if change.is_fall() {
            self.add_causes(&name, result.findings());
        }
        let device = self.devices.entry(id).or_default();
        device.name = name;
        if tried.is_last {
            device.now = Some(change);
        } else if change.is_fall() && device.past.is_none() {
            device.past = Some(change);
        }
    }

    fn add_causes(&mut self, device: &str, findings: &[Finding]) {
        let mut counted = BTreeSet::new();
        for finding in findings.iter().filter(|finding| finding.tier > Tier::Affirming).take(FINDINGS_MAX) {
            let shape = (finding.check.name(), finding.claim.clone(), without_digests(&finding.message));
            if !counted.insert(shape.clone()) {
                continue;
            }
            if self.causes.len() >= CAUSES_COUNTED_MAX && !self.causes.contains_key(&shape) {
                continue;
            }
            let first = || Counted { finding: finding.clone(), devices: BTreeSet::new(), results: 0 };
            let cause = self.causes.entry(shape).or_insert_with(first);
            cause.devices.insert(device.to_owned());
            cause.results += 1;
        }
    }

    /// The report, the worst first and what is too much left off.
    pub(super) fn report(self, policy: &CompiledPolicy, scope: &Scope) -> Report {
        let mut devices = Devices { without_evidence: number(self.without_evidence), ..Devices::default() };
        let mut changes: Vec<Change> = Vec::new();
        for device in self.devices.into_values() {
            let changed = device.now.filter(|now| now.from != now.to);
            match (&changed, &device.past) {
                (Some(now), _) if now.is_fall() => devices.would_fall += 1,
                (_, Some(_)) => devices.would_have_fallen += 1,
                (Some(now), None) if now.to == Tier::Affirming => devices.would_rise += 1,
                (Some(_), None) => devices.otherwise_changed += 1,
                (None, None) => devices.unchanged += 1,
            }
            changes.extend(changed.into_iter().chain(device.past));
        }
        changes.sort_by_key(|change| (!change.is_fall(), !change.now, std::cmp::Reverse(change.to)));
        let mut causes: Vec<Counted> = self.causes.into_values().collect();
        causes.sort_by_key(|cause| std::cmp::Reverse((cause.devices.len(), cause.results)));
        Report {
            name: policy.name().to_owned(),
            version: policy.version(),
            coverage: policy.coverage().clone(),
            since: scope.since,
            selector: scope.selector.clone(),
            devices,
            judged: self.results,
            unreadable: self.unreadable,
            changes_left_off: number(changes.len().saturating_sub(CHANGES_TOLD_MAX)),
            causes_left_off: number(causes.len().saturating_sub(CAUSES_TOLD_MAX)),
            changes: changes.into_iter().take(CHANGES_TOLD_MAX).collect(),
            causes: causes.into_iter().take(CAUSES_TOLD_MAX).map(Cause::of).collect(),
        }
    }
}

impl Change {
    /// Whether trust would be lost.
    fn is_fall(&self) -> bool {
        self.from == Tier::Affirming && self.to != Tier::Affirming
    }
}

impl Cause {
    fn of(counted: Counted) -> Cause {
        Cause {
            finding: counted.finding,
            devices: number(counted.devices.len()),
            results: counted.results,
            examples: counted.devices.into_iter().take(EXAMPLES_MAX).collect(),
        }
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A sentence in which every digest is an ellipsis: it is the same one on every device.
fn without_digests(message: &str) -> String {
    let mut shape = String::with_capacity(message.len());
    let mut run = String::new();
    for c in message.chars().chain(std::iter::once(' ')) {
        if c.is_ascii_hexdigit() {
            run.push(c);
            continue;
        }
        shape.push_str(if run.len() >= DIGEST_DIGITS_MIN { "…" } else { &run });
        run.clear();
        shape.push(c);
    }
    shape
}

/// Findings of one piece of evidence.
const FINDINGS_MAX: usize = 1000;
/// Causes kept apart; what comes later is in the counts of devices all the same.
const CAUSES_COUNTED_MAX: usize = 10_000;
const CAUSES_TOLD_MAX: usize = 100;
const CHANGES_TOLD_MAX: usize = 1000;
const EXAMPLES_MAX: usize = 10;
/// The shortest digest anyone writes in full is longer.
const DIGEST_DIGITS_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::without_digests;

    #[test]
    fn digests_make_no_two_causes_of_one() {
        let of = |digest: &str| without_digests(&format!("/usr/bin/feed (sha256:{digest}) is not known"));
        assert_eq!(of(&"ab".repeat(32)), of(&"0c".repeat(32)));
        assert_eq!(of(&"ab".repeat(32)), "/usr/bin/feed (sha256:…) is not known ");
        assert_ne!(without_digests("kernel 6.1.0-55"), without_digests("kernel 6.1.0-56"));
    }
}
