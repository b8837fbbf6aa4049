//! What the fuzz targets share: good evidence of which a target replaces one part.
//!
//! Foreign bytes of several kinds meet in one check, such as a quote with its key. An input to such a
//! target is the number of the part it stands for, then that part; the others are those of a vector, so
//! that the change is looked at by everything behind the first parser.

/// The part number and the bytes that replace it. Empty input replaces the first part by nothing.
pub fn part(data: &[u8], parts: u8) -> (u8, &[u8]) {
    match data.split_first() {
        Some((number, bytes)) => (number % parts, bytes),
        None => (0, &[]),
    }
}

/// A file of the project's vectors, at compile time.
#[macro_export]
macro_rules! vector {
    ($path:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/", $path)).as_slice()
    };
}
