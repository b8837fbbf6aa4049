//! Conditions of entries: the selectors that are true of a device only while its last verified quote says so.
//!
//! Only verified claims make them hold. What holds is part of the trust state, and falls with it: a quote that says
//! otherwise, or no longer, takes it away.

use std::collections::BTreeSet;

use assay_evidence::ima::Entry;
use assay_evidence::verify::Claims;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use assay_identity::Selector;
use assay_identity::selector::tpm::{PcrValue, Tpm};
use assay_identity::selector::{Sha256, ima::Ima};
use serde::{Deserialize, Serialize};

/// What entries ask of a device.
pub type Conditions = BTreeSet<Selector>;

/// The conditions that held at the last quote, of those that were looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holding(BTreeSet<Selector>);

/// What of this boot's IMA list was looked for, and what of it is there. A list is read once: what comes later is
/// searched alone, as long as the same was looked for before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    wanted: BTreeSet<Sha256>,
    found: BTreeSet<Sha256>,
}

impl Holding {
    /// Those of the conditions that verified evidence fulfils, given what its whole list was searched for.
    pub fn of(claims: &Claims, conditions: &Conditions, searched: &Searched) -> Holding {
        let holds = |condition: &&Selector| match condition {
            Selector::Tpm(Tpm::Pcr { index, value }) => has_value(claims, *index, value),
            Selector::Ima(Ima::Sha256(hash)) => searched.found.contains(hash),
            // The hash of the EK is in the device's name, and everything else is the agent's to say.
            Selector::Tpm(Tpm::PubHash(_))
            | Selector::Unix(_)
            | Selector::Systemd(_)
            | Selector::Docker(_)
            | Selector::K8s(_)
            | Selector::Node(_) => false,
        };
        Holding(conditions.iter().filter(holds).cloned().collect())
    }

    /// Whether a condition held.
    pub fn has(&self, condition: &Selector) -> bool {
        self.0.contains(condition)
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Searched {
    /// Whether everything was looked for that these conditions ask of the list.
    pub fn covers(&self, conditions: &Conditions) -> bool {
        hashes(conditions).all(|hash| self.wanted.contains(hash))
    }

    /// After these claims, whose list goes on where the last one ended or begins with the boot.
    #[must_use]
    pub fn go_on(&self, claims: &Claims, conditions: &Conditions) -> Searched {
        let before = match claims.ima() {
            Some(ima) if ima.first_index() > 0 => self.clone(),
            _ => Searched { wanted: hashes(conditions).copied().collect(), found: BTreeSet::new() },
        };
        let Searched { wanted, mut found } = before;
        let entries = claims.ima().into_iter().flat_map(|ima| ima.entries());
        let is_a_file =
            |entry: &Entry<'_>| !wanted.is_empty() && !entry.is_violation() && entry.buffer().is_empty();
        let digests = entries.filter(is_a_file).filter_map(|entry| entry.file_digest());
        found.extend(digests.filter_map(|digest| sha256(&digest)).filter(|hash| wanted.contains(hash)));
        Searched { wanted, found }
    }
}

/// The PCRs that conditions look at beside what a policy does; for what the IMA list says, the one that it is kept in.
pub fn pcrs(conditions: &Conditions) -> BTreeSet<(HashAlgorithm, PcrIndex)> {
    let pcr = |condition: &Selector| match condition {
        Selector::Tpm(Tpm::Pcr { index, value }) => Some((bank(value)?, PcrIndex::new(u32::from(*index))?)),
        Selector::Ima(_) => Some((HashAlgorithm::Sha256, PcrIndex::IMA)),
        Selector::Tpm(Tpm::PubHash(_))
        | Selector::Unix(_)
        | Selector::Systemd(_)
        | Selector::Docker(_)
        | Selector::K8s(_)
        | Selector::Node(_) => None,
    };
    conditions.iter().filter_map(pcr).collect()
}

fn has_value(claims: &Claims, index: u8, value: &PcrValue) -> bool {
    let quoted = bank(value)
        .zip(PcrIndex::new(u32::from(index)))
        .and_then(|(bank, index)| claims.pcrs().get(bank, index));
    quoted.is_some_and(|quoted| quoted.as_bytes() == value.as_bytes())
}

/// The bank whose values are as long.
fn bank(value: &PcrValue) -> Option<HashAlgorithm> {
    HashAlgorithm::ALL.into_iter().find(|bank| bank.len() == value.as_bytes().len())
}

fn hashes(conditions: &Conditions) -> impl Iterator<Item = &Sha256> {
    conditions.iter().filter_map(|condition| match condition {
        Selector::Ima(Ima::Sha256(hash)) => Some(hash),
        Selector::Tpm(_)
        | Selector::Unix(_)
        | Selector::Systemd(_)
        | Selector::Docker(_)
        | Selector::K8s(_)
        | Selector::Node(_) => None,
    })
}

fn sha256(digest: &Digest) -> Option<Sha256> {
    <[u8; 32]>::try_from(digest.as_bytes()).ok().map(Sha256::from)
}
