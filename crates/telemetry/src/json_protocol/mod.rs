//! The JSON telemetry protocol of the original services: what their agents sign and send, and what their collectors check.
//!
//! What is signed is the text that Python's `json.dumps(…, sort_keys=True)` makes of two members of the body, with the nonce behind it.
//! That is no canonical JSON (RFC 8785): it has spaces, escapes everything that is not ASCII, and writes numbers as Python does. So
//! [`value`] reads what Python reads and writes what Python writes; [`submission`] is what an agent sends, [`nonces`] what it
//! answers, and [`acceptance`] what a collector keeps of it.

mod acceptance;
mod nonces;
mod otlp;
mod read;
mod submission;
mod value;
mod write;

pub use acceptance::{Acceptance, AcceptanceError, JSON_METRICS, is_acceptance};
pub use nonces::{Drawn, NONCE_SECONDS, Nonces, Taken};
pub use read::{BODY_BYTES_MAX, JsonError};
pub use submission::{
    HashAlgorithm, Region, Signed, Submission, SubmissionError, is_signing_key, key_hash, signed_bytes,
    verify_signature,
};
pub use value::{Text, Value};
