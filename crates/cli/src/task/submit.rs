//! What a task is made of, on the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use assay_clock::Clock;
use assay_wire::console::task::{NewTask, Task};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use super::path;
use crate::bounded;
use crate::console::{Asking, Client};
use crate::output;

/// The task.
#[derive(clap::Args)]
pub(super) struct What {
    /// The WebAssembly module.
    #[arg(value_name = "MODULE")]
    image: PathBuf,
    /// What people call it.
    #[arg(long, default_value = "")]
    name: String,
    /// What it reads.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// An argument of its (may be repeated).
    #[arg(long = "arg", value_name = "TEXT", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// A variable of its environment, NAME=VALUE (may be repeated).
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// What it may use besides: clock, random (may be repeated).
    #[arg(long = "capability", value_name = "NAME")]
    capabilities: Vec<String>,
    /// The function that is called.
    #[arg(long, default_value = "_start")]
    entry: String,
    /// public: any trusted device; confidential: one that quotes, of a known task; secret: hardware that hides its memory.
    #[arg(long, default_value = "public")]
    level: String,
    /// Memory in MiB.
    #[arg(long, default_value_t = 64)]
    memory_mb: u64,
    /// Processors, in parts too.
    #[arg(long, default_value_t = 1.0)]
    cpu_cores: f64,
    /// Seconds that it may run.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// Instructions at most; 0: as many as there is time for.
    #[arg(long, default_value_t = 0)]
    fuel: u64,
    /// Bytes of its output, and as many of its messages.
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    output_bytes: u64,
    /// It may be debugged; only public tasks may.
    #[arg(long)]
    allow_debug: bool,
    /// Only on a device that quotes, whatever the level.
    #[arg(long)]
    require_attestation: bool,
    /// How old the device's evidence may be, in seconds; 0: as old as its policy lets it be.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    attestation_timeout: u64,
    /// strict: it is one of those that are expected, wherever any are named; permissive: only where the level demands it.
    #[arg(long, default_value = "strict")]
    measurement_policy: String,
    /// A measurement that is expected, hex (may be repeated); `task measure` says what a task's is.
    #[arg(long = "expect", value_name = "HEX")]
    expected: Vec<String>,
    /// Labels that its device must have: site=paris,rack=2.
    #[arg(long, default_value = "")]
    selector: String,
    /// The label over whose values tasks are spread, such as site.
    #[arg(long, default_value = "")]
    spread: String,
    /// How often it is tried again once it ran and failed.
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// Seconds from now by which it has to have ended; 0: whenever it does.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    deadline: u64,
    /// Wait so many seconds for its end, and end with 1 unless it is done.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl What {
    fn read(&self) -> Result<(NewTask, Vec<u8>)> {
        let image = bounded::read(&self.image, CONTENT_BYTES_MAX)?;
        let input = match &self.input {
            Some(file) => bounded::read(file, CONTENT_BYTES_MAX)?,
            None => Vec::new(),
        };
        let environment: BTreeMap<_, _> = self.environment.iter().cloned().collect();
        let task = NewTask {
            name: self.name.clone(),
            image: BASE64.encode(&image),
            input: BASE64.encode(&input),
            entry: self.entry.clone(),
            arguments: self.arguments.clone(),
            environment,
            capabilities: self.capabilities.clone(),
            level: self.level.clone(),
            memory_mb: self.memory_mb,
            cpu_cores: self.cpu_cores,
            fuel: self.fuel,
            timeout_seconds: self.timeout,
            output_bytes: self.output_bytes,
            allow_debug: self.allow_debug,
            require_attestation: self.require_attestation,
            measurement_policy: self.measurement_policy.clone(),
            network_isolation: true,
            attestation_timeout_seconds: self.attestation_timeout,
            expected_measurements: self.expected.clone(),
            selector: self.selector.clone(),
            spread: self.spread.clone(),
            retries: self.retries,
            deadline_seconds: self.deadline,
        };
        Ok((task, image))
    }
}

/// Submits it, and waits for its end if that is wanted.
pub(super) fn submit(what: &What, asking: &Asking) -> Result<()> {
    let (task, _) = what.read()?;
    let client = asking.console.client()?;
    let task: Task = client.post("/v1/tasks", &task)?;
    let task = match what.wait {
        Some(seconds) => wait(&client, task, seconds)?,
        None => task,
    };
    output::answer(&task, asking.json, super::print)?;
    match what.wait {
        Some(_) if task.status != "done" => bail!("task {}: {}: {}", task.id, task.status, task.reason),
        _ => Ok(()),
    }
}

fn wait(client: &Client, mut task: Task, seconds: u64) -> Result<Task> {
    let clock = Clock::system();
    let until = clock.instant() + Duration::from_secs(seconds);
    while !matches!(task.status.as_str(), "done" | "failed" | "cancelled") && clock.instant() < until {
        client.pause(&clock, LOOK_EVERY);
        task = client.get(&path(&task.id))?;
    }
    Ok(task)
}

/// Says what it would be measured as.
pub(super) fn measure(what: &What, json: bool) -> Result<()> {
    let (task, image) = what.read()?;
    let definition = task.definition(&image).map_err(|what| anyhow!(what))?;
    definition.check().context("the task")?;
    let measurement = HEXLOWER.encode(&definition.measurement());
    output::answer(&json!({ "measurement": measurement }), json, |_| output::out!("{measurement}"))
}

/// What the server takes.
const CONTENT_BYTES_MAX: u64 = 8 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(200);
