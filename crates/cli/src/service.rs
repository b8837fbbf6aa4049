//! `assay server` and `assay gateway`: the long-running programs, and credentials for a gateway.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use assay_identity::x509_svid::presented_id;
use assay_identity::{PrivateKey, TrustDomain, csr};
use assay_service::attended;
use assay_wire::console::gateway::{Credentials, Enroll};
use clap::Subcommand;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::console::Asking;
use crate::{doctor, gateway, output};

/// Arguments of `assay server`. What is given here wins over the file.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "ASSAY_CONFIG")]
    config: Option<PathBuf>,
    /// Data folder; made on first start, with root and issuing CA, database and operator token.
    #[arg(long, env = "ASSAY_DATA")]
    data: Option<PathBuf>,
    /// Trust domain whose identities this server issues.
    #[arg(long, env = "ASSAY_TRUST_DOMAIN")]
    trust_domain: Option<String>,
    /// Certificates that vouch for TPMs, a file or a folder (may be repeated).
    #[arg(long = "ek-anchors")]
    ek_anchors: Vec<PathBuf>,
    /// Revocation lists of the authorities above TPMs, a file or a folder (may be repeated).
    #[arg(long = "ek-crls")]
    ek_crls: Vec<PathBuf>,
    /// Address for gateways.
    #[arg(long)]
    edge: Option<std::net::SocketAddr>,
    /// Address of the console.
    #[arg(long)]
    console: Option<std::net::SocketAddr>,
    #[command(flatten)]
    log: Log,
}

/// Arguments of `assay gateway`.
#[derive(clap::Args)]
pub struct GatewayArgs {
    #[command(subcommand)]
    verb: GatewayVerb,
}

#[derive(Subcommand)]
enum GatewayVerb {
    /// Run the gateway.
    Run {
        /// Configuration file (TOML).
        #[arg(long, env = "ASSAY_GATEWAY_CONFIG")]
        config: PathBuf,
        #[command(flatten)]
        log: Log,
    },
    /// Get credentials for a gateway: makes a key, has the server certify it, writes both and the bundle to a folder. In
    /// the folder of a gateway whose certificate has ended, new ones take the place of the old, also while it runs.
    Enroll {
        /// Name of the gateway, one path segment of its SPIFFE ID.
        #[arg(long)]
        name: String,
        /// Folder for the credentials.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        asking: Asking,
    },
    /// What is wrong with this gateway and what to do about it, on one page: what support asks for first.
    Doctor(doctor::GatewayArgs),
    /// Every gateway with a certificate that has not ended.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// End a gateway: its certificates are revoked, the servers drop it, and nobody believes it any more.
    Revoke {
        /// Name of the gateway.
        name: String,
        /// Why; it goes on record.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(clap::Args)]
struct Log {
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
}

/// Runs the server until it is told to end.
pub fn server(args: ServerArgs) -> ExitCode {
    output::exit(args.log.install().and_then(|()| {
        let config = server_config(&args)?;
        runtime()?.block_on(assay_server::run(config, attended(ended())))?;
        Ok(())
    }))
}

/// Runs a verb of `assay gateway`.
pub fn gateway(args: GatewayArgs) -> ExitCode {
    output::exit(match args.verb {
        GatewayVerb::Doctor(args) => return doctor::gateway(&args),
        GatewayVerb::Run { config, log } => log.install().and_then(|()| run_gateway(&config)),
        GatewayVerb::Enroll { name, out, asking } => enroll_gateway(&name, &out, &asking),
        GatewayVerb::List { asking } => gateway::list(&asking),
        GatewayVerb::Revoke { name, reason, asking } => gateway::revoke(&name, &reason, &asking),
    })
}

/// Completes at SIGTERM or Ctrl-C.
pub async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hang_up)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = tokio::signal::ctrl_c() => return,
            // Whoever sends it expects a daemon to read its files again, or has closed the terminal.
            _ = hang_up.recv() => tracing::info!(
                "SIGHUP: certificates and lists are read again when they change, and the configuration at the next start"
            ),
        }
    }
}

fn server_config(args: &ServerArgs) -> Result<assay_server::Config> {
    let mut config = match &args.config {
        Some(file) => assay_server::Config::load(file).with_context(|| file.display().to_string())?,
        None => assay_server::Config::default(),
    };
    if let (Some(data), Some(file)) = (&args.data, &args.config) {
        unexported("ASSAY_DATA", &data.display().to_string(), &config.data.display().to_string(), file)?;
    }
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    if let (Some(name), Some(file)) = (&args.trust_domain, &args.config) {
        unexported("ASSAY_TRUST_DOMAIN", name, &config.trust_domain.to_string(), file)?;
    }
    if let Some(name) = &args.trust_domain {
        config.trust_domain = TrustDomain::parse(name)?;
    }
    if let Some(edge) = args.edge {
        config.edge = edge;
    }
    if let Some(console) = args.console {
        config.console = console;
    }
    config.ek_anchors.extend(args.ek_anchors.iter().cloned());
    config.ek_crls.extend(args.ek_crls.iter().cloned());
    Ok(config)
}

fn run_gateway(file: &Path) -> Result<()> {
    let config = assay_gateway::Config::load(file).with_context(|| file.display().to_string())?;
    runtime()?.block_on(assay_gateway::run(config, attended(ended())))?;
    Ok(())
}

fn enroll_gateway(name: &str, out: &Path, asking: &Asking) -> Result<()> {
    only_this_gateways(name, out)?;
    let key = PrivateKey::generate()?;
    let request = data_encoding::BASE64.encode(&csr::request(&key)?);
    let request = Enroll { name: name.to_owned(), csr: request };
    let answer: Credentials = asking.console.client()?.post("/v1/gateways", &request)?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let Credentials { certificate, bundle, .. } = &answer;
    // The certificate last: a gateway that runs on the folder takes it up with the key that is there by then.
    replace(&out.join(BUNDLE_FILE), bundle.as_bytes(), 0o644)?;
    replace(&out.join(KEY_FILE), key.to_pem().as_bytes(), 0o600)?;
    replace(&out.join(CREDENTIALS_FILE), certificate.as_bytes(), 0o644)?;
    // What the gateway renewed itself was renewed from what is no more.
    match std::fs::remove_file(out.join(RENEWED_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| out.join(RENEWED_FILE).display().to_string());
        }
        _ => {}
    }
    if asking.json {
        let file = |name: &str| out.join(name);
        return output::json(&json!({
            "gateway": name, "key": file(KEY_FILE), "credentials": file(CREDENTIALS_FILE), "bundle": file(BUNDLE_FILE),
        }));
    }
    output::out!("credentials of gateway {name} are in {}", out.display());
    Ok(())
}

/// A folder that has credentials already gets new ones only for the gateway whose they are.
fn only_this_gateways(name: &str, out: &Path) -> Result<()> {
    let path = out.join(CREDENTIALS_FILE);
    let Ok(pem) = std::fs::read(&path) else {
        if out.join(KEY_FILE).exists() {
            bail!("{}: has a key and no certificate that says whose; name another folder", out.display());
        }
        return Ok(());
    };
    let leaf = CertificateDer::from_pem_slice(&pem)
        .with_context(|| format!("{}: not a certificate", path.display()))?;
    let id = presented_id(&leaf).with_context(|| format!("{}: not a gateway's", path.display()))?;
    match id.path().strip_prefix("/assay/gateway/") {
        Some(found) if found == name => Ok(()),
        _ => bail!("{}: has the credentials of {id}; name that gateway or another folder", out.display()),
    }
}

/// Puts a file in its place as a whole, with this mode from its first byte.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let write = || {
        let _ = std::fs::remove_file(&unfinished);
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().with_context(|| path.display().to_string())
}

impl Log {
    fn install(&self) -> Result<()> {
        let filter = match std::env::var("ASSAY_LOG") {
            Ok(directives) => EnvFilter::try_new(&directives).with_context(|| {
                format!("ASSAY_LOG: {directives:?} does not say what to log: try assay_server=debug")
            })?,
            Err(_) => EnvFilter::new("info"),
        };
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        if self.log_json {
            subscriber.json().init()
        } else {
            subscriber.init()
        }
        Ok(())
    }
}

/// A variable that somebody exported for the other verbs is not to move a server to another folder in silence.
fn unexported(variable: &str, given: &str, configured: &str, file: &Path) -> Result<()> {
    let is_exported = std::env::var(variable).is_ok_and(|exported| exported == given);
    if is_exported && given != configured {
        bail!(
            "{variable} is exported as {given}, and {} says {configured}: unset the variable, or say it with the flag",
            file.display()
        );
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.enable_all().thread_keep_alive(IDLE_THREAD_ENDS_AFTER).build()?)
}

/// A thread that read a long policy keeps the memory that it took until it ends.
const IDLE_THREAD_ENDS_AFTER: Duration = Duration::from_secs(1);
const KEY_FILE: &str = "key.pem";
const CREDENTIALS_FILE: &str = "credentials.pem";
const BUNDLE_FILE: &str = "bundle.pem";
const RENEWED_FILE: &str = "renewed.pem";
