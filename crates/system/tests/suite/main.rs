//! The whole system: real server processes, real TLS, real databases, and devices that keep to the protocol or do not.
//!
//! `stage/` puts a server up and tears it down as roughly as a test likes. Tests whose name says `swtpm` need that
//! program; all others need nothing.

mod acme;
mod admission;
mod agent;
mod attestation;
mod conditions;
mod crash;
mod doctor;
mod enrollment;
mod gateways;
mod hostile;
mod interop;
mod json_protocol;
mod lifecycle;
mod limits;
mod messages;
mod postgres;
mod rollout;
mod secrets;
mod stage;
mod tasks;
mod telemetry;
mod withdrawal;
mod year;
