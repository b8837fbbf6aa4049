//! The same system on PostgreSQL: its stories told again there, and those that only a database of its own process has.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use assay_testkit::postgres::{Cluster, TEST_DATABASE};
use serde_json::json;
use tonic::Code;

use crate::stage::{Program, Stage, affirming, eventually, lists, refused, serials, within};

/// Says where PostgreSQL is missing, which nothing may pass over where all of it has to be tested.
fn is_here() -> Result<bool> {
    if !Cluster::is_installed() {
        ensure!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed: scripts/setup installs it");
        eprintln!("PostgreSQL is not installed, so this was not tested: scripts/setup installs it");
    }
    Ok(Cluster::is_installed())
}

/// The real agent on a real TPM through compromise, recovery, reboot and crash; devices that fall, are revoked and come back;
/// servers that end at any moment.
#[test]
fn swtpm_the_stories_of_the_system_hold_on_postgresql_as_well() -> Result<()> {
    if !is_here()? || std::env::var_os(TEST_DATABASE).is_some() {
        return Ok(());
    }
    let stories =
        ["agent::swtpm_agent_lives", "crash::", "lifecycle::", "withdrawal::", "enrollment::", "secrets::"];
    let output = Command::new(std::env::current_exe()?)
        .args(stories)
        .args(["--test-threads", "2"])
        .env(TEST_DATABASE, "postgres")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && !said.contains(" 0 passed"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_killed_beneath_a_server_costs_nothing_that_was_told() -> Result<()> {
    if !is_here()? {
        return Ok(());
    }
    let cluster = Cluster::start()?;
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::start_on(Some(cluster.database()?), folder, "", "").await?;
    let edge = stage.edge().await?;
    let (mut good, mut attachment) = stage.trusted(&edge, "good").await?;
    let (mut victim, mut falling) = stage.trusted(&edge, "victim").await?;
    victim.run_program("/opt/implant", b"unknown");
    falling.changed().await?;
    assert_eq!(within(5, falling.attest(&mut victim)).await??.tier, "contraindicated");
    let before = stage.everything().await?;

    cluster.kill()?;
    // Nothing is granted or taken in while it is away, and nobody is left waiting.
    let statement = good.statement(b"", None);
    let chain = good.chain.clone();
    let away = within(20, edge.submit(good.submit(&statement, b"")?)).await?;
    ensure!(away.as_ref().map_or(true, |answer| !answer.accepted), "{away:?}");
    good.chain = chain;
    let revoke = json!({ "reason": "stolen from the van" });
    let told = stage.console()?.post("/v1/devices/victim/revoke", &revoke).await;
    ensure!(told.is_err(), "{told:?}");
    cluster.launch()?;
    assert_eq!(eventually(20, async || stage.everything().await).await?, before);
    eventually(60, async || stage.console()?.post("/v1/devices/victim/revoke", &revoke).await).await?;
    let serial = serials(&stage.explain(&victim).await?).1.pop().context("what it had")?;
    ensure!(lists(&stage.console()?.bytes("/crl").await?, &serial), "{serial} is not on the list");

    // The server never ended; whoever is attached goes on.
    attachment.changed().await?;
    affirming(&within(5, attachment.attest(&mut good)).await??)?;
    let statement = good.statement(b"", None);
    ensure!(edge.submit(good.submit(&statement, b"")?).await?.accepted);
    let mut again = edge.attach(&victim).await?;
    refused(within(5, again.attest(&mut victim)).await?, Code::PermissionDenied, "revoked")?;
    let held = stage.everything().await?;
    stage.take_server()?.kill()?;
    stage.start_server()?;
    assert_eq!(stage.everything().await?, held);
    stage.verify(None).await?;
    Ok(())
}

#[tokio::test]
async fn a_second_server_on_the_same_database_does_not_start_and_says_why() -> Result<()> {
    if !is_here()? {
        return Ok(());
    }
    let cluster = Cluster::start()?;
    let stage = Stage::start_on(Some(cluster.database()?), tempfile::tempdir()?, "", "").await?;
    let text = std::fs::read_to_string(stage.at("server.toml"))?;
    let line =
        |line: &&str| !["edge", "console", "data"].iter().any(|key| line.starts_with(&format!("{key} =")));
    let more = "data = \"second\"\nedge = \"127.0.0.1:0\"\nconsole = \"127.0.0.1:0\"\n";
    let second = format!("{more}{}", text.lines().filter(line).collect::<Vec<_>>().join("\n"));
    let file = stage.at("second.toml");
    std::fs::write(&file, second)?;
    let refused = start(&file).err().context("it started")?;
    ensure!(refused.contains("another server writes this database"), "{refused}");
    let edge = stage.edge().await?;
    stage.trusted(&edge, "undisturbed").await?;
    Ok(())
}

fn start(file: &Path) -> Result<Program, String> {
    Program::start("server", file).map_err(|error| error.to_string())
}
