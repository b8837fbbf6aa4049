//! What a TPM 2.0 says: keys, attestations, signatures, PCR values, and the proofs made of them.
//!
//! Everything is parsed from the bytes as the TPM marshals them (big endian, TPM 2.0 Part 2); signatures are
//! checked over the bytes received, never over a re-encoding. Start reading at `quote.rs`.

pub mod attest;
mod attribute_certificate;
pub mod banks;
pub(crate) mod certificate;
mod certificate_summary;
pub mod certify;
mod creation;
pub mod credential;
pub mod ek_certificate;
pub mod endorsement;
pub mod endorsers;
pub mod idevid;
pub mod name;
mod nv_certificate;
pub(crate) mod path;
pub mod pcr;
pub mod public_area;
pub mod public_key;
pub mod quote;
pub mod revocation;
mod shown_ek;
pub mod signature;

pub use attribute_certificate::{AttributeCertificate, AttributeCertificateError};
pub use certificate_summary::CertificateSummary;
pub use creation::verify_creation;
pub use nv_certificate::NvCertificate;
pub use shown_ek::{ShownEk, ShownEkError};
