//! The doors, a folder each: decode, call a use case, encode.
//!
//! Nothing is decided here, and no message of a protocol goes further in. Each door has one file that turns an outcome
//! into what its protocol says (`status.rs`). [`forward`] and [`webhook`] lead out, to where telemetry goes on to and to whom
//! is told what happens, [`oidc`] to the provider that people sign in with, [`federation`] to other trust domains. The others are served by [`listen`], with the certificate in [`tls`], and let in by
//! [`admission`].

pub(crate) mod admission;
pub mod console;
mod corked;
pub(crate) mod edge;
pub(crate) mod federation;
pub mod forward;
pub mod json;
pub mod keylime;
pub(crate) mod listen;
pub(crate) mod local;
pub mod oidc;
mod outward;
pub(crate) mod plain;
mod rich;
pub(crate) mod spire;
pub(crate) mod tls;
pub mod webhook;

#[cfg(test)]
mod tests;
