//! Which statement is the next of its device.

use assay_telemetry::{BootEpoch, Opened, SequenceError, SequenceState, Sha256, Statement};

use crate::batch::Device;

const FIRST: Sha256 = [0; 32];
const BOOT: BootEpoch = BootEpoch { reset_count: 7, restart_count: 1 };

fn batch(device: &Device, sequence: u64, previous: Sha256, boot_epoch: BootEpoch) -> Opened {
    let statement = Statement { sequence, previous, boot_epoch, ..device.statement(b"") };
    device.opened(&statement, b"").unwrap()
}

/// The state after `count` batches in order.
fn after(device: &Device, count: u64) -> SequenceState {
    (1..=count).fold(SequenceState::default(), |state, sequence| {
        state.check(&batch(device, sequence, state.statement_sha256, BOOT)).unwrap()
    })
}

#[test]
fn batches_in_order_are_taken() {
    let device = Device::new();
    assert_eq!(after(&device, 3).sequence, 3);
}

#[test]
fn a_batch_taken_before_is_a_replay() {
    let device = Device::new();
    let first = batch(&device, 1, FIRST, BOOT);
    let one = SequenceState::default().check(&first).unwrap();
    let two = one.check(&batch(&device, 2, one.statement_sha256, BOOT)).unwrap();
    assert_eq!(one.check(&first), Err(SequenceError::Replay { sequence: 1 }));
    assert_eq!(two.check(&first), Err(SequenceError::Replay { sequence: 1 }));
}

#[test]
fn missing_batches_are_a_gap_that_can_be_recorded() {
    let device = Device::new();
    let state = after(&device, 2);
    let late = batch(&device, 5, [9; 32], BOOT);
    let Err(SequenceError::Gap { expected: 3, found: 5, resume }) = state.check(&late) else {
        panic!("no gap: {:?}", state.check(&late));
    };
    let next = batch(&device, 6, resume.statement_sha256, BOOT);
    assert_eq!(resume.check(&next).unwrap().sequence, 6);
    let text = state.check(&late).unwrap_err().to_string();
    assert_eq!(text, "batches 3 to 4 are missing");
}

#[test]
fn a_second_history_is_a_fork() {
    let device = Device::new();
    let state = after(&device, 2);
    assert_eq!(state.check(&batch(&device, 3, [9; 32], BOOT)), Err(SequenceError::Fork { sequence: 3 }));
    assert_eq!(state.check(&batch(&device, 2, [9; 32], BOOT)), Err(SequenceError::Fork { sequence: 2 }));
}

#[test]
fn a_chain_starts_over_only_with_a_new_boot_or_key() {
    let device = Device::new();
    let state = after(&device, 2);
    let restarted = BootEpoch { restart_count: 2, ..BOOT };
    let rebooted = BootEpoch { reset_count: 8, restart_count: 0 };
    let refused = state.check(&batch(&device, 1, FIRST, restarted));
    assert_eq!(refused, Err(SequenceError::Replay { sequence: 1 }));
    assert!(state.check(&batch(&device, 1, FIRST, rebooted)).is_ok());
    assert!(state.check(&batch(&device, 3, state.statement_sha256, rebooted)).is_ok());
    assert!(state.check(&batch(&Device::new(), 1, FIRST, BOOT)).is_ok());
    let other_key = state.check(&batch(&Device::new(), 3, state.statement_sha256, BOOT));
    assert!(matches!(other_key, Err(SequenceError::Gap { expected: 1, found: 3, .. })));
}

#[test]
fn boots_do_not_go_back() {
    let device = Device::new();
    let state = after(&device, 2);
    let found = BootEpoch { reset_count: 6, restart_count: 9 };
    let refused = state.check(&batch(&device, 3, state.statement_sha256, found));
    assert_eq!(refused, Err(SequenceError::EarlierBoot { last: BOOT, found }));
}
