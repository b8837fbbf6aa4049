//! The doors of SPIRE's server, as an agent of SPIRE's and its command line come to them.

mod client;
mod entries;
mod federation;
mod nodes;
mod tpm;
mod x509pop;
