//! What the doors for Keylime's agents are told.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::config::ConfigError;

/// Keylime's protocols: its agents register and attest here, as devices.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keylime {
    /// Where agents register, over TLS. What is shown there is recognised by `bundle.pem`; `names` has to say what agents call it.
    pub registrar: SocketAddr,
    /// Where agents attest, over TLS.
    pub verifier: SocketAddr,
    /// Where agents register without TLS, if they know no other way: anybody on the network reads and changes what is said there.
    /// Keylime's port for it is 8890.
    pub dangerous_plain_registrar: Option<SocketAddr>,
    /// How long an agent that showed its key may speak without showing it again; good evidence begins it anew.
    pub session_seconds: u64,
    /// Connections to each of these doors; an agent that attests keeps one.
    pub connections_max: usize,
}

impl Default for Keylime {
    fn default() -> Self {
        Keylime {
            registrar: SocketAddr::from((Ipv4Addr::LOCALHOST, 8891)),
            verifier: SocketAddr::from((Ipv4Addr::LOCALHOST, 8881)),
            dangerous_plain_registrar: None,
            session_seconds: 180,
            connections_max: 16_384,
        }
    }
}

impl Keylime {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let connections_max = u64::try_from(self.connections_max).unwrap_or(u64::MAX);
        let numbers = [
            ("keylime.session_seconds", self.session_seconds, 10, 24 * 3600),
            ("keylime.connections_max", connections_max, 2, 1 << 20),
        ];
        match numbers.into_iter().find(|(_, value, min, max)| value < min || value > max) {
            Some((key, value, min, max)) => Err(ConfigError::OutOfRange { key, value, min, max }),
            None => Ok(()),
        }
    }
}
