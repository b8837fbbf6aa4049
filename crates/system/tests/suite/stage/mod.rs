//! What tests stand on: a server and a gateway process, the operator, the devices' maker, and looking without
//! touching.

mod console;
mod gateway;
mod program;

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use assay_server::store::DatabaseUrl;
use assay_server::{Place, ledger};
use assay_testkit::edge::protocol::Verdict;
use assay_testkit::edge::{Attachment, Door, Edge, EdgeError};
use assay_testkit::postgres::test_database;
use assay_testkit::{EkMaker, SoftwareDevice, policy_for};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

pub use console::Console;
pub use gateway::Gateway;
pub use program::Program;

/// A server with nothing in it, a gateway in front of it, and the maker of the devices it trusts.
pub struct Stage {
    pub maker: EkMaker,
    pub folder: TempDir,
    server: Option<Program>,
    gateway: Option<Gateway>,
    /// Where its database is, if not in its data folder.
    database: Option<String>,
}

impl Stage {
    /// Starts a server that challenges only when asked to.
    pub async fn start() -> Result<Stage> {
        Stage::start_with("").await
    }

    /// Starts a server with these lines in its configuration.
    pub async fn start_with(configuration: &str) -> Result<Stage> {
        Stage::start_trusting(tempfile::tempdir()?, "", configuration).await
    }

    /// Starts a server in a folder that trusts these makers too, PEM.
    pub async fn start_trusting(folder: TempDir, makers: &str, configuration: &str) -> Result<Stage> {
        Stage::start_on(test_database(), folder, makers, configuration).await
    }

    /// Starts a server on this database.
    pub async fn start_on(
        database: Option<String>,
        folder: TempDir,
        makers: &str,
        configuration: &str,
    ) -> Result<Stage> {
        let on = database.as_ref().map(|url| format!("database = {url:?}\n")).unwrap_or_default();
        let mut stage = Stage { maker: EkMaker::new()?, folder, server: None, gateway: None, database };
        std::fs::write(stage.at("maker.pem"), format!("{}{makers}", stage.maker.root_ca_pem()))?;
        let interval = if configuration.contains(INTERVAL) { "" } else { "attest_interval_seconds = 3600\n" };
        let at = |edge: &str, console: &str| {
            format!(
                "trust_domain = \"{TRUST_DOMAIN}\"\ndata = \"data\"\nedge = {edge:?}\nconsole = {console:?}\n\
                 ek_anchors = [\"maker.pem\"]\n{on}{interval}{configuration}\n"
            )
        };
        std::fs::write(stage.at("server.toml"), at("127.0.0.1:0", "127.0.0.1:0"))?;
        stage.start_server()?;
        // When it starts again it has to be where the gateway looks for it.
        let pinned = at(&stage.door("edge")?.address, &stage.door("console")?.address);
        std::fs::write(stage.at("server.toml"), pinned)?;
        stage.start_gateway().await?;
        Ok(stage)
    }

    /// Starts the server, on the same data if there was one before.
    pub fn start_server(&mut self) -> Result<()> {
        self.server = Some(Program::start("server", &self.at("server.toml"))?);
        Ok(())
    }

    /// Starts the gateway, in place of the one there was.
    pub async fn start_gateway(&mut self) -> Result<()> {
        self.gateway = Some(Gateway::start(self).await?);
        Ok(())
    }

    /// Starts the gateway with the files that it had.
    pub async fn start_gateway_as_it_was(&mut self) -> Result<()> {
        self.gateway = Some(Gateway::start_as_it_was(self).await?);
        Ok(())
    }

    /// What the gateway's configuration has beside the rest: the JSON protocol, where the server serves it.
    fn gateway_section(&self) -> &'static str {
        let server = std::fs::read_to_string(self.at("server.toml")).unwrap_or_default();
        if server.contains("[json_protocol]") { "[json_protocol]\n" } else { "" }
    }

    /// The gateway's process, to do with as a test likes.
    pub fn take_gateway(&mut self) -> Result<Program> {
        Ok(self.gateway.take().context("the gateway is not running")?.process)
    }

    /// The server's process, to do with as a test likes.
    pub fn take_server(&mut self) -> Result<Program> {
        self.server.take().context("the server is not running")
    }

    /// Verifies the server's ledger, against a head that was shown, if one is given.
    pub async fn verify(&self, shown: Option<&str>) -> Result<ledger::Verified> {
        let database = self.database.as_ref().map(|url| url.parse::<DatabaseUrl>()).transpose()?;
        let data = self.at("data");
        Ok(ledger::verify(Place { data: &data, database: database.as_ref() }, None, shown).await?)
    }

    /// A path in the test's folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The operator.
    pub fn console(&self) -> Result<Console> {
        let token = std::fs::read_to_string(self.at("data/operator.token"))?;
        Ok(Console::new(self.door("console")?, token.trim()))
    }

    /// A new connection to the gateway, once it has found the server.
    pub async fn edge(&self) -> Result<Edge> {
        let edge = Edge::connect(&self.gateway()?.door).await?;
        eventually(10, async || match edge.attach_as("nobody").await {
            Ok(mut attachment) => match attachment.next().await {
                Err(error) if error.code() == Some(Code::InvalidArgument) => Ok(()),
                other => bail!("{other:?}"),
            },
            Err(error) => Err(error.into()),
        })
        .await?;
        Ok(edge)
    }

    /// Where devices connect.
    pub fn gateway(&self) -> Result<&Gateway> {
        self.gateway.as_ref().context("the gateway is not running")
    }

    /// A door of the server, without anything to show at it.
    pub fn door(&self, name: &str) -> Result<Door> {
        let addresses: Value = serde_json::from_slice(&std::fs::read(self.at("data/addresses.json"))?)?;
        let address = addresses.get(name).and_then(Value::as_str).context("no such door")?.to_owned();
        let roots = certificates(&std::fs::read_to_string(self.at("data/bundle.pem"))?)?;
        Ok(Door {
            address,
            roots,
            spiffe_id: format!("spiffe://{TRUST_DOMAIN}/assay/server"),
            identity: None,
        })
    }

    /// A device by the trusted maker.
    pub fn device(&self, name: &str) -> Result<SoftwareDevice> {
        Ok(SoftwareDevice::new(name, &self.maker)?)
    }

    /// Sets a policy under which these devices are good as they are, with these lines more.
    pub async fn trust(&self, devices: &[&SoftwareDevice], more: &str) -> Result<()> {
        let text = format!("{}\n{more}\n", policy_for("test", devices));
        self.console()?.put("/v1/policy", &text).await?;
        Ok(())
    }

    /// An enrolled, attached, trusted device that holds its SVID. The first one makes the policy that trusts all.
    pub async fn trusted(&self, edge: &Edge, name: &str) -> Result<(SoftwareDevice, Attachment)> {
        let mut device = self.device(name)?;
        if self.console()?.get("/v1/policy").await?.get("version").is_none_or(Value::is_null) {
            self.trust(&[&device], "").await?;
        }
        edge.enroll(&mut device).await?;
        let mut attachment = edge.attach(&device).await?;
        affirming(&within(5, attachment.attest(&mut device)).await??)?;
        let grants = within(5, attachment.grants()).await??;
        ensure!(!grants.withdrawn && !grants.device_svid.is_empty(), "{}", grants.reason);
        Ok((device, attachment))
    }

    /// Everything that must not change where nothing happened: devices, policy, entries, audit trail.
    pub async fn everything(&self) -> Result<Value> {
        let console = self.console()?;
        let mut devices = console.get("/v1/devices").await?;
        for device in devices.get_mut("devices").and_then(Value::as_array_mut).context("devices")? {
            if let Some(device) = device.as_object_mut() {
                device
                    .retain(|key, _| !["attached", "clock", "clock_offset_seconds"].contains(&key.as_str()));
            }
        }
        let mut audit = console.get("/v1/audit?limit=1000").await?;
        // A server that starts gives itself certificates, and that somebody tried something is on record: that changes nothing
        // for anybody.
        let own = ["server", "statements"].map(|name| format!("spiffe://{TRUST_DOMAIN}/assay/{name}"));
        if let Some(leaves) = audit.get_mut("leaves").and_then(Value::as_array_mut) {
            leaves.retain(|leaf| {
                let text = |key| leaf.get(key).and_then(Value::as_str);
                text("kind") != Some("security.refused")
                    && !own.iter().any(|own| text("subject") == Some(own))
            });
        }
        Ok(json!({
            "devices": devices,
            "policy": console.get("/v1/policy").await?,
            "entries": console.get("/v1/entries").await?,
            "audit": audit,
        }))
    }

    /// That since `before` nothing happened but that one device was not heard: its evidence stands for less, and no state
    /// moved.
    pub async fn is_unheard(&self, before: &Value) -> Result<()> {
        let (mut before, mut now) = (before.clone(), self.everything().await?);
        let leaves = |of: &Value| of.pointer("/audit/leaves").and_then(Value::as_array).cloned();
        let (old, new) = (leaves(&before).context("leaves")?, leaves(&now).context("leaves")?);
        let kinds: Vec<_> = new.iter().skip(old.len()).filter_map(|leaf| leaf.get("kind")).collect();
        ensure!(new.starts_with(&old) && kinds == ["device.unanswered"], "{kinds:?}");
        for all in [&mut before, &mut now] {
            all.as_object_mut().context("everything")?.remove("audit");
            let devices = all.pointer_mut("/devices/devices").and_then(Value::as_array_mut);
            for device in devices.context("devices")?.iter_mut().filter_map(Value::as_object_mut) {
                device.retain(|key, _| key != "valid_until" && key != "reason");
            }
        }
        ensure!(now == before, "{now}");
        Ok(())
    }

    /// What the console says of one device.
    pub async fn explain(&self, device: &SoftwareDevice) -> Result<Value> {
        self.console()?.get(&format!("/v1/devices/{}", device.name)).await
    }

    /// The device's status, as the console has it.
    pub async fn status(&self, device: &SoftwareDevice) -> Result<String> {
        let answer = self.explain(device).await?;
        Ok(answer.pointer("/device/status").and_then(Value::as_str).context("status")?.to_owned())
    }
}

/// Fails if something takes longer than it may.
pub async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> Result<T> {
    let limit = Duration::from_secs(seconds);
    tokio::time::timeout(limit, future).await.with_context(|| format!("did not happen within {limit:?}"))
}

/// Looks again and again until what is looked for is there, and fails with the last reason why it is not.
pub async fn eventually<T>(seconds: u64, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match look().await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            outcome => return outcome.with_context(|| format!("did not happen within {seconds} s")),
        }
    }
}

/// Fails unless the verdict is the best there is.
pub fn affirming(verdict: &Verdict) -> Result<()> {
    ensure!(verdict.tier == "affirming", "{}: {:?}", verdict.tier, verdict.findings);
    Ok(())
}

/// Fails unless the server refused with this status and reason.
pub fn refused<T>(outcome: Result<T, EdgeError>, code: Code, reason: &str) -> Result<()> {
    match outcome {
        Ok(_) => anyhow::bail!("not refused"),
        Err(error) => {
            ensure!(error.code() == Some(code), "{error}, not {code:?}");
            ensure!(error.reason() == Some(reason), "{error} ({:?}), not {reason}", error.reason());
            Ok(())
        }
    }
}

/// The certificates of a PEM text, DER.
pub fn certificates(pem: &str) -> Result<Vec<Vec<u8>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|certificate| Ok(certificate?.to_vec())).collect()
}

/// Whether a CRL lists a serial, given in hex: found as bytes, without reading the list.
pub fn lists(crl: &[u8], serial: &str) -> bool {
    let serial = data_encoding::HEXLOWER_PERMISSIVE.decode(serial.as_bytes()).unwrap_or_default();
    !serial.is_empty() && crl.windows(serial.len()).any(|window| window == serial)
}

/// Serials of the SVIDs that a device has been given, as [`Stage::explain`] shows them: those it holds, and those
/// that were withdrawn.
pub fn serials(explained: &Value) -> (Vec<String>, Vec<String>) {
    let grants = explained.get("grants").and_then(Value::as_array).cloned().unwrap_or_default();
    let serial = |grant: &Value| grant.get("serial").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_held = |grant: &&Value| grant.get("withdrawn_at").is_none_or(Value::is_null);
    let (held, withdrawn): (Vec<&Value>, Vec<&Value>) = grants.iter().partition(is_held);
    (held.into_iter().map(serial).collect(), withdrawn.into_iter().map(serial).collect())
}

const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
const INTERVAL: &str = "attest_interval_seconds";
pub const TRUST_DOMAIN: &str = "test.assay.example";
