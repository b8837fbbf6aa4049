//! Where each environment shows, a row each.

use std::path::Path;

use super::{Cpuid, Environment, Leaf};

/// One kind of environment, and where to look for it.
pub(super) struct Row {
    kind: &'static str,
    cpu: fn(&dyn Cpuid) -> Option<bool>,
    guest: &'static [Sign],
    host: &'static [Sign],
}

/// Something in the file system that speaks for it.
enum Sign {
    /// A node or folder that is there.
    There(&'static str),
    /// A file that says yes: `Y` or `1`.
    Yes(&'static str),
    /// A word in a file.
    Word(&'static str, &'static str),
    /// The provider of reports in some folder of configfs.
    Provider(&'static str),
}

impl Row {
    pub(super) fn look(&self, root: &Path, cpuid: &dyn Cpuid) -> Environment {
        let seen = |signs: &[Sign]| signs.iter().filter_map(|sign| sign.seen(root)).collect();
        Environment {
            kind: self.kind,
            cpu: (self.cpu)(cpuid),
            guest: seen(self.guest),
            host: seen(self.host),
            evidence: "not verified: assay tee verify",
        }
    }
}

impl Sign {
    /// What is seen of it.
    fn seen(&self, root: &Path) -> Option<String> {
        let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        match self {
            Sign::There(path) => root.join(path).exists().then(|| format!("/{path}")),
            Sign::Yes(path) => {
                let says = read(path)?;
                matches!(says.trim(), "Y" | "1").then(|| format!("/{path} = {}", says.trim()))
            }
            Sign::Word(path, word) => {
                let found = read(path)?.split_ascii_whitespace().any(|found| found == *word);
                found.then(|| format!("{word} in /{path}"))
            }
            Sign::Provider(name) => {
                let folders = std::fs::read_dir(root.join(CONFIGFS)).ok()?;
                let says = |folder: std::path::PathBuf| {
                    std::fs::read_to_string(folder.join("provider"))
                        .is_ok_and(|provider| provider.trim() == *name)
                };
                let is_there = folders.flatten().take(FOLDERS_MAX).any(|folder| says(folder.path()));
                is_there.then(|| format!("provider {name} in /{CONFIGFS}"))
            }
        }
    }
}

fn bit(register: u32, bit: u32) -> bool {
    register & (1 << bit) != 0
}

/// AMD APM 3, CPUID Fn8000_001F: SNP is bit 4 of EAX.
fn sev_snp(cpuid: &dyn Cpuid) -> Option<bool> {
    Some(cpuid.leaf(0x8000_001f, 0).is_some_and(|Leaf { eax, .. }| bit(eax, 4)))
}

/// Intel TDX Module specification: leaf 0x21 says "IntelTDX    " in EBX, EDX and ECX, inside of a trust domain.
fn tdx(cpuid: &dyn Cpuid) -> Option<bool> {
    let says = |Leaf { ebx, ecx, edx, .. }: Leaf| {
        [ebx, edx, ecx].iter().flat_map(|register| register.to_le_bytes()).eq(*b"IntelTDX    ")
    };
    Some(cpuid.leaf(0x21, 0).is_some_and(says))
}

/// Intel SDM, leaf 7: SGX is bit 2 of EBX; leaf 0x12 says whether there is any of its versions.
fn sgx(cpuid: &dyn Cpuid) -> Option<bool> {
    let is_there = cpuid.leaf(7, 0).is_some_and(|Leaf { ebx, .. }| bit(ebx, 2));
    Some(is_there && cpuid.leaf(0x12, 0).is_some_and(|Leaf { eax, .. }| bit(eax, 0) || bit(eax, 1)))
}

/// Hyper-V Top Level Functional Specification, leaf 0x4000000C: the kind of isolation is in the low four bits of EBX, 2 for SNP and 3 for TDX.
fn azure(cpuid: &dyn Cpuid) -> Option<bool> {
    let is_hyper_v = cpuid.leaf(0x4000_0000, 0).is_some_and(|Leaf { ebx, ecx, edx, .. }| {
        [ebx, ecx, edx].iter().flat_map(|register| register.to_le_bytes()).eq(*b"Microsoft Hv")
    });
    let isolation = cpuid.leaf(0x4000_000c, 0).map(|Leaf { ebx, .. }| ebx & 0xf);
    Some(is_hyper_v && matches!(isolation, Some(2 | 3)))
}

fn nothing(_: &dyn Cpuid) -> Option<bool> {
    None
}

/// Every kind that is looked for.
pub(super) const ROWS: &[Row] = &[
    Row {
        kind: "sev-snp",
        cpu: sev_snp,
        guest: &[
            Sign::There("dev/sev-guest"),
            Sign::There("sys/bus/platform/devices/sev-guest"),
            Sign::Provider("sev_guest"),
        ],
        host: &[Sign::There("dev/sev"), Sign::Yes("sys/module/kvm_amd/parameters/sev_snp")],
    },
    Row {
        kind: "tdx",
        cpu: tdx,
        guest: &[
            Sign::There("dev/tdx_guest"),
            Sign::Provider("tdx_guest"),
            Sign::Word("proc/cpuinfo", "tdx_guest"),
            Sign::There("sys/firmware/acpi/tables/CCEL"),
        ],
        host: &[
            Sign::Word("proc/cpuinfo", "tdx_host_platform"),
            Sign::Yes("sys/module/kvm_intel/parameters/tdx"),
        ],
    },
    Row {
        kind: "sgx",
        cpu: sgx,
        guest: &[Sign::There("dev/attestation/quote")],
        host: &[Sign::There("dev/sgx_enclave"), Sign::There("dev/sgx_provision")],
    },
    Row { kind: "cca", cpu: nothing, guest: &[Sign::Provider("arm_cca_guest")], host: &[] },
    Row {
        kind: "trustzone",
        cpu: nothing,
        guest: &[],
        host: &[Sign::There("dev/tee0"), Sign::There("dev/teepriv0")],
    },
    Row { kind: "azure-cvm", cpu: azure, guest: &[], host: &[] },
    Row {
        kind: "tpm",
        cpu: nothing,
        guest: &[Sign::There("dev/tpmrm0"), Sign::There("sys/class/tpm/tpm0/tpm_version_major")],
        host: &[],
    },
];

/// Where reports are asked for (Linux 6.7 and later, with configfs mounted).
pub(super) const CONFIGFS: &str = "sys/kernel/config/tsm/report";
const FOLDERS_MAX: usize = 64;
