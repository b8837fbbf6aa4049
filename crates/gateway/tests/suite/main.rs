//! The gateway from outside: a real TLS client before it, a small real gRPC server behind it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod domain;
mod edge;
mod limits;
mod passing;
mod revocation;
mod stage;
