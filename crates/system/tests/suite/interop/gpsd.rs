//! gpsd itself, with a receiver that the test plays on a terminal: where it says that the device is decides about its telemetry.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::packages;
use crate::agent::Device;
use crate::stage::eventually;

/// gpsd on a terminal, and what writes to it what a receiver would.
struct Receiver {
    running: Child,
    input: ChildStdin,
}

impl Receiver {
    fn start(port: u16) -> Result<Receiver> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/receiver.py");
        let mut running = Command::new("python3")
            .arg(script)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("python3")?;
        let input = running.stdin.take().context("stdin")?;
        let mut said = String::new();
        BufReader::new(running.stdout.take().context("stdout")?).read_line(&mut said)?;
        ensure!(said.trim() == "standing", "{said:?}");
        Ok(Receiver { running, input })
    }

    fn tell(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.input, "{what}")?)
    }

    /// gpsd goes away.
    fn end(self) -> Result<()> {
        let Receiver { mut running, input } = self;
        drop(input);
        ensure!(running.wait()?.success());
        Ok(())
    }
}

#[tokio::test]
async fn where_gpsd_says_the_device_is_decides_about_its_telemetry() -> Result<()> {
    let Some(_) = packages("gpsd") else { return Ok(()) };
    if !Command::new("gpsd").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("left out: gpsd is not installed");
        return Ok(());
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut receiver = Receiver::start(port)?;
    let mut device = Device::prepared().await?;
    device.stage.trust(&[&device.stage.device("specimen")?], FENCE).await?;
    let file = device.stage.at("agent.toml");
    let place = format!(
        "country = \"DE\"\nlatitude = 52.52\nlongitude = 13.405\naccuracy_m = 10\n\
         [location.gpsd]\naddress = \"127.0.0.1:{port}\"\ndoubt_seconds = 3\nsite_radius_m = 2000\nfix_age_max_seconds = 5\n"
    );
    let configuration = std::fs::read_to_string(&file)?.replace("country = \"DE\"\n", &place);
    std::fs::write(&file, configuration)?;
    device.start_agent()?;
    device.is("trusted").await?;
    newest(&device, json!(true), "DE, within plant (sensed)").await?;
    receiver.tell("spoofed")?;
    newest(&device, json!(false), "in doubt (spoofing)").await?;
    receiver.tell("honest")?;
    newest(&device, json!(true), "DE, within plant (sensed)").await?;
    // Carried away: first nobody moves so fast, then it is no longer where it is meant to stand.
    receiver.tell("52.60 13.405")?;
    newest(&device, json!(false), "in doubt (speed").await?;
    newest(&device, json!(false), "in doubt (drift)").await?;
    receiver.tell("52.523 13.405")?;
    newest(&device, json!(true), "DE, within plant (sensed)").await?;
    receiver.tell("52.53 13.405")?;
    newest(&device, json!(false), "outside of the allowed area plant").await?;
    receiver.tell("52.52 13.405")?;
    newest(&device, json!(true), "DE, within plant (sensed)").await?;
    receiver.end()?;
    // What is left is what somebody wrote down.
    newest(&device, json!(false), "the position is stated, and location.assurance asks for sensed").await
}

/// Waits until the newest batch is accepted or not, with these words.
async fn newest(device: &Device, accepted: Value, words: &str) -> Result<()> {
    eventually(40, async || {
        let answer = device.stage.console()?.get("/v1/telemetry?device=edge&limit=1").await?;
        let record = answer.pointer("/records/0").context("no batch")?;
        let member = if accepted == json!(true) { "location" } else { "reason" };
        let said = record.get(member).and_then(Value::as_str).unwrap_or_default();
        ensure!(record.get("accepted") == Some(&accepted) && said.contains(words), "{words}: {record}");
        Ok(())
    })
    .await
}

const FENCE: &str = "[location]\nallow_countries = [\"DE\"]\nfix_age_max_seconds = 30\naccuracy_max_m = 50\n\
    [[location.allow_areas]]\nname = \"plant\"\ncircle = { latitude = 52.52, longitude = 13.405, radius_m = 800 }";
