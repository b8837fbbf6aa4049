//! SPIRE's own programs, as its module has them: an agent that attests by each of what nodes show, and the commands that
//! operators know.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use assay_testkit::{SoftTpm, TpmMaker};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::Value;

use super::packages;
use crate::stage::{Stage, TRUST_DOMAIN, eventually, lists};

/// An agent that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The commands of `spire-server`, at the server's socket.
struct Commands {
    program: PathBuf,
    socket: PathBuf,
}

impl Commands {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let (verb, rest) = arguments.split_at(arguments.len().min(2));
        let mut command = Command::new(&self.program);
        command.args(verb).arg("-socketPath").arg(&self.socket).args(rest);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    }
}

/// SPIRE's agent and the commands of its server, and what else of its folder is named.
fn programs(more: &[&str]) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let bin = packages("SPIRE's agent and commands")?.join("bin");
    let (agent, server) = (bin.join("spire-agent"), bin.join("spire-server"));
    if !agent.exists() || !server.exists() || more.iter().any(|name| !bin.join(name).exists()) {
        eprintln!("left out: SPIRE's agent and commands; it takes Go to build them");
        return None;
    }
    Some((agent, server, bin))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_spire_serves_its_workloads_until_it_is_banned() -> Result<()> {
    let Some((agent, server, _)) = programs(&[]) else { return Ok(()) };
    let port = free_port()?;
    let stage = Stage::start_with(&format!("[spire]\naddress = \"127.0.0.1:{port}\"\n")).await?;
    let commands = Commands { program: server, socket: stage.at("data/spire.sock") };
    let site = format!("spiffe://{TRUST_DOMAIN}/site-3");
    let other = federates(&commands, &stage)?;
    let token = commands.run(&["token", "generate", "-spiffeID", &site])?;
    let token = token.lines().find_map(|line| line.strip_prefix("Token: ")).context("a token")?.to_owned();
    let (press, uid) = (format!("spiffe://{TRUST_DOMAIN}/press"), rustix::process::getuid().as_raw());
    let selector = format!("unix:uid:{uid}");
    let named = ["entry", "create", "-parentID", &site, "-spiffeID", &press, "-selector", &selector];
    commands.run(&[&named[..], &["-federatesWith", "spiffe://other.example"]].concat())?;

    let socket = stage.at("spire-agent.sock");
    let by_token = "NodeAttestor \"join_token\" { plugin_data {} }";
    let _agent = start(&agent, &stage, port, by_token, &["-joinToken", &token])?;
    let said = eventually(60, async || fetch(&agent, &socket, "x509")).await?;
    ensure!(said.contains(&press), "{said}");
    ensure!(
        federated(&agent, &socket, &stage)?.contains(&other),
        "the other trust domain's bundle is not served"
    );
    let said = fetch(&agent, &socket, "jwt")?;
    ensure!(said.contains(&format!("token({press})")), "{said}");
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    ensure!(commands.run(&["agent", "list"])?.contains(&id));
    let mut again = start(&agent, &stage, port, by_token, &["-joinToken", &token])?;
    ensure!(again.0.wait()?.code() != Some(0), "a token is shown once");

    let held = issued(&stage, &press).await?;
    commands.run(&["agent", "ban", "-spiffeID", &id])?;
    // The command is answered once the list is signed.
    let list = stage.console()?.bytes("/crl").await?;
    ensure!(!held.is_empty() && held.iter().all(|serial| lists(&list, serial)), "{held:?} are not listed");
    eventually(60, async || match fetch(&agent, &socket, "x509") {
        Ok(said) => Err(anyhow::anyhow!("still served: {said}")),
        Err(_) => Ok(()),
    })
    .await
}

/// Serves a workload below a node that has come in, whoever it is: by an alias that chooses it by this.
async fn serves_below(
    (agent, commands, stage): (&Path, &Commands, &Stage),
    chosen_by: &str,
) -> Result<(String, String)> {
    let [site, press] = ["site-4", "press"].map(|name| format!("spiffe://{TRUST_DOMAIN}/{name}"));
    let selector = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    commands.run(&["entry", "create", "-node", "-spiffeID", &site, "-selector", chosen_by])?;
    commands.run(&["entry", "create", "-parentID", &site, "-spiffeID", &press, "-selector", &selector])?;
    let said = eventually(60, async || fetch(agent, &stage.at("spire-agent.sock"), "x509")).await?;
    ensure!(said.contains(&press), "{said}");
    let listed = commands.run(&["agent", "list", "-output", "json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    let text = |pointer: &str| listed.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("/agents/0/attestation_type"), text("/agents/0/id/path")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_spire_attests_by_a_certificate_of_the_sites() -> Result<()> {
    let Some((agent, server, _)) = programs(&[]) else { return Ok(()) };
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let folder = tempfile::tempdir()?;
        let mut site = CertificateParams::default();
        site.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        site.distinguished_name.push(DnType::CommonName, "site");
        let site_key = KeyPair::generate()?;
        let root = site.self_signed(&site_key)?;
        let key = KeyPair::generate_for(algorithm)?;
        let mut own = CertificateParams::default();
        own.distinguished_name.push(DnType::CommonName, "press-4");
        own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let own = own.signed_by(&key, &Issuer::new(site, site_key))?;
        for (name, text) in
            [("site.pem", root.pem()), ("own.pem", own.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(folder.path().join(name), text)?;
        }
        let port = free_port()?;
        let section = format!("[spire]\naddress = \"127.0.0.1:{port}\"\nx509pop_anchors = [\"site.pem\"]\n");
        let stage = Stage::start_trusting(folder, "", &section).await?;
        let commands = Commands { program: server.clone(), socket: stage.at("data/spire.sock") };
        let by_certificate = format!(
            "NodeAttestor \"x509pop\" {{ plugin_data {{ certificate_path = {:?}\n private_key_path = {:?} }} }}",
            stage.at("own.pem"),
            stage.at("key.pem")
        );
        let _agent = start(&agent, &stage, port, &by_certificate, &[])?;
        let (kind, path) = serves_below((&agent, &commands, &stage), "x509pop:subject:cn:press-4").await?;
        ensure!(kind == "x509pop" && path.starts_with("/spire/agent/x509pop/"), "{kind} {path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_spire_attests_by_its_tpm() -> Result<()> {
    let Some((agent, server, bin)) = programs(&["spire-tpm"]) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let maker = TpmMaker::new(&folder.path().join("maker"))?;
    let tpm = SoftTpm::start(&maker, &folder.path().join("tpm"))?;
    let makers = [maker.root_ca(), maker.issuing_ca()].map(std::fs::read_to_string);
    let makers = makers.into_iter().collect::<std::io::Result<String>>()?;
    let port = free_port()?;
    let section = format!("[spire]\naddress = \"127.0.0.1:{port}\"\ntpm = true\n");
    let stage = Stage::start_trusting(folder, &makers, &section).await?;
    let commands = Commands { program: server, socket: stage.at("data/spire.sock") };
    let by_tpm = format!(
        "NodeAttestor \"tpm\" {{ plugin_cmd = {:?}\n plugin_args = [{:?}]\n plugin_data {{}} }}",
        bin.join("spire-tpm"),
        tpm.socket()
    );
    let _agent = start(&agent, &stage, port, &by_tpm, &[])?;
    // Which TPM it is, the operator reads from the node that came in.
    let node = eventually(60, async || {
        let listed: Value = serde_json::from_str(&commands.run(&["agent", "list", "-output", "json"])?)?;
        let path = listed.pointer("/agents/0/id/path").and_then(Value::as_str).context("no node")?;
        Ok(path.to_owned())
    })
    .await?;
    let hash = node.rsplit('/').next().context("a hash")?;
    let (kind, path) = serves_below((&agent, &commands, &stage), &format!("tpm:pub_hash:{hash}")).await?;
    ensure!(kind == "tpm" && path == format!("/spire/agent/tpm/{hash}"), "{kind} {path}");
    ensure!(stage.console()?.get("/v1/devices").await?.get("devices") == Some(&Value::Array(Vec::new())));
    Ok(())
}

fn start(agent: &Path, stage: &Stage, port: u16, attestor: &str, more: &[&str]) -> Result<Agent> {
    let configuration = format!(
        "agent {{\n data_dir = {:?}\n server_address = \"127.0.0.1\"\n server_port = \"{port}\"\n socket_path = {:?}\n \
         trust_bundle_path = {:?}\n trust_domain = \"{TRUST_DOMAIN}\"\n}}\nplugins {{\n \
         {attestor}\n KeyManager \"memory\" {{ plugin_data {{}} }}\n \
         WorkloadAttestor \"unix\" {{ plugin_data {{}} }}\n}}\n",
        tempfile::tempdir_in(stage.folder.path())?.keep(),
        stage.at("spire-agent.sock"),
        stage.at("data/bundle.pem"),
    );
    let file = stage.at("spire-agent.conf");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new(agent);
    command.args(["run", "-config"]).arg(file).args(more);
    Ok(Agent(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
}

fn fetch(agent: &Path, socket: &Path, what: &str) -> Result<String> {
    let mut command = Command::new(agent);
    command.args(["api", "fetch", what, "-socketPath"]).arg(socket);
    if what == "jwt" {
        command.args(["-audience", "anybody"]);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// Whom the server federates with, by each of the commands; the other trust domain's certificate, PEM.
fn federates(commands: &Commands, stage: &Stage) -> Result<String> {
    let mut other = CertificateParams::default();
    other.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    other.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    other.subject_alt_names = vec![SanType::URI("spiffe://other.example".try_into()?)];
    let pem = other.self_signed(&KeyPair::generate()?)?.pem();
    std::fs::write(stage.at("other.pem"), &pem)?;
    let (id, file) = ("spiffe://other.example", stage.at("other.pem").display().to_string());
    commands.run(&["bundle", "set", "-id", id, "-path", &file, "-format", "pem"])?;
    ensure!(commands.run(&["bundle", "list", "-id", id])?.contains("BEGIN CERTIFICATE"));
    ensure!(commands.run(&["bundle", "count"])?.contains('2'));
    let endpoint = ["-bundleEndpointURL", "https://127.0.0.1:1/bundle", "-bundleEndpointProfile"];
    let spiffe = ["https_spiffe", "-endpointSpiffeID", "spiffe://other.example/spire/server"];
    let bundle =
        ["-trustDomain", "other.example", "-trustDomainBundlePath", &file, "-trustDomainBundleFormat", "pem"];
    commands.run(&[&["federation", "create"], &endpoint[..], &spiffe, &bundle].concat())?;
    ensure!(commands.run(&["federation", "list"])?.contains("https_spiffe"));
    ensure!(commands.run(&["federation", "refresh", "-id", "other.example"]).is_err(), "nobody is there");
    let web = ["https_web", "-trustDomain", "other.example"];
    commands.run(&[&["federation", "update"], &endpoint[..], &web].concat())?;
    ensure!(commands.run(&["federation", "show", "-trustDomain", "other.example"])?.contains("https_web"));
    commands.run(&["federation", "delete", "-id", "other.example"])?;
    ensure!(!commands.run(&["federation", "list"])?.contains("https_web"));
    Ok(pem.replace("\r\n", "\n"))
}

/// The bundles of other trust domains that a workload of the agent gets, PEM.
fn federated(agent: &Path, socket: &Path, stage: &Stage) -> Result<String> {
    let folder = stage.at("fetched");
    std::fs::create_dir_all(&folder)?;
    let mut command = Command::new(agent);
    command.args(["api", "fetch", "x509", "-socketPath"]).arg(socket).arg("-write").arg(&folder);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = std::fs::read_dir(&folder)?.filter_map(|file| Some(file.ok()?.path()));
    let federated = files.filter(|file| file.to_string_lossy().contains("federated"));
    Ok(federated.map(std::fs::read_to_string).collect::<std::io::Result<String>>()?)
}

/// Serials of what a workload was given, as the trail has them.
async fn issued(stage: &Stage, spiffe_id: &str) -> Result<Vec<String>> {
    let trail = stage.console()?.get("/v1/audit?limit=1000").await?;
    let leaves = trail.get("leaves").and_then(Value::as_array).context("leaves")?;
    let is_of_it = |leaf: &&Value| {
        leaf.get("kind").and_then(Value::as_str) == Some("svid.issued")
            && leaf.get("subject").and_then(Value::as_str) == Some(spiffe_id)
    };
    let serial = |leaf: &Value| Some(leaf.pointer("/detail/serial")?.as_str()?.to_owned());
    Ok(leaves.iter().filter(is_of_it).filter_map(serial).collect())
}
