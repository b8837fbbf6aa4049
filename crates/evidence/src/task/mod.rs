//! Tasks: what is run on a device, and what shows that it was.
//!
//! A [`Definition`] is what is to be run, and its measurement is the hash of its one encoding. Before a task runs, the device appends
//! its measurement to a [`log`] and extends a [`register`] of its TPM with it; what came of it is an [`Outcome`] that the device's key
//! signs. Whose key that is, and whether the device may be believed at all, is for others to say. Start reading at `definition.rs`.

mod definition;
mod framed;
pub mod log;
pub mod outcome;
pub mod register;

pub use definition::{
    ARGUMENTS_MAX, Backend, Capability, Definition, ENVIRONMENT_MAX, Limits, NotADefinition, WORD_BYTES_MAX,
};
pub use outcome::{End, Exhausted, NotAnOutcome, Occasion, Outcome};

/// A SHA-384 digest: of a definition, an image, an input or an output.
pub type Sha384 = [u8; SHA384_BYTES];

/// Bytes of it.
pub const SHA384_BYTES: usize = 48;

/// SHA-384 of some bytes.
pub fn sha384(bytes: &[u8]) -> Sha384 {
    hash(&[bytes])
}

/// SHA-384 of the concatenation of `parts`.
fn hash(parts: &[&[u8]]) -> Sha384 {
    let mut bytes = [0; SHA384_BYTES];
    bytes.copy_from_slice(crate::HashAlgorithm::Sha384.hash(parts).as_bytes());
    bytes
}
