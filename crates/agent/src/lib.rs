//! The agent: collects evidence on a device, and holds what the server grants for it.
//!
//! It cannot judge itself: nothing here appraises. Start reading at `run.rs`.

pub mod collect;
pub mod config;
pub mod detect;
pub mod logs;
pub mod state_dir;
pub mod tpm;
