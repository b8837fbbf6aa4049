//! What the door of the JSON protocol is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use assay_telemetry::json_protocol::Value;
use serde::Deserialize;
use thiserror::Error;

use super::{object, text};
use crate::config::LocationConfig;

/// The JSON telemetry protocol of the original agent, for programs of this device.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct JsonProtocolConfig {
    /// Where programs reach it, over HTTP: an address of loopback. The original's port is 8442.
    pub listen: SocketAddr,
    /// A gateway or collector of the original, `https://HOST:PORT`, that gets what is measured instead of the server. The device key
    /// signs it, P-256 and SHA-256; its public half is in `telemetry-key.pem` of the state folder.
    pub collector: Option<String>,
    /// Certificates that the collector is recognised by, PEM.
    pub collector_ca: Option<PathBuf>,
    /// Sends to a collector whoever it is, as the original does.
    pub dangerous_unverified_collector: bool,
    /// What the agent calls itself.
    pub service_name: String,
    /// Which version it says it is.
    pub service_version: String,
    /// Which of several it says it is.
    pub instance_id: String,
    /// The region that is said; the country of `location` if not given.
    pub geographic_region: Option<String>,
    /// The state that is said; the subdivision of `location` if not given.
    pub geographic_state: Option<String>,
    /// The city that is said; that of `location` if not given.
    pub geographic_city: Option<String>,
}

impl Default for JsonProtocolConfig {
    fn default() -> Self {
        JsonProtocolConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8442)),
            collector: None,
            collector_ca: None,
            dangerous_unverified_collector: false,
            service_name: "opentelemetry-agent".to_owned(),
            service_version: "1.0.0".to_owned(),
            instance_id: "unknown".to_owned(),
            geographic_region: None,
            geographic_state: None,
            geographic_city: None,
        }
    }
}

/// The protocol cannot be served so.
#[derive(Debug, Error)]
pub enum JsonProtocolError {
    /// No address of a collector.
    #[error("json_protocol.collector: {collector:?} is not https://HOST:PORT")]
    Collector {
        /// What there is.
        collector: String,
    },
    /// Nobody would be recognised.
    #[error("json_protocol.collector_ca: name the certificates that the collector is recognised by")]
    NoAnchors,
    /// The certificates cannot be used.
    #[error("json_protocol.collector_ca: {} has no certificate that can be read", path.display())]
    Anchors {
        /// Which file.
        path: PathBuf,
    },
}

impl JsonProtocolConfig {
    /// With what is not said taken from where the device stands.
    pub(crate) fn at(mut self, location: Option<&LocationConfig>) -> Self {
        let of = |said: Option<String>, part: fn(&LocationConfig) -> &String| {
            said.or_else(|| location.map(part).cloned())
        };
        self.geographic_region = of(self.geographic_region, |location| &location.country);
        self.geographic_state = of(self.geographic_state, |location| &location.subdivision);
        self.geographic_city = of(self.geographic_city, |location| &location.city);
        self
    }

    pub(super) fn region(&self) -> Value {
        let said = |part: &Option<String>| text(part.as_deref().unwrap_or_default());
        object([
            ("region", said(&self.geographic_region)),
            ("state", said(&self.geographic_state)),
            ("city", said(&self.geographic_city)),
        ])
    }
}
