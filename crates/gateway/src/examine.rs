//! What a gateway would find that started now: what it shows, and whether the servers take it. For `assay gateway doctor`,
//! beside a running gateway or instead of one.

use std::sync::Arc;
use std::time::SystemTime;

use assay_clock::Clock;

use crate::GatewayError;
use crate::config::Config;
use crate::credentials::CredentialSource;
use crate::servers::Servers;

/// A gateway that does not listen.
pub struct Examined {
    credentials: Arc<CredentialSource>,
    servers: Servers,
}

impl Examined {
    /// Reads what a gateway reads when it starts, and refuses what it would refuse.
    pub fn load(config: &Config) -> Result<Examined, GatewayError> {
        config.check()?;
        let credentials = CredentialSource::load(config, &Clock::system())?;
        Ok(Examined { servers: Servers::new(config, credentials.clone()), credentials })
    }

    /// Whose credentials they are.
    pub fn spiffe_id(&self) -> String {
        self.credentials.current().own.spiffe_id().to_string()
    }

    /// Meets every server once, as before it carries devices: its address, and what its clock shows or why it was not met.
    pub async fn meet(&self) -> Vec<(String, Result<Option<SystemTime>, String>)> {
        self.servers.meet().await
    }
}
