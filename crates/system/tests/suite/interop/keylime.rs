//! Keylime's own agent, as its makers have it, on a software TPM: it pushes its evidence to our doors. And its own tenant, with
//! which an operator looks after it there.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use assay_identity::{PrivateKey, csr};
use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::packages;
use crate::agent::Device;
use crate::stage::{eventually, within};

/// An agent that ends with the test. Its TSS connects anew for each command: the connection beside it is what keeps what it loaded.
struct Agent(Child, #[expect(dead_code, reason = "held, not used")] UnixStream);

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

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_keylimes_tenant_adds_judges_and_deletes_keylimes_agent() -> Result<()> {
    let Some(packages) = packages("Keylime's tenant") else { return Ok(()) };
    let [program, tenant] =
        ["keylime-push-agent", "keylime-tenant"].map(|name| packages.join("bin").join(name));
    if !program.exists() || !tenant.exists() {
        eprintln!(
            "left out: Keylime's tenant; name its agent in KEYLIME_PUSH_AGENT and it in KEYLIME_TENANT"
        );
        return Ok(());
    }
    let ports = [free_port()?, free_port()?];
    let settings =
        format!("[keylime]\nregistrar = \"127.0.0.1:{}\"\nverifier = \"127.0.0.1:{}\"\n", ports[0], ports[1]);
    let device = Device::prepared_with(&settings).await?;
    let _agent = start(&program, &device, ports, bridge(device.tpm_socket())?)?;
    is(&device, "trusted").await?;
    let tenant = Tenant::new(tenant, &device, ports).await?;
    tenant.says(&["-c", "reglist"], ID)?;
    tenant.says(&["-c", "regstatus", "-u", ID], "aik_tpm")?;

    // With a policy of its own, which is what judges from then on.
    let policy = tenant.policy("policy.json", &device)?;
    tenant.does(&["-c", "add", "--push-model", "-u", ID, "--runtime-policy", &policy])?;
    tenant.says(&["-c", "cvlist"], ID)?;
    judged_by(&device, &format!("keylime-{ID} v1")).await?;
    is(&device, "trusted").await?;
    tenant.says(&["-c", "cvstatus", "--push-model", "-u", ID], "\"attestation_status\": \"PASS\"")?;
    tenant.says(&["-c", "bulkinfo"], ID)?;
    tenant.does(&["-c", "delete", "--push-model", "-u", ID])?;

    // With a policy by its name, which changes.
    let by_name = ["--runtime-policy-name", "presses"];
    tenant.does(&[&["-c", "addruntimepolicy", "--runtime-policy", &policy][..], &by_name].concat())?;
    tenant.says(&["-c", "listruntimepolicy"], "presses")?;
    tenant.says(&[&["-c", "showruntimepolicy"][..], &by_name].concat(), "presses")?;
    tenant.does(&[&["-c", "add", "--push-model", "-u", ID][..], &by_name].concat())?;
    judged_by(&device, "keylime-presses v1").await?;
    device.run("/opt/implant")?;
    is(&device, "suspect").await?;
    tenant.says(&["-c", "cvstatus", "--push-model", "-u", ID], "\"last_event_id\": \"ima-policy\"")?;
    let policy = tenant.policy("wider.json", &device)?;
    tenant.does(&[&["-c", "updateruntimepolicy", "--runtime-policy", &policy][..], &by_name].concat())?;
    judged_by(&device, "keylime-presses v2").await?;
    tenant.does(&["-c", "reactivate", "-u", ID])?;
    is(&device, "trusted").await?;

    tenant.does(&["-c", "delete", "--push-model", "-u", ID])?;
    tenant.does(&[&["-c", "deleteruntimepolicy"][..], &by_name].concat())?;
    tenant.does(&["-c", "regdelete", "-u", ID])?;
    let left = tenant.does(&["-c", "reglist"])?;
    ensure!(!left.contains(ID), "{left}");
    let leaves = device.stage.console()?.get("/v1/audit?limit=1000").await?;
    ensure!(leaves.to_string().contains("operator/ada"), "{leaves}");
    Ok(())
}

/// An operator's tenant.
struct Tenant {
    program: PathBuf,
    folder: PathBuf,
}

impl Tenant {
    async fn new(program: PathBuf, device: &Device, [registrar, verifier]: [u16; 2]) -> Result<Tenant> {
        let folder = device.stage.at("tenant");
        std::fs::create_dir_all(&folder)?;
        let key = PrivateKey::generate()?;
        let request = json!({ "name": "ada", "csr": BASE64.encode(&csr::request(&key)?) });
        let issued = device.stage.console()?.post("/v1/operators", &request).await?;
        for (name, contents) in
            [("client-cert.crt", issued.get("certificate")), ("cacert.crt", issued.get("bundle"))]
        {
            std::fs::write(folder.join(name), contents.and_then(Value::as_str).context(name)?)?;
        }
        std::fs::write(folder.join("client-private.pem"), key.to_pem().as_bytes())?;
        let configuration = format!(
            "[tenant]\nversion = 2.5\nverifier_ip = 127.0.0.1\nverifier_port = {verifier}\nregistrar_ip = 127.0.0.1\n\
             registrar_port = {registrar}\ntls_dir = {}\nenable_agent_mtls = True\nclient_key = client-private.pem\n\
             client_key_password = \"\"\nclient_cert = client-cert.crt\ntrusted_server_ca = [\"cacert.crt\"]\n\
             tpm_cert_store = {}\nmax_payload_size = 1048576\naccept_tpm_hash_algs = ['sha256']\n\
             accept_tpm_encryption_algs = ['ecc', 'rsa']\naccept_tpm_signing_algs = ['rsassa']\nexponential_backoff = True\n\
             retry_interval = 2\nmax_retries = 5\nrequest_timeout = 60\nrequire_ek_cert = True\nek_check_script =\n\
             mb_refstate =\n",
            folder.display(),
            folder.display(),
        );
        std::fs::write(folder.join("tenant.conf"), configuration)?;
        Ok(Tenant { program, folder })
    }

    /// Runs a verb that has to succeed: what it said.
    fn does(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("KEYLIME_TENANT_CONFIG", self.folder.join("tenant.conf"));
        let output = command.current_dir(&self.folder).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(said)
    }

    fn says(&self, arguments: &[&str], expected: &str) -> Result<()> {
        let said = self.does(arguments)?;
        ensure!(said.contains(expected), "{arguments:?}: {said}");
        Ok(())
    }

    /// A runtime policy that knows what the device ran so far, in a file.
    fn policy(&self, name: &str, device: &Device) -> Result<String> {
        let [ima_list, _] = device.logs();
        let mut digests = Map::new();
        for line in std::fs::read_to_string(ima_list)?.lines() {
            let [_, _, _, digest, path, ..] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            if let Some(digest) = digest.strip_prefix("sha256:").filter(|_| path != "boot_aggregate") {
                digests.insert(path.to_owned(), json!([digest]));
            }
        }
        let policy = json!({
            "meta": { "version": 1, "generator": 0 }, "release": 0, "digests": digests, "excludes": [], "keyrings": {},
            "ima": { "ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": null }, "ima-buf": {}, "verification-keys": "",
        });
        let file = self.folder.join(name);
        std::fs::write(&file, policy.to_string())?;
        Ok(file.display().to_string())
    }
}

/// Waits until a policy is what judges it.
async fn judged_by(device: &Device, policy: &str) -> Result<()> {
    eventually(60, async || {
        let explained = device.stage.console()?.get(&format!("/v1/devices/{ID}")).await?;
        let found = explained.pointer("/device/policy_in_force").and_then(Value::as_str).unwrap_or_default();
        ensure!(found == policy, "{found}, not {policy}: {explained}");
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
    let held = UnixStream::connect(device.tpm_socket())?;
    Ok(Agent(command.spawn().context("Keylime's agent")?, held))
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
