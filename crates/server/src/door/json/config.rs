//! What the JSON protocol's door is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::config::ConfigError;
use crate::grant::submission::{Leniency, Listed};

/// The JSON protocol of the original services. It is strict unless a way of the original's is asked for by name.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JsonProtocol {
    /// Where agents and gateways that show no certificate reach it, over HTTPS. Without it, only gateways of Assay pass it on. The
    /// original's port is 8444, which is also that of `edge`: one of the two has to be another.
    pub listen: Option<SocketAddr>,
    /// The certificates that are shown there, PEM. Without them it is the server's own, which `bundle.pem` recognises.
    pub certificate: Option<PathBuf>,
    /// Their key, PEM.
    pub key: Option<PathBuf>,
    /// What it calls itself.
    pub service_name: String,
    /// Which version it says it is.
    pub service_version: String,
    /// Hexadecimal digits of a nonce, 32 to 128.
    pub nonce_length: usize,
    /// Nonces that may be out at once; then the oldest go. Each takes some 250 bytes.
    pub nonces_max: usize,
    /// Countries, as devices write them, that telemetry may come from, beside what policies say; empty: any.
    pub allowed_regions: Vec<String>,
    /// States that it may come from; empty: any.
    pub allowed_states: Vec<String>,
    /// Cities that it may come from; empty: any.
    pub allowed_cities: Vec<String>,
    /// What is done as the original does it although it is unsafe; see each.
    pub dangerous_compatibility: Vec<Compatibility>,
}

/// A way of the original's that is unsafe.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compatibility {
    /// Nonces are for nobody in particular: agents that do not say whose key they have get one, and up to 16 keys are tried.
    UnboundNonce,
    /// A nonce is used up only by a submission that is accepted.
    LateNonce,
    /// `algorithm` and `digest` are labels: what is signed is a SHA-256 whatever they say.
    UnsignedDigest,
    /// State and city count only where they are said, and are held against nothing but the lists.
    PartialRegion,
}

impl Default for JsonProtocol {
    fn default() -> Self {
        JsonProtocol {
            listen: None,
            certificate: None,
            key: None,
            service_name: "opentelemetry-collector".to_owned(),
            service_version: "1.0.0".to_owned(),
            nonce_length: 32,
            nonces_max: 65_536,
            allowed_regions: Vec::new(),
            allowed_states: Vec::new(),
            allowed_cities: Vec::new(),
            dangerous_compatibility: Vec::new(),
        }
    }
}

impl JsonProtocol {
    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.certificate.iter_mut().chain(&mut self.key)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, problem| Err(ConfigError::JsonProtocol { key, problem });
        if !NONCE_DIGITS.contains(&self.nonce_length) || !self.nonce_length.is_multiple_of(2) {
            return wrong("nonce_length", "an even number of 32 to 128 digits");
        }
        if !NONCES.contains(&self.nonces_max) {
            return wrong("nonces_max", "64 to 16777216");
        }
        if self.certificate.is_some() != self.key.is_some() {
            return wrong("key", "certificate and key go together");
        }
        Ok(())
    }

    /// Whether this way of the original's is asked for.
    pub(crate) fn is(&self, way: Compatibility) -> bool {
        self.dangerous_compatibility.contains(&way)
    }

    pub(crate) fn leniency(&self) -> Leniency {
        Leniency {
            unbound_nonce: self.is(Compatibility::UnboundNonce),
            late_nonce: self.is(Compatibility::LateNonce),
            unsigned_digest: self.is(Compatibility::UnsignedDigest),
            partial_region: self.is(Compatibility::PartialRegion),
        }
    }

    pub(crate) fn listed(&self) -> Listed<'_> {
        Listed { regions: &self.allowed_regions, states: &self.allowed_states, cities: &self.allowed_cities }
    }
}

const NONCE_DIGITS: std::ops::RangeInclusive<usize> = 32..=128;
const NONCES: std::ops::RangeInclusive<usize> = 64..=1 << 24;
