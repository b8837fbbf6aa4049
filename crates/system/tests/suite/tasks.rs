//! Tasks on real devices: placed where they may run, measured by a TPM, moved when their device falls.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_testkit::edge::protocol::{TaskContentRequest, TaskGrant, TaskRoom};
use assay_testkit::edge::{Attachment, Edge};
use assay_testkit::software_device::task::Finished;
use assay_testkit::{Machine, SoftTpm, SoftwareDevice, TpmMaker};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::stage::{Console, Program, Stage, TRUST_DOMAIN, affirming, eventually, within};

/// A device that runs tasks, with its TPM and its machine.
struct Worker {
    name: String,
    agent: Program,
    machine: Machine,
    _tpm: SoftTpm,
}

/// A stage with such devices.
struct Fleet {
    stage: Stage,
    maker: TpmMaker,
    workers: Vec<Worker>,
}

impl Fleet {
    async fn of(names: &[&str]) -> Result<Fleet> {
        let folder = tempfile::tempdir()?;
        let maker = TpmMaker::new(&folder.path().join("tpm-maker"))?;
        // Whom its certificates are by is known with the first of them.
        let tpms =
            names.iter().map(|name| SoftTpm::start(&maker, &folder.path().join(format!("{name}-tpm"))));
        let tpms = tpms.collect::<Result<Vec<_>, _>>()?;
        let read = |path: &Path| std::fs::read_to_string(path);
        let makers = read(&maker.root_ca())? + &read(&maker.issuing_ca())?;
        let stage = Stage::start_trusting(folder, &makers, "attest_interval_seconds = 1\n").await?;
        // The machines run what a software device runs, so that one's policy is theirs too.
        stage.trust(&[&stage.device("specimen")?], "").await?;
        let mut fleet = Fleet { stage, maker, workers: Vec::new() };
        for (name, tpm) in names.iter().zip(tpms) {
            fleet.add_with(name, tpm).await?;
        }
        Ok(fleet)
    }

    async fn add(&mut self, name: &str) -> Result<()> {
        let tpm = SoftTpm::start(&self.maker, &self.stage.at(&format!("{name}-tpm")))?;
        self.add_with(name, tpm).await
    }

    async fn add_with(&mut self, name: &str, tpm: SoftTpm) -> Result<()> {
        let at = |what: &str| self.stage.at(&format!("{name}-{what}"));
        let machine = Machine::boot(&tpm, &at("logs"))?;
        let configuration = format!(
            "name = {name:?}\ntrust_domain = \"{TRUST_DOMAIN}\"\ngateway = {:?}\nbundle = {:?}\nstate = {:?}\ntpm = {:?}\n\
             boot_log = {:?}\nima_log = {:?}\nworkload_api = {:?}\n[telemetry]\nenabled = false\n\
             [tasks]\nmemory_mb = 64\ncpu_cores = 2\ntasks_max = 2\n",
            self.stage.gateway()?.door.address,
            self.stage.at("data/bundle.pem"),
            at("state"),
            tpm.transport(),
            machine.boot_log_path(),
            machine.ima_log_path(),
            at("workload.sock"),
        );
        std::fs::write(at("agent.toml"), configuration)?;
        let agent = Program::start("agent", &at("agent.toml"))?;
        self.workers.push(Worker { name: name.to_owned(), agent, machine, _tpm: tpm });
        let path = format!("/v1/devices/{name}");
        let looked = eventually(30, async || {
            let device = self.stage.console()?.get(&path).await?;
            ensure!(device.pointer("/device/status") == Some(&json!("trusted")), "{device}");
            Ok(())
        });
        looked.await.with_context(|| self.said(name))
    }

    fn worker(&self, name: &str) -> Result<&Worker> {
        self.workers.iter().find(|worker| worker.name == name).context("no such device")
    }

    fn said(&self, name: &str) -> String {
        self.worker(name).map(|worker| worker.agent.said()).unwrap_or_default()
    }

    async fn submit(&self, task: &Value) -> Result<String> {
        let answer = self.stage.console()?.post("/v1/tasks", task).await?;
        Ok(answer.get("id").and_then(Value::as_str).context("id")?.to_owned())
    }

    async fn task(&self, id: &str) -> Result<Value> {
        self.stage.console()?.get(&format!("/v1/tasks/{id}")).await
    }

    /// Waits until a task is there, and returns it.
    async fn is(&self, id: &str, status: &str) -> Result<Value> {
        let looked = eventually(30, async || {
            let task = self.task(id).await?;
            ensure!(task.get("status") == Some(&json!(status)), "{task}");
            Ok(task)
        });
        looked
            .await
            .with_context(|| self.workers.iter().map(|worker| worker.agent.said()).collect::<String>())
    }

    /// The name of the device that has the task's last attempt.
    async fn place(&self, task: &Value) -> Result<String> {
        let history = task.get("history").and_then(Value::as_array).context("history")?;
        let device = history.last().and_then(|last| last.get("device")).and_then(Value::as_str);
        for worker in &self.workers {
            let known = self.stage.console()?.get(&format!("/v1/devices/{}", worker.name)).await?;
            if known.pointer("/device/id").and_then(Value::as_str) == device {
                return Ok(worker.name.clone());
            }
        }
        anyhow::bail!("nobody's: {task}")
    }
}

fn module(text: &str) -> Result<String> {
    Ok(BASE64.encode(&wat::parse_str(text)?))
}

/// Reads up to 64 bytes and writes them out again.
const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 64))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
const FOREVER: &str = r#"(module (func (export "_start") (loop br 0)))"#;

/// What is expected of a task, as the server says that it would be measured.
async fn expected(fleet: &Fleet, task: &Value) -> Result<String> {
    let id = fleet.submit(task).await?;
    let task = fleet.task(&id).await?;
    // It may be over already.
    let cancel = format!("/v1/tasks/{id}/cancel");
    drop(fleet.stage.console()?.post(&cancel, &json!({ "reason": "measured" })).await);
    Ok(task.get("measurement").and_then(Value::as_str).context("measurement")?.to_owned())
}

fn confidential(mut task: Value, measurement: &str) -> Value {
    task["level"] = json!("confidential");
    task["expected_measurements"] = json!([measurement]);
    task
}

#[tokio::test]
async fn swtpm_a_confidential_task_runs_on_an_attested_device_and_moves_when_it_falls() -> Result<()> {
    let mut fleet = Fleet::of(&["one"]).await?;
    let echo = json!({ "name": "echo", "image": module(ECHO)?, "input": BASE64.encode(b"some input") });
    let measurement = expected(&fleet, &echo).await?;
    let echo = confidential(echo, &measurement);
    let done = fleet.submit(&echo).await?;
    fleet.is(&done, "done").await?;
    let result = fleet.stage.console()?.get(&format!("/v1/tasks/{done}/result")).await?;
    ensure!(result.get("output") == Some(&json!(BASE64.encode(b"some input"))), "{result}");
    ensure!(result.get("register").is_some_and(Value::is_object), "{result}");
    if let Some(folder) = std::env::var_os("ASSAY_RECORD") {
        let folder = Path::new(&folder);
        std::fs::write(folder.join("result.json"), serde_json::to_vec_pretty(&result)?)?;
        std::fs::copy(fleet.stage.at("data/bundle.pem"), folder.join("bundle.pem"))?;
    }
    // The log of a boot goes on.
    let again = fleet.submit(&echo).await?;
    fleet.is(&again, "done").await?;

    // One that never ends, and its device falls.
    let forever = json!({ "image": module(FOREVER)?, "timeout_seconds": 600 });
    let forever = confidential(forever.clone(), &expected(&fleet, &forever).await?);
    let endless = fleet.submit(&forever).await?;
    fleet.is(&endless, "placed").await?;
    eventually(10, async || {
        let said = fleet.said("one");
        let begun = said.lines().any(|line| line.contains("task begun") && line.contains(&endless));
        ensure!(begun, "{said}");
        Ok(())
    })
    .await?;
    fleet.add("two").await?;
    let start = Instant::now();
    fleet.worker("one")?.machine.run_program("/opt/implant", b"unknown")?;
    let moved = eventually(10, async || {
        let task = fleet.task(&endless).await?;
        ensure!(task.get("attempts") == Some(&json!(2)), "{task}");
        Ok(task)
    })
    .await?;
    ensure!(start.elapsed() < Duration::from_secs(2), "moved after {:?}", start.elapsed());
    ensure!(fleet.place(&moved).await? == "two", "{moved}");
    ensure!(moved.pointer("/history/0/status") == Some(&json!("withdrawn")), "{moved}");
    eventually(5, async || {
        let said = fleet.said("one");
        ensure!(said.contains("task taken back") && said.contains(&endless), "{said}");
        Ok(())
    })
    .await?;
    fleet
        .stage
        .console()?
        .post(&format!("/v1/tasks/{endless}/cancel"), &json!({ "reason": "enough" }))
        .await?;
    eventually(5, async || {
        let said = fleet.said("two");
        ensure!(said.contains("task taken back"), "{said}");
        Ok(())
    })
    .await?;
    // No way back for a task that may not run on a fallen device.
    let explained = fleet.stage.console()?.get(&format!("/v1/tasks/{endless}/explain")).await?;
    ensure!(explained.to_string().contains("the device is suspect"), "{explained}");
    Ok(())
}

#[tokio::test]
async fn swtpm_what_may_not_run_is_refused_with_its_reason() -> Result<()> {
    let fleet = Fleet::of(&["one"]).await?;
    let echo = json!({ "image": module(ECHO)? });
    let console = fleet.stage.console()?;
    let refused = async |task: Value, code: &str| -> Result<()> {
        let error = console.post("/v1/tasks", &task).await.err().context("it was taken")?.to_string();
        ensure!(error.contains(code), "{error}, not {code}");
        Ok(())
    };
    let with = |field: &str, value: Value| {
        let mut task = echo.clone();
        task[field] = value;
        task
    };
    refused(with("level", json!("confidential")), "measurement-unknown").await?;
    refused(with("expected_measurements", json!(["00".repeat(48)])), "measurement-unknown").await?;
    refused(with("network_isolation", json!(false)), "security-violation").await?;
    refused(with("level", json!("top")), "level").await?;
    refused(with("image", json!(BASE64.encode(b"#!/bin/sh"))), "not a WebAssembly module").await?;
    refused(with("image", json!(BASE64.encode(&vec![0; (8 << 20) + 1]))), "resource-exhaustion").await?;
    refused(with("memory_mb", json!(1_u64 << 40)), "memory").await?;
    refused(with("unknown", json!(1)), "unknown").await?;
    let measurement = expected(&fleet, &echo).await?;
    let mut debugged = confidential(echo.clone(), &measurement);
    debugged["allow_debug"] = json!(true);
    refused(debugged, "debug").await?;
    let mut secret = confidential(echo.clone(), &measurement);
    secret["level"] = json!("secret");
    refused(secret, "no-tee").await?;

    // What runs out of something, or does what is not offered, says so.
    let ends = async |text: &str, more: Value, words: &str| -> Result<()> {
        let mut task = json!({ "image": module(text)?, "retries": 0 });
        task.as_object_mut().context("task")?.extend(more.as_object().cloned().unwrap_or_default());
        let id = fleet.submit(&task).await?;
        let task = fleet.is(&id, "failed").await?;
        ensure!(task.to_string().contains(words), "{task}, not {words}");
        Ok(())
    };
    ends(FOREVER, json!({ "timeout_seconds": 1 }), "had all of its time").await?;
    ends(FOREVER, json!({ "fuel": 1000 }), "had all of its fuel").await?;
    ends(
        "(module (memory 1000) (func (export \"_start\")))",
        json!({ "memory_mb": 1 }),
        "had all of its memory",
    )
    .await?;
    ends("(module (import \"env\" \"system\" (func)) (func (export \"_start\")))", json!({}), "was not run")
        .await?;
    ends("(module (func (export \"_start\") unreachable))", json!({}), "failed").await?;
    // One that fails is tried as often as it wants to be.
    let failing =
        json!({ "image": module("(module (func (export \"_start\") unreachable))")?, "retries": 1 });
    let id = fleet.submit(&failing).await?;
    let task = fleet.is(&id, "failed").await?;
    ensure!(task.get("attempts") == Some(&json!(2)), "{task}");
    Ok(())
}

/// A device that speaks for itself, and what it has told of its log so far.
struct Teller {
    device: SoftwareDevice,
    attachment: Attachment,
}

impl Teller {
    async fn on(stage: &Stage, edge: &Edge, name: &str, room: bool) -> Result<Teller> {
        let mut device = stage.device(name)?;
        if stage.console()?.get("/v1/policy").await?.get("version").is_none_or(Value::is_null) {
            stage.trust(&[&device], "").await?;
        }
        edge.enroll(&mut device).await?;
        let has = TaskRoom { memory_bytes: 1 << 30, cpu_millis: 8000, tasks: 8 };
        let mut attachment = match room {
            true => edge.attach_with_room(&device, has).await?,
            false => edge.attach(&device).await?,
        };
        affirming(&within(5, attachment.attest(&mut device)).await??)?;
        within(5, attachment.grants()).await??;
        Ok(Teller { device, attachment })
    }

    /// Waits until it has a task that it did not have before.
    async fn task_beside(&mut self, known: &[TaskGrant]) -> Result<TaskGrant> {
        loop {
            if let Some(new) = self.attachment.tasks().find(|task| !known.contains(task)) {
                return Ok(new.clone());
            }
            within(10, self.attachment.grants()).await??;
        }
    }

    async fn hand_in(&mut self, finished: &Finished) -> Result<String> {
        let result = finished.sign(&self.device)?;
        Ok(within(10, self.attachment.hand_in(result)).await??.refused)
    }
}

async fn submit_to(stage: &Stage) -> Result<()> {
    let console = stage.console()?;
    let echo = json!({ "image": module(ECHO)?, "require_attestation": true });
    console.post("/v1/tasks", &echo).await?;
    Ok(())
}

#[tokio::test]
async fn a_result_counts_once_for_its_attempt_with_its_log_and_while_its_device_stands() -> Result<()> {
    let stage = Stage::start().await?;
    let edge = stage.edge().await?;
    let mut one = Teller::on(&stage, &edge, "one", true).await?;
    let mut other = Teller::on(&stage, &edge, "other", false).await?;
    submit_to(&stage).await?;
    let first = one.task_beside(&[]).await?;
    let request = |task: &TaskGrant| TaskContentRequest {
        task: task.task.clone(),
        attempt: task.attempt,
        input: false,
        offset: 0,
    };
    let piece = within(5, one.attachment.task_content(request(&first))).await??.piece;
    ensure!(piece == wat::parse_str(ECHO)?, "another image");
    let piece = within(5, other.attachment.task_content(request(&first))).await??.piece;
    ensure!(piece.is_empty(), "another device's image is handed out");

    let honest = Finished::of(&one.device, &first, b"done", &[]);
    type Lie = (&'static str, fn(&mut Finished));
    let lies: [Lie; 10] = [
        ("task-content", |lie| lie.told_output = b"forged".to_vec()),
        ("task-content", |lie| lie.measurement = vec![1; 48]),
        ("task-content", |lie| lie.input = vec![1; 48]),
        ("another-device", |lie| lie.device.push('x')),
        ("another-attempt", |lie| lie.nonce = vec![1; 32]),
        ("not-standing", |lie| lie.attempt += 1),
        ("no-register", |lie| lie.shows_register = false),
        ("task-register", |lie| lie.attributes |= 2),
        ("task-register", |lie| lie.told = Some(Vec::new())),
        ("task-register", |lie| lie.told_boot = Some(7)),
    ];
    for (code, lie) in lies {
        let mut finished = honest.clone();
        lie(&mut finished);
        let refused = one.hand_in(&finished).await?;
        ensure!(refused.ends_with(code), "{refused}, not {code}");
    }
    // Signed by another, whose result it is not.
    let stolen = honest.sign(&other.device)?;
    let refused = within(5, one.attachment.hand_in(stolen)).await??.refused;
    ensure!(refused.ends_with("task-signature"), "{refused}");
    let refused = other.hand_in(&honest).await?;
    ensure!(refused.ends_with("task-signature") || refused.ends_with("another-device"), "{refused}");

    ensure!(one.hand_in(&honest).await?.is_empty());
    let refused = one.hand_in(&honest).await?;
    ensure!(refused.ends_with("not-standing"), "a result twice: {refused}");

    // The log goes on from what was seen of it in this boot.
    submit_to(&stage).await?;
    let second = one.task_beside(std::slice::from_ref(&first)).await?;
    let next = Finished::of(&one.device, &second, b"done", &[honest.entry()]);
    let begun_anew = Finished::of(&one.device, &second, b"done", &[]);
    ensure!(one.hand_in(&begun_anew).await?.ends_with("task-log"), "a log that begins anew");
    let mut reordered = next.clone();
    reordered.told = Some(vec![next.entry(), honest.entry()]);
    ensure!(one.hand_in(&reordered).await?.ends_with("task-register"), "a log out of order");
    let mut cut = next.clone();
    cut.told = Some(vec![next.entry()]);
    ensure!(one.hand_in(&cut).await?.ends_with("task-register"), "a log without its beginning");
    ensure!(one.hand_in(&next).await?.is_empty());

    // It falls, and has nothing to hand in any more.
    submit_to(&stage).await?;
    let third = one.task_beside(&[first, second]).await?;
    let last = Finished::of(&one.device, &third, b"done", &[honest.entry(), next.entry()]);
    one.device.run_program("/opt/implant", b"unknown");
    one.attachment.changed().await?;
    within(5, one.attachment.attest(&mut one.device)).await??;
    let refused = one.hand_in(&last).await?;
    ensure!(refused.ends_with("not-standing") || refused.ends_with("not-trusted"), "{refused}");
    let task = stage.console()?.get(&format!("/v1/tasks/{}", third.task)).await?;
    ensure!(task.get("status") == Some(&json!("waiting")), "{task}");
    Ok(())
}

#[tokio::test]
async fn whoever_shows_no_token_submits_nothing() -> Result<()> {
    let stage = Stage::start().await?;
    let stranger = Console::new(stage.door("console")?, "guess");
    for (path, body) in
        [("/v1/tasks", json!({ "image": "" })), ("/v1/tasks/x/cancel", json!({ "reason": "x" }))]
    {
        let error = stranger.post(path, &body).await.err().context("it was let in")?.to_string();
        ensure!(error.contains("401"), "{error}");
    }
    Ok(())
}
