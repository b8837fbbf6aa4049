//! A machine that boots: firmware, shim, GRUB, kernel and programs, measured as a real one measures them.
//!
//! A demo device has no firmware and no kernel of its own. A [`Machine`] writes the boot log and the IMA list
//! that its [`System`] would leave, in the kernel's formats, and extends the TPM's PCRs to match. The files are
//! all its state, so any process may open the folder and run the next program.

pub(crate) mod boot_log;
mod ima;
mod measure_log;
mod system;
pub(crate) mod uefi;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use boot_log::{BootLog, EventType};
pub use ima::{ImaEntry, ImaList};
pub use measure_log::measure_record;
pub use system::{Program, System};

use crate::pcrs::{Measurement, Pcrs};
use crate::{Bank, SoftTpm, Tpm, TpmError};

/// A running machine: a TPM and the folder with its logs.
#[derive(Clone, Debug)]
pub struct Machine {
    folder: PathBuf,
    tpm: PathBuf,
}

/// Why a machine could not measure something.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A log could not be read or written.
    #[error("the log {path} cannot be read or written")]
    Log {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The TPM did not take a measurement.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

impl Machine {
    /// Boots the default [`System`] on a freshly started TPM; logs go to `folder`.
    pub fn boot(tpm: &SoftTpm, folder: &Path) -> Result<Machine, MachineError> {
        Machine::boot_system(&System::default(), tpm.socket(), folder)
    }

    /// Boots `system` on the freshly started TPM behind the socket `tpm`; logs go to `folder`.
    pub fn boot_system(system: &System, tpm: &Path, folder: &Path) -> Result<Machine, MachineError> {
        let machine = Machine::open(tpm, folder);
        let mut connection = Tpm::connect(tpm)?;
        let banks = connection.active_banks()?;
        let boot = system.boot_log(&banks);
        let mut pcrs = Pcrs::new(&banks);
        for measurement in boot.measurements() {
            connection.pcr_extend(measurement.pcr, &measurement.digests)?;
            pcrs.extend(measurement);
        }
        fs::create_dir_all(folder).map_err(log_error(folder))?;
        let write = |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).map_err(log_error(&path));
        write(machine.boot_log_path(), boot.bytes())?;
        write(machine.ima_log_path(), &[])?;
        write(machine.ima_log_ascii_path(), &[])?;

        machine.measure(&mut connection, &banks, &ImaEntry::boot_aggregate(&pcrs))?;
        for program in &system.programs {
            machine.measure(&mut connection, &banks, &ImaEntry::file(&program.path, &program.contents))?;
        }
        Ok(machine)
    }

    /// A machine that was booted before, perhaps by another process.
    pub fn open(tpm: &Path, folder: &Path) -> Machine {
        Machine { folder: folder.to_owned(), tpm: tpm.to_owned() }
    }

    /// Runs a program: IMA measures it, unless it did so before and the file has not changed.
    pub fn run_program(&self, path: &str, contents: &[u8]) -> Result<(), MachineError> {
        let entry = ImaEntry::file(path, contents);
        let listed =
            fs::read_to_string(self.ima_log_ascii_path()).map_err(log_error(&self.ima_log_ascii_path()))?;
        if listed.lines().any(|line| line == entry.ascii_line().trim_end_matches('\n')) {
            return Ok(());
        }
        let mut connection = Tpm::connect(&self.tpm)?;
        let banks = connection.active_banks()?;
        self.measure(&mut connection, &banks, &entry)
    }

    /// Writes to a file while it is open for measurement, which IMA records as a violation.
    pub fn violate(&self, path: &str) -> Result<(), MachineError> {
        let mut connection = Tpm::connect(&self.tpm)?;
        let banks = connection.active_banks()?;
        self.measure(&mut connection, &banks, &ImaEntry::violation(path))
    }

    /// The boot log, as the kernel offers it in `binary_bios_measurements`.
    pub fn boot_log_path(&self) -> PathBuf {
        self.folder.join("binary_bios_measurements")
    }

    /// The IMA list in binary form.
    pub fn ima_log_path(&self) -> PathBuf {
        self.folder.join("binary_runtime_measurements")
    }

    /// The IMA list in ASCII form.
    pub fn ima_log_ascii_path(&self) -> PathBuf {
        self.folder.join("ascii_runtime_measurements")
    }

    /// Appends to the list, then extends the PCR: like the kernel's, the list is never behind the TPM.
    fn measure(&self, tpm: &mut Tpm, banks: &[Bank], entry: &ImaEntry) -> Result<(), MachineError> {
        append(&self.ima_log_path(), &entry.binary())?;
        append(&self.ima_log_ascii_path(), entry.ascii_line().as_bytes())?;
        let Measurement { pcr, digests } = entry.measurement(banks);
        Ok(tpm.pcr_extend(pcr, &digests)?)
    }
}

fn append(path: &Path, bytes: &[u8]) -> Result<(), MachineError> {
    let append = || -> io::Result<()> {
        let mut file: File = OpenOptions::new().append(true).open(path)?;
        file.write_all(bytes)
    };
    append().map_err(log_error(path))
}

fn log_error(path: &Path) -> impl Fn(io::Error) -> MachineError + use<> {
    let path = path.to_owned();
    move |source| MachineError::Log { path: path.clone(), source }
}

#[cfg(test)]
mod tests;
