//! Devices that were never here: who waits, and what was said of each.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Those that wait to be admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// They, oldest first.
    pub pending: Vec<Newcomer>,
}

/// A device that asked to enroll. The name is its own word, the rest its makers'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newcomer {
    /// Its SPIFFE ID, of the EK that it showed.
    pub id: String,
    /// SHA-256 of the EK's public area, in hex.
    pub ek_sha256: Option<String>,
    /// What it calls itself.
    pub name: String,
    /// Who made the TPM.
    pub ek_manufacturer: Option<String>,
    /// Who vouches for the EK.
    pub ek_issuer: Option<String>,
    /// The EK certificate's serial number.
    pub ek_serial: Option<String>,
    /// The machine's serial number, by its IDevID.
    pub serial: Option<String>,
    /// Whom its IDevID is of.
    pub idevid_subject: Option<String>,
    /// Where it asked from.
    pub address: String,
    /// When it asked first.
    pub first_at: UnixTime,
    /// When it asked last.
    pub last_at: UnixTime,
    /// `waiting`, `admitted` or `denied`.
    pub word: String,
    /// When that was said.
    pub word_at: Option<UnixTime>,
    /// Why.
    pub reason: Option<String>,
}
