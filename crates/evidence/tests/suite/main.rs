//! The evidence crate from outside, over vectors and recorded evidence.

mod boot_log;
mod files;
mod ima;
mod lies;
