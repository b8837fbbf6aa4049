//! Archives as packages and initramfs images pack their files, read as streams.

pub mod cpio;
pub mod lz4;
