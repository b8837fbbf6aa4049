//! Devices: how each stands and why, and what an operator can say of one.

use std::collections::BTreeMap;

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A page of devices, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Those on this page.
    pub devices: Vec<Device>,
    /// Where the next page begins; nothing: this was the last.
    pub next: Option<String>,
}

/// A device as it stands. Of one whose record cannot be read, id, name, `status` and `reason` alone mean something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its SPIFFE ID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What programs of the trust API number it by.
    pub node: Option<u32>,
    /// `pending`, `enrolled`, `trusted`, `suspect`, `expired`, `revoked`, or `unreadable`.
    pub status: String,
    /// What its last result came to: `none`, `affirming`, `warning` or `contraindicated`.
    pub tier: String,
    /// Since when it has this status.
    pub since: Option<UnixTime>,
    /// When its last evidence was judged.
    pub evidence_at: Option<UnixTime>,
    /// Until when that counts.
    pub valid_until: Option<UnixTime>,
    /// The policy that judged it, name and version.
    pub policy: Option<String>,
    /// The policy that would judge it now.
    pub policy_in_force: Option<String>,
    /// What operators say of it.
    pub labels: BTreeMap<String, String>,
    /// How often its TPM was reset, as it says itself.
    pub reset_count: Option<u32>,
    /// Why it is what it is.
    pub reason: String,
    /// Whether it rises only once an operator approves.
    pub awaiting_approval: bool,
    /// Whether it has a stream to this server.
    pub attached: bool,
    /// How far its clock is before ours.
    pub clock_offset_seconds: Option<i64>,
    /// What is to be said of that, if anything is.
    pub clock: Option<String>,
    /// How many certificates of it and its workloads stand.
    pub svids: u64,
    /// When its keys were last bound.
    pub enrolled_at: Option<UnixTime>,
    /// What its agent calls itself.
    pub agent_version: String,
}

/// A device and what made it so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// It.
    pub device: Device,
    /// Who vouches for its TPM.
    pub endorsement: Endorsement,
    /// The place of its last result in the trail.
    pub result: Option<u64>,
    /// What that result found, the gravest first.
    pub findings: Vec<Finding>,
    /// The newest certificates of it and its workloads.
    pub grants: Vec<Grant>,
    /// What happened to it last, newest first.
    pub events: Vec<Event>,
    /// What its evidence says differently since it was last good, where that was asked for and is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
}

/// Who vouches for a TPM now, and why nobody does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// SHA-256 of the EK's public area, in hex.
    pub ek_sha256: String,
    /// The EK's certificate, where one holds.
    pub certificate: Option<EkCertificate>,
    /// The machine's identity, where its certificates hold.
    pub identity: Option<Identity>,
    /// Why something does not.
    pub failures: Vec<String>,
}

/// An EK certificate that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EkCertificate {
    /// Who issued it.
    pub issuer: String,
    /// Who made the TPM, as the certificate says.
    pub manufacturer: Option<String>,
    /// When the first certificate of its chain ends.
    pub valid_until: UnixTime,
}

/// An IDevID and an IAK whose certificates hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The machine's serial number.
    pub serial: String,
    /// Who issued the certificates.
    pub issuer: String,
    /// SHA-256 of the IAK's, in hex.
    pub iak_certificate_sha256: String,
    /// SHA-256 of the IDevID's, in hex.
    pub idevid_certificate_sha256: String,
    /// When the first certificate of the chains ends.
    pub valid_until: UnixTime,
}

/// One thing that appraisal says of one claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check that it comes from.
    pub check: String,
    /// What it means for the result: a tier.
    pub tier: String,
    /// What it is about: a file, a PCR, an event.
    pub claim: String,
    /// What the policy or the specification wants.
    pub expected: String,
    /// What was there.
    pub found: String,
    /// A sentence to act on.
    pub message: String,
    /// What an approval sends back so that a policy lists it, as the policy has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Value>,
}

/// A certificate that was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub spiffe_id: String,
    /// Its serial number, in hex.
    pub serial: String,
    /// The entry that entitled to it; nothing: it is the device's own.
    pub entry: Option<String>,
    /// When.
    pub issued_at: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
    /// When it was taken back.
    pub withdrawn_at: Option<UnixTime>,
}

/// A leaf of the trail that changed a device's fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place.
    pub leaf: u64,
    /// When.
    pub at: UnixTime,
    /// What kind.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// Whose fate.
    pub device: String,
    /// What happened, as a sentence.
    pub detail: String,
    /// And as it is in the trail.
    pub event: Value,
}

/// Something that evidence says differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What kind of change it is, as a stable word.
    pub cause: String,
    /// The PCRs that changed because of it.
    pub pcrs: Vec<u32>,
    /// What it was before, where that can be said in a word or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Some of what is concerned, by name: files, events, keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
    /// How many there are in all.
    pub count: u64,
    /// What changed, as a sentence to act on.
    pub message: String,
}

/// The results on record of a device, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Its SPIFFE ID.
    pub device: String,
    /// They.
    pub results: Vec<Appraised>,
}

/// A result on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appraised {
    /// Its place in the trail.
    pub id: u64,
    /// When.
    pub at: UnixTime,
    /// What it came to.
    pub tier: String,
    /// By which policy, name and version; empty: there was none.
    pub policy: String,
    /// What it found.
    pub findings: Vec<Finding>,
    /// Whether it can be judged again.
    pub evidence_kept: bool,
}

/// The last result as a signed token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ear {
    /// The EAR, a JWT.
    pub ear: String,
}

/// What is to be said of a device, and no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLabels {
    /// `key=value`, each.
    #[serde(default)]
    pub set: Vec<String>,
    /// Keys.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Whether the device may fall of it.
    #[serde(default)]
    pub force: bool,
}

/// What a device is to be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// It.
    pub name: String,
}

/// Which device comes in another's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// As the path names devices.
    pub by: String,
    /// Whether the new one may fall of it.
    #[serde(default)]
    pub force: bool,
}

/// The device that came in another's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// How it stands.
    #[serde(flatten)]
    pub now: Explanation,
    /// Which it replaces.
    pub replaced: Replaced,
    /// How many entries it took over.
    pub entries: u64,
}

/// A device that was replaced: it is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Its SPIFFE ID.
    pub id: String,
    /// What it is called now.
    pub name: String,
}

/// What an operator accepts of one result, and nothing that came after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The result that was looked at: its place in the trail.
    pub result: u64,
    /// The files; without anything the device alone is taken back.
    #[serde(default)]
    pub files: Vec<File>,
    /// Of the boot, as findings offer it.
    #[serde(default)]
    pub boot: Vec<Value>,
}

/// A file as a finding names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What the finding is about.
    pub path: String,
    /// What it says was measured.
    pub digest: String,
}

/// What an approval did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// The policy in force for the device now, if there is one.
    pub policy: Option<super::policy::Citation>,
    /// The files that are accepted.
    pub approved: Vec<File>,
    /// And what of the boot is.
    pub boot: Vec<Value>,
}
