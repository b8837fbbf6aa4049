//! Policies made of files: those of packages, of a root file system, of an initramfs.

pub mod deb;
pub mod file_list;
pub mod initrd;
pub mod rootfs;
