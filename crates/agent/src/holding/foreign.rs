//! Whom workloads believe of other trust domains: the bundle of each, for those whose entry federates with it and nobody else.

use std::sync::Arc;

use assay_identity::bundle::BundleError;
use assay_identity::jws::JwsError;
use assay_identity::{Bundle, TrustDomain};

use super::{Entry, Holding, JwtKeys};

/// The bundle of another trust domain.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Whose it is.
    pub trust_domain: TrustDomain,
    /// Its authorities, concatenated DER; empty: nobody of it is believed.
    pub bundle: Vec<u8>,
    /// The keys that it signs tokens with, a JWK set as it came; empty: there is none.
    pub jwt_json: Vec<u8>,
    /// Those of them that this agent can verify by.
    pub jwt_keys: JwtKeys,
}

impl Foreign {
    /// Reads what the server tells; every authority is of that trust domain.
    pub fn read(
        trust_domain: TrustDomain,
        bundle: Vec<u8>,
        jwt_json: Vec<u8>,
    ) -> Result<Foreign, BundleError> {
        Bundle::from_der(trust_domain.clone(), &bundle)?;
        // Other trust domains may sign by keys that this agent does not know: programs may.
        let jwt_keys = match JwtKeys::parse(&jwt_json) {
            Ok(keys) => keys,
            Err(JwsError::NoKey) => JwtKeys::default(),
            Err(_) => return Err(BundleError::Document),
        };
        Ok(Foreign { trust_domain, bundle, jwt_json, jwt_keys })
    }
}

impl Holding {
    /// The bundles of other trust domains for a caller with these workloads.
    pub(crate) fn foreign_of<'a>(&'a self, mine: &'a [usize]) -> impl Iterator<Item = &'a Foreign> {
        let entries = move || mine.iter().filter_map(|index| Some(&*self.workloads.get(*index)?.entry));
        let is_meant = move |foreign: &&Arc<Foreign>| {
            let name = foreign.trust_domain.as_str();
            entries().any(|entry: &Entry| entry.federates_with.iter().any(|one| one == name))
        };
        self.foreign.iter().filter(is_meant).map(AsRef::as_ref)
    }
}
