//! `assay-agent tee detect`: which trusted execution environments this machine has, as far as it says itself.
//!
//! What a machine says of itself is a claim: the processor can do it, and the kernel offers it. Whether there is one is shown by
//! evidence that somebody else verified, which no file here stands for. Folder and CPUID are arguments, so that every row can be
//! looked at without its hardware.

mod cpuid;
mod table;

use std::path::Path;

use serde::Serialize;

pub use cpuid::{Cpuid, Leaf, hardware};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each kind that is looked for.
    pub environments: Vec<Environment>,
    /// Whether evidence can be asked for through configfs; what else there is needs a device of its own.
    pub configfs: bool,
}

/// One kind of environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// Which.
    pub kind: &'static str,
    /// Whether the processor says that it can do it; `None`: it has no way to say.
    pub cpu: Option<bool>,
    /// What the kernel offers inside of such an environment.
    pub guest: Vec<String>,
    /// What the kernel offers to whoever runs such environments.
    pub host: Vec<String>,
    /// Never more than that: only who verifies evidence can say it.
    pub evidence: &'static str,
}

impl Environment {
    /// Whether anything speaks for it.
    pub fn is_there(&self) -> bool {
        self.cpu == Some(true) || !self.guest.is_empty() || !self.host.is_empty()
    }
}

/// Looks at a machine whose root folder is `root`.
pub fn detect(root: &Path, cpuid: &dyn Cpuid) -> Report {
    let environments = table::ROWS.iter().map(|row| row.look(root, cpuid)).collect();
    Report { environments, configfs: root.join(table::CONFIGFS).is_dir() }
}

#[cfg(test)]
mod tests;
