//! LoadOptions: the kernel's own word for its command line, measured into PCR 9 by its EFI stub before it is used.

use crate::{Digest, HashAlgorithm};

/// What the stub of a kernel extends PCR 9 with when it was given `line` (UAPI Linux TPM PCR registry, PCR 9): UTF-16, with
/// its NUL or without, as whoever started the kernel passed it. GRUB passes the line with `BOOT_IMAGE=` before the image.
pub fn load_options(bank: HashAlgorithm, line: &str) -> [Digest; 4] {
    let bytes: Vec<u8> = line.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let image: Vec<u8> = "BOOT_IMAGE=".encode_utf16().flat_map(u16::to_le_bytes).collect();
    [
        bank.hash(&[&bytes]),
        bank.hash(&[&bytes, NUL]),
        bank.hash(&[&image, &bytes]),
        bank.hash(&[&image, &bytes, NUL]),
    ]
}

const NUL: &[u8] = &[0, 0];
/// What the stub calls the event. A remark.
pub const LOAD_OPTIONS_REMARK: &str = "LOADED_IMAGE::LoadOptions";

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kernel of Debian 12 measured them, started by GRUB 2.12 and by firmware.
    #[test]
    fn lines_are_what_kernels_measured() {
        let check = |line: &str, hex: &str| {
            let measured = Digest::from_text(&format!("sha256:{hex}")).unwrap();
            assert!(load_options(HashAlgorithm::Sha256, line).contains(&measured), "{line}");
        };
        let rest = "root=/dev/vda2 ro quiet console=ttyS0 init=/sbin/ev-init ima_policy=tcb";
        check(
            &format!("/vmlinuz-6.1.0-55-amd64 {rest} ima_template=ima-sig ima_hash=sha256"),
            "309833b6b502a162496ded35b687082247d4607714b2de4da25c968f418d0917",
        );
        check(
            &format!("{rest} ima_template=ima-ngv2 ima_hash=sha256 initrd=initrd"),
            "4804ad34740e4f8dc3da5cc6b5a1f82c1a30e11eaf6a87d44a77442f884e6290",
        );
    }
}
