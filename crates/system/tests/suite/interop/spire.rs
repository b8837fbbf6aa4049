//! SPIRE's own programs, as its module has them: an agent that joins by a token, and the commands that operators know.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
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

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_spire_serves_its_workloads_until_it_is_banned() -> Result<()> {
    let Some(packages) = packages("SPIRE's agent and commands") else { return Ok(()) };
    let (agent, server) = (packages.join("bin/spire-agent"), packages.join("bin/spire-server"));
    if !agent.exists() || !server.exists() {
        eprintln!("left out: SPIRE's agent and commands; it takes Go to build them");
        return Ok(());
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let stage = Stage::start_with(&format!("[spire]\naddress = \"127.0.0.1:{port}\"\n")).await?;
    let commands = Commands { program: server, socket: stage.at("data/spire.sock") };
    let site = format!("spiffe://{TRUST_DOMAIN}/site-3");
    let token = commands.run(&["token", "generate", "-spiffeID", &site])?;
    let token = token.lines().find_map(|line| line.strip_prefix("Token: ")).context("a token")?.to_owned();
    let (press, uid) = (format!("spiffe://{TRUST_DOMAIN}/press"), rustix::process::getuid().as_raw());
    let selector = format!("unix:uid:{uid}");
    commands.run(&["entry", "create", "-parentID", &site, "-spiffeID", &press, "-selector", &selector])?;

    let socket = stage.at("spire-agent.sock");
    let _agent = start(&agent, &stage, port, &token)?;
    let said = eventually(60, async || fetch(&agent, &socket, "x509")).await?;
    ensure!(said.contains(&press), "{said}");
    let said = fetch(&agent, &socket, "jwt")?;
    ensure!(said.contains(&format!("token({press})")), "{said}");
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
    ensure!(commands.run(&["agent", "list"])?.contains(&id));
    ensure!(start(&agent, &stage, port, &token)?.0.wait()?.code() != Some(0), "a token is shown once");

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

fn start(agent: &Path, stage: &Stage, port: u16, token: &str) -> Result<Agent> {
    let configuration = format!(
        "agent {{\n data_dir = {:?}\n server_address = \"127.0.0.1\"\n server_port = \"{port}\"\n socket_path = {:?}\n \
         trust_bundle_path = {:?}\n trust_domain = \"{TRUST_DOMAIN}\"\n}}\nplugins {{\n \
         NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n KeyManager \"memory\" {{ plugin_data {{}} }}\n \
         WorkloadAttestor \"unix\" {{ plugin_data {{}} }}\n}}\n",
        tempfile::tempdir_in(stage.folder.path())?.keep(),
        stage.at("spire-agent.sock"),
        stage.at("data/bundle.pem"),
    );
    let file = stage.at("spire-agent.conf");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new(agent);
    command.args(["run", "-config"]).arg(file).args(["-joinToken", token]);
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
