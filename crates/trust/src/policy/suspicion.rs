//! What looks like a demand and asks for nothing: digests that anybody can show, command lines that let anybody in.

use assay_evidence::{Digest, HashAlgorithm};

use crate::pattern::LinePattern;

/// Why a digest asks for nothing, if it does. An empty file is a file, so that of files only placeholders are odd.
pub(super) fn of_digest(digest: &Digest) -> Option<&'static str> {
    let algorithm = digest.algorithm();
    let is = |data: &[u8]| *digest == algorithm.hash(&[data]);
    if is(b"") {
        Some("it is the hash of nothing at all")
    } else if is(&[0; SEPARATOR_BYTES]) || is(&[0xff; SEPARATOR_BYTES]) {
        Some("it is the hash of a separator, which every firmware measures")
    } else {
        of_file_digest(digest)
    }
}

/// Why a digest is none of any file.
pub(super) fn of_file_digest(digest: &Digest) -> Option<&'static str> {
    let mut bytes = digest.as_bytes().iter();
    let first = bytes.next()?;
    bytes
        .all(|byte| byte == first)
        .then_some("all its bytes are the same, so it is a placeholder and the hash of nothing")
}

/// Whether a PCR's value shows that only its separator was measured.
pub(super) fn is_separator_alone(value: &Digest) -> bool {
    let algorithm = value.algorithm();
    let start = vec![0; algorithm.len()];
    let measured = algorithm != HashAlgorithm::Sha1;
    measured && *value == algorithm.hash(&[&start, algorithm.hash(&[&[0; SEPARATOR_BYTES]]).as_bytes()])
}

/// What a command line, or a pattern of some, lets in: the argument, and what it does.
pub(super) fn of_line(line: &str) -> Option<(String, &'static str)> {
    line.split_whitespace().find_map(|word| Some((word.to_owned(), of_argument(word)?)))
}

/// An argument of a pattern that may be another one, and so any.
pub(super) fn of_pattern(pattern: &LinePattern) -> Option<String> {
    let text = pattern.to_string();
    let is_wild = |part: &str| part.contains(['*', '?']);
    let mut words = text.split_whitespace();
    // The kernel's own file comes first, by its path.
    let first = words.next().filter(|word| !word.starts_with(['/', '(']));
    let opens = |word: &&str| is_wild(word.split('=').next().unwrap_or_default());
    first.into_iter().chain(words).find(opens).map(str::to_owned)
}

fn of_argument(word: &str) -> Option<&'static str> {
    let word = word.trim_matches('"');
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    // The kernel reads both alike (lib/cmdline.c and kernel/params.c, dash2underscore), but for its oldest arguments.
    let name = name.replace('-', "_");
    let is_wild = value.contains(['*', '?']);
    if matches!(name.as_str(), "init" | "rdinit") && (is_wild || !is_usual_init(value)) {
        return Some("starts something else than the system, as root");
    }
    let found = ARGUMENTS.iter().find(|(known, values, _)| {
        *known == name && (values.is_empty() || is_wild || values.contains(&value))
    });
    found.map(|(.., meaning)| *meaning)
}

/// Where the first program of a system is, under whatever name; no shell is one.
fn is_usual_init(path: &str) -> bool {
    let folders = ["/sbin/", "/usr/sbin/", "/lib/systemd/", "/usr/lib/systemd/"];
    let name = folders.iter().find_map(|folder| path.strip_prefix(folder)).unwrap_or_default();
    let is_plain = !name.is_empty() && !name.contains('/');
    // The image of an initial ramdisk has its own at the top.
    (is_plain && !SHELLS.contains(&name)) || path == "/init"
}

/// Bytes of a separator's data (TCG PC Client Platform Firmware Profile, 3.3.2.2).
const SEPARATOR_BYTES: usize = 4;
const SHELLS: [&str; 12] = [
    "sh",
    "ash",
    "bash",
    "dash",
    "zsh",
    "ksh",
    "busybox",
    "sulogin",
    "python3",
    "perl",
    "debug-shell",
    "agetty",
];
/// Kernel arguments that take protection away, with the values that do; without values, each does.
const ARGUMENTS: [(&str, &[&str], &str); 41] = [
    ("lockdown", &["none"], "lets root change the running kernel"),
    ("module.sig_enforce", &["0", "n", "N", "off"], "loads modules that nobody signed"),
    ("enforcemodulesig", &["0"], "loads modules that nobody signed"),
    ("ima_appraise", &["off", "log", "fix"], "runs files whose signatures do not hold"),
    ("ima", &["off", "0"], "measures no files"),
    ("ima_hash", &["md5", "sha1"], "measures files by a hash that collides"),
    ("evm", &["fix"], "accepts changed attributes of files"),
    ("initcall_blacklist", &[], "leaves out parts of the kernel, such as those that measure"),
    ("integrity_audit", &["0"], "hides what fails"),
    ("selinux", &["0"], "switches access control off"),
    ("enforcing", &["0"], "switches access control off"),
    ("apparmor", &["0"], "switches access control off"),
    ("security", &["none", ""], "switches access control off"),
    ("lsm", &["", "none"], "switches access control off"),
    ("audit", &["0", "off"], "hides what happens"),
    ("mitigations", &["off"], "opens the processor's known holes"),
    ("nopti", &[], "opens the processor's known holes"),
    ("pti", &["off"], "opens the processor's known holes"),
    ("nosmap", &[], "opens the processor's known holes"),
    ("nosmep", &[], "opens the processor's known holes"),
    ("nokaslr", &[], "makes the kernel's addresses known"),
    ("iommu", &["off"], "lets devices write to memory"),
    ("intel_iommu", &["off"], "lets devices write to memory"),
    ("amd_iommu", &["off"], "lets devices write to memory"),
    ("iomem", &["relaxed"], "lets root write to memory"),
    ("kgdboc", &[], "lets a debugger into the kernel"),
    ("kgdbwait", &[], "lets a debugger into the kernel"),
    ("ekgdboc", &[], "lets a debugger into the kernel"),
    ("acpi_rsdp", &[], "runs ACPI tables from anywhere in memory"),
    ("mem", &[], "hides memory from the kernel"),
    ("single", &[], "starts a shell as root"),
    ("emergency", &[], "starts a shell as root"),
    ("rescue", &[], "starts a shell as root"),
    ("break", &[], "starts a shell in the initial ramdisk"),
    ("rd.break", &[], "starts a shell in the initial ramdisk"),
    ("rd.shell", &["1", ""], "starts a shell in the initial ramdisk"),
    ("systemd.debug_shell", &[], "starts a shell as root"),
    ("systemd.debug-shell", &[], "starts a shell as root"),
    ("systemd.unit", &["rescue.target", "emergency.target"], "starts a shell as root"),
    ("systemd.run", &[], "runs a program of the line's own as root"),
    ("tpm_tis.interrupts", &["force_off"], "changes how the TPM is reached"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_take_protection_away_are_known() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(of_line(line).as_ref().map(|(word, _)| word.as_str()), expected, "{line}");
        };
        for word in [
            "init=/bin/sh",
            "rdinit=/bin/bash",
            "init=/sbin/sulogin",
            "init=/usr/bin/python3",
            "init=/tmp/x",
            "init=*",
            "lockdown=none",
            "module.sig_enforce=0",
            "ima_appraise=off",
            "ima-appraise=log",
            "initcall_blacklist=init_ima",
            "ima=off",
            "single",
            "systemd.unit=rescue.target",
            "lockdown=*",
            "iomem=relaxed",
        ] {
            check(&format!("/vmlinuz ro {word} quiet"), Some(word));
        }
        for line in [
            "/vmlinuz-6.1.0-55-amd64 root=/dev/vda2 ro quiet console=ttyS0 init=/sbin/ev-init ima_policy=tcb ima_hash=sha256",
            "/k init=/sbin/init",
            "/k init=/lib/systemd/systemd",
            "/k lockdown=integrity",
            "/k audit=1 panic=30",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn arguments_that_may_be_any_are_known() {
        let check = |pattern: &str, expected: Option<&str>| {
            assert_eq!(of_pattern(&pattern.parse().unwrap()).as_deref(), expected, "{pattern}");
        };
        check("/vmlinuz-* root=UUID=* ro console=tty?", None);
        check("(hd0,gpt?)/vmlinuz-* ro", None);
        check("BOOT_IMAGE=/vmlinuz-* ro", None);
        check("/k *=* ro", Some("*=*"));
        check("/k r*=x", Some("r*=x"));
        check("/k *sh", Some("*sh"));
        check("/k ro?x", Some("ro?x"));
        check("*k ro", Some("*k"));
    }

    #[test]
    fn digests_that_anybody_can_show_are_known() {
        let sha256 = |data: &[u8]| HashAlgorithm::Sha256.hash(&[data]);
        assert!(of_digest(&sha256(b"")).is_some() && of_digest(&sha256(&[0; 4])).is_some());
        assert!(of_file_digest(&sha256(b"")).is_none() && of_digest(&sha256(b"a")).is_none());
        assert!(of_file_digest(&Digest::new(HashAlgorithm::Sha256, &[0xab; 32]).unwrap()).is_some());
        let text = "sha256:3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969";
        assert!(is_separator_alone(&Digest::from_text(text).unwrap()));
    }
}
