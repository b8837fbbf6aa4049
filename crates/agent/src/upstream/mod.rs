//! Towards the server: one connection, over which the device enrolls once and then holds its stream.
//!
//! The messages of the edge protocol are known here and nowhere else: `message.rs` turns them into what the device
//! holds.

pub mod attach;
pub mod attest;
mod clock;
pub mod connection;
pub mod enroll;
mod ledger;
mod memory;
mod message;
mod order;
mod refusal;
mod request;
pub mod session;
mod statement;

pub use connection::{Client, Connection, ConnectionError, Credential};
pub use memory::Memory;
