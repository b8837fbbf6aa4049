//! The server from outside: real TLS at both doors, software devices that are honest or lie.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod admission;
mod ak_certificates;
mod assignment;
mod attestation;
mod bad_policies;
mod certificates;
mod classic;
mod conditions;
mod console;
mod continuity;
mod disk;
mod dropped_callers;
mod ear;
mod endorsement;
mod enrollment;
mod entries;
mod evidence;
mod fall;
mod fates;
mod federation;
mod fixture;
mod forward;
mod gateways;
mod json_protocol;
mod keylime;
mod ledger;
mod names;
mod newcomers;
mod oidc;
mod parameters;
mod replace;
mod retention;
mod rollout;
mod secrets;
mod security;
mod signed;
mod silence;
mod spire;
mod storage;
mod telemetry;
pub mod trust_api;
mod trust_metrics;
mod webhook;
mod workloads;
