//! Telemetry batches from outside: what opens, and every way not to.

mod batch;
mod sequence;
