//! The order of a device's batches: each statement names the one before.

use thiserror::Error;

use crate::open::Opened;
use crate::statement::{BootEpoch, Sha256};

/// The last statement taken from a device. The default is a device not heard from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceState {
    /// The key it signed with; another key starts another chain.
    pub key_id: Sha256,
    /// The boot it was made in.
    pub boot_epoch: BootEpoch,
    /// Its number.
    pub sequence: u64,
    /// SHA-256 of its bytes.
    pub statement_sha256: Sha256,
}

/// Why a statement is not the next of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SequenceError {
    /// This number was taken already.
    #[error("batch {sequence} was taken already")]
    Replay {
        /// The number.
        sequence: u64,
    },
    /// Batches in between are missing: dropped by the device, or withheld on the way.
    #[error("batches {expected} to {} are missing", .found.saturating_sub(1))]
    Gap {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
        /// Where the chain goes on if the receiver takes the batch and records the gap.
        resume: SequenceState,
    },
    /// Two histories: the device's key was used twice, or its memory was rolled back.
    #[error("batch {sequence} does not follow the batch taken before it")]
    Fork {
        /// The number.
        sequence: u64,
    },
    /// A boot earlier than one heard of: a TPM's counters do not go back.
    #[error("the batch is from boot {}, after batches from boot {}", .found.reset_count, .last.reset_count)]
    EarlierBoot {
        /// The latest boot heard of.
        last: BootEpoch,
        /// The boot stated.
        found: BootEpoch,
    },
}

impl SequenceState {
    /// The state after `batch`, if it is the next.
    ///
    /// A chain starts at number 1 with no previous: with the device's first batch, with a new key, or in a new
    /// boot for a device that keeps nothing across boots.
    pub fn check(&self, batch: &Opened) -> Result<SequenceState, SequenceError> {
        let statement = batch.statement();
        let next = SequenceState {
            key_id: statement.key_id,
            boot_epoch: statement.boot_epoch,
            sequence: statement.sequence,
            statement_sha256: batch.statement_sha256(),
        };
        let same_chain = self.sequence > 0 && next.key_id == self.key_id;
        if same_chain && next.boot_epoch < self.boot_epoch {
            return Err(SequenceError::EarlierBoot { last: self.boot_epoch, found: next.boot_epoch });
        }
        let starts_over = next.sequence == 1 && statement.previous == Sha256::default();
        if starts_over && (!same_chain || next.boot_epoch.reset_count > self.boot_epoch.reset_count) {
            return Ok(next);
        }
        let last = if same_chain { *self } else { SequenceState::default() };
        let expected = last.sequence.saturating_add(1);
        let sequence = next.sequence;
        if sequence > expected {
            Err(SequenceError::Gap { expected, found: sequence, resume: next })
        } else if sequence == expected && statement.previous == last.statement_sha256 {
            Ok(next)
        } else if sequence == expected || (sequence == last.sequence && next != last) {
            Err(SequenceError::Fork { sequence })
        } else {
            Err(SequenceError::Replay { sequence })
        }
    }
}
