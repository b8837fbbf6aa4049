//! The attester's side, for tests, demo and bench: software TPMs, machines that boot, devices that lie.
//!
//! Nothing here uses a crate of ours: what generates evidence shares no code, and so no bug, with what verifies
//! it. Start with [`SoftTpm`] for a real TPM in a process and [`Tpm`] for the few commands a machine needs.

mod bank;
pub mod swtpm;
pub mod tpm;

pub use bank::Bank;
pub use swtpm::{SoftTpm, SwtpmError, TpmMaker};
pub use tpm::{Tpm, TpmError};
