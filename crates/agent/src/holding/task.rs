//! A task that was placed on the device.

use assay_evidence::task::{Definition, Occasion, Sha384};

/// One attempt at a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedTask {
    /// Which.
    pub occasion: Occasion,
    /// What is to be run.
    pub definition: Definition,
    /// SHA-384 of what it reads.
    pub input: Sha384,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Bytes of the input.
    pub input_bytes: u64,
    /// Whether its result has to come with the register's word.
    pub is_attested: bool,
}
