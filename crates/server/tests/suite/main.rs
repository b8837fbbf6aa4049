//! The server from outside: real TLS at both doors, software devices that are honest or lie.

#![expect(clippy::unwrap_used, reason = "tests")]

mod attestation;
mod console;
mod ear;
mod enrollment;
mod fixture;
mod telemetry;
mod workloads;
