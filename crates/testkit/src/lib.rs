//! The attester's side, for tests, demo and bench: software TPMs, machines that boot, devices that lie.
//!
//! Nothing here uses a crate of ours: what generates evidence shares no code, and so no bug, with what verifies
//! it. Start with [`SoftTpm`] for a real TPM in a process and [`Machine`] for what boots on it.

mod bank;
pub mod machine;
pub mod pcrs;
pub mod swtpm;
pub mod tpm;

pub use bank::Bank;
pub use machine::{Machine, MachineError, System};
pub use swtpm::{SoftTpm, SwtpmError, TpmMaker};
pub use tpm::{Tpm, TpmError};
