//! Telemetry batches from outside: what opens, and every way not to.
#![expect(clippy::unwrap_used, reason = "tests")]

mod batch;
mod json_protocol;
mod sequence;
