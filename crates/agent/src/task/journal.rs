//! The log of tasks and the register that it is extended into.
//!
//! The log is written before the register is extended, so that it is never behind it: of what was begun and not extended there is one
//! entry too many at most, which is dropped when the agent starts again. A register that leads nowhere else is made anew, and whoever
//! has seen more of the log in this boot will see that.

use assay_evidence::task::log::{Entry, Log};
use thiserror::Error;

use crate::device::Device;
use crate::state_dir::{StateDir, StateError};
use crate::tpm::{RegisterStatement, TpmError};

/// It.
pub(super) struct Journal {
    state: StateDir,
    log: Option<Log>,
}

/// A task could not be measured.
#[derive(Debug, Error)]
pub(super) enum JournalError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The file.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Journal {
    pub(super) fn new(state: StateDir) -> Journal {
        Journal { state, log: None }
    }

    /// Measures what is about to run. Blocks: the TPM takes its time.
    pub(super) fn append(&mut self, device: &Device, entry: Entry) -> Result<(), JournalError> {
        let mut log = self.open(device)?;
        let head = log.append(entry);
        log.forget_all_but(ENTRIES_KEPT);
        self.state.write(FILE, &log.encode())?;
        device.tpm.extend_register(&head)?;
        self.log = Some(log);
        Ok(())
    }

    /// The TPM's word on the register for an attempt, and the log that leads to it.
    pub(super) fn certify(
        &mut self,
        device: &Device,
        occasion: &[u8],
    ) -> Result<(RegisterStatement, Vec<u8>), JournalError> {
        let log = self.open(device)?;
        let statement = device.tpm.certify_register(&device.key.keys().ak, occasion)?;
        let encoded = log.encode();
        self.log = Some(log);
        Ok((statement, encoded))
    }

    /// The log as the register has it. It is left out of the journal until what is done with it has succeeded.
    fn open(&mut self, device: &Device) -> Result<Log, JournalError> {
        let reset_count = device.tpm.read_clock()?.reset_count;
        if let Some(log) = self.log.take().filter(|log| log.reset_count() == reset_count) {
            return Ok(log);
        }
        let value = device.tpm.register_value()?;
        let written = self.state.read_up_to(FILE, FILE_BYTES_MAX)?;
        let written = written.and_then(|bytes| Log::parse(&bytes).ok());
        let log = written.filter(|log| log.reset_count() == reset_count);
        let log = log.unwrap_or_else(|| Log::of_boot(reset_count));
        if log.end().value == value {
            return Ok(log);
        }
        if let Some(before) = log.without_last().filter(|before| before.end().value == value) {
            return Ok(before);
        }
        tracing::warn!(
            "the log of tasks does not lead to the TPM's register: both begin anew, and the server takes no attested results \
             until the device has booted again, if it has seen the old ones"
        );
        device.tpm.renew_register()?;
        Ok(Log::of_boot(reset_count))
    }
}

const FILE: &str = "tasks.log";
/// What the server has not seen yet: it sees the log with each result.
const ENTRIES_KEPT: usize = 512;
const FILE_BYTES_MAX: usize = 1 << 20;
