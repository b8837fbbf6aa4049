//! Gateways: their credentials, which there are, and the end of one.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

/// A gateway that is to be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enroll {
    /// What it is called.
    pub name: String,
    /// PKCS#10, DER in Base64.
    pub csr: String,
}

/// What a gateway starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Who it is.
    pub spiffe_id: String,
    /// Its certificate and those above it, PEM.
    pub certificate: String,
    /// The roots of the trust domain, PEM.
    pub bundle: String,
    /// When its certificate ends.
    pub not_after: UnixTime,
}

/// Every gateway with a certificate that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateways {
    /// By name.
    pub gateways: Vec<Gateway>,
}

/// A gateway, as its newest certificate tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// What it is called.
    pub name: String,
    /// Who it is.
    pub spiffe_id: String,
    /// `standing` or `revoked`.
    pub status: String,
    /// The certificate's serial number, in hex.
    pub serial: String,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it ends.
    pub not_after: UnixTime,
    /// When it was taken back.
    pub revoked_at: Option<UnixTime>,
}

/// A gateway that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub spiffe_id: String,
    /// How many of its certificates went on the revocation list.
    pub certificates: u64,
}
