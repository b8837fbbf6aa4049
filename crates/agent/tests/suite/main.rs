//! The agent from outside, against a real TPM: `swtpm`, one per test.

mod authority;
mod bench;
mod collect;
mod grants;
mod tpm;
mod workload_api;
