//! Signed telemetry batches.
