//! The agent from outside, against a real TPM: `swtpm`, one per test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authority;
mod bench;
mod collect;
mod counterpart;
mod envoy_sds;
mod federation;
mod files;
mod grants;
mod grpc_core;
mod identity;
mod jwt;
mod offline;
mod otlp;
mod register;
mod run;
mod sign_message;
mod tpm;
mod workload_api;
