//! The attester's side, for tests, demo and bench: software TPMs, machines that boot, devices that lie.
//!
//! Nothing here uses a crate of ours: what generates evidence shares no code, and so no bug, with what verifies
//! it. Start with [`SoftTpm`] for a real TPM in a process and [`Machine`] for what boots on it, or with
//! [`SoftwareDevice`] for a device that needs neither and [`edge::Edge`] for what it says.

mod bank;
pub mod edge;
pub mod keylime;
pub mod machine;
pub mod pcrs;
mod policy;
pub mod postgres;
pub mod redteam;
pub mod reference;
pub mod software_device;
mod spiffe_server;
pub mod spire;
pub mod swtpm;
pub mod tamper;
pub mod tee;
pub mod tpm;

pub use bank::Bank;
pub use machine::{Machine, MachineError, Program, System};
pub use policy::policy_for;
pub use software_device::{DeviceError, EkMaker, SoftwareDevice};
pub use swtpm::{SoftTpm, SwtpmError, TpmMaker};
pub use tpm::{Tpm, TpmError};
