//! Registration entries: what an operator entitles workloads to, and takes back.

mod selector;

use assay_evidence::time::UnixTime;
use assay_identity::{SpiffeId, TrustDomain};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use thiserror::Error;

use self::selector::NeverMatches;
use crate::keys::{KeysError, random};
use crate::outcome::{Kind, Outcome};
use crate::store::{CreateEntry, EntryRecord, RemoveEntry, SelectorRecord, Store, StoreError, Withdrawn};

/// What an operator asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEntry {
    spiffe_id: SpiffeId,
    parent: SpiffeId,
    selectors: Vec<SelectorRecord>,
    #[serde(default = "ttl_default")]
    ttl_seconds: u64,
    #[serde(default)]
    dns_names: Vec<String>,
    #[serde(default)]
    hint: String,
}

/// Entitles a workload.
pub(crate) async fn create(
    store: &Store,
    trust_domain: &TrustDomain,
    new: NewEntry,
    now: UnixTime,
) -> Result<EntryRecord, EntryError> {
    new.check(trust_domain)?;
    let entry = EntryRecord {
        id: HEXLOWER.encode(&random::<16>()?),
        spiffe_id: new.spiffe_id.to_string(),
        parent: new.parent.to_string(),
        selectors: new.selectors,
        ttl_seconds: new.ttl_seconds,
        dns_names: new.dns_names,
        hint: new.hint,
        created_at: now,
    };
    let create = CreateEntry { entry: entry.clone(), actor: OPERATOR.to_owned() };
    store.commit_and_follow(create).await?;
    tracing::info!(entry = entry.id, spiffe_id = entry.spiffe_id, parent = entry.parent, "entry created");
    Ok(entry)
}

/// Ends an entitlement; what it gave is on the revocation list when this returns.
pub(crate) async fn remove(store: &Store, id: &str, now: UnixTime) -> Result<Withdrawn, EntryError> {
    let remove = RemoveEntry { id: id.to_owned(), at: now, actor: OPERATOR.to_owned() };
    let withdrawn = store.commit_and_follow(remove).await?;
    tracing::info!(entry = id, svids = withdrawn.serials.len(), "entry removed");
    Ok(withdrawn)
}

impl NewEntry {
    fn check(&self, trust_domain: &TrustDomain) -> Result<(), EntryError> {
        let of_ours = |id: &SpiffeId| id.trust_domain() == trust_domain;
        if self.parent.device_hex().is_none() || !of_ours(&self.parent) {
            return Err(EntryError::Parent);
        }
        let reserved = ["/assay/", "/spire/"].iter().any(|prefix| self.spiffe_id.path().starts_with(prefix));
        if reserved || self.spiffe_id.path().is_empty() || !of_ours(&self.spiffe_id) {
            return Err(EntryError::SpiffeId);
        }
        let bounded = |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
        // Without a selector every process on the device would match.
        let selectors = 1..=SELECTORS_MAX;
        let readable = |one: &SelectorRecord| one.kind == "unix" && bounded(&one.value);
        if !selectors.contains(&self.selectors.len()) || !self.selectors.iter().all(readable) {
            return Err(EntryError::Selectors);
        }
        for one in &self.selectors {
            selector::check(&one.value).map_err(EntryError::NeverMatches)?;
        }
        // Whoever runs as the same user can make a program do as they like: a program alone tells nobody apart.
        let is_of = |kind: &str| self.selectors.iter().any(|one| one.value.split(':').next() == Some(kind));
        if (is_of("path") || is_of("sha256")) && !is_of("uid") {
            return Err(EntryError::ProgramAlone);
        }
        let names =
            self.dns_names.len() <= DNS_NAMES_MAX && self.dns_names.iter().all(|name| is_dns_name(name));
        if !names {
            return Err(EntryError::DnsNames);
        }
        if self.ttl_seconds < TTL_SECONDS_MIN || self.ttl_seconds > TTL_SECONDS_MAX {
            return Err(EntryError::Ttl);
        }
        if self.hint.len() > TEXT_BYTES_MAX { Err(EntryError::Hint) } else { Ok(()) }
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
    /// None, too many, or of a kind the agent does not know.
    #[error("selectors: give 1 to {SELECTORS_MAX}, each of type unix, such as uid:1000")]
    Selectors,
    /// One that no workload can have.
    #[error("selectors: {0}")]
    NeverMatches(NeverMatches),
    /// A program without its user.
    #[error(
        "selectors: give a unix:uid beside unix:path or unix:sha256, which tell programs of one user apart and no more"
    )]
    ProgramAlone,
    /// Too many, or none.
    #[error("dns_names: give at most {DNS_NAMES_MAX} DNS names")]
    DnsNames,
    /// Out of range.
    #[error("ttl_seconds: give {TTL_SECONDS_MIN} to {TTL_SECONDS_MAX}")]
    Ttl,
    /// Too long.
    #[error("hint: give at most {TEXT_BYTES_MAX} bytes")]
    Hint,
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
            _ => (Kind::Malformed, "entry"),
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    rustls_pki_types::DnsName::try_from(name).is_ok()
}

fn ttl_default() -> u64 {
    3600
}

const OPERATOR: &str = "operator";
const SELECTORS_MAX: usize = 16;
const DNS_NAMES_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 1024;
const TTL_SECONDS_MIN: u64 = 10;
const TTL_SECONDS_MAX: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_12_a_program_is_named_beside_its_user() {
        let domain = TrustDomain::parse("td").unwrap();
        let parent = SpiffeId::device(&domain, &[1; 32]);
        let check = |values: &[&str]| {
            let selector = |value: &&str| SelectorRecord { kind: "unix".into(), value: (*value).into() };
            let new = NewEntry {
                spiffe_id: SpiffeId::parse("spiffe://td/web").unwrap(),
                parent: parent.clone(),
                selectors: values.iter().map(selector).collect(),
                ttl_seconds: ttl_default(),
                dns_names: Vec::new(),
                hint: String::new(),
            };
            new.check(&domain)
        };
        let hash = format!("sha256:{}", "ab".repeat(32));
        for good in [&["uid:7"][..], &["gid:7"], &["uid:7", "path:/usr/bin/web"], &[hash.as_str(), "uid:7"]] {
            check(good).unwrap();
        }
        for alone in
            [&["path:/usr/bin/web"][..], &[hash.as_str(), "gid:7"], &["path:/usr/bin/web", "user:web"]]
        {
            assert!(matches!(check(alone), Err(EntryError::ProgramAlone)), "{alone:?}");
        }
    }
}
