//! What a device hands in for a task, made from the standard's words and not by the verifier's code: an honest result, whose parts can be
//! changed before they are signed.

use super::quote::{Clock, GENERATED, attest_header};
use super::tpm_bytes::TpmBytes;
use super::{DeviceError, SoftwareDevice};
use crate::Bank;
use crate::edge::protocol::{TaskGrant, TaskRegister, TaskResult};

/// An entry of the log of tasks: occasion, measurement, runtime and input.
pub type Entry = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>);

/// What a device says of a task that ended with 0.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Of which task.
    pub task: String,
    /// Of which attempt.
    pub attempt: u32,
    /// On which device.
    pub device: String,
    /// What was drawn for the attempt.
    pub nonce: Vec<u8>,
    /// The measurement.
    pub measurement: Vec<u8>,
    /// SHA-384 of the input.
    pub input: Vec<u8>,
    /// What it put out.
    pub output: Vec<u8>,
    /// What is handed in as the output.
    pub told_output: Vec<u8>,
    /// The entries before its own, of the same boot.
    pub before: Vec<Entry>,
    /// What is told of the log; `None`: the truth.
    pub told: Option<Vec<Entry>>,
    /// The boot that the log is told to be of; `None`: the TPM's.
    pub told_boot: Option<u32>,
    /// TPMA_NV of the index.
    pub attributes: u32,
    /// Whether the register is shown.
    pub shows_register: bool,
}

impl Finished {
    /// The honest result of what was granted.
    pub fn of(device: &SoftwareDevice, granted: &TaskGrant, output: &[u8], before: &[Entry]) -> Finished {
        Finished {
            task: granted.task.clone(),
            attempt: granted.attempt,
            device: device.device_id.clone().unwrap_or_default(),
            nonce: granted.nonce.clone(),
            measurement: sha384(&granted.definition),
            input: granted.input.clone(),
            output: output.to_vec(),
            told_output: output.to_vec(),
            before: before.to_vec(),
            told: None,
            told_boot: None,
            attributes: REGISTER,
            shows_register: true,
        }
    }

    /// What is handed in.
    pub fn sign(&self, device: &SoftwareDevice) -> Result<TaskResult, DeviceError> {
        let register = if self.shows_register { Some(self.register(device)?) } else { None };
        let named = register.as_ref().map_or_else(|| vec![0; 32], |shown| Bank::Sha256.hash(&shown.message));
        let outcome = [
            text(b"assay-task-outcome-v1"),
            self.occasion(),
            self.measurement.clone(),
            RUNTIME.to_vec(),
            self.input.clone(),
            sha384(&self.output),
            sha384(b""),
            // Ended with 0, after 1 ms, with a page of memory.
            vec![0; 5],
            1_u64.to_be_bytes().to_vec(),
            65_536_u64.to_be_bytes().to_vec(),
            named,
        ]
        .concat();
        let signed =
            [format!("DSSEv1 {} {OUTCOME} {} ", OUTCOME.len(), outcome.len()).as_bytes(), &outcome].concat();
        let signature = device.device_key.sign_der(&signed)?;
        Ok(TaskResult {
            outcome,
            signature,
            output: self.told_output.clone(),
            messages: Vec::new(),
            register,
        })
    }

    /// Its own entry of the log.
    pub fn entry(&self) -> Entry {
        let occasion = sha384(&[text(b"assay-task-occasion-v1"), self.occasion()].concat());
        (occasion, self.measurement.clone(), RUNTIME.to_vec(), self.input.clone())
    }

    fn occasion(&self) -> Vec<u8> {
        let attempt = self.attempt.to_be_bytes();
        [text(self.task.as_bytes()), attempt.to_vec(), text(self.device.as_bytes()), self.nonce.clone()]
            .concat()
    }

    fn register(&self, device: &SoftwareDevice) -> Result<TaskRegister, DeviceError> {
        let entries: Vec<Entry> = self.before.iter().cloned().chain([self.entry()]).collect();
        let Clock { reset_count, .. } = device.clock;
        let (_, value) = register_after(reset_count, &entries);
        let public = TpmBytes::default().u32(INDEX).u16(SHA256).u32(self.attributes).u16(0).u16(32).finish();
        let name = [SHA256.to_be_bytes().to_vec(), Bank::Sha256.hash(&public)].concat();
        let message = attest_header(GENERATED, ATTEST_NV, &device.ak.name(), &self.entry().0, device.clock)
            .sized(&name)
            .u16(0)
            .sized(&value)
            .finish();
        let signature = device.ak.sign(&message)?;
        let told = self.told.clone().unwrap_or(entries);
        let boot = self.told_boot.unwrap_or(reset_count);
        Ok(TaskRegister { public, message, signature, log: log(boot, &told) })
    }
}

/// Head and value of the register after these entries.
fn register_after(boot: u32, entries: &[Entry]) -> (Vec<u8>, Vec<u8>) {
    let begin = sha384(&[b"assay-task-log-boot-v1".as_slice(), &boot.to_be_bytes()].concat());
    let mut place = 0_u64;
    entries.iter().fold((begin, vec![0; 32]), |(head, value), (occasion, measurement, runtime, input)| {
        let count = place.to_be_bytes();
        place += 1;
        let parts =
            [b"assay-task-log-entry-v1".as_slice(), &count, &head, occasion, measurement, runtime, input];
        let head = sha384(&parts.concat());
        let value = Bank::Sha256.hash(&[value, head.clone()].concat());
        (head, value)
    })
}

/// The log of a boot, whole.
fn log(boot: u32, entries: &[Entry]) -> Vec<u8> {
    let (begin, value) = register_after(boot, &[]);
    let head = [text(b"assay-task-log-v1"), boot.to_be_bytes().to_vec(), vec![0; 8], begin, value].concat();
    let count = (entries.len() as u32).to_be_bytes().to_vec();
    let entries = entries.iter().flat_map(|(occasion, measurement, runtime, input)| {
        [occasion.as_slice(), measurement, runtime, input].concat()
    });
    head.into_iter().chain(count).chain(entries).collect()
}

fn sha384(bytes: &[u8]) -> Vec<u8> {
    Bank::Sha384.hash(bytes)
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// The attributes of a register that was written.
pub const REGISTER: u32 = 0x2e06_0044;
const INDEX: u32 = 0x0180_a5a1;
const SHA256: u16 = 0x000b;
/// TPM_ST_ATTEST_NV.
const ATTEST_NV: u16 = 0x8014;
const OUTCOME: &str = "application/vnd.assay.task-outcome.v1";
const RUNTIME: [u8; 32] = [7; 32];
