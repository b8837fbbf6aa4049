//! The manufacturer of test TPMs: `swtpm_setup` with a certificate authority in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::{SwtpmError, io_error, missing_or};
use crate::Bank;

/// Makes TPMs with an RSA-2048 and a P-384 EK, each with a certificate from one local CA.
#[derive(Debug)]
pub struct TpmMaker {
    folder: PathBuf,
    /// Held while a TPM is made: the first one makes the CA, which two at once would spoil.
    making: Mutex<()>,
}

impl TpmMaker {
    /// A maker whose CA lives in `folder` and comes into being with the first TPM.
    pub fn new(folder: &Path) -> Result<TpmMaker, SwtpmError> {
        let failed = io_error("cannot write the TPM maker's folder");
        fs::create_dir_all(folder).map_err(&failed)?;
        let folder = fs::canonicalize(folder).map_err(&failed)?;
        for (name, text) in configuration(&folder) {
            fs::write(folder.join(name), text).map_err(&failed)?;
        }
        Ok(TpmMaker { folder, making: Mutex::new(()) })
    }

    /// The root CA's certificate, PEM; exists once a TPM was made.
    pub fn root_ca(&self) -> PathBuf {
        self.folder.join("swtpm-localca-rootca-cert.pem")
    }

    /// The certificate of the CA that issues EK certificates, PEM; exists once a TPM was made.
    pub fn issuing_ca(&self) -> PathBuf {
        self.folder.join("issuercert.pem")
    }

    pub(super) fn manufacture(&self, state: &Path, banks: &[Bank]) -> Result<(), SwtpmError> {
        let _making = self.making.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let banks: Vec<_> = banks.iter().map(|bank| bank.name()).collect();
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--pcr-banks"])
            .arg(banks.join(","))
            .arg("--config")
            .arg(self.folder.join(SETUP_FILE))
            .arg("--tpmstate")
            .arg(state)
            .output()
            .map_err(missing_or("swtpm_setup", "cannot start swtpm_setup"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(SwtpmError::Setup { status: output.status, output: String::from_utf8_lossy(&said).into_owned() })
    }
}

fn configuration(folder: &Path) -> [(&'static str, String); 3] {
    let at = folder.display();
    let setup = format!(
        "create_certs_tool = swtpm_localca\n\
         create_certs_tool_config = {at}/{AUTHORITY_FILE}\n\
         create_certs_tool_options = {at}/{PLATFORM_FILE}\n"
    );
    let authority = format!(
        "statedir = {at}\nsigningkey = {at}/signkey.pem\n\
         issuercert = {at}/issuercert.pem\ncertserial = {at}/certserial\n"
    );
    let platform = "--platform-manufacturer Assay\n--platform-version 1\n--platform-model demo\n".to_owned();
    [(SETUP_FILE, setup), (AUTHORITY_FILE, authority), (PLATFORM_FILE, platform)]
}

const SETUP_FILE: &str = "swtpm_setup.conf";
const AUTHORITY_FILE: &str = "swtpm-localca.conf";
const PLATFORM_FILE: &str = "swtpm-localca.options";
