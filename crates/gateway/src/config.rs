//! The gateway's configuration: one typed value, read once.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use assay_identity::TrustDomain;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::json::JsonProtocol;

/// What `assay gateway` is told. Unknown keys are refused.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The trust domain of gateway, servers and devices.
    #[cfg_attr(test, schemars(with = "String"))]
    pub trust_domain: TrustDomain,
    /// Where devices connect. Port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The edge doors of the servers, `host:port` each.
    pub servers: Vec<String>,
    /// The folder with the gateway's `credentials.pem`, `key.pem` and `bundle.pem`, read again when they change. It writes
    /// what it renews to `renewed.pem` there.
    pub credentials: PathBuf,
    /// A file to write the address listened on to, as `{"gateway": "…"}`.
    #[serde(default)]
    pub addresses_file: Option<PathBuf>,
    /// Telemetry by the JSON protocol of the original services; off unless this section is there.
    #[serde(default)]
    pub json_protocol: Option<JsonProtocol>,
    /// What there may be at most of everything.
    #[serde(default)]
    pub limits: Limits,
}

/// Bounds; when one is reached the caller is told so.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once. A quarter of them are for peers that have shown no SVID, who make room for each other.
    pub connections_max: usize,
    /// Connections at once from one address (IPv6: one /64) of peers that have shown no SVID.
    pub connections_per_address_max: usize,
    /// Requests at once in one connection.
    pub streams_per_connection_max: u32,
    /// Requests a second from one address by peers that have shown no SVID, lasting.
    pub address_requests_per_second: NonZeroU32,
    /// Requests from one address in a burst.
    pub address_requests_burst: NonZeroU32,
    /// Requests a second by one SPIFFE ID, lasting.
    pub svid_requests_per_second: NonZeroU32,
    /// Requests by one SPIFFE ID in a burst.
    pub svid_requests_burst: NonZeroU32,
    /// Bytes in the body of a request that is not a standing stream.
    pub request_bytes_max: u64,
    /// Bytes in the headers of a request.
    pub header_bytes_max: u32,
    /// How long TCP peers have for their TLS handshake.
    pub handshake_seconds: u64,
    /// How long a request that is not a standing stream may take.
    pub request_seconds: u64,
    /// How long a connection may stay open without a request.
    pub idle_seconds: u64,
    /// Requests at once in one connection to a server; beyond them another connection is opened.
    pub streams_per_server_connection_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 20_000,
            connections_per_address_max: 1_000,
            streams_per_connection_max: 100,
            address_requests_per_second: per_second(200),
            address_requests_burst: per_second(1_000),
            svid_requests_per_second: per_second(20),
            svid_requests_burst: per_second(100),
            request_bytes_max: 4 << 20,
            header_bytes_max: 16 << 10,
            handshake_seconds: 10,
            request_seconds: 30,
            idle_seconds: 60,
            streams_per_server_connection_max: 1_000,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration cannot be read")]
    Read(#[from] std::io::Error),
    /// The file is not the configuration's TOML.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// There is nowhere to route to.
    #[error("servers: name at least one, host:port")]
    NoServers,
    /// A limit of zero would refuse everything.
    #[error("limits.{limit}: zero would refuse everything")]
    ZeroLimit {
        /// Which limit.
        limit: &'static str,
    },
}

impl Config {
    /// Reads a TOML file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Ok(toml::from_str(&std::fs::read_to_string(file)?)?)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        let limits = &self.limits;
        let zero = [
            ("connections_max", limits.connections_max == 0),
            ("connections_per_address_max", limits.connections_per_address_max == 0),
            ("streams_per_connection_max", limits.streams_per_connection_max == 0),
            ("handshake_seconds", limits.handshake_seconds == 0),
            ("request_seconds", limits.request_seconds == 0),
            ("idle_seconds", limits.idle_seconds == 0),
            ("streams_per_server_connection_max", limits.streams_per_server_connection_max == 0),
        ];
        match zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((limit, _)) => Err(ConfigError::ZeroLimit { limit }),
            None => Ok(()),
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443))
}

const fn per_second(count: u32) -> NonZeroU32 {
    match NonZeroU32::new(count) {
        Some(count) => count,
        None => NonZeroU32::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "trust_domain = \"example.org\"\nservers = [\"a:1\"]\ncredentials = \"/c\"\n";

    #[test]
    fn what_is_installed_is_a_configuration() {
        let config: Config = toml::from_str(include_str!("../../../deploy/debian/gateway.toml")).unwrap();
        config.check().unwrap();
    }

    fn check(more: &str, expected: Result<(), &str>) {
        let read = toml::from_str::<Config>(&format!("{LEAST}{more}")).map_err(ConfigError::from);
        let found = read.and_then(|config| config.check()).map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn year_13_the_reference_is_what_the_types_say() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/gateway.md");
        let about = "`assay gateway run --config FILE`, TOML. A key that is not here is refused.";
        let schema = schemars::schema_for!(Config);
        assay_testkit::reference::check(&page, "Configuration of the gateway", about, schema.as_value());
    }

    #[test]
    fn a_configuration_says_what_is_wrong_with_it() {
        check("", Ok(()));
        check("listen = \"127.0.0.1:0\"\n[limits]\nrequest_bytes_max = 1", Ok(()));
        check("listne = \"127.0.0.1:0\"", Err("unknown field `listne`"));
        check("[limits]\nidle_seconds = 0", Err("limits.idle_seconds: zero"));
        check("[limits]\nsvid_requests_burst = 0", Err("nonzero"));
    }
}
