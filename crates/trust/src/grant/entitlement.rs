//! Entitlements: what an operator said a workload on one device may be.

use assay_identity::{Selector, SpiffeId};

use super::Denied;
use crate::state::TrustState;

/// A registration entry's part in the decision: what an operator entitled a workload on one device to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// The identity it gets.
    pub spiffe_id: SpiffeId,
    /// The device it runs on; of an entry that a node reaches by an alias, that node.
    pub parent: SpiffeId,
    /// Whether it is for a node that cannot quote, too.
    pub unquoted: bool,
    /// How long each SVID lives.
    pub ttl_seconds: u64,
    /// How long each token lives; 0: as long as an SVID, or as a token may.
    pub jwt_ttl_seconds: u64,
    /// DNS names in the SVID.
    pub dns_names: Vec<String>,
    /// What must hold of the workload. Those that must hold of its device are looked at here.
    pub selectors: Vec<Selector>,
}

impl Entitlement {
    /// An entry of another device, or one that names a server, a gateway or a device, gives nothing here: whoever may
    /// write entries must not become an authority by it.
    pub(super) fn require_own(&self, state: &TrustState) -> Result<(), Denied> {
        let (Entitlement { spiffe_id, parent, unquoted, .. }, device) = (self, state.device());
        if parent != device {
            return Err(Denied::WrongParent { parent: parent.to_string(), device: device.to_string() });
        }
        let reserved = [ASSAY_PATH, SPIRE_PATH].iter().any(|path| spiffe_id.path().starts_with(path));
        if reserved || spiffe_id.path().is_empty() || spiffe_id.trust_domain() != device.trust_domain() {
            let trust_domain = device.trust_domain().as_str().to_owned();
            return Err(Denied::NotAWorkload { spiffe_id: spiffe_id.to_string(), trust_domain });
        }
        if !unquoted && !state.basis().is_quote() {
            return Err(Denied::Unquoted { basis: state.basis() });
        }
        match state.unmet(&self.selectors) {
            Some(condition) => Err(Denied::ConditionUnmet { condition: condition.to_string() }),
            None => Ok(()),
        }
    }
}

/// Servers and gateways live here.
const ASSAY_PATH: &str = "/assay/";
/// Devices live here, and SPIRE's own parts.
const SPIRE_PATH: &str = "/spire/";
