//! What a device is entitled to hand to its workloads: an identity, and for whom it is.

use assay_identity::Selector;

/// One entitlement, as an operator made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The server's name for it.
    pub id: String,
    /// The identity.
    pub spiffe_id: String,
    /// For whom: all of them must hold.
    pub selectors: Vec<Selector>,
    /// Names in the certificate, for peers that know no SPIFFE.
    pub dns_names: Vec<String>,
    /// What the identity is for, where a workload has several.
    pub hint: String,
    /// Whether it was granted for what the device's last quote says.
    pub by_quote: bool,
    /// Whether its workloads may have messages signed in the device's name.
    pub speaks_for_node: bool,
    /// Other trust domains whose bundles its workloads get.
    pub federates_with: Vec<String>,
}

impl Entry {
    /// Selectors and hints may change under an SVID; what is in the certificate may not.
    pub(super) fn is_same_identity(&self, other: &Entry) -> bool {
        (&self.id, &self.spiffe_id, &self.dns_names) == (&other.id, &other.spiffe_id, &other.dns_names)
    }
}
