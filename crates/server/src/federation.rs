//! Federation: whom an operator has this trust domain's workloads believe beside their own, and where their bundles come from.
//!
//! What is fetched counts if it is not older than what is there; what an operator says always does.

use assay_evidence::time::UnixTime;
use assay_identity::bundle::BundleError;
use assay_identity::{ForeignBundle, TrustDomain};
use thiserror::Error;

use crate::actor::Actor;
use crate::audit;
use crate::in_force::federation::Endpoint;
use crate::outcome::{Kind, Outcome};
use crate::store::{
    FederatedEntries, ForeignDomainRecord, PutForeign, PutForeignDomain, Said, Store, StoreError,
};

/// Whether it is to be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum There {
    /// It must not.
    No,
    /// It must.
    Yes,
    /// Whichever.
    Either,
}

/// What an operator has done, who it is and when.
pub(crate) type By = (Actor, UnixTime);

/// Has a trust domain's bundle be fetched, with the one to begin with where that is given.
pub(crate) async fn relate(
    (store, own): (&Store, &TrustDomain),
    trust_domain: &TrustDomain,
    (endpoint, bundle): (Endpoint, Option<ForeignBundle>),
    there: There,
    by: By,
) -> Result<ForeignDomainRecord, FederationError> {
    check(own, trust_domain, &endpoint, bundle.as_ref())?;
    let from = store.foreign_domain(trust_domain.as_str()).await?;
    let is_related = from.as_ref().is_some_and(|from| !from.url.is_empty());
    match there {
        There::No if is_related => return Err(FederationError::Exists(trust_domain.clone())),
        There::Yes if !is_related => return Err(FederationError::Unknown(trust_domain.clone())),
        _ => {}
    }
    let before = from.clone().unwrap_or_else(|| nothing(trust_domain));
    let id = endpoint.id.map(|id| id.to_string()).unwrap_or_default();
    let to = ForeignDomainRecord { url: endpoint.url, endpoint_id: id, changed_at: by.1, ..before };
    let to = bundle.map_or_else(|| to.clone(), |bundle| with_bundle(&to, &bundle, by.1));
    put(store, (from, to), audit::Kind::FederationSet, FederatedEntries::Keep, by).await
}

/// Stops fetching a trust domain's bundle. The one that is there stays.
pub(crate) async fn end(store: &Store, trust_domain: &TrustDomain, by: By) -> Result<(), FederationError> {
    let unknown = || FederationError::Unknown(trust_domain.clone());
    let from = store.foreign_domain(trust_domain.as_str()).await?.ok_or_else(unknown)?;
    if from.url.is_empty() {
        return Err(unknown());
    }
    let to = ForeignDomainRecord {
        url: String::new(),
        endpoint_id: String::new(),
        changed_at: by.1,
        ..from.clone()
    };
    put(store, (Some(from), to), audit::Kind::FederationEnded, FederatedEntries::Keep, by).await.map(drop)
}

/// Has a trust domain be verified with this bundle, whatever there was.
pub(crate) async fn set_bundle(
    (store, own): (&Store, &TrustDomain),
    bundle: &ForeignBundle,
    there: There,
    by: By,
) -> Result<ForeignDomainRecord, FederationError> {
    let trust_domain = bundle.trust_domain();
    check_bundle(own, trust_domain, bundle)?;
    let from = store.foreign_domain(trust_domain.as_str()).await?;
    let has_bundle = from.as_ref().is_some_and(|from| !from.document.is_empty());
    match there {
        There::No if has_bundle => return Err(FederationError::BundleExists(trust_domain.clone())),
        There::Yes if !has_bundle => return Err(FederationError::NoBundle(trust_domain.clone())),
        _ => {}
    }
    let to = with_bundle(&from.clone().unwrap_or_else(|| nothing(trust_domain)), bundle, by.1);
    put(store, (from, to), audit::Kind::FederationBundleSet, FederatedEntries::Keep, by).await
}

/// Forgets a trust domain's bundle, and does to the entries that federate with it what is said.
pub(crate) async fn remove_bundle(
    store: &Store,
    trust_domain: &TrustDomain,
    entries: FederatedEntries,
    by: By,
) -> Result<(), FederationError> {
    let none = || FederationError::NoBundle(trust_domain.clone());
    let from = store.foreign_domain(trust_domain.as_str()).await?.ok_or_else(none)?;
    if from.document.is_empty() {
        return Err(none());
    }
    let to = ForeignDomainRecord { document: String::new(), sequence: 0, changed_at: by.1, ..from.clone() };
    put(store, (Some(from), to), audit::Kind::FederationBundleRemoved, entries, by).await.map(drop)
}

/// Takes in what was fetched from an endpoint; whether that is another than before.
pub(crate) async fn fetched(
    store: &Store,
    (from, bundle): (&ForeignDomainRecord, &ForeignBundle),
    now: UnixTime,
) -> Result<bool, FederationError> {
    let to = with_bundle(from, bundle, now);
    if to.document == from.document {
        return Ok(false);
    }
    // Whoever answers for the endpoint with what it once said takes nothing back.
    if bundle.sequence() < from.sequence && bundle.sequence() != 0 {
        return Err(FederationError::Older { found: bundle.sequence(), known: from.sequence });
    }
    let change = (Some(from.clone()), to);
    let kind = audit::Kind::FederationBundleSet;
    put(store, change, kind, FederatedEntries::Keep, (Actor::Server, now)).await?;
    Ok(true)
}

async fn put(
    store: &Store,
    (from, to): (Option<ForeignDomainRecord>, ForeignDomainRecord),
    kind: audit::Kind,
    entries: FederatedEntries,
    (by, at): By,
) -> Result<ForeignDomainRecord, FederationError> {
    let said = Said { by: by.name().to_owned(), at };
    let put = PutForeignDomain { from, to: to.clone(), kind, entries, said };
    match store.commit_and_follow(put).await? {
        PutForeign::Done(withdrawn) => {
            tracing::info!(
                trust_domain = to.trust_domain,
                url = to.url,
                sequence = to.sequence,
                svids = withdrawn.serials.len(),
                %by,
                "{}",
                kind.name()
            );
            Ok(to)
        }
        PutForeign::InUse(entries) => Err(FederationError::InUse { trust_domain: to.trust_domain, entries }),
    }
}

fn nothing(trust_domain: &TrustDomain) -> ForeignDomainRecord {
    ForeignDomainRecord {
        trust_domain: trust_domain.to_string(),
        url: String::new(),
        endpoint_id: String::new(),
        document: String::new(),
        sequence: 0,
        changed_at: UnixTime(0),
    }
}

fn with_bundle(before: &ForeignDomainRecord, bundle: &ForeignBundle, at: UnixTime) -> ForeignDomainRecord {
    ForeignDomainRecord {
        document: bundle.to_document(),
        sequence: bundle.sequence(),
        changed_at: at,
        ..before.clone()
    }
}

fn check(
    own: &TrustDomain,
    trust_domain: &TrustDomain,
    endpoint: &Endpoint,
    bundle: Option<&ForeignBundle>,
) -> Result<(), FederationError> {
    if trust_domain == own {
        return Err(FederationError::Own);
    }
    let is_https = endpoint.url.strip_prefix("https://").is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !host.contains('@')
    });
    let is_plain = endpoint.url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_https || !is_plain || endpoint.url.len() > URL_BYTES_MAX {
        return Err(FederationError::Url);
    }
    if endpoint.id.as_ref().is_some_and(|id| id.path().is_empty()) {
        return Err(FederationError::EndpointId);
    }
    bundle.map_or(Ok(()), |bundle| match bundle.trust_domain() == trust_domain {
        true => check_bundle(own, trust_domain, bundle),
        false => Err(FederationError::OtherBundle),
    })
}

fn check_bundle(
    own: &TrustDomain,
    trust_domain: &TrustDomain,
    bundle: &ForeignBundle,
) -> Result<(), FederationError> {
    if trust_domain == own {
        return Err(FederationError::Own);
    }
    if bundle.to_document().len() > DOCUMENT_BYTES_MAX {
        return Err(FederationError::Bundle(BundleError::TooLarge));
    }
    match bundle.x509().authorities().next() {
        Some(_) => Ok(()),
        None => Err(FederationError::Nobody),
    }
}

/// Why nothing comes of it.
#[derive(Debug, Error)]
pub(crate) enum FederationError {
    /// It is not another one.
    #[error("trust_domain: it is this server's own")]
    Own,
    /// Not a place for a bundle.
    #[error("url: give one such as https://other.example/bundle, without a user and a fragment")]
    Url,
    /// Nobody's ID.
    #[error("endpoint_spiffe_id: give the ID that the endpoint shows, with its path")]
    EndpointId,
    /// A bundle that cannot be one.
    #[error("bundle: {0}")]
    Bundle(#[from] BundleError),
    /// Another trust domain's.
    #[error("bundle: it is another trust domain's")]
    OtherBundle,
    /// Whose X.509 authorities are nobody.
    #[error("bundle: there is no X.509 authority in it")]
    Nobody,
    /// What was fetched is of the past.
    #[error("the bundle that was fetched has number {found}, and {known} was there before")]
    Older {
        /// Its number.
        found: u64,
        /// What there is.
        known: u64,
    },
    /// There is such a relationship.
    #[error("there is a relationship with {0} already")]
    Exists(TrustDomain),
    /// There is none.
    #[error("there is no relationship with {0}")]
    Unknown(TrustDomain),
    /// There is a bundle.
    #[error("there is a bundle of {0} already")]
    BundleExists(TrustDomain),
    /// There is none.
    #[error("there is no bundle of {0}")]
    NoBundle(TrustDomain),
    /// Entries depend on it.
    #[error(
        "{entries} entries federate with {trust_domain}: remove them or have them federate with it no longer"
    )]
    InUse {
        /// Which.
        trust_domain: String,
        /// How many.
        entries: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for FederationError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            FederationError::Own => (Kind::Malformed, "trust-domain"),
            FederationError::Url => (Kind::Malformed, "url"),
            FederationError::EndpointId => (Kind::Malformed, "endpoint-spiffe-id"),
            FederationError::Bundle(_) | FederationError::OtherBundle | FederationError::Nobody => {
                (Kind::Malformed, "bundle")
            }
            FederationError::Older { .. } => (Kind::OutOfTurn, "bundle-older"),
            FederationError::Exists(_) | FederationError::BundleExists(_) => {
                (Kind::Duplicate, "federation-exists")
            }
            FederationError::Unknown(_) | FederationError::NoBundle(_) => {
                (Kind::NotFound, "unknown-federation")
            }
            FederationError::InUse { .. } => (Kind::OutOfTurn, "federation-in-use"),
            FederationError::Store(error) => error.told(),
        }
    }
}

const URL_BYTES_MAX: usize = 1024;
/// A dozen authorities of either kind are some twenty kilobytes. It goes to every device with an entry that federates.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 64 << 10;
