//! The agent: collects evidence on a device, and holds what the server grants for it.
//!
//! It cannot judge itself: nothing here appraises. Start reading at `run.rs`, which lists the parts. `upstream/` speaks
//! with the server, `holding/` is what came of it, `door/` serves it to the programs of this device, and `workload/`
//! finds out who they are; `tpm/` is the one piece of hardware everything rests on.

pub mod acme;
pub mod ak_certificate;
pub mod ask;
pub mod collect;
pub mod config;
pub mod detect;
pub mod device;
pub mod doctor;
pub mod door;
pub mod fetch;
pub mod files;
pub mod holding;
pub mod link;
pub mod logs;
pub mod offline;
pub mod place;
mod program;
pub mod run;
pub mod setup;
pub mod sign;
pub mod state_dir;
pub mod task;
pub mod tee;
pub mod telemetry;
pub mod tpm;
pub mod upstream;
pub mod workload;

/// What the agent calls itself towards the server.
pub const VERSION: &str = concat!("assay-agent/", env!("CARGO_PKG_VERSION"));
