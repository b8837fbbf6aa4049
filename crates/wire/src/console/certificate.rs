//! Certificates that were issued, and by what.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

/// A page of certificates, in the order in which they end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// Those on this page.
    pub certificates: Vec<Certificate>,
    /// Where the next page begins; nothing: this was the last.
    pub next: Option<String>,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its serial number, in hex.
    pub serial: String,
    /// Whom it names: a SPIFFE ID.
    pub spiffe_id: String,
    /// `device`, `workload`, `classic` (a node's, for other programs), `ak` (of an attestation key), or `service` (a gateway, or the
    /// server itself).
    pub kind: String,
    /// `standing`, `withdrawn` or `ended`.
    pub state: String,
    /// The device that carries it: a SPIFFE ID.
    pub device: Option<String>,
    /// What people call that.
    pub device_name: Option<String>,
    /// The entry that entitled to it.
    pub entry: Option<String>,
    /// SHA-256 of the key it certifies, in hex.
    pub key_sha256: String,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it ends by itself.
    pub not_after: UnixTime,
    /// When it was withdrawn.
    pub withdrawn_at: Option<UnixTime>,
    /// Where the trail has that it was issued.
    pub leaf: u64,
}

/// What signs certificates, and the list of those that were withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// Each.
    pub authorities: Vec<Authority>,
    /// The list in force.
    pub revocation_list: RevocationList,
}

/// What signs certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// What it is called.
    pub name: String,
    /// When it ends.
    pub until: UnixTime,
    /// How far its life has come: `young`, `due` (it is renewed by itself), `late` (it was not), `over`.
    pub stage: String,
}

/// A list of withdrawn certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// Its number, which only grows.
    pub number: u64,
    /// How many certificates it names.
    pub entries: u64,
    /// Its length.
    pub bytes: u64,
    /// Until when it may be used.
    pub until: UnixTime,
}
