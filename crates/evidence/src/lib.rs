//! Device bytes to verified claims: the part of Assay that reads what an attacker may have written.
//!
//! Everything here is a pure function over bytes. [`verify`](verify::verify) is the only way to make
//! [`Claims`](verify::Claims); it checks cryptography and consistency and knows no policy.
//! Start reading at `verify/mod.rs`, then `tpm/quote.rs`, `boot_log/mod.rs` and `ima/mod.rs`.

pub mod attestation_object;
pub mod boot_log;
pub mod check;
pub(crate) mod der;
pub mod digest;
pub mod ima;
pub mod measure_log;
pub mod read;
pub mod request;
pub mod task;
pub mod tee;
pub mod text;
pub mod time;
pub mod tpm;
pub mod verify;

pub use check::{Check, Failure, Mismatch};
pub use digest::{Digest, HashAlgorithm, PcrIndex};
