//! The operator's way to the console: where it is and who asks, for every verb that asks it.
//!
//! Where the server is and who the operator is come from the server's data folder unless they are given: on the server's
//! own machine it is the operator's socket. `client.rs` holds the connection.

mod client;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub use client::Client;

/// How to reach the console.
#[derive(clap::Args, Clone, Debug)]
pub struct Console {
    /// The server's data folder; address, bundle and token are read from it unless given.
    #[arg(long, env = "ASSAY_DATA", default_value = "assay-data", global = true)]
    pub data: PathBuf,
    /// Address of the console, such as 127.0.0.1:8445.
    #[arg(long, env = "ASSAY_CONSOLE", global = true)]
    pub console: Option<String>,
    /// The trust bundle in PEM.
    #[arg(long, env = "ASSAY_BUNDLE", global = true)]
    pub bundle: Option<PathBuf>,
    /// File with the operator's token.
    #[arg(long, env = "ASSAY_TOKEN_FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// The trust domain.
    #[arg(long, env = "ASSAY_TRUST_DOMAIN", global = true)]
    pub trust_domain: Option<String>,
}

/// What every verb that asks the console takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Asking {
    #[command(flatten)]
    pub console: Console,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Console {
    /// Reads address, bundle and token, and makes a client of them.
    pub fn client(&self) -> Result<Client> {
        // On the server's own machine there is a door that the public does not reach.
        let socket = self.data.join("operator.sock");
        if self.console.is_none() && std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return Client::local(socket, self.token()?);
        }
        let addresses = self.addresses();
        let address = match (&self.console, &addresses) {
            (Some(address), _) => address.trim_start_matches("https://").trim_end_matches('/').to_owned(),
            (None, Some(addresses)) => addresses
                .get("console")
                .and_then(Value::as_str)
                .context("addresses.json of the data folder names no console")?
                .to_owned(),
            (None, None) => "127.0.0.1:8445".to_owned(),
        };
        let bundle_file = self.bundle.clone().unwrap_or_else(|| self.data.join("bundle.pem"));
        let pem = std::fs::read_to_string(&bundle_file).with_context(|| {
            format!("{}: no trust bundle; name the server's data folder with --data", bundle_file.display())
        })?;
        let trust_domain = match (&self.trust_domain, &addresses) {
            (Some(name), _) => name.clone(),
            (None, Some(addresses)) => addresses
                .get("trust_domain")
                .and_then(Value::as_str)
                .context("addresses.json names no trust domain")?
                .to_owned(),
            (None, None) => {
                bail!("which trust domain? say --trust-domain, or --data with the server's folder")
            }
        };
        Client::new(address, &trust_domain, &pem, self.token()?)
    }

    fn token(&self) -> Result<String> {
        let token_file = self.token_file.clone().unwrap_or_else(|| self.data.join("operator.token"));
        let token = std::fs::read_to_string(&token_file)
            .with_context(|| format!("{}: no operator token", token_file.display()))?;
        Ok(token.trim().to_owned())
    }

    fn addresses(&self) -> Option<Value> {
        let text = std::fs::read(self.data.join("addresses.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// `id` as one path segment.
pub fn segment(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("a/../b?c#d"), "a%2F..%2Fb%3Fc%23d");
        assert_eq!(segment("edge-1.site_2~x"), "edge-1.site_2~x");
    }
}
