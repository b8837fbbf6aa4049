//! The real agent on a real TPM: swtpm, a booted machine, a gateway and a server, each a process of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};
use assay_testkit::{Bank, EkMaker, Machine, SoftTpm, TpmMaker};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::stage::{Program, Stage, TRUST_DOMAIN, eventually, within};

#[tokio::test]
async fn swtpm_agent_lives_through_compromise_recovery_reboot_and_crash() -> Result<()> {
    let mut device = Device::on_a_stage().await?;
    let enrolled = device.is("trusted").await?;
    let explained = device.explain().await?;
    ensure!(explained.pointer("/endorsement/identity/serial") == Some(&json!(SERIAL)), "{explained}");
    device.sends_accepted_telemetry().await?;

    // An unknown program: every grant is gone within a second of its start.
    let start = Instant::now();
    device.run("/opt/implant")?;
    device.is("suspect").await?;
    ensure!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let fallen = device.explain().await?;
    ensure!(fallen.pointer("/device/svids") == Some(&json!(0)), "{fallen}");
    ensure!(fallen.get("findings").is_some_and(|findings| findings.to_string().contains("/opt/implant")));

    device.stage.console()?.approve("edge").await?;
    device.is("trusted").await?;

    // A reboot is a new epoch, attested in full; the logs are new files in the same place.
    device.reboot().await?;
    eventually(30, async || {
        let rebooted = device.is("trusted").await?;
        ensure!(boot(&rebooted) == boot(&enrolled) + 1, "{rebooted}");
        ensure!(rebooted.get("id") == enrolled.get("id"), "another device");
        Ok(())
    })
    .await?;

    // Killed and started again, it goes on without enrolling anew.
    device.agent.take().context("the agent")?.kill()?;
    device.start_agent()?;
    eventually(20, async || {
        let now = device.explain().await?;
        ensure!(now.pointer("/device/attached") == Some(&json!(true)), "not attached");
        ensure!(now.pointer("/device/enrolled_at") == enrolled.get("enrolled_at"), "enrolled again");
        Ok(())
    })
    .await?;
    device.is("trusted").await?;

    let (took, status) = within(10, device.agent.take().context("the agent")?.terminate()).await??;
    ensure!(took < Duration::from_secs(2) && status.success(), "{took:?} {status}");
    Ok(())
}

/// One device with everything above and below it.
pub struct Device {
    pub agent: Option<Program>,
    machine: Machine,
    tpm: SoftTpm,
    maker: TpmMaker,
    pub stage: Stage,
}

impl Device {
    pub async fn on_a_stage() -> Result<Device> {
        let mut device = Device::prepared().await?;
        device.start_agent()?;
        Ok(device)
    }

    /// Everything but the agent.
    pub async fn prepared() -> Result<Device> {
        Device::prepared_with("").await
    }

    /// The same, with these lines in the server's configuration.
    pub async fn prepared_with(settings: &str) -> Result<Device> {
        let folder = tempfile::tempdir()?;
        let maker = TpmMaker::new(&folder.path().join("tpm-maker"))?;
        let tpm = SoftTpm::start(&maker, &folder.path().join("tpm"))?;
        let machine = Machine::boot(&tpm, &folder.path().join("logs"))?;
        let identity = provision_identity(&tpm, folder.path())?;
        let read = |path: &Path| std::fs::read_to_string(path);
        let makers = read(&maker.root_ca())? + &read(&maker.issuing_ca())?;
        let makers = makers + &identity.root_ca_pem();
        let settings = format!("attest_interval_seconds = 1\nidevid_anchors = [\"maker.pem\"]\n{settings}");
        let stage = Stage::start_trusting(folder, &makers, &settings).await?;
        // The machine runs what a software device runs, so that one's policy is its too.
        stage.trust(&[&stage.device("specimen")?], "").await?;
        let configuration = format!(
            "name = \"edge\"\ntrust_domain = \"{TRUST_DOMAIN}\"\ngateway = {:?}\nbundle = {:?}\n\
             state = {:?}\ntpm = {:?}\nboot_log = {:?}\nima_log = {:?}\nworkload_api = {:?}\n\
             [telemetry]\ninterval_seconds = 1\notlp_grpc = \"127.0.0.1:0\"\notlp_http = \"127.0.0.1:0\"\n[location]\ncountry = \"DE\"\n\
             [identity]\niak = {IAK}\niak_certificate = {:?}\nidevid = {IDEVID}\nidevid_certificate = {:?}\n\
             intermediates = [{:?}]\n",
            stage.gateway()?.door.address,
            stage.at("data/bundle.pem"),
            stage.at("agent"),
            tpm.transport(),
            machine.boot_log_path(),
            machine.ima_log_path(),
            stage.at("workload.sock"),
            stage.at("iak.der"),
            stage.at("idevid.der"),
            stage.at("identity-ca.der"),
        );
        std::fs::write(stage.at("agent.toml"), configuration)?;
        Ok(Device { agent: None, machine, tpm, maker, stage })
    }

    pub fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(Program::start("agent", &self.stage.at("agent.toml"))?);
        Ok(())
    }

    /// Agent down, TPM reset, machine booted again with the same files, agent up.
    async fn reboot(&mut self) -> Result<()> {
        let agent = self.agent.take().context("the agent")?;
        within(10, agent.terminate()).await??;
        self.tpm.reboot()?;
        self.machine = Machine::boot(&self.tpm, &self.stage.at("logs"))?;
        self.start_agent()
    }

    /// Another board in the machine: a TPM of the same maker that knows nothing of the old one, and an agent that starts anew.
    pub async fn get_another_tpm(&mut self) -> Result<()> {
        within(10, self.agent.take().context("the agent")?.terminate()).await??;
        let before = self.tpm.transport();
        self.tpm = SoftTpm::start(&self.maker, &self.stage.at("other-tpm"))?;
        self.machine = Machine::boot(&self.tpm, &self.stage.at("logs"))?;
        let file = self.stage.at("agent.toml");
        let configuration = std::fs::read_to_string(&file)?;
        let (configuration, _identity) = configuration.split_once("[identity]").context("identity")?;
        let configuration = configuration.replace(&before, &self.tpm.transport());
        let state = |name: &str| format!("{:?}", self.stage.at(name));
        std::fs::write(file, configuration.replace(&state("agent"), &state("other-agent")))?;
        self.start_agent()
    }

    /// The TPM is reset and the machine booted again, with the same files.
    pub fn boot_again(&mut self) -> Result<()> {
        self.tpm.reboot()?;
        self.machine = Machine::boot(&self.tpm, &self.stage.at("logs"))?;
        Ok(())
    }

    /// The TPM as an agent's configuration names it.
    pub fn tpm_address(&self) -> String {
        self.tpm.transport()
    }

    /// Where its TPM is served.
    pub fn tpm_socket(&self) -> &Path {
        self.tpm.socket()
    }

    /// Its IMA list in ASCII, and its boot log.
    pub fn logs(&self) -> [PathBuf; 2] {
        [self.machine.ima_log_ascii_path(), self.machine.boot_log_path()]
    }

    /// Runs a program that no policy knows.
    pub fn run(&self, path: &str) -> Result<()> {
        Ok(self.machine.run_program(path, b"unknown")?)
    }

    /// What a PCR of the SHA-256 bank holds, in hex.
    pub fn pcr(&self, pcr: u32) -> Result<String> {
        Ok(HEXLOWER.encode(&self.tpm.connect()?.pcr_read(Bank::Sha256, pcr)?))
    }

    /// Extends a PCR with something that no log tells of.
    pub fn extend(&self, pcr: u32, words: &[u8]) -> Result<()> {
        Ok(self.tpm.connect()?.pcr_extend(pcr, &[(Bank::Sha256, Bank::Sha256.hash(words))])?)
    }

    pub async fn explain(&self) -> Result<Value> {
        self.stage.console()?.get("/v1/devices/edge").await
    }

    /// Waits for a status, and returns what the console says of the device then.
    pub async fn is(&self, status: &str) -> Result<Value> {
        let looked = eventually(30, async || {
            let explained = self.explain().await?;
            let found = explained.pointer("/device/status").and_then(Value::as_str).unwrap_or_default();
            ensure!(found == status, "{found}, not {status}: {explained}");
            explained.get("device").cloned().context("device")
        });
        looked.await.with_context(|| self.agent.as_ref().map(Program::said).unwrap_or_default())
    }

    async fn sends_accepted_telemetry(&self) -> Result<()> {
        eventually(20, async || {
            let answer = self.stage.console()?.get("/v1/telemetry?device=edge").await?;
            let records = answer.get("records").and_then(Value::as_array).cloned().unwrap_or_default();
            ensure!(records.iter().any(|record| record.get("accepted") == Some(&json!(true))), "{records:?}");
            Ok(())
        })
        .await
    }
}

/// Leaves IAK and IDevID in the TPM and their certificates in the folder, as a device's maker does.
fn provision_identity(tpm: &SoftTpm, folder: &Path) -> Result<EkMaker> {
    let (maker, mut tpm) = (EkMaker::new()?, tpm.connect()?);
    let iak = tpm.persist_signing_key(ATTESTATION_KEY, IAK)?;
    let idevid = tpm.persist_signing_key(DEVICE_KEY, IDEVID)?;
    std::fs::write(folder.join("iak.der"), maker.certify_identity(&iak.spki, SERIAL, true)?)?;
    std::fs::write(folder.join("idevid.der"), maker.certify_identity(&idevid.spki, SERIAL, false)?)?;
    std::fs::write(folder.join("identity-ca.der"), maker.issuing_ca())?;
    Ok(maker)
}

const IAK: u32 = 0x8101_0020;
const IDEVID: u32 = 0x8101_0021;
const SERIAL: &str = "id:00001014.7";

fn boot(device: &Value) -> u64 {
    device.get("reset_count").and_then(Value::as_u64).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_16_swtpm_a_device_remembers_the_ledger_and_says_when_it_was_set_back() -> Result<()> {
    let mut device = Device::on_a_stage().await?;
    let trusted = device.is("trusted").await?;
    let id = trusted.get("id").and_then(Value::as_str).context("id")?.to_owned();
    let (data, database) = (device.stage.at("data"), device.stage.at("data/assay.db"));
    let (head, count) =
        (device.stage.at("agent/ledger.head"), device.stage.at("agent/ledger.contradictions"));
    let leaves = |note: &str| note.lines().nth(1).and_then(|leaves| leaves.parse::<u64>().ok());

    // A copy of the database as it is, and a trail that goes on.
    within(10, device.stage.take_server()?.terminate()).await??;
    std::fs::copy(&database, device.stage.at("earlier.db"))?;
    std::fs::copy(device.stage.at("data/ledger.head"), device.stage.at("earlier.head"))?;
    device.stage.start_server()?;
    for name in ["one", "two", "three"] {
        let entry = json!({
            "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/{name}"), "parent": id, "ttl_seconds": 3600,
            "selectors": [{ "type": "unix", "value": "uid:4711" }], "dns_names": [],
        });
        eventually(10, async || device.stage.console()?.post("/v1/entries", &entry).await).await?;
    }
    let grown = assay_server::ledger::verify(&data, None, None).await?.leaves;
    let shown = eventually(30, async || {
        let note = std::fs::read_to_string(&head)?;
        ensure!(leaves(&note) >= Some(grown), "{note}");
        Ok(note)
    })
    .await?;
    assay_server::ledger::verify(&data, None, Some(&shown)).await?;
    ensure!(!count.exists(), "{}", std::fs::read_to_string(&count)?);
    let of_gateway = device.stage.at("gateway/ledger.head");
    eventually(40, async || {
        let note = std::fs::read_to_string(&of_gateway)?;
        ensure!(leaves(&note) >= Some(grown), "{note}");
        Ok(())
    })
    .await?;

    // Whoever has the whole data folder sets all of it back, the signed head too: the server cannot tell.
    within(10, device.stage.take_server()?.terminate()).await??;
    std::fs::copy(device.stage.at("earlier.db"), &database)?;
    std::fs::copy(device.stage.at("earlier.head"), device.stage.at("data/ledger.head"))?;
    assay_server::ledger::verify(&data, None, None).await.context("it is whole in itself")?;
    device.stage.start_server()?;
    let said = eventually(40, async || Ok(std::fs::read_to_string(&count)?)).await;
    let said = said.with_context(|| device.agent.as_ref().map(Program::said).unwrap_or_default())?;
    ensure!(said.contains("it was set back"), "{said}");
    eventually(40, async || {
        let said = device.stage.gateway()?.said();
        ensure!(
            said.contains("ledger is not what it showed before") && said.contains("it was set back"),
            "{said}"
        );
        Ok(())
    })
    .await?;
    let found = assay_server::ledger::verify(&data, None, Some(&std::fs::read_to_string(&head)?)).await;
    ensure!(matches!(found, Err(assay_server::ledger::LedgerError::OtherHead { .. })), "{found:?}");
    Ok(())
}
