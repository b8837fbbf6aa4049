//! Telemetry batches from outside: what opens, and every way not to.
#![expect(clippy::unwrap_used, reason = "tests")]

mod batch;
mod sequence;
