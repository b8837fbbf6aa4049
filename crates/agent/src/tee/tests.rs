//! Each row by itself: what speaks for it, and that nothing else does.

use std::path::Path;

use super::*;

const NO_CPU: &[(u32, u32, Leaf)] = &[];

/// A machine with these files.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let file = root.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    root
}

/// Which kinds there are by a machine's own word, and as what.
fn found(root: &Path, cpuid: &[(u32, u32, Leaf)]) -> Vec<String> {
    let report = detect(root, &cpuid);
    let words = |one: &Environment| {
        let signs = [
            (one.cpu == Some(true), "cpu"),
            (!one.guest.is_empty(), "guest"),
            (!one.host.is_empty(), "host"),
        ];
        let signs: Vec<&str> = signs.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        format!("{} {}", one.kind, signs.join("+"))
    };
    report.environments.iter().filter(|one| one.is_there()).map(words).collect()
}

#[test]
fn each_file_speaks_for_one_environment() {
    for (path, content, kind) in [
        ("dev/sev-guest", "", "sev-snp guest"),
        ("sys/bus/platform/devices/sev-guest", "", "sev-snp guest"),
        ("sys/kernel/config/tsm/report/a/provider", "sev_guest\n", "sev-snp guest"),
        ("dev/sev", "", "sev-snp host"),
        ("sys/module/kvm_amd/parameters/sev_snp", "Y\n", "sev-snp host"),
        ("dev/tdx_guest", "", "tdx guest"),
        ("sys/kernel/config/tsm/report/a/provider", "tdx_guest\n", "tdx guest"),
        ("proc/cpuinfo", "flags : fpu tdx_guest sse\n", "tdx guest"),
        ("sys/firmware/acpi/tables/CCEL", "", "tdx guest"),
        ("proc/cpuinfo", "flags : tdx_host_platform\n", "tdx host"),
        ("sys/module/kvm_intel/parameters/tdx", "1\n", "tdx host"),
        ("dev/attestation/quote", "", "sgx guest"),
        ("dev/sgx_enclave", "", "sgx host"),
        ("dev/sgx_provision", "", "sgx host"),
        ("sys/kernel/config/tsm/report/a/provider", "arm_cca_guest\n", "cca guest"),
        ("dev/tee0", "", "trustzone host"),
        ("dev/tpmrm0", "", "tpm guest"),
        ("sys/class/tpm/tpm0/tpm_version_major", "2\n", "tpm guest"),
    ] {
        let root = machine(&[(path, content)]);
        assert_eq!(found(root.path(), NO_CPU), [kind], "{path}");
    }
}

#[test]
fn a_no_is_no_yes_and_part_of_a_word_is_no_word() {
    let root = machine(&[
        ("sys/module/kvm_amd/parameters/sev_snp", "N\n"),
        ("sys/module/kvm_intel/parameters/tdx", "0\n"),
        ("proc/cpuinfo", "flags : not_tdx_guest tdx_guests\n"),
        ("sys/kernel/config/tsm/report/a/provider", "another\n"),
    ]);
    assert!(found(root.path(), NO_CPU).is_empty());
    assert!(detect(root.path(), &NO_CPU).configfs);
    assert!(!detect(machine(&[]).path(), &NO_CPU).configfs);
}

#[test]
fn the_processor_says_what_it_can() {
    let text = |words: &[u8; 12]| -> Vec<u32> {
        words.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
    };
    let leaf = Leaf::default();
    let (td, hv) = (text(b"IntelTDX    "), text(b"Microsoft Hv"));
    let hyper_v = Leaf { ebx: hv[0], ecx: hv[1], edx: hv[2], ..leaf };
    let isolated = |kind: u32| Leaf { ebx: 0x20 | kind, ..leaf };
    let root = machine(&[]);
    for (leaves, kinds) in [
        (vec![(0x8000_001f, 0, Leaf { eax: 1 << 4, ..leaf })], vec!["sev-snp cpu"]),
        // SEV and SEV-ES, and not SNP.
        (vec![(0x8000_001f, 0, Leaf { eax: 0b1010, ..leaf })], vec![]),
        (vec![(0x21, 0, Leaf { ebx: td[0], edx: td[1], ecx: td[2], ..leaf })], vec!["tdx cpu"]),
        (vec![(0x21, 0, Leaf { ebx: td[0], edx: td[2], ecx: td[1], ..leaf })], vec![]),
        (vec![(7, 0, Leaf { ebx: 4, ..leaf }), (0x12, 0, Leaf { eax: 1, ..leaf })], vec!["sgx cpu"]),
        // Switched off by firmware: the processor has it, and no version of it.
        (vec![(7, 0, Leaf { ebx: 4, ..leaf }), (0x12, 0, leaf)], vec![]),
        (vec![(0x4000_0000, 0, hyper_v), (0x4000_000c, 0, isolated(2))], vec!["azure-cvm cpu"]),
        (vec![(0x4000_0000, 0, hyper_v), (0x4000_000c, 0, isolated(3))], vec!["azure-cvm cpu"]),
        (vec![(0x4000_0000, 0, hyper_v), (0x4000_000c, 0, isolated(0))], vec![]),
        // Another hypervisor's leaf of the same number.
        (vec![(0x4000_000c, 0, isolated(2))], vec![]),
    ] {
        assert_eq!(found(root.path(), &leaves), kinds, "{leaves:x?}");
    }
}

#[test]
fn nothing_here_says_that_evidence_was_verified() {
    let root = machine(&[("dev/sev-guest", ""), ("dev/tdx_guest", "")]);
    let report = detect(root.path(), &NO_CPU);
    assert!(report.environments.iter().all(|one| one.evidence.starts_with("not verified")));
    // The processor of this machine answers without a word from us.
    detect(Path::new("/"), &hardware());
}
