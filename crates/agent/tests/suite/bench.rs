//! A workbench: a software TPM in a folder of its own, and what the tests need to look at it.

use std::path::Path;
use std::process::Command;

use assay_agent::tpm::{Target, Tpm};
use assay_evidence::digest::{HashAlgorithm, PcrIndex};
use assay_evidence::tpm::pcr::PcrSelection;
use assay_testkit::{Bank, SoftTpm, TpmMaker};
use tempfile::TempDir;

/// A TPM with EK certificates.
pub struct Bench {
    pub soft: SoftTpm,
    pub maker: TpmMaker,
    pub folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_banks(&[Bank::Sha256])
    }

    pub fn with_banks(banks: &[Bank]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let maker = TpmMaker::new(&folder.path().join("maker")).unwrap();
        let soft = SoftTpm::start_with_banks(&maker, &folder.path().join("tpm"), banks).unwrap();
        Bench { soft, maker, folder }
    }

    pub fn target(&self) -> Target {
        self.soft.transport().parse().unwrap()
    }

    pub fn open(&self) -> Tpm {
        Tpm::open(&self.target()).unwrap()
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

pub fn selection(pcrs: impl IntoIterator<Item = u32>) -> PcrSelection {
    let set = pcrs.into_iter().filter_map(PcrIndex::new).collect();
    [(HashAlgorithm::Sha256, set)].into_iter().collect()
}

/// Runs a second opinion; `None` where it is not installed.
pub fn tool(folder: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).current_dir(folder).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{program} {arguments:?}: {said}");
            Some(said)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("{program} is not installed: no second opinion");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}
