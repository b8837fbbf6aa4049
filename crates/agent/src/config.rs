//! What the agent is told: a TOML file, over which flags and environment variables go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_identity::TrustDomain;
use serde::Deserialize;
use thiserror::Error;

use crate::door::actions::ActionsConfig;
use crate::door::json::JsonProtocolConfig;
use crate::door::secrets::SecretsConfig;
use crate::logs;
pub use crate::place::LocationConfig;
use crate::place::{GpsdConfig, LocationError, Whereabouts};
use crate::task::Room;
use crate::tpm::identity::IdentityConfig;
use crate::tpm::keys::AkKind;
use crate::tpm::{Target, TpmError};
use crate::workload::Engines;

/// The configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not the configuration's TOML.
    #[error("{path}: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// An option without which the agent cannot run is missing.
    #[error("{option} is missing: set it in the configuration file or with --{}", option.replace('_', "-"))]
    Missing {
        /// Which option.
        option: &'static str,
    },
    /// An option's value makes no sense.
    #[error("{option}: {value:?} {expected}")]
    Value {
        /// Which option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// The section on the device's place makes no sense.
    #[error("[location] {0}")]
    Location(#[from] LocationError),
    /// The TPM's address makes no sense.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

/// The configuration file, as written. Unknown keys are refused.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// What people call this device; the host's name if not given.
    pub name: Option<String>,
    /// The trust domain this device belongs to, such as `example.org`.
    pub trust_domain: Option<String>,
    /// The gateway's address, HOST:PORT or https://HOST:PORT.
    pub gateway: Option<String>,
    /// The trust bundle, PEM: with what the gateway is recognised before the first enrollment.
    pub bundle: Option<PathBuf>,
    /// The folder for the agent's private files.
    pub state: Option<PathBuf>,
    /// The TPM: a device, tcp:HOST:PORT or unix:PATH.
    pub tpm: Option<String>,
    /// The kind of attestation key that is made: `ecc` (P-256), or `rsa` (RSA-2048) for authorities that verify no other, step-ca
    /// among them, where the device enrols by `assay-agent acme`. To change it later, remove `ak.key` from the state folder.
    pub attestation_key: AkKind,
    /// The identity that the device's maker gave it: IDevID and IAK.
    pub identity: Option<IdentityConfig>,
    /// The boot log.
    pub boot_log: Option<PathBuf>,
    /// The IMA list in binary form.
    pub ima_log: Option<PathBuf>,
    /// systemd's measurement log.
    pub measure_log: Option<PathBuf>,
    /// The SPIFFE Workload API's socket.
    pub workload_api: Option<PathBuf>,
    /// Where the engines of containers answer, for entries with docker: selectors.
    pub engines: Engines,
    /// Telemetry.
    pub telemetry: TelemetryConfig,
    /// The JSON telemetry protocol of the original agent; not served if this section is not there.
    pub json_protocol: Option<JsonProtocolConfig>,
    /// Where secrets are put that this device may have; without this section it asks for none.
    pub secrets: Option<SecretsConfig>,
    /// Programs that are run when this device's trust falls or comes back.
    pub actions: Option<ActionsConfig>,
    /// Where the device stands.
    pub location: Option<LocationConfig>,
    /// Tasks that the server places; the device runs none if this section is not there.
    pub tasks: Option<TaskConfig>,
}

/// What there is on the device for tasks.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TaskConfig {
    /// Memory for all of them, in MiB.
    pub memory_mb: u64,
    /// Processors for all of them.
    pub cpu_cores: u16,
    /// How many run at a time, 1 to 1000.
    pub tasks_max: u16,
}

impl Default for TaskConfig {
    fn default() -> Self {
        TaskConfig { memory_mb: 256, cpu_cores: 1, tasks_max: 4 }
    }
}

impl TaskConfig {
    /// The same, as the server is told.
    pub(crate) fn room(&self) -> Room {
        Room {
            memory_bytes: self.memory_mb.saturating_mul(1 << 20),
            cpu_millis: u64::from(self.cpu_cores) * 1000,
            tasks: self.tasks_max.into(),
        }
    }
}

/// What the device says of itself, and how often.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Whether host metrics are sent at all.
    pub enabled: bool,
    /// Seconds between two looks at the host, 0.1 to 86400.
    pub interval_seconds: f64,
    /// For how many seconds what came waits for more, so that one signature of the TPM is for all of it; 0.1 to 3600.
    pub flush_seconds: f64,
    /// Bytes that may wait on disk while nobody can be reached; then the oldest make room, and the gap is signed. 4 MiB to 1 TiB.
    pub spool_bytes_max: u64,
    /// OTLP over gRPC for programs of this device: an address of loopback, such as `127.0.0.1:4317`. Not served if not given.
    pub otlp_grpc: Option<SocketAddr>,
    /// OTLP over HTTP, such as `127.0.0.1:4318`.
    pub otlp_http: Option<SocketAddr>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig {
            enabled: true,
            interval_seconds: 60.0,
            flush_seconds: 5.0,
            spool_bytes_max: 256 << 20,
            otlp_grpc: None,
            otlp_http: None,
        }
    }
}

/// The same options as flags and environment variables; what is given here wins over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "ASSAY_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// What people call this device [default: the host's name]
    #[arg(long, env = "ASSAY_NAME")]
    pub name: Option<String>,
    /// Trust domain, such as example.org
    #[arg(long, env = "ASSAY_TRUST_DOMAIN")]
    pub trust_domain: Option<String>,
    /// Gateway, HOST:PORT or https://HOST:PORT
    #[arg(long, env = "ASSAY_GATEWAY")]
    pub gateway: Option<String>,
    /// Trust bundle (PEM) that recognises the gateway
    #[arg(long, value_name = "FILE", env = "ASSAY_BUNDLE")]
    pub bundle: Option<PathBuf>,
    /// Folder for the agent's private files [default: /var/lib/assay-agent]
    #[arg(long, value_name = "DIR", env = "ASSAY_STATE")]
    pub state: Option<PathBuf>,
    /// TPM: a device, tcp:HOST:PORT or unix:PATH [default: /dev/tpmrm0]
    #[arg(long, env = "ASSAY_TPM")]
    pub tpm: Option<String>,
    /// Boot log [default: the kernel's]
    #[arg(long, value_name = "FILE", env = "ASSAY_BOOT_LOG")]
    pub boot_log: Option<PathBuf>,
    /// IMA list, binary [default: the kernel's]
    #[arg(long, value_name = "FILE", env = "ASSAY_IMA_LOG")]
    pub ima_log: Option<PathBuf>,
    /// systemd's measurement log [default: systemd's]
    #[arg(long, value_name = "FILE", env = "ASSAY_MEASURE_LOG")]
    pub measure_log: Option<PathBuf>,
    /// SPIFFE Workload API socket [default: /run/assay-agent/workload.sock]
    #[arg(long, value_name = "PATH", env = "ASSAY_WORKLOAD_API")]
    pub workload_api: Option<PathBuf>,
    /// Seconds between telemetry batches [default: 60]
    #[arg(long, value_name = "SECONDS", env = "ASSAY_TELEMETRY_INTERVAL")]
    pub telemetry_interval: Option<f64>,
}

impl Options {
    /// Reads the file, if one is named, and puts the flags over it.
    pub fn merge(self) -> Result<ConfigFile, ConfigError> {
        let mut file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let over = |flag: Option<PathBuf>, value: &mut Option<PathBuf>| *value = flag.or(value.take());
        over(self.bundle, &mut file.bundle);
        over(self.state, &mut file.state);
        over(self.boot_log, &mut file.boot_log);
        over(self.ima_log, &mut file.ima_log);
        over(self.measure_log, &mut file.measure_log);
        over(self.workload_api, &mut file.workload_api);
        let over = |flag: Option<String>, value: &mut Option<String>| *value = flag.or(value.take());
        over(self.name, &mut file.name);
        over(self.trust_domain, &mut file.trust_domain);
        over(self.gateway, &mut file.gateway);
        over(self.tpm, &mut file.tpm);
        file.telemetry.interval_seconds = self.telemetry_interval.unwrap_or(file.telemetry.interval_seconds);
        Ok(file)
    }
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// The part that evidence needs: a TPM and the logs.
    pub fn sources(&self) -> Result<Sources, ConfigError> {
        let path = |value: &Option<PathBuf>, default: &str| value.clone().unwrap_or_else(|| default.into());
        Ok(Sources {
            tpm: self.tpm.as_deref().unwrap_or(Target::DEFAULT).parse()?,
            boot_log: path(&self.boot_log, logs::BOOT_LOG),
            ima_log: path(&self.ima_log, logs::IMA_LOG),
            measure_log: path(&self.measure_log, logs::MEASURE_LOG),
        })
    }

    /// The folder for the agent's private files.
    pub fn state_folder(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| STATE.into())
    }

    /// Everything, checked.
    pub fn complete(self) -> Result<Config, ConfigError> {
        let sources = self.sources()?;
        let trust_domain = self.trust_domain.ok_or(ConfigError::Missing { option: "trust_domain" })?;
        let refused = |option, expected| move |value: String| ConfigError::Value { option, value, expected };
        let interval_seconds = self.telemetry.interval_seconds;
        if !INTERVAL_SECONDS.contains(&interval_seconds) {
            let refused = refused("telemetry.interval_seconds", "must be 0.1 to 86400");
            return Err(refused(interval_seconds.to_string()));
        }
        let telemetry = &self.telemetry;
        if !FLUSH_SECONDS.contains(&telemetry.flush_seconds) {
            let refused = refused("telemetry.flush_seconds", "must be 0.1 to 3600");
            return Err(refused(telemetry.flush_seconds.to_string()));
        }
        if !SPOOL_BYTES.contains(&telemetry.spool_bytes_max) {
            let refused = refused("telemetry.spool_bytes_max", "must be 4 MiB to 1 TiB");
            return Err(refused(telemetry.spool_bytes_max.to_string()));
        }
        // Who speaks there is not asked: it is for programs of this device alone.
        let addresses = [
            ("telemetry.otlp_grpc", telemetry.otlp_grpc),
            ("telemetry.otlp_http", telemetry.otlp_http),
            ("json_protocol.listen", self.json_protocol.as_ref().map(|json| json.listen)),
        ];
        for (option, address) in addresses {
            if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
                return Err(refused(option, "is not an address of loopback")(address.to_string()));
            }
        }
        if let Some(tasks) = self.tasks.as_ref().filter(|tasks| !TASKS.contains(&tasks.tasks_max)) {
            return Err(refused("tasks.tasks_max", "must be 1 to 1000")(tasks.tasks_max.to_string()));
        }
        let gateway = self.gateway.ok_or(ConfigError::Missing { option: "gateway" })?;
        Ok(Config {
            name: match self.name {
                Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
                    return Err(refused("name", "must have 1 to 253 bytes")(name));
                }
                Some(name) => name,
                None => host_name(),
            },
            trust_domain: TrustDomain::parse(&trust_domain)
                .map_err(|_| refused("trust_domain", "is no SPIFFE trust domain")(trust_domain))?,
            gateway: gateway_address(&gateway)
                .ok_or_else(|| refused("gateway", "is neither HOST:PORT nor https://HOST:PORT")(gateway))?,
            bundle: self.bundle.ok_or(ConfigError::Missing { option: "bundle" })?,
            state: self.state.unwrap_or_else(|| STATE.into()),
            sources,
            attestation_key: self.attestation_key,
            identity: self.identity,
            workload_api: self.workload_api.unwrap_or_else(|| WORKLOAD_API.into()),
            engines: self.engines,
            telemetry_interval: self.telemetry.enabled.then(|| Duration::from_secs_f64(interval_seconds)),
            telemetry_flush: Duration::from_secs_f64(self.telemetry.flush_seconds.min(interval_seconds)),
            spool_bytes_max: self.telemetry.spool_bytes_max,
            otlp_grpc: self.telemetry.otlp_grpc,
            otlp_http: self.telemetry.otlp_http,
            json_protocol: self.json_protocol.map(|json| json.at(self.location.as_ref())),
            secrets: self.secrets,
            actions: self.actions,
            location: self.location.as_ref().map(LocationConfig::whereabouts).transpose()?,
            gpsd: self.location.and_then(|location| location.gpsd),
            tasks: self.tasks,
        })
    }
}

/// Where evidence comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The TPM.
    pub tpm: Target,
    /// The boot log.
    pub boot_log: PathBuf,
    /// The IMA list in binary form.
    pub ima_log: PathBuf,
    /// systemd's measurement log.
    pub measure_log: PathBuf,
}

/// The configuration `assay-agent run` needs, every value usable.
#[derive(Clone, Debug)]
pub struct Config {
    /// What people call this device.
    pub name: String,
    /// Whose device it is.
    pub trust_domain: TrustDomain,
    /// HOST:PORT.
    pub gateway: String,
    /// The bundle to start with, PEM.
    pub bundle: PathBuf,
    /// The agent's private files.
    pub state: PathBuf,
    /// TPM and logs.
    pub sources: Sources,
    /// The kind of attestation key that is made.
    pub attestation_key: AkKind,
    /// IDevID and IAK, if the device has them.
    pub identity: Option<IdentityConfig>,
    /// The Workload API's socket.
    pub workload_api: PathBuf,
    /// Where the engines of containers answer.
    pub engines: Engines,
    /// Time between two looks at the host; `None`: it is not looked at.
    pub telemetry_interval: Option<Duration>,
    /// How long what came waits for more.
    pub telemetry_flush: Duration,
    /// Bytes that may wait on disk.
    pub spool_bytes_max: u64,
    /// Where programs reach the agent by OTLP over gRPC.
    pub otlp_grpc: Option<SocketAddr>,
    /// Where programs reach the agent by OTLP over HTTP.
    pub otlp_http: Option<SocketAddr>,
    /// The JSON protocol, if it is served.
    pub json_protocol: Option<JsonProtocolConfig>,
    /// Programs that are run when trust falls or comes back.
    pub actions: Option<ActionsConfig>,
    /// Where secrets are put.
    pub secrets: Option<SecretsConfig>,
    /// Where the device stands.
    pub location: Option<Whereabouts>,
    /// A receiver that says where it is.
    pub gpsd: Option<GpsdConfig>,
    /// What there is for tasks; `None`: it runs none.
    pub tasks: Option<TaskConfig>,
}

fn gateway_address(text: &str) -> Option<String> {
    let authority = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':')?;
    let usable = !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok();
    usable.then(|| authority.to_owned())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => String::from("unnamed"),
        name => name.chars().take(NAME_BYTES_MAX / 4).collect(),
    }
}

/// EnrollBegin.name.
const NAME_BYTES_MAX: usize = 253;
/// A TPM makes a few signatures a second; a day without a word is no telemetry.
const INTERVAL_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;
/// Each has a thread while it runs.
const TASKS: std::ops::RangeInclusive<u16> = 1..=1000;
/// A TPM makes a few signatures a second; what waits for an hour is no longer what is.
const FLUSH_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;
/// Some segments of the spool at least.
const SPOOL_BYTES: std::ops::RangeInclusive<u64> = 4 << 20..=1 << 40;
const STATE: &str = "/var/lib/assay-agent";
pub(crate) const WORKLOAD_API: &str = "/run/assay-agent/workload.sock";

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> ConfigFile {
        toml::from_str("trust_domain = 'example.org'\ngateway = 'gw.example.org:8443'\nbundle = '/b.pem'")
            .unwrap()
    }

    #[test]
    fn what_is_installed_is_a_configuration() {
        let file: ConfigFile = toml::from_str(include_str!("../../../deploy/debian/agent.toml")).unwrap();
        file.complete().unwrap();
    }

    #[test]
    fn year_13_the_reference_is_what_the_types_say() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/agent.md");
        let about = "`assay-agent run --config FILE`, TOML. `trust_domain`, `gateway` and `bundle` have to be said, here, by flags or by \
                     variables (`assay-agent run --help`), which win over the file. A key that is not here is refused.";
        let schema = schemars::schema_for!(ConfigFile);
        assay_testkit::reference::check(&page, "Configuration of the agent", about, schema.as_value());
    }

    #[test]
    fn three_options_suffice() {
        let config = minimal().complete().unwrap();
        assert_eq!(config.sources.tpm.to_string(), "/dev/tpmrm0");
        assert_eq!(config.sources.ima_log, Path::new(logs::IMA_LOG));
        assert_eq!(config.telemetry_interval, Some(Duration::from_secs(60)));
        assert!(!config.name.is_empty());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let check = |change: fn(&mut ConfigFile), says: &str| {
            let mut file = minimal();
            change(&mut file);
            let error = file.complete().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        check(|file| file.gateway = None, "gateway is missing");
        check(|file| file.trust_domain = None, "--trust-domain");
        check(|file| file.gateway = Some("gw".into()), "HOST:PORT");
        check(|file| file.gateway = Some("http://gw:1/x".into()), "HOST:PORT");
        check(|file| file.trust_domain = Some("Exa mple".into()), "trust domain");
        check(|file| file.tpm = Some("tpm".into()), "tcp:HOST:PORT");
        check(|file| file.name = Some(String::new()), "253");
        check(|file| file.telemetry.interval_seconds = 0.0, "0.1 to 86400");
        check(|file| file.telemetry.interval_seconds = f64::NAN, "0.1 to 86400");
        check(|file| file.telemetry.flush_seconds = 0.0, "0.1 to 3600");
        check(|file| file.telemetry.spool_bytes_max = 1, "4 MiB");
        check(|file| file.telemetry.otlp_grpc = Some(([0, 0, 0, 0], 4317).into()), "loopback");
        check(|file| file.telemetry.otlp_http = Some(([10, 0, 0, 1], 4318).into()), "loopback");
        let unknown = toml::from_str::<ConfigFile>("gatway = 'x'").unwrap_err().to_string();
        assert!(unknown.contains("gatway") && unknown.contains("line 1"), "{unknown}");
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, "gateway = 'a:1'\ntpm = '/dev/tpm0'\n[telemetry]\ninterval_seconds = 5")
            .unwrap();
        let options =
            Options { config: Some(path), gateway: Some("https://b:2".into()), ..Options::default() };
        let file = options.merge().unwrap();
        assert_eq!((file.gateway.as_deref(), file.tpm.as_deref()), (Some("https://b:2"), Some("/dev/tpm0")));
        assert_eq!(file.telemetry.interval_seconds, 5.0);
    }
}
