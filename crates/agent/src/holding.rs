//! What the device holds right now, in memory and nowhere else: its SVID, its workloads' SVIDs, bundle and CRL.
//!
//! One task writes it, the one that speaks with the server ([`crate::grants`]); Workload API streams and telemetry
//! watch it. What is not in it is withdrawn.

use std::time::SystemTime;

use assay_wire::edge::WorkloadEntry;
use tokio::sync::watch;

/// The holding of this moment.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// Whether the server has said anything since the agent started.
    pub ready: bool,
    /// Why there is nothing, where it was withdrawn.
    pub withdrawn: Option<String>,
    /// The device's own SVID, DER, leaf first.
    pub device_svid: Vec<Vec<u8>>,
    /// The trust domain's authorities, concatenated DER.
    pub bundle: Vec<u8>,
    /// The revocation list, DER; may be empty.
    pub crl: Vec<u8>,
    /// The policy the device was last judged by.
    pub policy: String,
    /// One for each entry the device is entitled to, in the server's order.
    pub workloads: Vec<Workload>,
}

/// An entry and the SVID for it, once it is there.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Who gets it.
    pub entry: WorkloadEntry,
    /// What they get.
    pub svid: Option<Svid>,
}

/// An X.509-SVID with its key.
#[derive(Clone)]
pub struct Svid {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8; never logged, never written.
    pub key: Vec<u8>,
    /// From then on a new one is asked for.
    pub renew_at: SystemTime,
    /// From then on it is worth nothing.
    pub not_after: SystemTime,
}

impl Holding {
    /// The holding of a device from which everything was taken.
    pub fn withdrawn(reason: String, crl: Vec<u8>) -> Self {
        Holding { ready: true, withdrawn: Some(reason), crl, ..Holding::default() }
    }

    /// Drops every SVID that has expired; true if there was one.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let mut expired = false;
        for workload in &mut self.workloads {
            if workload.svid.take_if(|svid| svid.not_after <= now).is_some() {
                tracing::warn!(spiffe_id = %workload.entry.spiffe_id, "svid expired before it could be renewed");
                expired = true;
            }
        }
        expired
    }
}

impl std::fmt::Debug for Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Svid").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Where the one writer puts it.
pub type Held = watch::Sender<Holding>;
