//! The gateway: what devices reach at the network's edge. Limits and routing; no store, no signing key.
//!
//! A connection comes in at `listener.rs`, its requests go through `limits.rs` and `proxy.rs` to one of the
//! `servers.rs`. The gateway reads no message: a device proves itself to the server end to end, by its TPM.

mod body;
mod config;
mod credentials;
pub mod examine;
mod json;
mod ledger;
mod limits;
mod listener;
mod places;
mod proxy;
mod refusal;
mod route;
mod servers;
mod status;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use config::{Config, ConfigError, Limits};
pub use credentials::CredentialsError;
pub use json::JsonProtocol;

use credentials::CredentialSource;
use limits::Limiter;
use listener::Listener;
use proxy::Proxy;
use servers::Servers;

/// Why the gateway could not start.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its own certificate, key or bundle cannot be used.
    #[error("the gateway's credentials cannot be used")]
    Credentials(#[from] CredentialsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The file that names the address listened on cannot be written.
    #[error("cannot write the addresses file")]
    AddressesFile(#[source] std::io::Error),
}

/// Runs the gateway until `shutdown` completes; then open streams get a second to end.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), GatewayError> {
    run_by(Clock::system(), config, shutdown).await
}

/// The same, by a clock of the caller's.
pub async fn run_by(
    clock: Clock,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    config.check()?;
    let credentials = CredentialSource::load(&config, &clock)?;
    let cannot_listen = |source| GatewayError::Listen { address: config.listen, source };
    let socket = TcpListener::bind(config.listen).await.map_err(cannot_listen)?;
    let address = socket.local_addr().map_err(cannot_listen)?;

    let servers = Arc::new(Servers::new(&config, credentials.clone()));
    let tasks = Tasks(vec![
        tokio::spawn(servers.clone().keep_connected()),
        tokio::spawn(credentials.clone().keep_loaded()),
        tokio::spawn(upkeep::follow_list(servers.clone(), credentials.clone())),
        tokio::spawn(upkeep::keep_renewed(servers.clone(), credentials.clone())),
    ]);
    // Whoever reads our address may use it at once.
    let _ = tokio::time::timeout(FIRST_CONNECTION, servers.connected()).await;
    if let Some(file) = &config.addresses_file {
        let text = serde_json::json!({ "gateway": address.to_string() }).to_string();
        std::fs::write(file, text).map_err(GatewayError::AddressesFile)?;
    }
    tracing::info!(%address, id = %credentials.current().own.spiffe_id(), "gateway ready");

    let limiter = Arc::new(Limiter::new(&config.limits));
    let proxy = Arc::new(Proxy::new(&config, limiter.clone(), servers, credentials.clone()));
    let (stop, stopping) = watch::channel(());
    let listener = Listener::new(socket, &config, limiter, credentials, proxy, stopping);
    let mut serving = tokio::spawn(listener.serve());
    tokio::select! {
        () = shutdown => {}
        // The listener ends only when told to, unless it panicked.
        _ = &mut serving => {}
    }
    let _ = stop.send(());
    let _ = tokio::time::timeout(DRAIN, serving).await;
    drop(tasks);
    tracing::info!("gateway stopped");
    Ok(())
}

/// Background tasks that end with the gateway.
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

const FIRST_CONNECTION: Duration = Duration::from_secs(1);
// The gateway is to be gone two seconds after it was told.
const DRAIN: Duration = Duration::from_millis(1500);
