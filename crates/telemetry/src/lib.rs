//! Signed telemetry batches: a statement about a payload, signed once by a key that lives in the device's TPM.
//!
//! [`seal`] makes the bytes to send, [`to_be_signed`] what the key signs, [`open`] verifies both against the exact
//! bytes received, and [`SequenceState`] says whether the batch is the next one of its device. Pure; no clock.

mod dsse;
pub mod json_protocol;
mod open;
pub mod otlp;
pub mod position;
mod sequence;
mod statement;

pub use dsse::{BadSignature, pae, verify_device_signature};
pub use open::{OpenError, Opened, PAYLOAD_BYTES_MAX, open};
pub use sequence::{SequenceError, SequenceState};
pub use statement::{
    BootEpoch, Freshness, Location, LocationMethod, OTLP_METRICS, STATEMENT_TYPE, Sha256, Statement,
    StatementError, seal, sha256, stated_device, stated_payload_type, to_be_signed,
};
