//! The agent: collects evidence on a device, and holds what the server grants for it.
//!
//! It cannot judge itself: nothing here appraises. Start reading at `run.rs`; `tpm/` is the one piece of hardware
//! everything rests on, `attest.rs` makes evidence, `grants.rs` holds what came of it.

pub mod attest;
pub mod backoff;
pub mod collect;
pub mod config;
pub mod detect;
pub mod device;
pub mod edge;
pub mod enroll;
pub mod grants;
pub mod holding;
pub mod logs;
pub mod run;
pub mod session;
pub mod state_dir;
pub mod telemetry;
pub mod tpm;
pub mod workload_api;

/// What the agent calls itself towards the server.
pub const VERSION: &str = concat!("assay-agent/", env!("CARGO_PKG_VERSION"));
