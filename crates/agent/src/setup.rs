//! `assay-agent setup ima`: installs an IMA policy, so that the kernel measures what runs and what packages explain.
//!
//! [`plan`] decides, from what there is of the system; [`Plan::write`] writes files. Nothing is run: what makes the next
//! boot use them is told.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::{KERNEL_POLICY_PATH, ShippedPolicy};
use serde::Serialize;
use thiserror::Error;

/// Why nothing is installed.
#[derive(Debug, Error)]
pub enum SetupError {
    /// No policy has this name.
    #[error("there is no policy {name:?}: it is one of {}", names().join(", "))]
    Variant {
        /// What was asked for.
        name: String,
    },
    /// The kernel would refuse the policy.
    #[error("policy \"scripts\" goes by SELinux's labels, and SELinux is not on: take \"base\"")]
    NoSelinux,
    /// There is another policy already.
    #[error("{path}: another policy is there; --replace writes over it")]
    Other {
        /// Where.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: cannot be read or written")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What there is of the system, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Its initial RAM disk is made by initramfs-tools.
    pub initramfs_tools: bool,
    /// Its boot menu is made by GRUB's scripts.
    pub grub: bool,
    /// Somebody has put `ima_policy=` on GRUB's command line.
    pub is_line_set: bool,
    /// SELinux is on.
    pub selinux: bool,
    /// The kernel takes signed policies only (`ima_policy=secure_boot`).
    pub wants_signature: bool,
}

impl System {
    /// Looks at the system whose root is `root`.
    pub fn look(root: &Path) -> Self {
        let is_there = |path: &str| root.join(path).exists();
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let wants_signature = |argument: &str| {
            let policies = argument.strip_prefix("ima_policy=");
            policies.is_some_and(|policies| policies.split('|').any(|policy| policy == "secure_boot"))
        };
        System {
            initramfs_tools: is_there("etc/initramfs-tools"),
            grub: is_there("etc/default/grub"),
            is_line_set: text("etc/default/grub").contains("ima_policy="),
            selinux: is_there("sys/fs/selinux/enforce"),
            wants_signature: text("proc/cmdline").split_ascii_whitespace().any(wants_signature),
        }
    }
}

/// What is to be installed, and what has to be done then.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The policy's name.
    pub variant: &'static str,
    /// Its digest, as `ima.kernel_policies` has it.
    pub digest: String,
    /// The files.
    pub files: Vec<Planned>,
    /// What to do by hand, in order.
    pub steps: Vec<String>,
    /// Whether the files were written.
    pub is_written: bool,
}

/// A file of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// Where, from the root.
    pub path: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether it is there already, as it should be.
    pub is_there: bool,
    #[serde(skip)]
    mode: u32,
    #[serde(skip)]
    text: &'static str,
}

/// Decides what to install.
pub fn plan(variant: &str, system: System) -> Result<Plan, SetupError> {
    let policy =
        ShippedPolicy::named(variant).ok_or_else(|| SetupError::Variant { name: variant.to_owned() })?;
    if policy.name == "scripts" && !system.selinux {
        return Err(SetupError::NoSelinux);
    }
    let file = |path, purpose, mode, text| Planned { path, purpose, is_there: false, mode, text };
    let mut files = vec![file(
        KERNEL_POLICY_PATH,
        "the policy; systemd loads it where the initial RAM disk does not",
        0o644,
        policy.text,
    )];
    let mut steps = Vec::new();
    // Files of an initial RAM disk have no attributes, and so no signatures.
    let by_initramfs = system.initramfs_tools && !system.wants_signature;
    if system.wants_signature {
        steps.push(format!(
            "the kernel takes signed policies only: evmctl ima_sign --key KEY {KERNEL_POLICY_PATH}"
        ));
    }
    if by_initramfs {
        files.push(file(
            "/etc/initramfs-tools/hooks/assay-ima",
            "puts the policy into the initial RAM disk",
            0o755,
            include_str!("../../../deploy/ima/initramfs-hook"),
        ));
        files.push(file(
            "/etc/initramfs-tools/scripts/init-top/assay-ima",
            "loads it before the root file system is there",
            0o755,
            include_str!("../../../deploy/ima/initramfs-load"),
        ));
        steps.push("update-initramfs -u -k all".to_owned());
    }
    match (system.grub, system.is_line_set) {
        (true, false) => {
            files.push(file(
                "/etc/default/grub.d/assay-ima.cfg",
                "has the kernel measure the policy when it is loaded, and all that runs before",
                0o644,
                include_str!("../../../deploy/ima/grub.cfg"),
            ));
            steps.push("update-grub".to_owned());
        }
        (true, true) => steps.push(format!(
            "/etc/default/grub has ima_policy= already: see that the kernel's command line has {KERNEL_LINE}, then update-grub"
        )),
        (false, _) => steps.push(format!("add {KERNEL_LINE} to the kernel's command line")),
    }
    steps.push("reboot; `assay-agent tpm detect` says which policy IMA follows then".to_owned());
    steps.push(
        "learn the policy for this device anew: command line and initial RAM disk are others".to_owned(),
    );
    let digest = policy.digest(HashAlgorithm::Sha256).to_string();
    Ok(Plan { variant: policy.name, digest, files, steps, is_written: false })
}

impl Plan {
    /// Looks what is there already. Another policy is kept unless it may be replaced.
    pub fn compare(&mut self, root: &Path, replace: bool) -> Result<(), SetupError> {
        for file in &mut self.files {
            let path = file.under(root);
            match fs::read(&path) {
                Ok(bytes) if bytes == file.text.as_bytes() => file.is_there = true,
                Ok(_) if file.path == KERNEL_POLICY_PATH && !replace => {
                    return Err(SetupError::Other { path });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(SetupError::File { path, source }),
            }
        }
        Ok(())
    }

    /// Writes what is not there, each file as a whole.
    pub fn write(&mut self, root: &Path) -> Result<(), SetupError> {
        for file in self.files.iter().filter(|file| !file.is_there) {
            let path = file.under(root);
            file.write(&path).map_err(|source| SetupError::File { path, source })?;
        }
        self.is_written = true;
        Ok(())
    }
}

impl Planned {
    fn under(&self, root: &Path) -> PathBuf {
        root.join(self.path.trim_start_matches('/'))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // initramfs-tools leaves files with a dot in their names alone.
        let new = path.with_extension("assay-new");
        fs::write(&new, self.text)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(self.mode))?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "IMA policy {} ({})", self.variant, self.digest)?;
        for file in &self.files {
            let state = match (file.is_there, self.is_written) {
                (true, _) => "as it is",
                (false, true) => "written",
                (false, false) => "would be written",
            };
            writeln!(f, "  {state:<17}{}: {}", file.path, file.purpose)?;
        }
        writeln!(f, "Then:")?;
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "  {number}. {step}")?;
        }
        write!(f, "In the policy for the device: ima.kernel_policies = [\"{}\"]", self.digest)
    }
}

fn names() -> Vec<&'static str> {
    ShippedPolicy::ALL.map(|policy| policy.name).to_vec()
}

const KERNEL_LINE: &str = "ima_policy=tcb ima_template=ima-sig ima_hash=sha256";

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: System = System {
        initramfs_tools: true,
        grub: true,
        is_line_set: false,
        selinux: false,
        wants_signature: false,
    };

    fn paths(plan: &Plan) -> Vec<&str> {
        plan.files.iter().map(|file| file.path).collect()
    }

    #[test]
    fn a_stock_debian_gets_policy_hook_and_line() {
        let plan = plan("base", DEBIAN).unwrap();
        assert_eq!(
            paths(&plan),
            [
                "/etc/ima/ima-policy",
                "/etc/initramfs-tools/hooks/assay-ima",
                "/etc/initramfs-tools/scripts/init-top/assay-ima",
                "/etc/default/grub.d/assay-ima.cfg",
            ]
        );
        assert!(plan.steps.iter().any(|step| step == "update-initramfs -u -k all"));
        assert!(plan.to_string().contains("would be written"));
    }

    #[test]
    fn what_the_system_does_not_have_is_told_instead() {
        let bare = plan("base", System::default()).unwrap();
        assert_eq!(paths(&bare), ["/etc/ima/ima-policy"]);
        assert!(bare.steps.iter().any(|step| step.contains("add ima_policy=tcb")), "{:?}", bare.steps);
        // A policy that has to be signed cannot lie in the initial RAM disk.
        let signed = plan("appraise", System { wants_signature: true, ..DEBIAN }).unwrap();
        assert_eq!(paths(&signed), ["/etc/ima/ima-policy", "/etc/default/grub.d/assay-ima.cfg"]);
        assert!(signed.steps.iter().any(|step| step.contains("evmctl ima_sign")));
        let set = plan("base", System { is_line_set: true, ..DEBIAN }).unwrap();
        assert!(!paths(&set).contains(&"/etc/default/grub.d/assay-ima.cfg"));
        assert!(matches!(plan("scripts", DEBIAN), Err(SetupError::NoSelinux)));
        assert!(plan("scripts", System { selinux: true, ..DEBIAN }).is_ok());
        let unknown = plan("all", DEBIAN).unwrap_err().to_string();
        assert!(unknown.contains("base, critical-data, scripts, appraise"), "{unknown}");
    }

    #[test]
    fn files_are_written_once_and_another_policy_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("etc/initramfs-tools")).unwrap();
        fs::create_dir_all(root.join("etc/default")).unwrap();
        fs::write(root.join("etc/default/grub"), "GRUB_CMDLINE_LINUX=\"\"\n").unwrap();
        assert_eq!(System::look(root), DEBIAN);
        let mut first = plan("base", System::look(root)).unwrap();
        first.compare(root, false).unwrap();
        first.write(root).unwrap();
        let policy = root.join("etc/ima/ima-policy");
        assert_eq!(fs::read_to_string(&policy).unwrap(), ShippedPolicy::ALL[0].text);
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode("etc/ima/ima-policy"), mode("etc/initramfs-tools/hooks/assay-ima")], [0o644, 0o755]);
        let mut again = plan("base", System::look(root)).unwrap();
        again.compare(root, false).unwrap();
        assert!(again.files.iter().all(|file| file.is_there));
        let mut other = plan("critical-data", System::look(root)).unwrap();
        assert!(matches!(other.compare(root, false), Err(SetupError::Other { .. })));
        other.compare(root, true).unwrap();
        other.write(root).unwrap();
        assert!(fs::read_to_string(&policy).unwrap().contains("CRITICAL_DATA"));
    }

    #[test]
    fn what_the_kernel_is_told_keeps_what_an_operator_says() {
        let cfg = include_str!("../../../deploy/ima/grub.cfg");
        assert!(cfg.contains(&format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {KERNEL_LINE}\"")));
        let load = include_str!("../../../deploy/ima/initramfs-load");
        assert!(
            load.contains(&format!("policy={KERNEL_POLICY_PATH}\n"))
                && load.contains("echo $policy > $ima/policy")
        );
    }
}
