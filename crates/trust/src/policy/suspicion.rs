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
    // Each argument for systemd has a form that counts within the initial ramdisk alone.
    let name = name.strip_prefix("rd.systemd.").map_or(name.clone(), |rest| format!("systemd.{rest}"));
    if name == "systemd.unit" && !USUAL_TARGETS.contains(&value) {
        return Some("starts another part of the system, such as a shell as root");
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

/// Whether the kernel measures files from its start with this line: its built-in policy tcb, by any of its names
/// (security/integrity/ima/ima_policy.c, policy_setup).
pub(super) fn measures_files(line: &str) -> bool {
    line.split_whitespace().any(|word| {
        let policies = word.strip_prefix("ima_policy=").unwrap_or_default();
        word == "ima_tcb" || policies.split('|').any(|policy| policy == "tcb")
    })
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
/// Kernel arguments that take protection away, with the values that do; without values, each does. `no` is every word that
/// the kernel takes for no.
const ARGUMENTS: [(&str, &[&str], &str); 71] = [
    ("lockdown", &["none"], "lets root change the running kernel"),
    ("module.sig_enforce", NO, "loads modules that nobody signed"),
    ("enforcemodulesig", NO, "loads modules that nobody signed"),
    ("module_blacklist", &[], "leaves out parts of the kernel, such as those that measure"),
    ("modprobe.blacklist", &[], "leaves out parts of the kernel, such as those that measure"),
    ("initcall_blacklist", &[], "leaves out parts of the kernel, such as those that measure"),
    ("kexec_load_disabled", NO, "lets root start another kernel"),
    ("ima_appraise", &["off", "log", "fix"], "runs files whose signatures do not hold"),
    ("ima", &["off", "0"], "measures no files"),
    ("ima_hash", &["md5", "sha1"], "measures files by a hash that collides"),
    ("ima_template", &["ima"], "lists files by a hash that collides"),
    ("ima_template_fmt", &[], "lists files without what they are judged by"),
    ("evm", &["fix"], "accepts changed attributes of files"),
    ("integrity_audit", &["0"], "hides what fails"),
    ("selinux", &["0"], "switches access control off"),
    ("enforcing", &["0"], "switches access control off"),
    ("apparmor", &["0"], "switches access control off"),
    ("security", &["none", ""], "switches access control off"),
    ("lsm", &["", "none"], "switches access control off"),
    ("audit", &["0", "off"], "hides what happens"),
    ("mitigations", &["off"], PROCESSOR),
    ("nopti", &[], PROCESSOR),
    ("pti", &["off"], PROCESSOR),
    ("nospectre_v1", &[], PROCESSOR),
    ("nospectre_v2", &[], PROCESSOR),
    ("spectre_v2", &["off"], PROCESSOR),
    ("spec_store_bypass_disable", &["off"], PROCESSOR),
    ("l1tf", &["off"], PROCESSOR),
    ("mds", &["off"], PROCESSOR),
    ("tsx_async_abort", &["off"], PROCESSOR),
    ("retbleed", &["off"], PROCESSOR),
    ("nosmap", &[], PROCESSOR),
    ("nosmep", &[], PROCESSOR),
    ("noexec", &["off"], "runs data"),
    ("noexec32", &["off"], "runs data"),
    ("rodata", &["off"], "lets the kernel's code be written"),
    ("hardened_usercopy", &["off"], "lets faults read and write the kernel's memory"),
    ("randomize_kstack_offset", &["off", "0"], "makes the kernel's addresses known"),
    ("nokaslr", &[], "makes the kernel's addresses known"),
    ("iommu", &["off", "pt"], "lets devices write to memory"),
    ("intel_iommu", &["off"], "lets devices write to memory"),
    ("amd_iommu", &["off"], "lets devices write to memory"),
    ("efi", &["no_disable_early_pci_dma"], "lets devices write to memory"),
    ("iomem", &["relaxed"], "lets root write to memory"),
    ("kgdboc", &[], "lets a debugger into the kernel"),
    ("kgdbwait", &[], "lets a debugger into the kernel"),
    ("ekgdboc", &[], "lets a debugger into the kernel"),
    ("sysrq_always_enabled", &[], "lets the keyboard end and change what runs"),
    ("acpi_rsdp", &[], "runs ACPI tables from anywhere in memory"),
    ("mem", &[], "hides memory from the kernel"),
    ("1", &[], SHELL),
    ("s", &[], SHELL),
    ("S", &[], SHELL),
    ("_b", &[], SHELL),
    ("single", &[], SHELL),
    ("emergency", &[], SHELL),
    ("rescue", &[], SHELL),
    ("break", &[], "starts a shell in the initial ramdisk"),
    ("rd.break", &[], "starts a shell in the initial ramdisk"),
    ("rd.debug", &[], "shows what the initial ramdisk does, secrets as well"),
    ("rd.shell", &["1", ""], "starts a shell in the initial ramdisk"),
    ("systemd.debug_shell", &[], SHELL),
    ("systemd.verity", NO, "uses disks of which nobody checks the contents"),
    ("systemd.set_credential", &[], "gives programs what they believe, such as units to run"),
    ("systemd.set_credential_binary", &[], "gives programs what they believe, such as units to run"),
    ("systemd.setenv", &[], "gives every program of the system a variable, such as a library to load"),
    ("systemd.mask", &[], "leaves out parts of the system, such as those that report"),
    ("systemd.wants", &[], "starts a part of the system that is not started otherwise"),
    ("systemd.run", &[], "runs a program of the line's own as root"),
    ("systemd.import_credentials", &["yes", "1"], "gives programs what they believe, such as units to run"),
    ("tpm_tis.interrupts", &["force_off"], "changes how the TPM is reached"),
];
/// lib/kstrtox.c, kstrtobool, and what systemd takes for it.
const NO: &[&str] = &["0", "n", "N", "no", "off", "f", "F", "false"];
const PROCESSOR: &str = "opens the processor's known holes";
const SHELL: &str = "starts a shell as root";
/// What systemd starts a system for; any other unit may be a shell.
const USUAL_TARGETS: [&str; 5] =
    ["default.target", "multi-user.target", "graphical.target", "initrd.target", "basic.target"];

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
