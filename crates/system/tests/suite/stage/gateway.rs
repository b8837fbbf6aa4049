//! A gateway in front of the server, with credentials that the server gave it.

use anyhow::{Context, Result};
use assay_testkit::edge::Door;
use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

use super::{Program, Stage, TRUST_DOMAIN, eventually};

/// A running gateway.
pub struct Gateway {
    pub process: Program,
    /// Where devices connect; they have nothing to show there.
    pub door: Door,
}

impl Gateway {
    /// Has the server certify a gateway, and starts it.
    pub async fn start(stage: &Stage) -> Result<Gateway> {
        let folder = stage.at("gateway");
        std::fs::create_dir_all(&folder)?;
        let at = |name: &str| folder.join(name);
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let request = json!({ "name": NAME, "csr": BASE64.encode(csr.der()) });
        let answer = stage.console()?.post("/v1/gateways", &request).await?;
        let chain = answer.get("certificate").and_then(Value::as_str).context("certificate")?;
        std::fs::write(at("credentials.pem"), chain)?;
        std::fs::write(at("key.pem"), key.serialize_pem())?;
        std::fs::set_permissions(at("key.pem"), std::fs::Permissions::from_mode(0o600))?;
        std::fs::copy(stage.at("data/bundle.pem"), at("bundle.pem"))?;
        Gateway::start_as_it_was(stage).await
    }

    /// Its log.
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Starts a gateway on what is in its folder.
    pub async fn start_as_it_was(stage: &Stage) -> Result<Gateway> {
        let folder = stage.at("gateway");
        let at = |name: &str| folder.join(name);
        let server = stage.door("edge")?;
        let configuration = format!(
            "trust_domain = \"{TRUST_DOMAIN}\"\nlisten = \"127.0.0.1:0\"\nservers = [{:?}]\n\
             credentials = {folder:?}\naddresses_file = {:?}\n{}",
            server.address,
            at("addresses.json"),
            stage.gateway_section(),
        );
        // What an earlier gateway wrote is not where this one is.
        let _ = std::fs::remove_file(at("addresses.json"));
        std::fs::write(stage.at("gateway.toml"), configuration)?;
        let process = Program::start("gateway", &stage.at("gateway.toml"))?;
        let address = eventually(10, async || {
            let addresses: Value = serde_json::from_slice(&std::fs::read(at("addresses.json"))?)?;
            Ok(addresses.get("gateway").and_then(Value::as_str).context("its address")?.to_owned())
        });
        let address = address.await?;
        let spiffe_id = format!("spiffe://{TRUST_DOMAIN}/assay/gateway/{NAME}");
        Ok(Gateway { process, door: Door { address, spiffe_id, ..server } })
    }
}

const NAME: &str = "test";
