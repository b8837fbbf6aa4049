//! What programs of this device reach the agent by. Each protocol has its folder; `local` is the socket under them.

pub mod local;
pub mod workload_api;
