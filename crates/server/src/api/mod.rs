//! The two doors: gRPC for devices by way of gateways, HTTP for operators and relying parties.
//!
//! Nothing is decided here. `error.rs` is the one place where an outcome becomes a status code.

pub(crate) mod error;
pub(crate) mod grpc;
pub mod http;
pub(crate) mod listen;

pub(crate) use http::SignIns;
