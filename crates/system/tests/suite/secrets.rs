//! A secret on its way: from an operator's file over the server's disk into the TPM of a real device, and taken back.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::agent::Device;
use crate::stage::{Program, eventually, within};

/// What is in the folder, by name.
fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_a_secret_is_on_a_device_for_as_long_as_it_is_trusted() -> Result<()> {
    let mut device = Device::prepared().await?;
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let folder = memory.path().join("secrets");
    let ran = device.stage.at("ran");
    let console = device.stage.console()?;
    let put = async |name: &str, content: &[u8], autorun: bool| {
        let to = json!({ "labels": "", "policy": null });
        let body = json!({ "name": name, "content": BASE64.encode(content), "autorun": autorun, "to": to });
        console.post("/v1/secrets", &body).await
    };
    put("db", b"hunter2", false).await?;
    let program = format!("#!/bin/sh\necho \"$ASSAY_SECRET\" >> {}\nsleep 1000\n", ran.display());
    put("boot.sh", program.as_bytes(), true).await?;

    let configuration = std::fs::read_to_string(device.stage.at("agent.toml"))?;
    let section = format!("[secrets]\nfolder = {folder:?}\nautorun = true\n");
    std::fs::write(device.stage.at("agent.toml"), configuration + &section)?;
    device.start_agent()?;
    device.is("trusted").await?;
    let arrived = async |content: &'static [u8]| {
        eventually(20, async || {
            let files = files(&folder)?;
            ensure!(files.len() == 2, "{}", files.len());
            ensure!(files[1] == ("db".to_owned(), content.to_vec()), "the secret");
            ensure!(files[0].0 == "boot.sh", "the program");
            Ok(())
        })
        .await
    };
    arrived(b"hunter2").await?;
    let mode = |path: &Path| Ok::<_, anyhow::Error>(std::fs::metadata(path)?.permissions().mode() & 0o777);
    ensure!(mode(&folder)? == 0o700 && mode(&folder.join("db"))? == 0o400, "who may read it");
    ensure!(mode(&folder.join("boot.sh"))? == 0o500, "who may run it");
    let shown = console.get("/v1/secrets/db").await?;
    ensure!(shown.pointer("/held_by/0/version") == Some(&json!(1)), "{shown}");
    eventually(10, async || {
        let said = std::fs::read_to_string(&ran)?;
        ensure!(said == "boot.sh\n", "{said:?}");
        Ok(())
    })
    .await?;

    // Another content comes by itself.
    console.post("/v1/secrets/db/rotate", &json!({ "content": BASE64.encode(b"correct horse") })).await?;
    arrived(b"correct horse").await?;

    // The device falls: nothing is left of it, and the program is gone.
    let programs = || running(&folder.join("boot.sh"));
    ensure!(programs()? == 1, "the program runs");
    device.run("/opt/implant")?;
    let gone = tokio::time::Instant::now();
    eventually(10, async || {
        ensure!(files(&folder)?.is_empty(), "secrets are left");
        Ok(())
    })
    .await?;
    ensure!(gone.elapsed() < Duration::from_secs(2), "{:?}", gone.elapsed());
    eventually(5, async || {
        ensure!(programs()? == 0, "the program runs on");
        Ok(())
    })
    .await?;
    device.is("suspect").await?;
    let shown = console.get("/v1/secrets/db").await?;
    ensure!(shown.get("held_by") == Some(&json!([])), "{shown}");

    // With its trust it gets them again, the program as well.
    console.approve("edge").await?;
    device.is("trusted").await?;
    arrived(b"correct horse").await?;
    eventually(10, async || {
        ensure!(std::fs::read_to_string(&ran)?.lines().count() == 2, "the program runs again");
        Ok(())
    })
    .await?;

    // Revoked, it is gone while the device is trusted; the other one stays.
    console.delete("/v1/secrets/db").await?;
    eventually(10, async || {
        ensure!(files(&folder)?.len() == 1, "one secret");
        Ok(())
    })
    .await?;

    // An agent that is killed leaves what is there; the next takes it away first. One that ends takes it along.
    device.agent.take().context("the agent")?.kill()?;
    ensure!(files(&folder)?.len() == 1, "killed, it can do nothing");
    std::fs::write(folder.join("stale"), "of an earlier run")?;
    device.start_agent()?;
    eventually(20, async || {
        let names: Vec<String> = files(&folder)?.into_iter().map(|(name, _)| name).collect();
        ensure!(names == ["boot.sh"], "{names:?}");
        let shown = console.get("/v1/devices/edge").await?;
        ensure!(shown.pointer("/device/status") == Some(&json!("trusted")), "{shown}");
        Ok(())
    })
    .await?;
    within(10, device.agent.take().context("the agent")?.terminate()).await??;
    ensure!(files(&folder)?.is_empty(), "secrets are left");

    // Neither the server's disk nor either log tells one.
    let trail: Value = console.get("/v1/audit?limit=1000").await?;
    for secret in ["hunter2", "correct horse"] {
        ensure!(!trail.to_string().contains(secret), "the trail");
    }
    Ok(())
}

/// How many processes run this program.
fn running(program: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        let command = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let program = program.as_os_str().as_encoded_bytes();
        count += usize::from(command.windows(program.len()).any(|window| window == program));
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_secrets_are_never_put_on_a_disk() -> Result<()> {
    let device = Device::prepared().await?;
    let configuration = std::fs::read_to_string(device.stage.at("agent.toml"))?;
    std::fs::create_dir_all("/dev/shm/assay-foreign")?;
    std::fs::set_permissions("/dev/shm/assay-foreign", std::fs::Permissions::from_mode(0o755))?;
    std::fs::write("/dev/shm/assay-foreign/Somebody's", "else")?;
    let before = std::fs::metadata("/dev/shm")?.permissions();
    for (section, says) in [
        ("folder = \"/var/tmp/assay-secrets-test\"", "not on a tmpfs"),
        ("folder = \"/dev/shm\"", "others may write"),
        ("folder = \"/dev/shm/assay-foreign\"", "and none"),
        ("folder = \"/dev/shm/assay-none\"\ngroup = \"no-such-group\"", "no group"),
        ("folder = \"/dev/shm/assay-none\"\nautorun_seconds = 0", "autorun_seconds"),
    ] {
        let file = device.stage.at("agent-bad.toml");
        let _ = std::fs::remove_file(file.with_extension("log"));
        std::fs::write(&file, format!("{configuration}[secrets]\n{section}\n"))?;
        // It says that it is ready, and ends at once.
        let program = Program::start("agent", &file)?;
        eventually(10, async || {
            let said = program.said();
            ensure!(said.contains(says), "{section}: {said}");
            Ok(())
        })
        .await?;
    }
    ensure!(std::fs::metadata("/dev/shm")?.permissions() == before, "a folder that is shared was changed");
    ensure!(
        std::fs::read("/dev/shm/assay-foreign/Somebody's")? == b"else",
        "what is somebody else's was removed"
    );
    std::fs::remove_dir_all("/dev/shm/assay-foreign")?;
    let _ = std::fs::remove_dir("/var/tmp/assay-secrets-test");
    let _ = std::fs::remove_dir("/dev/shm/assay-none");
    Ok(())
}
