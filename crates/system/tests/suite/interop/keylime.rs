//! Keylime's own agent, as its makers have it, on a software TPM: it pushes its evidence to our doors.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::packages;
use crate::agent::Device;
use crate::stage::{eventually, within};

/// An agent that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_keylimes_agent_falls_recovers_and_goes_on_after_restarts_and_a_reboot() -> Result<()> {
    let Some(packages) = packages("Keylime's agent") else { return Ok(()) };
    let program = packages.join("bin/keylime-push-agent");
    if !program.exists() {
        eprintln!("left out: Keylime's agent; build it from its source and name it in KEYLIME_PUSH_AGENT");
        return Ok(());
    }
    let ports = [free_port()?, free_port()?];
    let settings =
        format!("[keylime]\nregistrar = \"127.0.0.1:{}\"\nverifier = \"127.0.0.1:{}\"\n", ports[0], ports[1]);
    let mut device = Device::prepared_with(&settings).await?;
    let tpm = bridge(device.tpm_socket())?;
    let mut agent = start(&program, &device, ports, tpm)?;
    let trusted = is(&device, "trusted").await?;
    ensure!(trusted.pointer("/device/name").and_then(Value::as_str) == Some(ID), "{trusted}");

    device.run("/opt/implant")?;
    let fallen = is(&device, "suspect").await?;
    ensure!(
        fallen.get("findings").is_some_and(|found| found.to_string().contains("/opt/implant")),
        "{fallen}"
    );
    device.stage.console()?.approve(ID).await?;
    is(&device, "trusted").await?;

    // Either side is started again, and it goes on without enrolling anew.
    let enrolled_at = fallen.pointer("/device/enrolled_at").cloned();
    within(10, device.stage.take_server()?.terminate()).await??;
    device.stage.start_server()?;
    goes_on(&device).await?;
    drop(agent);
    agent = start(&program, &device, ports, tpm)?;
    goes_on(&device).await?;
    let trusted = is(&device, "trusted").await?;
    ensure!(trusted.pointer("/device/enrolled_at") == enrolled_at.as_ref(), "enrolled again: {trusted}");

    // A reboot is a new epoch, attested whole.
    let before = trusted.pointer("/device/reset_count").and_then(Value::as_u64).context("reset_count")?;
    drop(agent);
    device.boot_again()?;
    let _agent = start(&program, &device, ports, tpm)?;
    eventually(60, async || {
        let explained = is(&device, "trusted").await?;
        let now = explained.pointer("/device/reset_count").and_then(Value::as_u64);
        ensure!(now == Some(before + 1), "{explained}");
        Ok(())
    })
    .await
}

/// Waits until evidence is newer than what there is.
async fn goes_on(device: &Device) -> Result<()> {
    let evidence_at = async || -> Result<u64> {
        let explained = device.stage.console()?.get(&format!("/v1/devices/{ID}")).await?;
        explained.pointer("/device/evidence_at").and_then(Value::as_u64).context("evidence_at")
    };
    let before = eventually(10, async || evidence_at().await).await?;
    eventually(60, async || {
        let now = evidence_at().await?;
        ensure!(now > before, "nothing newer than {before}");
        Ok(())
    })
    .await
}

async fn is(device: &Device, status: &str) -> Result<Value> {
    eventually(60, async || {
        let explained = device.stage.console()?.get(&format!("/v1/devices/{ID}")).await?;
        let found = explained.pointer("/device/status").and_then(Value::as_str).unwrap_or_default();
        ensure!(found == status, "{found}, not {status}: {explained}");
        Ok(explained)
    })
    .await
}

fn start(program: &Path, device: &Device, [registrar, verifier]: [u16; 2], tpm: u16) -> Result<Agent> {
    let folder = device.stage.at("keylime");
    std::fs::create_dir_all(&folder)?;
    let bundle = device.stage.at("data/bundle.pem");
    let [ima_list, boot_log] = device.logs();
    let configuration = format!(
        "[agent]\nversion = \"2.4\"\nuuid = {ID:?}\nregistrar_ip = \"127.0.0.1\"\nregistrar_tls_port = {registrar}\n\
         registrar_tls_enabled = true\nregistrar_tls_ca_cert = {bundle:?}\nkeylime_dir = {folder:?}\nrun_as = \"\"\n\
         ima_ml_path = {ima_list:?}\nmeasuredboot_ml_path = {boot_log:?}\nattestation_interval_seconds = 1\n\
         verifier_url = \"https://localhost:{verifier}\"\nverifier_tls_ca_cert = {bundle:?}\n\
         exponential_backoff_initial_delay = 500\n",
    );
    let file: PathBuf = folder.join("agent.conf");
    std::fs::write(&file, configuration)?;
    let log = std::fs::File::create(folder.join("agent.log"))?;
    let mut command = Command::new(program);
    command.env("KEYLIME_AGENT_CONFIG", file).env("TCTI", format!("swtpm:host=127.0.0.1,port={tpm}"));
    command.env("RUST_LOG", "info").stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
    Ok(Agent(command.spawn().context("Keylime's agent")?))
}

/// The TPM at a port, with the port for its control behind it, as programs of the TSS find a swtpm. What they control there is
/// answered and not done: the machine resets its TPM itself.
fn bridge(socket: &Path) -> Result<u16> {
    let (commands, control, port) = loop {
        let commands = TcpListener::bind("127.0.0.1:0")?;
        let port = commands.local_addr()?.port();
        if let Some(Ok(control)) = port.checked_add(1).map(|next| TcpListener::bind(("127.0.0.1", next))) {
            break (commands, control, port);
        }
    };
    let socket = socket.to_owned();
    thread::spawn(move || {
        for program in commands.incoming().flatten() {
            let socket = socket.clone();
            thread::spawn(move || carry(program, &socket));
        }
    });
    thread::spawn(move || {
        for mut program in control.incoming().flatten() {
            thread::spawn(move || {
                let mut asked = [0; 64];
                while program.read(&mut asked).is_ok_and(|length| length > 0)
                    && program.write_all(&[0; 4]).is_ok()
                {}
            });
        }
    });
    Ok(port)
}

fn carry(mut program: TcpStream, socket: &Path) -> Result<()> {
    let mut tpm = UnixStream::connect(socket)?;
    let (mut answers, mut back) = (tpm.try_clone()?, program.try_clone()?);
    thread::spawn(move || std::io::copy(&mut answers, &mut back));
    std::io::copy(&mut program, &mut tpm)?;
    tpm.shutdown(std::net::Shutdown::Both)?;
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

const ID: &str = "d432fbb3-d2f1-4a97-9ef7-75bd81c00007";
