//! A kernel's command line, taken apart: the image that was loaded, and what the kernel was told.
//!
//! A boot log's digest covers the line, so the names in it are what the boot loader was told to load. A name is what
//! somebody called a file; which image ran is the digest in PCR 4.

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
