//! Federation: other trust domains, where their bundles are found, and which bundle of each counts.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A trust domain whose bundle is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relate {
    /// Its name.
    pub trust_domain: String,
    /// How the endpoint is known.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// The bundle to begin with, as a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Value>,
}

/// Where a bundle is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// An https URL.
    pub url: String,
    /// Who is to answer there (`https_spiffe`); nobody: whoever the web knows by the URL's name (`https_web`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_spiffe_id: Option<String>,
}

/// Every other trust domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federations {
    /// In the order of their names.
    pub federations: Vec<Federation>,
}

/// Another trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federation {
    /// Its name.
    pub trust_domain: String,
    /// Where its bundle is found, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Its bundle, as a document; in a list, and where there is none, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Value>,
    /// X.509 authorities in it.
    pub x509_authorities: u64,
    /// Keys for tokens in it.
    pub jwt_authorities: u64,
    /// Its own number; 0: it has none, or there is no bundle.
    pub sequence: u64,
    /// When it last became another.
    pub changed_at: UnixTime,
    /// When it was last fetched since the server started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<UnixTime>,
    /// Why it was not the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Entries that federate with it.
    pub entries: u64,
}

/// Which bundle is set: one as a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBundle {
    /// It.
    pub bundle: Value,
}

/// What becomes of the entries that federate with a trust domain whose bundle is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entries {
    /// Nothing happens while there are any.
    #[default]
    Refuse,
    /// They are removed.
    Remove,
    /// They federate with it no longer.
    Dissociate,
}

/// Whether a fetch brought another bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The trust domain.
    pub trust_domain: String,
    /// Whether it is another than before.
    pub changed: bool,
}

/// What was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The trust domain.
    pub trust_domain: String,
}
