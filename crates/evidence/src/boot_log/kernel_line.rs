//! A kernel's command line, taken apart: the image that was loaded, and what the kernel was told.
//!
//! A boot log's digest covers the line, so the names in it are what the boot loader was told to load. A name is what
//! somebody called a file; which image ran is the digest in PCR 4.

use super::BootFacts;
use crate::PcrIndex;

/// The parts of a kernel command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLine<'a> {
    /// The path of the image, where the line begins with one, as GRUB measures it.
    pub image: Option<&'a str>,
    /// Everything after it.
    pub arguments: &'a str,
}

impl<'a> KernelLine<'a> {
    /// Takes a line apart. GRUB writes the image's path first; the kernel's own form of it is `BOOT_IMAGE=`.
    pub fn parse(line: &'a str) -> Self {
        let line = line.trim();
        let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let path = first.strip_prefix("BOOT_IMAGE=").unwrap_or(first);
        if path.starts_with(['/', '(']) {
            KernelLine { image: Some(path), arguments: rest.trim_start() }
        } else {
            KernelLine { image: None, arguments: line }
        }
    }

    /// The version in the image's name, such as `6.1.0-55-amd64` of `/boot/vmlinuz-6.1.0-55-amd64`.
    pub fn version(&self) -> Option<&'a str> {
        let name = self.image?.rsplit(['/', ')']).next()?;
        let version = IMAGE_NAMES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
        version.starts_with(|first: char| first.is_ascii_digit()).then_some(version)
    }
}

impl BootFacts {
    /// Whether anything was measured where GRUB measures what it runs, readable or not.
    pub fn has_loader_texts(&self) -> bool {
        let of_commands = |pcr: &PcrIndex| pcr.get() == COMMANDS_PCR;
        self.loader_texts.iter().any(|text| of_commands(&text.pcr))
            || self.loaded.iter().any(|item| of_commands(&item.pcr))
            || self.unexplained_pcrs.iter().any(of_commands)
    }

    /// Every text in PCRs 8 and 12 that may have started a kernel, or `None` where something in them hides from reading.
    ///
    /// The digest covers the text, but not the label that says whether it was a command or a command line. So a text
    /// counts whatever its label: a kernel's command line starts with the kernel's path, and the command that loads one
    /// is `linux` with the same line.
    pub fn kernel_lines(&self) -> Option<Vec<&str>> {
        let holds_lines = |pcr: &PcrIndex| matches!(pcr.get(), COMMANDS_PCR | PARAMETERS_PCR);
        let is_unread = self.loaded.iter().any(|item| holds_lines(&item.pcr));
        if is_unread || self.unexplained_pcrs.iter().any(holds_lines) {
            return None;
        }
        let lines = self.loader_texts.iter().filter_map(|text| match text.pcr.get() {
            COMMANDS_PCR => loaded_line(&text.text),
            _ => Some(text.text.as_str()),
        });
        let mut lines: Vec<&str> = lines.collect();
        lines.sort_unstable();
        lines.dedup();
        Some(lines)
    }
}

/// The kernel's line, where a text of PCR 8 is one or is the command that loads with one.
pub fn loaded_line(text: &str) -> Option<&str> {
    let load = LOAD_COMMANDS.iter().find_map(|name| text.strip_prefix(name)?.strip_prefix(' '));
    load.or_else(|| text.starts_with(['/', '(']).then_some(text))
}

/// Whether a text of PCR 8 is a command that loads a kernel, and not the line that one was given.
pub fn is_load_command(text: &str) -> bool {
    loaded_line(text).is_some() && !text.starts_with(['/', '('])
}

/// GRUB's commands that load a kernel.
const LOAD_COMMANDS: [&str; 3] = ["linux", "linuxefi", "linux16"];
/// Where GRUB measures what it runs.
const COMMANDS_PCR: u8 = 8;
/// Where systemd-boot and systemd-stub measure the command line.
const PARAMETERS_PCR: u8 = 12;
/// What distributions call their kernel images, before the version.
const IMAGE_NAMES: [&str; 6] = ["vmlinuz-", "vmlinux-", "bzImage-", "Image-", "kernel-", "linux-"];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, image: Option<&str>, version: Option<&str>, arguments: &str) {
        let parsed = KernelLine::parse(line);
        assert_eq!((parsed.image, parsed.version(), parsed.arguments), (image, version, arguments));
    }

    #[test]
    fn lines_are_taken_apart() {
        let debian = Some("/vmlinuz-6.1.0-55-amd64");
        check(
            "/vmlinuz-6.1.0-55-amd64 root=/dev/vda2 ro",
            debian,
            Some("6.1.0-55-amd64"),
            "root=/dev/vda2 ro",
        );
        check("BOOT_IMAGE=/vmlinuz-6.1.0-55-amd64 ro", debian, Some("6.1.0-55-amd64"), "ro");
        check("(hd0,gpt2)/vmlinuz-6.12 quiet", Some("(hd0,gpt2)/vmlinuz-6.12"), Some("6.12"), "quiet");
        check("(hd0)vmlinuz-6.12", Some("(hd0)vmlinuz-6.12"), Some("6.12"), "");
        check("/boot/vmlinuz", Some("/boot/vmlinuz"), None, "");
        check("/boot/vmlinuz-old ro", Some("/boot/vmlinuz-old"), None, "ro");
        check("root=/dev/vda2 ro", None, None, "root=/dev/vda2 ro");
        check("", None, None, "");
    }
}
