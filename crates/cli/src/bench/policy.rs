//! The policies that the bench sets: for the devices it made, and as long as those of whole distributions.

use std::fmt::Write;

use assay_testkit::{SoftwareDevice, System, policy_for};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

/// A policy under which the specimen is good, with so many files beside its own.
pub fn with_files(specimen: &SoftwareDevice, files: usize) -> String {
    let mut text = policy_for("bench", &[specimen]);
    for number in 0..files {
        text.push_str(&file(number));
    }
    text
}

/// The same of at least so many bytes.
pub fn of_bytes(specimen: &SoftwareDevice, bytes: usize) -> String {
    let text = with_files(specimen, 0);
    let files = bytes.saturating_sub(text.len()).div_ceil(file(0).len());
    with_files(specimen, files)
}

/// The policy with a boot section that demands a log, Secure Boot and the kernel's command line.
pub fn demanding_boot(text: &str) -> String {
    let System { kernel, command_line, .. } = System::default();
    let demands = format!("[boot]\nkernel_command_lines = [\"/vmlinuz-{kernel} {command_line}\"]\n");
    text.replace("[boot]\nevent_log = \"optional\"\nsecure_boot = \"optional\"\n", &demands)
}

fn file(number: usize) -> String {
    let content = HEXLOWER.encode(digest(&SHA256, &number.to_le_bytes()).as_ref());
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(line, "\"/usr/share/release/file-{number:07}\" = [\"sha256:{content}\"]");
    line
}
