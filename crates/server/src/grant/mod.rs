//! Grants, each kind in its file: load the trust state, decide, commit, answer.

mod ak;
pub(crate) mod classic;
pub(crate) mod jwt;
pub(crate) mod secret;
pub(crate) mod submission;
pub(crate) mod svid;
pub(crate) mod telemetry;
