//! The agent from outside, against a real TPM: `swtpm`, one per test.

mod bench;
mod collect;
mod tpm;
mod workload_api;
