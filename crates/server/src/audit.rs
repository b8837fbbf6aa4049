//! The audit trail as a hash chain: each leaf's hash covers its fields and the hash before it.
//!
//! Pure: what is appended is decided by the store's transactions, where it is kept is `store/audit.rs`. Removing,
//! reordering or editing a leaf breaks the chain at that place; cutting off its tail is noticed by the rows that
//! name a leaf.

use assay_evidence::time::UnixTime;
use assay_identity::ledger::LedgerHead;
use assay_identity::tlog::ENTRY_BYTES_MAX;
use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use serde::Serialize;
use thiserror::Error;

/// SHA-256 over a leaf and everything before it.
pub type Hash = [u8; 32];

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &[Kind] = &[$(Kind::$variant,)*];

            /// Its stable name in the trail.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* }
            }

            /// The kind of this name.
            pub fn from_name(name: &str) -> Option<Kind> {
                match name { $($name => Some(Kind::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A device proved its EK, AK and device key.
    DeviceEnrolled => "device.enrolled",
    /// A device that was never here waits to be admitted.
    DeviceWaiting => "device.waiting",
    /// An operator let a device enroll that was never here.
    DeviceAdmitted => "device.admitted",
    /// An operator keeps a device out that was never here.
    DeviceDenied => "device.denied",
    /// An attestation result that changed something.
    DeviceAppraised => "device.appraised",
    /// A device did not answer for itself while it was attached.
    DeviceUnanswered => "device.unanswered",
    /// Evidence grew stale.
    DeviceExpired => "device.expired",
    /// An operator ended a device.
    DeviceRevoked => "device.revoked",
    /// An operator let a revoked device enroll again.
    DeviceReadmitted => "device.readmitted",
    /// An operator let a device recover.
    DeviceApproved => "device.approved",
    /// An operator gave a device other labels.
    DeviceLabelled => "device.labelled",
    /// An operator gave a device another name.
    DeviceRenamed => "device.renamed",
    /// An operator put a device in another's place.
    DeviceReplaced => "device.replaced",
    /// A certificate is about to be signed.
    SvidIssued => "svid.issued",
    /// A token is about to be signed.
    JwtIssued => "jwt.issued",
    /// What an earlier run of the server had signed for itself ended.
    SvidWithdrawn => "svid.withdrawn",
    /// An operator went on from a database that was set back.
    LedgerResumed => "ledger.resumed",
    /// An operator ended a gateway.
    GatewayRevoked => "gateway.revoked",
    /// A telemetry batch was taken in, and a run of batches began with it.
    TelemetryAccepted => "telemetry.accepted",
    /// A run of batches has ended; its last statement stands for all of them.
    TelemetrySealed => "telemetry.sealed",
    /// Runs of batches are no longer kept.
    TelemetryDropped => "telemetry.dropped",
    /// A key signs telemetry of a device by the JSON protocol.
    TelemetryKeyAdded => "telemetry.key-added",
    /// It does no longer.
    TelemetryKeyRemoved => "telemetry.key-removed",
    /// A policy came into force.
    PolicySet => "policy.set",
    /// A policy is no longer in force for whom it was assigned to.
    PolicyUnassigned => "policy.unassigned",
    /// A policy began to take another's place.
    RolloutStarted => "rollout.started",
    /// More devices are judged by both.
    RolloutWidened => "rollout.widened",
    /// The new policy alone is in force.
    RolloutFinished => "rollout.finished",
    /// The old policy alone is in force again.
    RolloutAborted => "rollout.aborted",
    /// A workload was entitled to an identity.
    EntryCreated => "entry.created",
    /// That entitlement is another.
    EntryUpdated => "entry.updated",
    /// That entitlement ended.
    EntryRemoved => "entry.removed",
    /// What an entry asks of a device holds of it no longer.
    EntryUnmet => "entry.unmet",
    /// A secret was put in.
    SecretPut => "secret.put",
    /// A secret has another content.
    SecretRotated => "secret.rotated",
    /// A secret is for other devices.
    SecretAssigned => "secret.assigned",
    /// A secret is no more, and nobody's.
    SecretRevoked => "secret.revoked",
    /// A secret is about to be released to a device.
    SecretReleased => "secret.released",
    /// Secrets are a device's no longer.
    SecretWithdrawn => "secret.withdrawn",
    /// Another trust domain's bundle is found somewhere from now on.
    FederationSet => "federation.set",
    /// It is not looked for any more.
    FederationEnded => "federation.ended",
    /// Another trust domain is verified with this bundle from now on.
    FederationBundleSet => "federation.bundle-set",
    /// There is no bundle of it any more.
    FederationBundleRemoved => "federation.bundle-removed",
    /// An operator lets whoever shows a token first join.
    JoinTokenCreated => "join-token.created",
    /// A node that does not quote attested, as SPIRE's agents do.
    SpireAgentAttested => "spire-agent.attested",
    /// Such a node did not renew in time.
    SpireAgentExpired => "spire-agent.expired",
    /// An operator ended such a node.
    SpireAgentBanned => "spire-agent.banned",
    /// An operator forgot such a node.
    SpireAgentEvicted => "spire-agent.evicted",
    /// A device is known to Keylime's protocols under a name, or by another AK than before.
    KeylimeAgentBound => "keylime-agent.bound",
    /// It is not any more.
    KeylimeAgentRemoved => "keylime-agent.removed",
    /// An operator added it, with Keylime's tenant.
    KeylimeAgentAdded => "keylime-agent.added",
    /// An operator took it off the list of those.
    KeylimeAgentDropped => "keylime-agent.dropped",
    /// What an operator was known by is worth nothing any more.
    OperatorRevoked => "operator.revoked",
    /// A program, or somebody at a shell, was given a token.
    AccessTokenCreated => "access-token.created",
    /// A token is worth nothing any more.
    AccessTokenRevoked => "access-token.revoked",
    /// Somebody signed in whom the provider vouches for.
    PersonSignedIn => "person.signed-in",
    /// An operator submitted a task.
    TaskSubmitted => "task.submitted",
    /// A device got a task.
    TaskPlaced => "task.placed",
    /// A task was taken from a device.
    TaskWithdrawn => "task.withdrawn",
    /// A device's result of a task was accepted.
    TaskResult => "task.result",
    /// A task was given up, or an operator ended it.
    TaskEnded => "task.ended",
    /// Somebody tried what they may not.
    SecurityRefused => "security.refused",
}

/// What a transaction wants on record; the trail gives it its place.
#[derive(Clone, Debug)]
pub struct Line {
    /// What happened.
    pub kind: Kind,
    /// When, by the server's clock.
    pub at: UnixTime,
    /// Who did it: `server`, `operator`, or a SPIFFE ID.
    pub actor: String,
    /// What it was done to.
    pub subject: String,
    /// The rest, as JSON text; hashed as it is written.
    pub detail: String,
}

/// A line in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its place, from 0.
    pub index: u64,
    /// When, by the server's clock.
    pub at: UnixTime,
    /// What happened.
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// What it was done to.
    pub subject: String,
    /// The rest, as JSON text.
    pub detail: String,
    /// The chain up to here.
    pub hash: Hash,
}

impl Leaf {
    /// What it is in the log: one JSON object. One that is longer than an entry may be leaves out what is long; its hash in the chain covers
    /// that too.
    pub fn entry(&self) -> Vec<u8> {
        let hash = HEXLOWER.encode(&self.hash);
        let text = |entry: &Entry<'_>| serde_json::to_vec(entry).expect("numbers and texts are JSON");
        let brief = Entry {
            index: self.index,
            at: self.at.0,
            kind: self.kind.get(..KIND_BYTES_MAX).unwrap_or(&self.kind),
            actor: None,
            subject: None,
            detail: None,
            hash: &hash,
        };
        let whole = text(&Entry {
            actor: Some(&self.actor),
            subject: Some(&self.subject),
            detail: Some(&self.detail),
            ..brief
        });
        if whole.len() <= ENTRY_BYTES_MAX { whole } else { text(&brief) }
    }
}

/// A leaf as the log has it; the order of its members is part of the format.
#[derive(Clone, Copy, Serialize)]
struct Entry<'a> {
    index: u64,
    at: u64,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    hash: &'a str,
}

/// The end of a chain: how many leaves it has and the last one's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Leaves so far, and so the next leaf's index.
    pub leaves: u64,
    /// The last leaf's hash, zero before the first.
    pub hash: Hash,
}

impl Head {
    /// A chain without leaves.
    pub const EMPTY: Head = Head { leaves: 0, hash: [0; 32] };

    /// Appends a line and moves on.
    pub fn append(&mut self, line: Line) -> Leaf {
        let mut leaf = Leaf {
            index: self.leaves,
            at: line.at,
            kind: line.kind.name().to_owned(),
            actor: line.actor,
            subject: line.subject,
            detail: line.detail,
            hash: [0; 32],
        };
        leaf.hash = leaf_hash(&self.hash, &leaf);
        *self = Head { leaves: self.leaves.saturating_add(1), hash: leaf.hash };
        leaf
    }

    /// The head as a note's text.
    pub fn to_text(&self) -> String {
        LedgerHead { leaves: self.leaves, hash: self.hash }.to_text()
    }

    /// Reads such a text.
    pub fn from_text(text: &str) -> Option<Head> {
        LedgerHead::from_text(text).map(|LedgerHead { leaves, hash }| Head { leaves, hash })
    }

    /// The head after `leaf`, if it is what comes next.
    pub fn follow(&self, leaf: &Leaf) -> Result<Head, ChainError> {
        if leaf.index != self.leaves {
            return Err(ChainError::Missing { expected: self.leaves, found: leaf.index });
        }
        if leaf.hash != leaf_hash(&self.hash, leaf) {
            return Err(ChainError::Altered { index: leaf.index });
        }
        Ok(Head { leaves: self.leaves.saturating_add(1), hash: leaf.hash })
    }
}

/// Checks a whole chain from its first leaf and returns where it ends.
pub fn verify_chain<'a>(leaves: impl IntoIterator<Item = &'a Leaf>) -> Result<Head, ChainError> {
    leaves.into_iter().try_fold(Head::EMPTY, |head, leaf| head.follow(leaf))
}

/// Where a trail is no longer what was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    /// A leaf is not there.
    #[error("leaf {expected} is missing: the next one present is {found}")]
    Missing {
        /// The index that should come next.
        expected: u64,
        /// The index that does.
        found: u64,
    },
    /// A leaf, or one before it, was changed.
    #[error("leaf {index} does not hash to what was recorded: it was altered")]
    Altered {
        /// The first leaf that does not fit.
        index: u64,
    },
}

/// Each field is preceded by its length, so no two different leaves hash the same bytes.
fn leaf_hash(previous: &Hash, leaf: &Leaf) -> Hash {
    let mut context = Context::new(&SHA256);
    let index = leaf.index.to_be_bytes();
    let at = leaf.at.0.to_be_bytes();
    let texts = [&leaf.kind, &leaf.actor, &leaf.subject, &leaf.detail].map(|text| text.as_bytes());
    for field in [DOMAIN, previous, &index, &at].into_iter().chain(texts) {
        context.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(field);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Longer than the name of any kind.
const KIND_BYTES_MAX: usize = 64;
/// Keeps a leaf hash from being a hash of anything else.
const DOMAIN: &[u8] = b"assay-audit-leaf-v1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(lines: &[(u64, String, String)]) -> Vec<Leaf> {
        let mut head = Head::EMPTY;
        lines
            .iter()
            .map(|(at, subject, detail)| {
                head.append(Line {
                    kind: Kind::DeviceAppraised,
                    at: UnixTime(*at),
                    actor: "server".to_owned(),
                    subject: subject.clone(),
                    detail: detail.clone(),
                })
            })
            .collect()
    }

    fn lines() -> impl Strategy<Value = Vec<(u64, String, String)>> {
        prop::collection::vec((any::<u64>(), ".{0,12}", ".{0,24}"), 1..20)
    }

    proptest! {
        #[test]
        fn what_was_appended_verifies(lines in lines()) {
            let leaves = chain(&lines);
            let head = verify_chain(&leaves).unwrap();
            prop_assert_eq!(head.leaves, lines.len() as u64);
            prop_assert_eq!(head.hash, leaves.last().unwrap().hash);
        }

        #[test]
        fn any_change_is_found_at_its_place(lines in lines(), place in any::<prop::sample::Index>(), field in 0..5) {
            let mut leaves = chain(&lines);
            let place = place.index(leaves.len());
            let leaf = &mut leaves[place];
            match field {
                0 => leaf.at = UnixTime(leaf.at.0 ^ 1),
                1 => leaf.subject.push('x'),
                2 => leaf.detail.push('x'),
                3 => leaf.kind.push('x'),
                _ => leaf.hash[7] ^= 1,
            }
            prop_assert_eq!(verify_chain(&leaves), Err(ChainError::Altered { index: place as u64 }));
        }

        #[test]
        fn a_missing_leaf_is_found(lines in lines(), place in any::<prop::sample::Index>()) {
            let mut leaves = chain(&lines);
            let place = place.index(leaves.len());
            leaves.remove(place);
            let expected = place as u64;
            match leaves.get(place) {
                Some(_) => prop_assert_eq!(
                    verify_chain(&leaves), Err(ChainError::Missing { expected, found: expected + 1 })
                ),
                // The tail is gone: the chain alone cannot know, its head says so.
                None => prop_assert_eq!(verify_chain(&leaves).unwrap().leaves, expected),
            }
        }
    }

    #[test]
    fn an_entry_says_all_of_a_leaf_or_names_what_is_too_long() {
        let short = chain(&[(7, "spiffe://a/b".to_owned(), "{\"reason\":\"x\"}".to_owned())]).remove(0);
        let text = format!(
            "{{\"index\":0,\"at\":7,\"kind\":\"device.appraised\",\"actor\":\"server\",\"subject\":\"spiffe://a/b\",\
             \"detail\":\"{{\\\"reason\\\":\\\"x\\\"}}\",\"hash\":\"{}\"}}",
            HEXLOWER.encode(&short.hash)
        );
        assert_eq!(String::from_utf8(short.entry()).unwrap(), text);
        let long = chain(&[(7, "a".to_owned(), "\n".repeat(40_000))]).remove(0);
        let entry: serde_json::Value = serde_json::from_slice(&long.entry()).unwrap();
        assert_eq!(
            (&entry["hash"], entry.get("detail")),
            (&serde_json::json!(HEXLOWER.encode(&long.hash)), None)
        );
    }

    #[test]
    fn moving_bytes_between_fields_changes_the_hash() {
        let one = chain(&[(1, "ab".to_owned(), "c".to_owned())]);
        let other = chain(&[(1, "a".to_owned(), "bc".to_owned())]);
        assert_ne!(one[0].hash, other[0].hash);
    }
}
