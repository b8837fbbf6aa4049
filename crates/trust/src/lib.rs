//! Appraisal, trust state, grants: everything that is decided about a device, as pure functions.
//!
//! `appraise` turns verified claims and a policy into an [`AttestationResult`]; the result is an [`Event`] of the
//! device's [`TrustState`]; `grant::*::decide` turns the state into grants. Which policy judges which device is a
//! [`assignment::Plan`]. There is no clock, no store and no key
//! in here, and no other way to make any of these values. Start reading at `appraisal/mod.rs`.

pub mod appraisal;
pub mod assignment;
pub mod change;
pub mod condition;
pub mod ear;
pub mod finding;
pub mod grant;
pub mod labels;
pub mod learn;
mod named_digests;
pub mod path;
pub mod pattern;
pub mod place;
pub mod placement;
pub mod policy;
pub mod reading;
pub mod reference;
pub mod region;
#[cfg(feature = "rego")]
mod rego;
pub mod rollout;
mod sentence;
mod signature_memory;
pub mod state;
mod undecided;
pub mod vector;
mod words;

pub use appraisal::{
    AttestationResult, TeeAppraisal, TeeClaims, admit, appraise, appraise_tee, reappraise_endorsement,
    refuse, refuse_tee,
};
pub use finding::{Finding, Tier};
pub use learn::{LearnError, learn, learn_rules};
pub use policy::{Policy, PolicyError};
pub use reference::CompiledPolicy;
pub use state::{Basis, Event, Status, TrustRecord, TrustState};
