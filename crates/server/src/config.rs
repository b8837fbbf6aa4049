//! The server's configuration: one typed value, read once, every key with a default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_identity::TrustDomain;
use assay_trust::grant::ak::LIFE_SECONDS_MAX;
use serde::Deserialize;
use thiserror::Error;

use crate::door::forward::ForwardConfig;
use crate::door::json::JsonProtocol;
use crate::door::keylime::Keylime;
use crate::door::oidc::OidcConfig;
use crate::door::webhook::WebhookConfig;
use crate::store::{Database, DatabaseUrl};

/// What `assay server` is told. Unknown keys are refused.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of everything that lasts: database, keys, operator token, bundle. Made if it is not there.
    pub data: PathBuf,
    /// Where the database is instead of in a file of the data folder: `postgres://USER@HOST:PORT/DATABASE`, with `sslrootcert`,
    /// `sslcert`, `sslkey`, `passfile`, `host` (the folder of a socket), `connect_timeout` and `readers_max` as parameters. TLS
    /// with the server's name verified, unless it is on this machine. Passwords in it are refused: name a `passfile`.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub database: Option<DatabaseUrl>,
    /// The trust domain whose identities this server issues.
    #[cfg_attr(test, schemars(with = "String"))]
    pub trust_domain: TrustDomain,
    /// Where gateways connect: gRPC over mutual TLS. Port 0 takes a free one; see `addresses.json` in `data`.
    pub edge: SocketAddr,
    /// Where operators and relying parties connect: status page, REST, CRL, bundle, metrics.
    pub console: SocketAddr,
    /// Further DNS names and addresses in the server's own certificate, beside `localhost` and 127.0.0.1.
    pub names: Vec<String>,
    /// Certificates that vouch for TPMs, PEM or DER: files, or folders of them. Without any, no device can enroll.
    pub ek_anchors: Vec<PathBuf>,
    /// Revocation lists of the authorities above TPMs, PEM or DER: files, or folders of them. They and `ek_anchors` are
    /// read again when they change.
    pub ek_crls: Vec<PathBuf>,
    /// Certificates that vouch for IDevIDs and IAKs, PEM or DER: files, or folders of them. Without any, none is asked
    /// for and none counts. `ek_crls` holds their revocation lists too.
    pub idevid_anchors: Vec<PathBuf>,
    /// Who may enroll that was never here: `automatic`, everybody whom `ek_anchors` or a policy vouches for; `listed`, of those
    /// whom the manifest lists; `approved`, of those whom it lists at once and the others once an operator admits them
    /// (`assay device pending`).
    pub enrollment: EnrollmentMode,
    /// A TOML file that lists devices by `ek_sha256`, `serials` (as IDevIDs have them) and `idevid_subjects`. It is read again
    /// when it changes.
    pub enrollment_manifest: Option<PathBuf>,
    /// Public keys or certificates, PEM or DER, whose signature a policy needs to come into force: files, or folders of
    /// them, one key each. Empty: nobody has to sign.
    pub policy_signers: Vec<PathBuf>,
    /// How often an attached device is challenged.
    pub attest_interval_seconds: u64,
    /// How long a challenge may be answered.
    pub challenge_ttl_seconds: u64,
    /// How long a device's SVID lives; it is renewed at half of it.
    pub device_svid_ttl_seconds: u64,
    /// How long a gateway's SVID lives; it renews it at half of it.
    pub gateway_svid_ttl_seconds: u64,
    /// How long the server's own certificate lives; it is renewed at half of it.
    pub server_svid_ttl_seconds: u64,
    /// How long a revocation list may be used; it is renewed at half of it, and at every withdrawal.
    pub crl_ttl_seconds: u64,
    /// The `iss` of tokens, `https://HOST` or `https://HOST/PATH`: where verifiers of OpenID Connect look for
    /// `.well-known/openid-configuration`, which the console has to be reached by then. Without it, tokens bear none.
    pub jwt_issuer: Option<String>,
    /// How long accepted telemetry is kept.
    pub telemetry_retention_seconds: u64,
    /// How many bytes of the database accepted telemetry may take; the oldest of whichever device has most makes room.
    pub telemetry_bytes_max: u64,
    /// How many of these telemetry of one device may take; its own oldest makes room.
    pub telemetry_bytes_per_device_max: u64,
    /// Where accepted telemetry goes on to: OTLP endpoints, each with a durable queue of its own. A table each: `name`, `endpoint`
    /// (OTLP over HTTP), and for https `ca`, a PEM file; `token_file` has a bearer token, if one is needed.
    pub forward: Vec<ForwardConfig>,
    /// Telemetry by the JSON protocol of the original services (`/nonce`, `/metrics`); off unless this section is there. With it,
    /// gateways pass it on, and a door of its own opens where `listen` says.
    pub json_protocol: Option<JsonProtocol>,
    /// Who is told what happens: receivers of signed notices (CloudEvents), each with a place of its own in the trail. A table each:
    /// `name`, `url`, and for https `ca`, a PEM file; `secret_file` signs (HMAC), `certificate` and `key` show who we are; `severity`
    /// and `kinds` say what is wanted.
    pub webhook: Vec<WebhookConfig>,
    /// How long evidence is kept for judging it again. A device's last evidence is kept for as long as it is the last.
    pub evidence_retention_seconds: u64,
    /// How many bytes of the database evidence may take; the oldest makes room.
    pub evidence_bytes_max: u64,
    /// How many of these evidence of one device may take; its own oldest makes room.
    pub evidence_bytes_per_device_max: u64,
    /// Trust status, certificates and signed messages for other programs, under `/trust/` at the console's address; off unless
    /// this section is there.
    pub trust_api: Option<TrustApi>,
    /// Certificates of devices' attestation keys, by which others enrol them (ACME's device-attest-01); none unless this section is
    /// there.
    pub ak_certificates: Option<AkCertificates>,
    /// Certificates of the authorities, PEM, by which servers are known where bundles of other trust domains are fetched that show no
    /// SPIFFE ID (`https_web`); those that the system trusts if none is named.
    pub federation_anchors: Vec<PathBuf>,
    /// The doors of SPIRE's server, for its agents and its command line as they are; off unless this section is there. Nodes come
    /// in by them that cannot quote, so that nobody knows what they run.
    pub spire: Option<Spire>,
    /// Keylime's protocols: its agents register and attest as devices. Off unless this section is there.
    pub keylime: Option<Keylime>,
    /// The provider that people sign in with on the console, and which of them may do what; nobody but by tokens, unless this section
    /// is there.
    pub oidc: Option<OidcConfig>,
    /// What there may be at most of everything.
    pub limits: Limits,
}

/// Trust for other programs.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustApi {
    /// Whom messages to this server have to name as their audience.
    pub audience: String,
    /// The number that this server answers by.
    pub node_id: u32,
    /// What answers call the authority's certificate.
    pub ca_certificate: String,
    /// Takes messages of three members (`from_node`, `timestamp`, `data`) as well, which are bound to neither recipient nor path.
    /// Time, replay, certificate and trust are looked at all the same.
    pub accept_seed_messages: bool,
    /// Tells anyone the state of each node (`node_details`), not only viewers and nodes.
    pub dangerous_open_status: bool,
    /// Signs certificates of a year for RSA keys in devices' TPMs, by an RSA root of its own, for programs that know no others.
    pub classic: bool,
    /// Where such a certificate says that its revocation list is, such as `http://crl.example.org/classic.crl`.
    pub classic_crl_url: Option<String>,
    /// Where metrics are served without TLS or a token, with those of each node: `127.0.0.1:9091`. Not if not given.
    pub metrics_listen: Option<SocketAddr>,
    /// Lets anyone ask whether a node is trusted (`POST /trust/verify/{id}`).
    pub dangerous_open_verify: bool,
}

impl Default for TrustApi {
    fn default() -> Self {
        TrustApi {
            audience: "assay".to_owned(),
            node_id: 0,
            ca_certificate: "ca-cert.pem".to_owned(),
            accept_seed_messages: false,
            dangerous_open_status: false,
            metrics_listen: None,
            classic: false,
            classic_crl_url: None,
            dangerous_open_verify: false,
        }
    }
}

/// Certificates of attestation keys.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AkCertificates {
    /// How long one lives; it is renewed at half of it. Most of those who verify one look at no revocation list.
    pub life_seconds: u64,
    /// Where one says that its revocation list is, such as `http://crl.example.org/ak.crl`; the console has it at `/ak/crl`.
    pub crl_url: Option<String>,
}

impl Default for AkCertificates {
    fn default() -> Self {
        AkCertificates { life_seconds: DAY_SECONDS, crl_url: None }
    }
}

/// Doors for SPIRE's agents and its command line.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spire {
    /// Where SPIRE's agents connect: gRPC over TLS.
    pub address: SocketAddr,
    /// The socket of `spire-server`, whose callers are operators: a path, or nothing for `spire.sock` in `data`.
    pub socket: Option<PathBuf>,
    /// How long a node's certificate lasts, and with it what it is trusted by; it is renewed at half of it.
    pub agent_ttl_seconds: u64,
    /// How many nodes there may be that do not quote.
    pub agents_max: u64,
    /// Whether nodes attest by `tpm`, as spire-tpm-plugin does: who may enroll by `ek_anchors`, a policy and `enrollment` comes in so as
    /// well. Intermediate certificates belong into `ek_anchors`, as such an agent sends none.
    pub tpm: bool,
    /// Certificates of the authorities, PEM, by whose certificates nodes attest by `x509pop`; they do not if none is named.
    pub x509pop_anchors: Vec<PathBuf>,
}

impl Spire {
    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.socket.iter_mut().chain(&mut self.x509pop_anchors)
    }
}

impl Default for Spire {
    fn default() -> Self {
        Spire {
            address: SocketAddr::from(([127, 0, 0, 1], 8081)),
            socket: None,
            agent_ttl_seconds: 3600,
            agents_max: 10_000,
            tpm: false,
            x509pop_anchors: Vec::new(),
        }
    }
}

/// How it is decided who may enroll that was never here.
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnrollmentMode {
    /// Everybody whom a trusted maker, or a policy, vouches for.
    #[default]
    Automatic,
    /// Of those, whom the manifest lists.
    Listed,
    /// Of those, whom the manifest lists at once, and the others once an operator admits them.
    Approved,
}

/// Bounds; when one is reached the caller is told so.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Devices attached at once; an idle one holds some 20 KiB.
    pub attached_devices_max: usize,
    /// Streams that have not shown any evidence yet. Half of them are for devices that show an SVID.
    pub unproven_streams_max: usize,
    /// Such streams of one address (IPv6: one /64) whose devices show no SVID.
    pub unproven_streams_per_address_max: usize,
    /// Enrollments under way at once; each costs some RSA and certificate work. One address has half of them at most.
    pub enrollments_max: usize,
    /// Devices that were never here and wait for an operator's word, or have it; of those that wait, the one heard of longest
    /// ago makes room.
    pub pending_devices_max: u64,
    /// Bytes of messages that are not whole yet, of all. One eighth is for devices that have not proven themselves.
    pub bytes_in_flight_max: usize,
    /// Connections to each door.
    pub connections_max: usize,
    /// Streams in one gateway's connection.
    pub streams_per_connection_max: u32,
    /// Challenges for whole logs that are open at once: each may bring some megabytes.
    pub full_challenges_max: usize,
    /// Pieces of evidence with long logs that are verified at once, each on a thread.
    pub verifications_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: PathBuf::from("assay-data"),
            database: None,
            trust_domain: TrustDomain::parse("assay.internal")
                .expect("a lowercase DNS name is a trust domain"),
            edge: SocketAddr::from(([127, 0, 0, 1], 8444)),
            console: SocketAddr::from(([127, 0, 0, 1], 8445)),
            names: Vec::new(),
            ek_anchors: Vec::new(),
            ek_crls: Vec::new(),
            idevid_anchors: Vec::new(),
            enrollment: EnrollmentMode::default(),
            enrollment_manifest: None,
            policy_signers: Vec::new(),
            attest_interval_seconds: 60,
            challenge_ttl_seconds: 30,
            device_svid_ttl_seconds: 3600,
            gateway_svid_ttl_seconds: DAY_SECONDS,
            server_svid_ttl_seconds: 7 * DAY_SECONDS,
            crl_ttl_seconds: DAY_SECONDS,
            jwt_issuer: None,
            telemetry_retention_seconds: 7 * DAY_SECONDS,
            telemetry_bytes_max: 16 << 30,
            telemetry_bytes_per_device_max: 1 << 30,
            forward: Vec::new(),
            json_protocol: None,
            webhook: Vec::new(),
            evidence_retention_seconds: 14 * DAY_SECONDS,
            evidence_bytes_max: 4 << 30,
            evidence_bytes_per_device_max: 128 << 20,
            trust_api: None,
            ak_certificates: None,
            federation_anchors: Vec::new(),
            spire: None,
            keylime: None,
            oidc: None,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            attached_devices_max: 100_000,
            unproven_streams_max: 1024,
            unproven_streams_per_address_max: 64,
            enrollments_max: 64,
            pending_devices_max: 1000,
            bytes_in_flight_max: 512 << 20,
            connections_max: 1024,
            streams_per_connection_max: 20_000,
            full_challenges_max: 128,
            verifications_max: 4,
        }
    }
}

impl Config {
    /// Reads TOML and checks what types cannot.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        toml::from_str::<Config>(text)?.checked()
    }

    /// Reads a file; relative paths in it are relative to it.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::File { path: file.to_owned(), source })?;
        let mut config = Config::from_toml(&text)?;
        if let Some(folder) = file.parent() {
            config.data = folder.join(&config.data);
            let anchors = config.ek_anchors.iter_mut().chain(&mut config.idevid_anchors);
            let manifest = config.enrollment_manifest.iter_mut();
            let more = config.ek_crls.iter_mut().chain(&mut config.policy_signers);
            for file in anchors.chain(manifest).chain(more).chain(&mut config.federation_anchors) {
                *file = folder.join(&*file);
            }
            for file in config.database.iter_mut().flat_map(DatabaseUrl::files) {
                *file = folder.join(&*file);
            }
            for file in config.json_protocol.iter_mut().flat_map(JsonProtocol::files) {
                *file = folder.join(&*file);
            }
            for file in config.spire.iter_mut().flat_map(Spire::files) {
                *file = folder.join(&*file);
            }
            for file in config.oidc.iter_mut().flat_map(OidcConfig::files) {
                *file = folder.join(&*file);
            }
            for forward in &mut config.forward {
                for file in forward.ca.iter_mut().chain(&mut forward.token_file) {
                    *file = folder.join(&*file);
                }
            }
            for webhook in &mut config.webhook {
                let WebhookConfig { ca, secret_file, certificate, key, .. } = webhook;
                for file in ca.iter_mut().chain(secret_file).chain(certificate).chain(key) {
                    *file = folder.join(&*file);
                }
            }
        }
        Ok(config)
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> Database {
        Place::from(self).database()
    }

    /// Where `spire-server` finds its socket, where there is one.
    pub(crate) fn spire_socket(&self) -> Option<PathBuf> {
        let spire = self.spire.as_ref()?;
        Some(spire.socket.clone().unwrap_or_else(|| self.data.join("spire.sock")))
    }

    pub(crate) fn attest_interval(&self) -> Duration {
        Duration::from_secs(self.attest_interval_seconds)
    }

    pub(crate) fn challenge_ttl(&self) -> Duration {
        Duration::from_secs(self.challenge_ttl_seconds)
    }

    fn checked(self) -> Result<Config, ConfigError> {
        let numbers = [
            ("attest_interval_seconds", self.attest_interval_seconds, 1, DAY_SECONDS),
            ("challenge_ttl_seconds", self.challenge_ttl_seconds, 1, 600),
            ("device_svid_ttl_seconds", self.device_svid_ttl_seconds, 10, DAY_SECONDS),
            ("gateway_svid_ttl_seconds", self.gateway_svid_ttl_seconds, 10, 365 * DAY_SECONDS),
            ("server_svid_ttl_seconds", self.server_svid_ttl_seconds, 60, 90 * DAY_SECONDS),
            ("crl_ttl_seconds", self.crl_ttl_seconds, 60, 30 * DAY_SECONDS),
            ("telemetry_retention_seconds", self.telemetry_retention_seconds, 60, 3650 * DAY_SECONDS),
            ("telemetry_bytes_max", self.telemetry_bytes_max, 1 << 16, 1 << 50),
            ("telemetry_bytes_per_device_max", self.telemetry_bytes_per_device_max, 1 << 16, 1 << 40),
            ("evidence_retention_seconds", self.evidence_retention_seconds, 60, 3650 * DAY_SECONDS),
            ("evidence_bytes_max", self.evidence_bytes_max, 1 << 20, 1 << 40),
            ("evidence_bytes_per_device_max", self.evidence_bytes_per_device_max, 1 << 20, 1 << 40),
        ];
        let spire = self.spire.as_ref().map(|spire| {
            [
                ("spire.agent_ttl_seconds", spire.agent_ttl_seconds, 10, DAY_SECONDS),
                ("spire.agents_max", spire.agents_max, 1, 100_000),
            ]
        });
        let ak_life = self.ak_certificates.as_ref().map(|ak| ak.life_seconds);
        let ak_life = ak_life.map(|life| ("ak_certificates.life_seconds", life, 60, LIFE_SECONDS_MAX));
        if self.enrollment == EnrollmentMode::Listed && self.enrollment_manifest.is_none() {
            return Err(ConfigError::NobodyListed);
        }
        if let Some(json) = &self.json_protocol {
            json.check()?;
        }
        if let Some(keylime) = &self.keylime {
            keylime.check()?;
        }
        if let Some(issuer) = self.jwt_issuer.as_ref().filter(|issuer| !is_issuer(issuer)) {
            return Err(ConfigError::Issuer { issuer: issuer.clone() });
        }
        match numbers
            .into_iter()
            .chain(spire.into_iter().flatten())
            .chain(ak_life)
            .find(|(_, value, min, max)| value < min || value > max)
        {
            Some((key, value, min, max)) => Err(ConfigError::OutOfRange { key, value, min, max }),
            None => Ok(self),
        }
    }
}

/// Where what a server remembers is: its data folder, and its database, which is in there unless it is said to be elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Place<'p> {
    /// The folder.
    pub data: &'p Path,
    /// Where the database is; `None`: in the folder.
    pub database: Option<&'p DatabaseUrl>,
}

impl Place<'_> {
    pub(crate) fn database(&self) -> Database {
        match self.database {
            Some(url) => Database::Postgres(Box::new(url.clone())),
            None => Database::File(self.data.join(crate::store::FILE_NAME)),
        }
    }
}

impl<'p> From<&'p Path> for Place<'p> {
    fn from(data: &'p Path) -> Place<'p> {
        Place { data, database: None }
    }
}

impl<'p> From<&'p PathBuf> for Place<'p> {
    fn from(data: &'p PathBuf) -> Place<'p> {
        Place { data, database: None }
    }
}

impl<'p> From<&'p Config> for Place<'p> {
    fn from(config: &'p Config) -> Place<'p> {
        Place { data: &config.data, database: config.database.as_ref() }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or a key that does not exist.
    #[error(transparent)]
    Text(#[from] toml::de::Error),
    /// Nobody could ever enroll.
    #[error("enrollment = \"listed\" lets nobody in without a list: set enrollment_manifest")]
    NobodyListed,
    /// No issuer of tokens.
    #[error(
        "jwt_issuer = {issuer:?}: give https://HOST or https://HOST/PATH, without ? and # and a slash at the end"
    )]
    Issuer {
        /// What it says.
        issuer: String,
    },
    /// The JSON protocol cannot be served so.
    #[error("json_protocol.{key}: {problem}")]
    JsonProtocol {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A number that makes no sense.
    #[error("{key} = {value} is out of range: {min} to {max}")]
    OutOfRange {
        /// Which.
        key: &'static str,
        /// What it says.
        value: u64,
        /// The least it may be.
        min: u64,
        /// The most it may be.
        max: u64,
    },
}

/// OpenID Connect Discovery 1.0, 3: a URL by https, without query and fragment.
fn is_issuer(issuer: &str) -> bool {
    let rest = issuer.strip_prefix("https://").unwrap_or_default();
    let has_host = rest.split(['/', ':']).next().is_some_and(|host| !host.is_empty());
    let is_plain =
        rest.bytes().all(|byte| byte.is_ascii_graphic()) && !rest.contains(['?', '#', '@', '"', '\\']);
    has_host && is_plain && !rest.ends_with('/')
}

const DAY_SECONDS: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_13_the_reference_is_what_the_types_say() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/server.md");
        let about = "`assay server --config FILE`, TOML. Every key has a default, and one that is not here is refused. Paths are \
                     relative to the file.";
        let schema = schemars::schema_for!(Config);
        assay_testkit::reference::check(&page, "Configuration of the server", about, schema.as_value());
    }

    #[test]
    fn what_is_installed_is_a_configuration() {
        let config = Config::from_toml(include_str!("../../../deploy/debian/server.toml")).unwrap();
        assert_eq!(config.data, Path::new("/var/lib/assay-server"));
    }

    #[test]
    fn nothing_has_to_be_said() {
        let config = Config::from_toml("").unwrap();
        assert_eq!(config.edge.to_string(), "127.0.0.1:8444");
        assert_eq!(config.console.to_string(), "127.0.0.1:8445");
        assert_eq!((config.attest_interval_seconds, config.challenge_ttl_seconds), (60, 30));
    }

    #[test]
    fn what_it_does_not_know_is_refused_with_its_place() {
        let error =
            Config::from_toml("trust_domain = \"td\"\natest_interval_seconds = 2").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("atest_interval_seconds"), "{error}");
        assert!(Config::from_toml("trust_domain = \"T D\"").is_err());
        let error = Config::from_toml("attest_interval_seconds = 0").unwrap_err().to_string();
        assert_eq!(error, "attest_interval_seconds = 0 is out of range: 1 to 86400");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.toml");
        std::fs::write(&file, "data = \"state\"\nek_anchors = [\"/etc/ca.pem\", \"cas\"]").unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!(config.data, folder.path().join("state"));
        assert_eq!(config.ek_anchors, [PathBuf::from("/etc/ca.pem"), folder.path().join("cas")]);
    }
}
