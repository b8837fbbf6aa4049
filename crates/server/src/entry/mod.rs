//! Registration entries: what an operator entitles workloads to, changes, and takes back.

mod which;

use std::collections::HashSet;

use assay_evidence::time::UnixTime;
use assay_identity::selector::tpm::Tpm;
use assay_identity::selector::{self, NeverMatches, SetError, Written};
use assay_identity::{Selector, SpiffeId, TrustDomain};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use thiserror::Error;

use crate::actor::Actor;
use crate::keys::{KeysError, random};
use crate::outcome::{Kind, Outcome};
use crate::store::{
    Applied, ApplyEntries, CreateEntry, EntryRecord, RemoveEntry, Store, StoreError, UpdateEntry, Updated,
    Withdrawn,
};
pub(crate) use which::Which;

/// What an operator asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEntry {
    spiffe_id: SpiffeId,
    parent: SpiffeId,
    selectors: Vec<Written>,
    #[serde(default = "ttl_default")]
    ttl_seconds: u64,
    #[serde(default)]
    dns_names: Vec<String>,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    speaks_for_node: bool,
    /// Of an entry that is there: the revision that this one follows; 0: whichever there is.
    #[serde(default)]
    revision: u64,
}

/// Entitles a workload.
pub(crate) async fn create(
    store: &Store,
    trust_domain: &TrustDomain,
    new: NewEntry,
    by: Actor,
    now: UnixTime,
) -> Result<EntryRecord, EntryError> {
    let entry = new.record(trust_domain, now)?;
    let create = CreateEntry { entry: entry.clone(), actor: by.name().to_owned() };
    if let Some(id) = store.commit_and_follow(create).await? {
        return Err(EntryError::Exists { id });
    }
    tracing::info!(entry = entry.id, spiffe_id = entry.spiffe_id, parent = entry.parent, "entry created");
    Ok(entry)
}

/// Changes what a workload is entitled to; what it was given under another name is on the revocation list when this returns.
pub(crate) async fn update(
    store: &Store,
    trust_domain: &TrustDomain,
    (id, new): (String, NewEntry),
    by: Actor,
    now: UnixTime,
) -> Result<EntryRecord, EntryError> {
    let entry = EntryRecord { id, revision: new.revision, ..new.record(trust_domain, now)? };
    let update = UpdateEntry { entry, at: now, actor: by.name().to_owned() };
    match store.commit_and_follow(update).await? {
        Updated::To(entry, withdrawn) => {
            tracing::info!(
                entry = entry.id,
                spiffe_id = entry.spiffe_id,
                revision = entry.revision,
                svids = withdrawn.serials.len(),
                "entry updated"
            );
            Ok(entry)
        }
        Updated::Exists(id) => Err(EntryError::Exists { id }),
    }
}

/// Makes entries what a list says, all or none; those that are not in it stay as they are.
pub(crate) async fn apply(
    store: &Store,
    trust_domain: &TrustDomain,
    list: Vec<NewEntry>,
    by: Actor,
    now: UnixTime,
) -> Result<Vec<Applied>, EntryError> {
    if list.len() > APPLIED_MAX {
        return Err(EntryError::TooMany);
    }
    let mut entries = Vec::with_capacity(list.len());
    let mut said = HashSet::new();
    for (index, new) in list.into_iter().enumerate() {
        let at = |error| EntryError::InList { index, error: Box::new(error) };
        let entry = new.record(trust_domain, now).map_err(at)?;
        if !said.insert((entry.spiffe_id.clone(), entry.parent.clone(), entry.selectors.clone())) {
            return Err(at(EntryError::Twice));
        }
        entries.push(entry);
    }
    let apply = ApplyEntries { entries, at: now, actor: by.name().to_owned() };
    let applied = store.commit_and_follow(apply).await?;
    let count = |is: fn(&Applied) -> bool| applied.iter().filter(|one| is(one)).count();
    tracing::info!(
        created = count(|one| matches!(one, Applied::Created(_))),
        updated = count(|one| matches!(one, Applied::Updated(_))),
        unchanged = count(|one| matches!(one, Applied::Unchanged(_))),
        "entries applied"
    );
    Ok(applied)
}

/// Ends an entitlement; what it gave is on the revocation list when this returns.
pub(crate) async fn remove(
    store: &Store,
    id: &str,
    by: Actor,
    now: UnixTime,
) -> Result<Withdrawn, EntryError> {
    let remove = RemoveEntry { id: id.to_owned(), at: now, actor: by.name().to_owned() };
    let withdrawn = store.commit_and_follow(remove).await?;
    tracing::info!(entry = id, svids = withdrawn.serials.len(), "entry removed");
    Ok(withdrawn)
}

impl NewEntry {
    /// As it is stored, under an id of its own.
    fn record(self, trust_domain: &TrustDomain, now: UnixTime) -> Result<EntryRecord, EntryError> {
        let selectors = self.check(trust_domain)?;
        Ok(EntryRecord {
            id: HEXLOWER.encode(&random::<16>()?),
            spiffe_id: self.spiffe_id.to_string(),
            parent: self.parent.to_string(),
            selectors,
            ttl_seconds: self.ttl_seconds,
            dns_names: self.dns_names,
            hint: self.hint,
            speaks_for_node: self.speaks_for_node,
            created_at: now,
            revision: 1,
        })
    }

    /// Refuses what gives nobody anything, or more than an entry may; its selectors.
    fn check(&self, trust_domain: &TrustDomain) -> Result<Vec<Selector>, EntryError> {
        let of_ours = |id: &SpiffeId| id.trust_domain() == trust_domain;
        if self.parent.device_hex().is_none() || !of_ours(&self.parent) {
            return Err(EntryError::Parent);
        }
        let reserved = ["/assay/", "/spire/"].iter().any(|prefix| self.spiffe_id.path().starts_with(prefix));
        if reserved || self.spiffe_id.path().is_empty() || !of_ours(&self.spiffe_id) {
            return Err(EntryError::SpiffeId);
        }
        let read = self.selectors.iter().cloned().map(Selector::try_from);
        let mut selectors = read.collect::<Result<Vec<_>, _>>().map_err(EntryError::NeverMatches)?;
        selectors.sort();
        selectors.dedup();
        selector::check_all(&selectors).map_err(EntryError::Selectors)?;
        self.check_tpm(&selectors).map_err(EntryError::NeverMatches)?;
        if self.dns_names.len() > DNS_NAMES_MAX {
            return Err(EntryError::DnsNames);
        }
        if let Some(name) = self.dns_names.iter().find(|name| !is_dns_name(name)) {
            return Err(EntryError::DnsName { name: name.chars().take(NAME_CHARACTERS_SHOWN).collect() });
        }
        if self.ttl_seconds < TTL_SECONDS_MIN || self.ttl_seconds > TTL_SECONDS_MAX {
            return Err(EntryError::Ttl);
        }
        if self.hint.len() > TEXT_BYTES_MAX { Err(EntryError::Hint) } else { Ok(selectors) }
    }
}

impl NewEntry {
    /// The TPM is the parent's, and no other.
    fn check_tpm(&self, selectors: &[Selector]) -> Result<(), NeverMatches> {
        let own = self.parent.device_hex().unwrap_or_default();
        let is_others =
            |one: &&Selector| matches!(one, Selector::Tpm(Tpm::PubHash(hash)) if hash.to_string() != own);
        match selectors.iter().find(is_others) {
            None => Ok(()),
            Some(other) => Err(NeverMatches {
                selector: other.to_string(),
                why: "the entry's parent has another TPM",
                nearest: Some(format!("tpm:pub_hash:{own}")),
            }),
        }
    }
}

/// Why an entry cannot be.
#[derive(Debug, Error)]
pub enum EntryError {
    /// Not a device of this trust domain.
    #[error("parent: give the SPIFFE ID of a device of this trust domain, as `assay device show` prints it")]
    Parent,
    /// Not a name for a workload.
    #[error("spiffe_id: give an ID of this trust domain outside of /assay/ and /spire/")]
    SpiffeId,
    /// Together they match nobody, or anybody.
    #[error("selectors: {0}")]
    Selectors(SetError),
    /// One that no workload can have.
    #[error("selectors: {0}")]
    NeverMatches(NeverMatches),
    /// Too many.
    #[error("dns_names: give at most {DNS_NAMES_MAX}")]
    DnsNames,
    /// One that is none.
    #[error("dns_names: {name:?} is no DNS name: give one such as web.internal")]
    DnsName {
        /// As it was written; a long one is cut.
        name: String,
    },
    /// Out of range.
    #[error("ttl_seconds: give {TTL_SECONDS_MIN} to {TTL_SECONDS_MAX}")]
    Ttl,
    /// Too long.
    #[error("hint: give at most {TEXT_BYTES_MAX} bytes")]
    Hint,
    /// It is there already.
    #[error("entry {id} says the same: it has this identity, parent and selectors")]
    Exists {
        /// Which one.
        id: String,
    },
    /// One of a list.
    #[error("entry {} of the list: {error}", index + 1)]
    InList {
        /// Which.
        index: usize,
        /// What is wrong with it.
        error: Box<EntryError>,
    },
    /// A list says it twice.
    #[error("one before it has the same identity, parent and selectors")]
    Twice,
    /// A list that would keep others waiting.
    #[error("entries: give at most {APPLIED_MAX} at a time")]
    TooMany,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No identifier could be made.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for EntryError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            EntryError::Store(error) => error.told(),
            EntryError::Keys(error) => error.told(),
            EntryError::Exists { .. } => (Kind::Duplicate, "entry-exists"),
            EntryError::InList { error, .. } => error.told(),
            EntryError::Parent
            | EntryError::Twice
            | EntryError::TooMany
            | EntryError::SpiffeId
            | EntryError::Selectors(_)
            | EntryError::NeverMatches(_)
            | EntryError::DnsNames
            | EntryError::DnsName { .. }
            | EntryError::Ttl
            | EntryError::Hint => (Kind::Malformed, "entry"),
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    rustls_pki_types::DnsName::try_from(name).is_ok()
}

fn ttl_default() -> u64 {
    3600
}
const DNS_NAMES_MAX: usize = 16;
/// The Workload API's bound of a hint.
const TEXT_BYTES_MAX: usize = 1024;
/// A DNS name has 253 at most.
const NAME_CHARACTERS_SHOWN: usize = 256;
/// Entries of a list: one transaction, for which every other waits.
const APPLIED_MAX: usize = 5000;
const TTL_SECONDS_MIN: u64 = 10;
const TTL_SECONDS_MAX: u64 = 24 * 3600;
