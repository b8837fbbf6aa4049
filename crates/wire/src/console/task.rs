//! Tasks: what is to be run where, where it is, and what came of it.

use std::collections::BTreeMap;

use assay_evidence::task::{Backend, Capability, Definition, Limits, sha384};
use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

/// A task that is submitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// The image, a WebAssembly module: base64.
    pub image: String,
    /// What it reads: base64.
    #[serde(default)]
    pub input: String,
    /// The function that is called.
    #[serde(default = "start")]
    pub entry: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// `clock`, `random`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// `public`, `confidential` or `secret`.
    #[serde(default = "public")]
    pub level: String,
    /// Memory, in MiB.
    #[serde(default = "memory_mb")]
    pub memory_mb: u64,
    /// Processors, in parts too.
    #[serde(default = "cpu_cores")]
    pub cpu_cores: f64,
    /// Instructions at most; 0: as many as there is time for.
    #[serde(default)]
    pub fuel: u64,
    /// How long it may run.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
    /// Bytes of its output, and as many of its messages.
    #[serde(default = "output_bytes")]
    pub output_bytes: u64,
    /// Whether it may be debugged.
    #[serde(default)]
    pub allow_debug: bool,
    /// Whether its device has to have quoted, whatever the level.
    #[serde(default)]
    pub require_attestation: bool,
    /// `strict` or `permissive`.
    #[serde(default = "strict")]
    pub measurement_policy: String,
    /// Whether it is kept from the network; there is no other way to run it.
    #[serde(default = "isolated")]
    pub network_isolation: bool,
    /// How old its device's evidence may be; 0: as old as the policy lets it be.
    #[serde(default)]
    pub attestation_timeout_seconds: u64,
    /// Measurements of which its own has to be one, hex.
    #[serde(default)]
    pub expected_measurements: Vec<String>,
    /// Labels that its device must have: `site=paris`.
    #[serde(default)]
    pub selector: String,
    /// The label over whose values tasks are spread.
    #[serde(default)]
    pub spread: String,
    /// How often it is tried again once it ran and failed.
    #[serde(default = "retries")]
    pub retries: u32,
    /// How long from now it has to have ended; 0: whenever it does.
    #[serde(default)]
    pub deadline_seconds: u64,
}

fn start() -> String {
    "_start".to_owned()
}

fn public() -> String {
    "public".to_owned()
}

fn strict() -> String {
    "strict".to_owned()
}

fn memory_mb() -> u64 {
    64
}

fn cpu_cores() -> f64 {
    1.0
}

fn timeout_seconds() -> u64 {
    60
}

fn output_bytes() -> u64 {
    1 << 20
}

fn isolated() -> bool {
    true
}

fn retries() -> u32 {
    2
}

impl NewTask {
    /// What is to be run, as it is measured: the same on both ends. The capability that is none is the error.
    pub fn definition(&self, image: &[u8]) -> Result<Definition, String> {
        let capability = |name: &String| {
            let known = Capability::ALL.into_iter().find(|known| known.name() == name);
            known.ok_or_else(|| format!("capabilities: {name:?} is none: clock and random are"))
        };
        Ok(Definition {
            backend: Backend::Wasm,
            image: sha384(image),
            entry: self.entry.clone(),
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            capabilities: self.capabilities.iter().map(capability).collect::<Result<_, _>>()?,
            limits: Limits {
                memory_bytes: self.memory_mb.saturating_mul(1 << 20),
                fuel: self.fuel,
                milliseconds: self.timeout_seconds.saturating_mul(1000),
                output_bytes: self.output_bytes,
            },
        })
    }
}

/// Tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// They, the newest first.
    pub tasks: Vec<Task>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What programs call it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// `public`, `confidential` or `secret`.
    pub level: String,
    /// `waiting`, `placed`, `done`, `failed` or `cancelled`.
    pub status: String,
    /// Why it is where it is.
    pub reason: String,
    /// The measurement of what is run, hex.
    pub measurement: String,
    /// When it was submitted.
    pub submitted_at: UnixTime,
    /// When it has to have ended; `None`: whenever it does.
    pub deadline: Option<UnixTime>,
    /// When it ended.
    pub ended_at: Option<UnixTime>,
    /// How often it was placed.
    pub attempts: u32,
    /// Each time, the first first; in a list they are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
}

/// An attempt at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which.
    pub number: u32,
    /// On which device.
    pub device: String,
    /// `standing`, `ended` or `withdrawn`.
    pub status: String,
    /// Why it does not stand.
    pub reason: String,
    /// When it was placed.
    pub placed_at: UnixTime,
    /// When it ended.
    pub ended_at: Option<UnixTime>,
}

/// What each device that runs tasks is worth for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The devices, the best first.
    pub devices: Vec<Weighed>,
}

/// A device and its worth for a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighed {
    /// Its SPIFFE ID.
    pub device: String,
    /// What people call it.
    pub name: String,
    /// 0 to 1,000; `None`: it does not get it.
    pub score: Option<u32>,
    /// The parts of the score, with what each can be at most.
    #[serde(default)]
    pub parts: Vec<Part>,
    /// What there is against it, for programs.
    pub code: Option<String>,
    /// The same in a sentence.
    pub why: Option<String>,
}

/// A part of a score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// For what.
    pub name: String,
    /// How many points.
    pub points: u32,
    /// How many there can be.
    pub most: u32,
}

/// A result with all that verifies it: what `assay task verify` reads. Bytes are hex, output and messages base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Which task.
    pub task: String,
    /// Which attempt.
    pub attempt: u32,
    /// When it was accepted.
    pub at: UnixTime,
    /// How it ended, in words.
    pub end: String,
    /// The definition of what was run.
    pub definition: String,
    /// What the device signed.
    pub outcome: String,
    /// With its device key.
    pub signature: String,
    /// Its certificate and those above it.
    pub device_svid: Vec<String>,
    /// TPM2B_PUBLIC of its AK.
    pub ak_public: String,
    /// The TPM's word on the register; `None`: none was shown.
    pub register: Option<Register>,
    /// What the task put out.
    pub output: String,
    /// Its messages.
    pub messages: String,
}

/// The TPM's word on the register, and the log that leads to it: hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// TPMS_NV_PUBLIC.
    pub public: String,
    /// TPMS_ATTEST.
    pub message: String,
    /// TPMT_SIGNATURE.
    pub signature: String,
    /// The log.
    pub log: String,
}
