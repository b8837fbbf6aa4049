//! The results' door: what a device hands in for an attempt, and all that has to hold of it.

use assay_evidence::task::log::{Entry, Log, NotALog};
use assay_evidence::task::outcome::TYPE;
use assay_evidence::task::register::{RegisterFault, RegisterStatement, verify_register};
use assay_evidence::task::{Definition, End, NotAnOutcome, Outcome as TaskOutcome, sha384};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::public_area::PublicArea;
use assay_telemetry::{BadSignature, sha256, verify_device_signature};
use assay_trust::Status;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::turn::back_off;
use super::{Demands, Placement, definition};
use crate::device::Device;
use crate::outcome::{Kind, Outcome};
use crate::store::{AcceptResult, AttemptRecord, ResultRecord, SeenLog, StoreError, TaskRecord, Then};

/// What a device hands in.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// The bytes that it signed.
    pub outcome: Bytes,
    /// The device key's signature.
    pub signature: Bytes,
    /// What the task put out.
    pub output: Bytes,
    /// The task's messages.
    pub messages: Bytes,
    /// The TPM's word on the register, and the log that leads to it; `None`: it shows none.
    pub register: Option<RegisterShown>,
}

/// The TPM's word on the register, and the log that leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisterShown {
    /// TPMS_NV_PUBLIC.
    pub public: Bytes,
    /// TPMS_ATTEST.
    pub message: Bytes,
    /// TPMT_SIGNATURE.
    pub signature: Bytes,
    /// The log.
    pub log: Bytes,
}

/// What is kept beside a result, so that it can be verified by whoever has it: hex.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownBeside {
    /// The device's certificate and those above it.
    pub device_svid: Vec<String>,
    /// TPM2B_PUBLIC of its AK.
    pub ak_public: String,
    /// TPMS_NV_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE and log; empty: none was shown.
    pub register: Vec<String>,
}

impl Placement {
    /// Accepts a result of a device that stands, for an attempt that stands on it. Says whose it was.
    pub(crate) async fn accept(
        &self,
        device: &Device,
        chain: &[Vec<u8>],
        shown: Shown,
        now: UnixTime,
    ) -> Result<(String, u32), ResultRefused> {
        let outcome = TaskOutcome::parse(&shown.outcome)?;
        verify_device_signature(&device.record.device_key_spki, TYPE, &shown.outcome, &shown.signature)?;
        // Before anything is told about the attempt: whose it is.
        if outcome.occasion.device != device.id.as_str() {
            return Err(ResultRefused::AnotherDevice);
        }
        let (task, attempt) = self.standing(&outcome).await?;
        if device.state.status_at(now) != Status::Trusted || attempt.state_version != device.state.version() {
            return Err(ResultRefused::Fallen);
        }
        let (definition, demands) = (definition(&task)?, Demands::read(&task.demands)?);
        check(&outcome, &definition, &demands, &shown)?;
        let seen = match (&shown.register, demands.is_attested()) {
            (Some(register), _) => Some(self.verify_register(device, &outcome, register).await?),
            (None, true) => return Err(ResultRefused::NoRegister),
            (None, false) => None,
        };
        let then = self.then(&task, &outcome, &demands, now).await?;
        let record = ResultRecord {
            task_id: task.id.clone(),
            attempt: attempt.number,
            at: now,
            outcome: shown.outcome.to_vec(),
            signature: shown.signature.to_vec(),
            shown: serde_json::to_string(&beside(device, chain, &shown))
                .map_err(|_| StoreError::Unwritable)?,
            output: [0; 32],
            messages: [0; 32],
        };
        let output = self.store.new_blob(&shown.output, false).await?;
        let messages = self.store.new_blob(&shown.messages, false).await?;
        let end = outcome.end.to_string();
        tracing::info!(task = task.id, device = %device.id, attempt = attempt.number, end, "task result");
        let accept = AcceptResult {
            result: record,
            device_id: device.id.to_string(),
            state_version: attempt.state_version,
            output,
            messages,
            end,
            then,
            seen,
        };
        match self.store.commit(accept).await {
            Ok(()) => Ok((task.id, attempt.number)),
            // It fell, or the attempt ended, while this was looked at.
            Err(StoreError::Conflict) => Err(ResultRefused::NotStanding),
            Err(error) => Err(error.into()),
        }
    }

    /// The attempt that an outcome is of, if it stands.
    async fn standing(&self, outcome: &TaskOutcome) -> Result<(TaskRecord, AttemptRecord), ResultRefused> {
        let occasion = &outcome.occasion;
        let attempt = self.store.attempt(&occasion.task, occasion.attempt).await?;
        let attempt = attempt.ok_or(ResultRefused::NotStanding)?;
        if attempt.device_id != occasion.device || attempt.nonce != occasion.nonce {
            return Err(ResultRefused::AnotherAttempt);
        }
        if !attempt.stands() {
            return Err(ResultRefused::NotStanding);
        }
        let task = self.store.task(&occasion.task).await?.ok_or(ResultRefused::NotStanding)?;
        Ok((task, attempt))
    }

    /// The register shows that the attempt was measured before it ran, in the boot that was attested, and the log goes on from what
    /// was seen of it.
    async fn verify_register(
        &self,
        device: &Device,
        outcome: &TaskOutcome,
        shown: &RegisterShown,
    ) -> Result<SeenLog, ResultRefused> {
        let ak = PublicArea::parse_tpm2b(&device.record.ak_public)
            .map_err(|_| StoreError::Corrupt { column: "devices.ak_public" })?;
        let occasion = outcome.occasion.digest();
        let RegisterShown { public, message, signature, log } = shown;
        let statement = RegisterStatement { public, message, signature, nonce: &occasion };
        let register = verify_register(&statement, &ak)
            .map_err(|faults| ResultRefused::Register(faults.into_iter().next()))?;
        let log = Log::parse(log)?;
        register.is_of(&log).map_err(|fault| ResultRefused::Register(Some(fault)))?;
        if sha256(message) != outcome.register {
            return Err(ResultRefused::RegisterOfAnother);
        }
        if device.state.reset_count() != Some(register.reset_count()) {
            return Err(ResultRefused::BootNotAttested { boot: register.reset_count() });
        }
        let entry = Entry {
            occasion,
            measurement: outcome.measurement,
            runtime: outcome.runtime,
            input: outcome.input,
        };
        if !log.entries().contains(&entry) {
            return Err(ResultRefused::NotMeasured);
        }
        let seen = self.store.seen_log(device.id.as_str()).await?;
        let goes_on = match seen.filter(|seen| seen.reset_count == log.reset_count()) {
            Some(seen) => log.has(&seen.point),
            None => log.is_whole(),
        };
        if !goes_on {
            return Err(ResultRefused::LogCut);
        }
        Ok(SeenLog { reset_count: log.reset_count(), point: log.end() })
    }

    /// What becomes of the task: one that failed is tried again as often as it wants to be.
    async fn then(
        &self,
        task: &TaskRecord,
        outcome: &TaskOutcome,
        demands: &Demands,
        now: UnixTime,
    ) -> Result<Then, StoreError> {
        if outcome.end == End::Exited(0) {
            return Ok(Then::Done);
        }
        let tried = self.store.task_results(&task.id).await?.len();
        let is_last = tried >= usize::try_from(demands.retries).unwrap_or(usize::MAX);
        Ok(if is_last { Then::Failed } else { Then::Again(now.plus(back_off(task.attempts))) })
    }
}

/// Whether it is the outcome of this task, and what it came with is what it says.
fn check(
    outcome: &TaskOutcome,
    definition: &Definition,
    demands: &Demands,
    shown: &Shown,
) -> Result<(), ResultRefused> {
    let bytes_max = usize::try_from(definition.limits.output_bytes).unwrap_or(usize::MAX);
    let holds = [
        ("measurement", outcome.measurement == definition.measurement()),
        ("input", outcome.input == demands.input),
        ("output", outcome.output == sha384(&shown.output)),
        ("messages", outcome.messages == sha384(&shown.messages)),
        ("length of the output", shown.output.len() <= bytes_max),
        ("length of the messages", shown.messages.len() <= bytes_max.saturating_add(OWN_WORDS_BYTES_MAX)),
    ];
    match holds.into_iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err(ResultRefused::Content { what }),
        None => Ok(()),
    }
}

fn beside(device: &Device, chain: &[Vec<u8>], shown: &Shown) -> ShownBeside {
    let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
    let register = shown.register.as_ref().map(|RegisterShown { public, message, signature, log }| {
        [public, message, signature, log].into_iter().map(|bytes| hex(bytes)).collect()
    });
    ShownBeside {
        device_svid: chain.iter().map(|der| hex(der)).collect(),
        ak_public: hex(&device.record.ak_public),
        register: register.unwrap_or_default(),
    }
}

/// Why a result is not accepted.
#[derive(Debug, Error)]
pub(crate) enum ResultRefused {
    /// Not an outcome.
    #[error("the outcome cannot be read")]
    Malformed(#[from] NotAnOutcome),
    /// Not signed by the device.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Of another device.
    #[error("it is the result of another device")]
    AnotherDevice,
    /// Not of an attempt that was placed like this.
    #[error("it is the result of another attempt")]
    AnotherAttempt,
    /// The attempt is over: withdrawn, or its result was accepted.
    #[error("the attempt does not stand: it was taken back, or its result is there already")]
    NotStanding,
    /// The device fell.
    #[error("the device is not trusted as it was when it got the task")]
    Fallen,
    /// It is not what it says.
    #[error("{what} is not that of the task, or not what was signed")]
    Content {
        /// What.
        what: &'static str,
    },
    /// An attested task without a register.
    #[error("the task demands that it was measured, and the device shows no register")]
    NoRegister,
    /// The register does not hold.
    #[error("the register does not hold: {}", .0.as_ref().map(ToString::to_string).unwrap_or_default())]
    Register(Option<RegisterFault>),
    /// Another statement than the one that was signed for.
    #[error("the register's statement is not the one that the outcome names")]
    RegisterOfAnother,
    /// Of a boot that was not attested.
    #[error("the register is of boot {boot}, which was not attested")]
    BootNotAttested {
        /// Which.
        boot: u32,
    },
    /// The log cannot be read.
    #[error("the log of tasks cannot be read")]
    Log(#[from] NotALog),
    /// The attempt is not in it.
    #[error("the log of tasks does not name the attempt with what was run")]
    NotMeasured,
    /// It does not go on from what was seen.
    #[error(
        "the log of tasks does not go on from where it was seen last in this boot: it was begun anew or cut"
    )]
    LogCut,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ResultRefused {
    /// Whether an honest device never hands in such a thing.
    pub(crate) fn is_a_lie(&self) -> bool {
        !matches!(
            self,
            ResultRefused::NotStanding
                | ResultRefused::Fallen
                | ResultRefused::NoRegister
                | ResultRefused::Store(_)
        )
    }
}

impl Outcome for ResultRefused {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            ResultRefused::Malformed(_) => (Kind::Malformed, "task-outcome"),
            ResultRefused::Log(_) => (Kind::Malformed, "task-log"),
            ResultRefused::Signature(_) => (Kind::Unauthenticated, "task-signature"),
            ResultRefused::AnotherDevice => (Kind::Forbidden, "another-device"),
            ResultRefused::AnotherAttempt => (Kind::Forbidden, "another-attempt"),
            ResultRefused::NotStanding => (Kind::Overtaken, "not-standing"),
            ResultRefused::Fallen => (Kind::Forbidden, "not-trusted"),
            ResultRefused::Content { .. } => (Kind::Forbidden, "task-content"),
            ResultRefused::NoRegister => (Kind::Forbidden, "no-register"),
            ResultRefused::Register(_) | ResultRefused::RegisterOfAnother => {
                (Kind::Forbidden, "task-register")
            }
            ResultRefused::BootNotAttested { .. } => (Kind::Forbidden, "boot-not-attested"),
            ResultRefused::NotMeasured | ResultRefused::LogCut => (Kind::Forbidden, "task-log"),
            ResultRefused::Store(error) => error.told(),
        }
    }
}

/// The line that says why a task did not end by itself is added to its messages.
const OWN_WORDS_BYTES_MAX: usize = 4096;
