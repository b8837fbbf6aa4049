//! Trusted execution environments in software: makers with their authorities, and what their platforms sign.
//!
//! A maker here has the names and the forms of the real one and keys of its own, so it serves both as an operator's test
//! root and as the forged authority that a verifier has to refuse.

mod snp;

pub use snp::{SnpCertificate, SnpMaker, SnpReport};
