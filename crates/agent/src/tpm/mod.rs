//! The TPM: the one piece of hardware the agent's word rests on.
//!
//! A thin, blocking client. It knows the commands the agent needs and no others, and keeps what the TPM returned as the
//! very bytes it returned. Start at [`Tpm::open`]; [`keys`] has the AK and the device key, [`ek`] the endorsement key.

mod banks;
mod capability;
mod command;
pub mod ek;
mod error;
pub mod identity;
pub mod keys;
mod nv;
pub mod pcr;
mod register;
mod seal;
mod signing_key;
mod template;
mod transport;

pub use banks::BankStatement;
pub use capability::{Clock, PcrBank, Property, algorithm_name};
pub use command::Tpm;
pub use error::{ReturnCode, TpmError};
pub use nv::{EkCertificates, NvFault, UnreadIndex};
pub use register::Certified as RegisterStatement;
pub use seal::{Bond, UnsealError};
pub use signing_key::DeviceSigningKey;
pub use transport::{Target, Transport};
