//! The evidence crate from outside, over vectors and recorded evidence.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod banks;
mod boot_log;
mod case;
mod device_mapper;
mod ek_certificate;
mod field;
mod files;
mod idevid;
mod ima;
mod ima_pcrs;
mod keys;
mod known_boot_log;
mod lies;
mod mismatch;
mod revocation;
mod runtime_pcrs;
mod secure_boot;
mod signatures;
mod tee;
mod tpm_bytes;
mod verify;
