//! The server: registrar, verifier, authority, collector and console in one program.
//!
//! The use cases are `enroll.rs`, `attest.rs`, `grant/`, `fate.rs` and `ear.rs`, each of the form *load, decide, commit,
//! answer*: what is decided is decided in the pure crates, what is changed is one transaction of `store/`. `session/`
//! is a device's standing stream, `api/` the two doors, `keys/` the only place with a private key. [`run`] starts it
//! all.

mod api;
mod attest;
pub mod audit;
mod boot_logs;
mod clock;
pub mod config;
mod device;
mod ear;
mod endorsers;
mod enroll;
mod entries;
pub mod evidence;
mod fate;
mod grant;
mod identity;
mod keys;
mod label;
pub mod ledger;
mod maintenance;
mod metrics;
mod policy;
mod revocation;
mod server;
mod session;
pub mod store;
mod trial;
mod verifier;

pub use api::http::surface;
pub use config::{Config, ConfigError};
pub use server::{Addresses, Running, StartError};

/// Runs a server until `shutdown` resolves, then stops it within two seconds.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    let running = Running::start(config).await?;
    shutdown.await;
    running.stop().await;
    Ok(())
}
