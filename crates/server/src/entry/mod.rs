//! Registration entries: what an operator entitles workloads to, changes, and takes back.

mod which;

use std::collections::HashSet;

use assay_evidence::time::UnixTime;
use assay_identity::selector::tpm::Tpm;
use assay_identity::selector::{self, NeverMatches, SetError, Written};
use assay_identity::{Selector, SpiffeId, TrustDomain};
use assay_trust::grant::jwt::JWT_TTL_MAX_SECONDS;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use thiserror::Error;

use crate::actor::Actor;
use crate::in_force::entries::Entries;
use crate::in_force::federation::Federation;
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
    pub spiffe_id: SpiffeId,
    pub parent: SpiffeId,
    pub selectors: Vec<Written>,
    #[serde(default = "ttl_default")]
    pub ttl_seconds: u64,
    #[serde(default)]
    pub dns_names: Vec<String>,
    #[serde(default)]
    pub hint: String,
    #[serde(default)]
    pub speaks_for_node: bool,
    /// Other trust domains whose bundles its workloads get: names, or IDs without a path.
    #[serde(default)]
    pub federates_with: Vec<String>,
    /// Whether it is for a node that cannot quote, too.
    #[serde(default)]
    pub unquoted: bool,
    /// How long a token lasts; 0: nothing is said.
    #[serde(default)]
    pub jwt_ttl_seconds: u64,
    /// When it ends by itself; 0: never.
    #[serde(default)]
    pub expires_at: u64,
    /// Of an entry that is there: the revision that this one follows; 0: whichever there is.
    #[serde(default)]
    pub revision: u64,
}

/// What entries of this server may be about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub trust_domain: &'a TrustDomain,
    /// Whether nodes that cannot quote are let in at all.
    pub unquoted: bool,
    /// Whom they may federate with.
    pub federation: &'a Federation,
}

/// Entitles a workload.
pub(crate) async fn create(
    store: &Store,
    rules: Rules<'_>,
    new: NewEntry,
    by: Actor,
    now: UnixTime,
) -> Result<EntryRecord, EntryError> {
    let entry = new.record(rules, now)?;
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
    rules: Rules<'_>,
    (id, new): (String, NewEntry),
    by: Actor,
    now: UnixTime,
) -> Result<EntryRecord, EntryError> {
    let entry = EntryRecord { id, revision: new.revision, ..new.record(rules, now)? };
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
            Ok(*entry)
        }
        Updated::Exists(id) => Err(EntryError::Exists { id }),
    }
}

/// Makes entries what a list says, all or none; those that are not in it stay as they are.
pub(crate) async fn apply(
    store: &Store,
    rules: Rules<'_>,
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
        let entry = new.record(rules, now).map_err(at)?;
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

/// Ends the entries whose time is over, and withdraws what they gave.
pub(crate) async fn expire(store: &Store, entries: &Entries, now: UnixTime) -> Result<(), EntryError> {
    for entry in entries.over(now) {
        let remove = RemoveEntry { id: entry.id.clone(), at: now, actor: Actor::Server.name().to_owned() };
        match store.commit_and_follow(remove).await {
            Ok(withdrawn) => tracing::info!(
                entry = entry.id,
                spiffe_id = entry.spiffe_id,
                svids = withdrawn.serials.len(),
                "entry ended"
            ),
            // An operator was faster.
            Err(StoreError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl NewEntry {
    /// One that says nothing but this.
    pub(crate) fn of(spiffe_id: SpiffeId, parent: SpiffeId, selectors: Vec<Written>) -> NewEntry {
        NewEntry {
            spiffe_id,
            parent,
            selectors,
            ttl_seconds: ttl_default(),
            dns_names: Vec::new(),
            hint: String::new(),
            speaks_for_node: false,
            federates_with: Vec::new(),
            unquoted: false,
            jwt_ttl_seconds: 0,
            expires_at: 0,
            revision: 0,
        }
    }

    /// As it is stored, under an id of its own.
    pub(crate) fn record(self, rules: Rules<'_>, now: UnixTime) -> Result<EntryRecord, EntryError> {
        let selectors = self.check(rules, now)?;
        let federates_with = self.federates_with(rules)?;
        Ok(EntryRecord {
            federates_with,
            id: HEXLOWER.encode(&random::<16>()?),
            spiffe_id: self.spiffe_id.to_string(),
            parent: self.parent.to_string(),
            selectors,
            ttl_seconds: self.ttl_seconds,
            dns_names: self.dns_names,
            hint: self.hint,
            speaks_for_node: self.speaks_for_node,
            unquoted: self.unquoted,
            jwt_ttl_seconds: self.jwt_ttl_seconds,
            expires_at: UnixTime(self.expires_at),
            created_at: now,
            revision: 1,
        })
    }

    /// Refuses what gives nobody anything, or more than an entry may; its selectors.
    fn check(&self, rules: Rules<'_>, now: UnixTime) -> Result<Vec<Selector>, EntryError> {
        let of_ours = |id: &SpiffeId| id.trust_domain() == rules.trust_domain;
        self.check_parent(rules)?;
        let reserved = ["/assay/", "/spire/"].iter().any(|prefix| self.spiffe_id.path().starts_with(prefix));
        if reserved || self.spiffe_id.path().is_empty() || !of_ours(&self.spiffe_id) {
            return Err(EntryError::SpiffeId);
        }
        let read = self.selectors.iter().cloned().map(Selector::try_from);
        let mut selectors = read.collect::<Result<Vec<_>, _>>().map_err(EntryError::NeverMatches)?;
        selectors.sort();
        selectors.dedup();
        self.check_selectors(rules, &selectors)?;
        if self.dns_names.len() > DNS_NAMES_MAX {
            return Err(EntryError::DnsNames);
        }
        if let Some(name) = self.dns_names.iter().find(|name| !is_dns_name(name)) {
            return Err(EntryError::DnsName { name: name.chars().take(NAME_CHARACTERS_SHOWN).collect() });
        }
        if self.ttl_seconds < TTL_SECONDS_MIN || self.ttl_seconds > TTL_SECONDS_MAX {
            return Err(EntryError::Ttl);
        }
        if self.jwt_ttl_seconds > JWT_TTL_MAX_SECONDS {
            return Err(EntryError::JwtTtl);
        }
        if self.expires_at != 0 && self.expires_at <= now.0 {
            return Err(EntryError::Over);
        }
        if self.hint.len() > TEXT_BYTES_MAX { Err(EntryError::Hint) } else { Ok(selectors) }
    }
}

impl NewEntry {
    /// The names of those that it federates with: others, of whom there is a bundle.
    fn federates_with(&self, rules: Rules<'_>) -> Result<Vec<String>, EntryError> {
        if self.federates_with.len() > FEDERATES_WITH_MAX {
            return Err(EntryError::FederatesWithMany);
        }
        let mut names = Vec::with_capacity(self.federates_with.len());
        for said in &self.federates_with {
            let name = said.strip_prefix("spiffe://").unwrap_or(said);
            let foreign = rules.federation.get(name);
            if foreign.is_none_or(|foreign| foreign.bundle.is_none()) {
                let name = name.chars().take(NAME_CHARACTERS_SHOWN).collect();
                return Err(EntryError::FederatesWith { name });
            }
            names.push(name.to_owned());
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// A device that quotes may be any entry's parent. Every other parent is a node that does not, or an alias that chooses
    /// such nodes, and then the entry says that it is for them, on a server that lets them in.
    fn check_parent(&self, rules: Rules<'_>) -> Result<(), EntryError> {
        let Self { parent, unquoted, .. } = self;
        let is_device = parent.device_hex().is_some();
        if parent.trust_domain() != rules.trust_domain || parent.path().is_empty() {
            return Err(EntryError::Parent);
        }
        if !rules.unquoted && (*unquoted || !is_device) {
            return Err(if *unquoted { EntryError::NoUnquoted } else { EntryError::Parent });
        }
        let is_node = parent.is_spire_agent() || *parent == SpiffeId::spire_server(rules.trust_domain);
        let is_alias = !["/assay/", "/spire/"].iter().any(|prefix| parent.path().starts_with(prefix));
        match is_device || *unquoted {
            true if is_node || is_alias => Ok(()),
            true => Err(EntryError::Parent),
            false => Err(EntryError::Unquoted),
        }
    }

    /// An alias chooses nodes, and every other entry processes. What only a quote says never holds of a node without one.
    fn check_selectors(&self, rules: Rules<'_>, selectors: &[Selector]) -> Result<(), EntryError> {
        let is_alias = self.parent == SpiffeId::spire_server(rules.trust_domain)
            || (self.parent.device_hex().is_none()
                && selectors.iter().all(|one| matches!(one, Selector::Node(_))));
        if is_alias {
            return selector::check_alias(selectors).map_err(EntryError::Selectors);
        }
        selector::check_all(selectors).map_err(EntryError::Selectors)?;
        if self.parent.device_hex().is_some() {
            return self.check_tpm(selectors).map_err(EntryError::NeverMatches);
        }
        match selectors.iter().find(|one| one.is_condition()) {
            None => Ok(()),
            Some(one) => Err(EntryError::NeverMatches(NeverMatches {
                selector: one.to_string(),
                why: "the entry's parent is a node that does not quote",
                nearest: None,
            })),
        }
    }

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
    /// A parent that does not quote, and not a word that this is meant.
    #[error(
        "parent: it is no device that quotes, so that nobody knows what runs there; unquoted = true says that the entry is for it all the same"
    )]
    Unquoted,
    /// Nodes that cannot quote are not let in.
    #[error(
        "unquoted: this server lets no nodes in that cannot quote; a [spire] section in its configuration does"
    )]
    NoUnquoted,
    /// Not a name for a workload.
    #[error("spiffe_id: give an ID of this trust domain outside of /assay/ and /spire/")]
    SpiffeId,
    /// Together they match nobody, or anybody.
    #[error("selectors: {0}")]
    Selectors(SetError),
    /// One that no workload can have.
    #[error("selectors: {0}")]
    NeverMatches(NeverMatches),
    /// Nobody knows whom it is to believe there.
    #[error(
        "federates_with: there is no bundle of {name:?}; `assay federation list` shows of whom there is one"
    )]
    FederatesWith {
        /// As it was written; a long one is cut.
        name: String,
    },
    /// More than one workload talks to.
    #[error("federates_with: give at most {FEDERATES_WITH_MAX}")]
    FederatesWithMany,
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
    /// A token that lasts longer than one may that nobody can take back.
    #[error("jwt_ttl_seconds: give at most {JWT_TTL_MAX_SECONDS}, as nobody can take a token back")]
    JwtTtl,
    /// It would end before it begins.
    #[error("expires_at: that is over")]
    Over,
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
            | EntryError::FederatesWith { .. }
            | EntryError::FederatesWithMany
            | EntryError::DnsNames
            | EntryError::DnsName { .. }
            | EntryError::Ttl
            | EntryError::JwtTtl
            | EntryError::Over
            | EntryError::Unquoted
            | EntryError::NoUnquoted
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
const FEDERATES_WITH_MAX: usize = 16;
/// The Workload API's bound of a hint.
const TEXT_BYTES_MAX: usize = 1024;
/// A DNS name has 253 at most.
const NAME_CHARACTERS_SHOWN: usize = 256;
/// Entries of a list: one transaction, for which every other waits.
const APPLIED_MAX: usize = 5000;
const TTL_SECONDS_MIN: u64 = 10;
const TTL_SECONDS_MAX: u64 = 24 * 3600;
