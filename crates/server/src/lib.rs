//! The server: registrar, verifier, authority, collector and console in one program.
//!
//! In floors, and no arrow runs back up: `start.rs` above the doors (`door/`), doors above the use cases (`enroll.rs`,
//! `attest/`, `grant/`, `policy/`, `fate.rs`, `federation.rs`, `label.rs`, `name.rs`, `fleet.rs`, `newcomer.rs`, `ear.rs`, `node.rs`, `secret.rs`, `message.rs`, `notice.rs`, `access/`; `actor.rs` is who has it done, `principal.rs` what they may), use cases above `in_force/`, `archive/` and `keys/`, and
//! all above `store/`. A use case has the form *load, decide, commit, answer*: what is decided is decided in the pure
//! crates, what is changed is one transaction of the store. [`run`] starts it all.

mod access;
mod actor;
pub mod archive;
mod attest;
pub mod audit;
mod certificate;
mod clock;
mod concern;
pub mod config;
pub mod continuity;
mod device;
mod door;
mod ear;
mod enroll;
mod entry;
mod fate;
mod federation;
mod fleet;
mod follow;
mod grant;
mod in_force;
mod keylime;
mod keys;
mod label;
pub mod ledger;
mod maintenance;
mod message;
mod metrics;
mod name;
mod newcomer;
mod node;
mod notice;
pub mod outcome;
mod parts;
mod placement;
mod policy;
mod principal;
mod rarely;
mod replace;
mod secret;
mod security;
mod spire;
mod start;
pub mod store;
mod telemetry_key;
mod thread;

pub use config::{AkCertificates, Config, ConfigError, EnrollmentMode, Place, Spire, TrustApi};
pub use door::console::surface;
pub use door::forward::{DestinationError, ForwardConfig};
pub use door::json::{Compatibility, JsonProtocol};
pub use door::keylime::Keylime;
pub use door::oidc::{OidcConfig, OidcConfigError, OidcLoadError, RoleRule};
pub use door::webhook::{WebhookConfig, WebhookError};
pub use keys::FileError;
pub use notice::{NoKey, Severity};
pub use principal::Role;
pub use start::{Addresses, KeylimeAddresses, Running, StartError};

/// Runs a server until `shutdown` resolves, then stops it within two seconds.
///
/// On an older copy of the database it serves reading alone until an operator has decided.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let why = match Running::start(config.clone()).await {
            Ok(running) => {
                shutdown.await;
                running.stop().await;
                return Ok(());
            }
            Err(StartError::Continuity(why)) if why.awaits_a_word() => why,
            Err(error) => return Err(error),
        };
        tokio::select! {
            read = start::serve_reading(config.clone(), why) => read?,
            () = shutdown.as_mut() => return Ok(()),
        }
    }
}
