//! The demo's stage: folders, configuration files and processes. What happens on it is in `story.rs`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use assay_server::store::DatabaseUrl;
use assay_testkit::machine::{Machine, System};
use assay_testkit::swtpm::{SoftTpm, TpmMaker};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::process::{Process, Talking, until};
use super::receiver::Receiver;
use crate::console::Client;

/// Everything that was put up; dropped in the order of the fields, agents before the server.
pub struct Stage {
    pub devices: Vec<Device>,
    gateway: Option<Process>,
    gateway_address: String,
    server: Option<Process>,
    folder: Folder,
    /// For what must be on no disk.
    memory: tempfile::TempDir,
    /// Whom the server tells what happens.
    pub receiver: Receiver,
    assay: PathBuf,
    agent: PathBuf,
    maker: Option<TpmMaker>,
    /// The server's database, where it is none of its data folder.
    pub database: Option<DatabaseUrl>,
}

/// One device: its TPM, its logs, its agent and the workload on it.
pub struct Device {
    pub name: &'static str,
    pub region: Region,
    pub workload: Option<Talking>,
    pub workload_address: Option<String>,
    pub agent: Option<Process>,
    pub machine: Machine,
    pub tpm: SoftTpm,
    /// Where its secrets are.
    pub secrets: PathBuf,
    folder: PathBuf,
}

/// Where a device is configured to be.
#[derive(Clone, Copy)]
pub struct Region {
    pub country: &'static str,
    pub subdivision: &'static str,
    pub city: &'static str,
}

/// A folder that goes with the demo, unless it was asked for or something failed.
struct Folder {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Stage {
    /// An empty stage in a new folder.
    pub fn new(folder: Option<&Path>, database: Option<&DatabaseUrl>) -> Result<Self> {
        let folder = match folder {
            Some(path) => {
                if path.exists() {
                    bail!("{}: exists already; the demo wants a new folder", path.display());
                }
                std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
                Folder { path: path.canonicalize()?, temporary: None }
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("assay-demo-").tempdir()?;
                Folder { path: temporary.path().to_owned(), temporary: Some(temporary) }
            }
        };
        let assay = std::env::current_exe().context("own program file")?;
        let agent = assay.with_file_name("assay-agent");
        if !agent.is_file() {
            bail!("{}: not there; build it with: cargo build --workspace --bins", agent.display());
        }
        Ok(Stage {
            devices: Vec::new(),
            gateway: None,
            gateway_address: String::new(),
            server: None,
            folder,
            memory: tempfile::Builder::new().prefix("assay-demo-").tempdir_in(MEMORY).context(MEMORY)?,
            receiver: Receiver::start().context("a receiver of notices")?,
            assay,
            agent,
            maker: None,
            database: database.cloned(),
        })
    }

    /// A file of the story's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path.join(name)
    }

    /// The server's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path.join("server")
    }

    /// Keeps the folder even after the demo, for its logs.
    pub fn keep_folder(&mut self) -> PathBuf {
        if let Some(temporary) = self.folder.temporary.take() {
            let _ = temporary.keep();
        }
        self.folder.path.clone()
    }

    /// Adds a device of the fleet: see [`Stage::boot`].
    pub fn boot_device(&mut self, name: &'static str, region: Region) -> Result<()> {
        let device = self.boot(name, region, &System::default())?;
        self.devices.push(device);
        Ok(())
    }

    /// Makes a TPM with EK certificates of the demo's own maker, and boots a machine on it.
    fn boot(&mut self, name: &'static str, region: Region, system: &System) -> Result<Device> {
        if self.maker.is_none() {
            self.maker = Some(TpmMaker::new(&self.folder.path.join("tpm-maker"))?);
        }
        let maker = self.maker.as_ref().context("the maker was just made")?;
        let folder = self.folder.path.join(name);
        std::fs::create_dir_all(&folder)?;
        let tpm = SoftTpm::start(maker, &folder.join("tpm"))?;
        let machine = Machine::boot_system(system, tpm.socket(), &folder)?;
        let secrets = self.memory.path().join(name);
        let (workload, workload_address, agent) = (None, None, None);
        Ok(Device { name, region, workload, workload_address, agent, machine, tpm, secrets, folder })
    }

    /// Restarts a device of the fleet with another system on it. Its programs end with it and start again.
    pub fn reboot_device(&mut self, name: &str, system: &System) -> Result<()> {
        let position = self.devices.iter().position(|device| device.name == name);
        let index = position.with_context(|| format!("no device {name}"))?;
        let device = self.devices.get_mut(index).context("it was just found")?;
        (device.workload, device.agent) = (None, None);
        device.tpm.reboot()?;
        device.machine = Machine::boot_system(system, device.tpm.socket(), &device.folder)?;
        self.start_agent(index)?;
        self.start_workload(index)
    }

    /// Starts the server on free ports and waits until it answers.
    pub fn start_server(&mut self) -> Result<String> {
        let data = self.data();
        let maker = self.maker.as_ref().context("devices come first: the server has to know their maker")?;
        let secret = self.write("soc.secret", &self.receiver.secret())?;
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600))?;
        let database = self.database.as_ref().map(|url| format!("database = {:?}\n", url.as_given()));
        let database = database.unwrap_or_default();
        let config = format!(
            "{database}trust_domain = \"{TRUST_DOMAIN}\"\ndata = {data:?}\nedge = \"127.0.0.1:0\"\nconsole = \"127.0.0.1:0\"\n\
             attest_interval_seconds = 2\nek_anchors = [{:?}, {:?}]\n[trust_api]\n\
             [[webhook]]\nname = \"soc\"\nurl = {:?}\nsecret_file = {secret:?}\n",
            maker.root_ca(),
            maker.issuing_ca(),
            self.receiver.url(),
        );
        let file = self.write("server.toml", &config)?;
        let mut server = self.start("server", &self.assay, &["server", "--config", &file])?;
        until(START_WITHIN, || {
            server.alive()?;
            self.client()?.get::<IgnoredAny>("/health").map(|_| Some(()))
        })?;
        self.server = Some(server);
        self.address("console")
    }

    /// Gets credentials for a gateway and starts it on a free port.
    pub fn start_gateway(&mut self) -> Result<String> {
        let folder = self.folder.path.join("gateway");
        let folder_text = folder.to_string_lossy().into_owned();
        let data = self.data().to_string_lossy().into_owned();
        self.command(&["gateway", "enroll", "--data", &data, "--name", "edge-1", "--out", &folder_text])?;
        let config = format!(
            "trust_domain = \"{TRUST_DOMAIN}\"\nlisten = \"127.0.0.1:0\"\nservers = [{:?}]\ncredentials = {folder:?}\n\
             addresses_file = {:?}\n",
            self.address("edge")?,
            folder.join("addresses.json"),
        );
        let file = self.write("gateway.toml", &config)?;
        let mut gateway = self.start("gateway", &self.assay, &["gateway", "run", "--config", &file])?;
        let address = until(START_WITHIN, || {
            gateway.alive()?;
            let text = std::fs::read(folder.join("addresses.json"))?;
            let value: Value = serde_json::from_slice(&text)?;
            Ok(value.get("gateway").and_then(Value::as_str).map(str::to_owned))
        })?;
        self.gateway = Some(gateway);
        self.gateway_address.clone_from(&address);
        Ok(address)
    }

    /// Has the first device show its evidence, and learns a policy from it.
    pub fn learn_policy(&self) -> Result<PathBuf> {
        self.learn_from(self.devices.first().context("a device")?, "policy")
    }

    /// Boots `system` on a machine that is not of the fleet, and learns a policy from it.
    pub fn learn_policy_in_the_lab(&mut self, system: &System) -> Result<PathBuf> {
        let region = Region { country: "DE", subdivision: "DE-HE", city: "Frankfurt" };
        let device = self.boot("lab", region, system)?;
        self.learn_from(&device, "next")
    }

    fn learn_from(&self, device: &Device, name: &str) -> Result<PathBuf> {
        let case = self.folder.path.join(format!("{name}-golden"));
        let case_text = case.to_string_lossy().into_owned();
        let config = self.agent_config(device)?;
        run(&self.agent, &["collect", "--config", &config, "--out", &case_text])?;
        // Offline appraisal needs the maker's certificates beside the evidence.
        let maker = self.maker.as_ref().context("the TPMs' maker")?;
        std::fs::copy(maker.root_ca(), case.join("ek-root-ca.pem"))?;
        std::fs::copy(maker.issuing_ca(), case.join("ek-issuing-ca.pem"))?;
        let policy = self.folder.path.join(format!("{name}.toml"));
        let policy_text = policy.to_string_lossy().into_owned();
        self.command(&["policy", "learn", &case_text, "--name", "edge-base", "-o", &policy_text])?;
        Ok(policy)
    }

    /// Starts the agents.
    pub fn start_agents(&mut self) -> Result<()> {
        (0..self.devices.len()).try_for_each(|index| self.start_agent(index))
    }

    fn start_agent(&mut self, index: usize) -> Result<()> {
        let device = self.devices.get(index).context("a device")?;
        let config = self.agent_config(device)?;
        let agent = Process::start("agent", &self.agent, &["run", "--config", &config], &device.folder)?;
        let device = self.devices.get_mut(index).context("a device")?;
        device.agent = Some(agent);
        Ok(())
    }

    /// Starts the workload on every device.
    pub fn start_workloads(&mut self) -> Result<()> {
        (0..self.devices.len()).try_for_each(|index| self.start_workload(index))
    }

    fn start_workload(&mut self, index: usize) -> Result<()> {
        let device = self.devices.get_mut(index).context("a device")?;
        let socket = device.socket();
        let socket = socket.to_string_lossy();
        let arguments = ["demo", "workload", "--socket", &socket];
        let mut workload = Talking::start("workload", &self.assay, &arguments, &device.folder)?;
        let (_, said) = workload.hear(&["listening"], START_WITHIN)?;
        device.workload_address = said.get("address").and_then(Value::as_str).map(str::to_owned);
        device.workload = Some(workload);
        Ok(())
    }

    /// The operator's client.
    pub fn client(&self) -> Result<Client> {
        let bundle = std::fs::read_to_string(self.data().join("bundle.pem")).context("bundle.pem")?;
        let token = std::fs::read_to_string(self.data().join("operator.token")).context("operator.token")?;
        Client::new(self.address("console")?, TRUST_DOMAIN, &bundle, token.trim().to_owned())
    }

    /// Runs a verb of `assay` and returns what it printed.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        run(&self.assay, arguments)
    }

    /// Runs a verb of `assay-agent` and returns what it printed.
    pub fn agent_command(&self, arguments: &[&str]) -> Result<String> {
        run(&self.agent, arguments)
    }

    /// Asks the server through a verb that prints JSON; that verdicts have exit codes is no failure here.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let data = self.data();
        let output = Command::new(&self.assay).args(arguments).arg("--data").arg(&data).output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("assay {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())
        })
    }

    /// Address of the status page.
    pub fn status_page(&self) -> Result<String> {
        Ok(format!("https://{}/", self.address("console")?))
    }

    /// Fails if a program has ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        let programs = [&mut self.server, &mut self.gateway].into_iter().flatten();
        for program in programs.chain(self.devices.iter_mut().filter_map(|device| device.agent.as_mut())) {
            program.alive()?;
        }
        Ok(())
    }

    fn address(&self, door: &str) -> Result<String> {
        let text = std::fs::read(self.data().join("addresses.json")).context("addresses.json")?;
        let value: Value = serde_json::from_slice(&text)?;
        value
            .get(door)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .with_context(|| format!("no {door} address"))
    }

    fn agent_config(&self, device: &Device) -> Result<String> {
        let Region { country, subdivision, city } = device.region;
        // The one in Paris has most room, so that tasks go there first.
        let memory_mb = if city == "Paris" { 4096 } else { 128 };
        let config = format!(
            "name = {:?}\ntrust_domain = \"{TRUST_DOMAIN}\"\ngateway = {:?}\nbundle = {:?}\nstate = {:?}\ntpm = {:?}\n\
             boot_log = {:?}\nima_log = {:?}\nworkload_api = {:?}\n\n\
             [telemetry]\ninterval_seconds = 0.2\n\n[tasks]\nmemory_mb = {memory_mb}\n\n[secrets]\nfolder = {:?}\n\n\
             [location]\ncountry = {country:?}\nsubdivision = {subdivision:?}\ncity = {city:?}\n",
            device.name,
            self.gateway_address,
            self.data().join("bundle.pem"),
            device.folder.join("state"),
            device.tpm.transport(),
            device.machine.boot_log_path(),
            device.machine.ima_log_path(),
            device.socket(),
            device.secrets,
        );
        self.write(&format!("{}/agent.toml", device.name), &config)
    }

    /// Writes a file of the stage.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.path.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<Process> {
        Process::start(name, program, arguments, &self.folder.path)
    }
}

impl Device {
    pub fn socket(&self) -> PathBuf {
        self.file("workload.sock")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Runs a program to its end; its error output is the error.
fn run(program: &Path, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| program.display().to_string())?;
    if !output.status.success() {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {}: {}", arguments.join(" "), error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The demo's trust domain.
pub const TRUST_DOMAIN: &str = "demo.assay.example";
/// A file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";
const START_WITHIN: Duration = Duration::from_secs(15);
