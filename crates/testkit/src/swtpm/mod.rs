//! A real TPM 2.0 in a process of its own: `swtpm`, manufactured with EK certificates from a test CA.
//!
//! The process is reached through socket pairs it inherits, so nothing waits for it to come up and it ends
//! with us, however we end. Other programs reach the TPM through [`SoftTpm::socket`], which, like a kernel's
//! resource manager, serves several at once.

mod maker;
mod socket;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

pub use maker::TpmMaker;

use crate::Bank;
use crate::tpm::{Tpm, TpmError};
use socket::Socket;

/// A software TPM. It ends when this value is dropped; its state stays in its folder.
#[derive(Debug)]
pub struct SoftTpm {
    process: Child,
    control: UnixStream,
    socket: Socket,
}

/// Why there is no software TPM.
#[derive(Debug, thiserror::Error)]
pub enum SwtpmError {
    /// A program is not installed.
    #[error("{program} is not installed; on Debian: apt-get install {packages}")]
    Missing {
        /// The program looked for.
        program: &'static str,
        /// The packages that bring it.
        packages: &'static str,
    },
    /// Manufacturing the TPM failed.
    #[error("swtpm_setup ended with {status}: {output}")]
    Setup {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// The process did not do what the control channel asked.
    #[error("swtpm answered {code:#x} on its control channel")]
    Control {
        /// TPM_RESULT.
        code: u32,
    },
    /// A file, socket or process failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// A TPM command failed.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

impl SoftTpm {
    /// Starts the TPM whose state is in `folder`; a new folder gets a new TPM with a SHA-256 bank.
    pub fn start(maker: &TpmMaker, folder: &Path) -> Result<SoftTpm, SwtpmError> {
        SoftTpm::start_with_banks(maker, folder, &[Bank::Sha256])
    }

    /// Starts the TPM whose state is in `folder`; a new folder gets a new TPM with these banks.
    pub fn start_with_banks(maker: &TpmMaker, folder: &Path, banks: &[Bank]) -> Result<SoftTpm, SwtpmError> {
        if !folder.join(STATE_FILE).exists() {
            std::fs::create_dir_all(folder).map_err(io_error("cannot create the TPM's folder"))?;
            maker.manufacture(folder, banks)?;
        }
        let (server, server_end) = pair()?;
        let (control, control_end) = pair()?;
        control.set_read_timeout(Some(CONTROL_WITHIN)).map_err(io_error("cannot set a time limit"))?;
        let process = spawn(folder, server_end, control_end)?;
        let socket = Socket::bind(&folder.join(SOCKET_FILE), server)
            .map_err(io_error("cannot listen on the TPM's unix socket"))?;
        Ok(SoftTpm { process, control, socket })
    }

    /// The unix socket that serves the TPM, to any number of connections.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// The socket as an agent's configuration names it.
    pub fn transport(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// A connection of our own.
    pub fn connect(&self) -> Result<Tpm, SwtpmError> {
        Ok(Tpm::connect(self.socket())?)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Shuts down in order and starts again: PCRs are new and resetCount is one higher.
    pub fn reboot(&mut self) -> Result<(), SwtpmError> {
        self.connect()?.shutdown()?;
        self.reset()
    }

    /// Cuts the power: like [`SoftTpm::reboot`], without the orderly shutdown.
    pub fn reset(&mut self) -> Result<(), SwtpmError> {
        self.control(CMD_INIT, &0u32.to_be_bytes())?;
        Ok(self.connect()?.startup()?)
    }

    fn control(&mut self, command: u32, body: &[u8]) -> Result<(), SwtpmError> {
        let failed = io_error("swtpm's control channel failed");
        let message = [&command.to_be_bytes(), body].concat();
        let mut answer = [0; 4];
        self.control
            .write_all(&message)
            .and_then(|()| self.control.read_exact(&mut answer))
            .map_err(failed)?;
        match u32::from_be_bytes(answer) {
            0 => Ok(()),
            code => Err(SwtpmError::Control { code }),
        }
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        // The process may have ended by itself; either way it must not stay as a zombie.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(folder: &Path, server: OwnedFd, control: OwnedFd) -> Result<Child, SwtpmError> {
    let log = File::create(folder.join("swtpm.log")).map_err(io_error("cannot create the TPM's log"))?;
    let mut state = std::ffi::OsString::from("dir=");
    state.push(folder);
    Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
        .arg(state)
        .args(["--server", SERVER_END, "--ctrl", CONTROL_END])
        .stdin(server)
        .stdout(control)
        .stderr(log)
        .spawn()
        .map_err(missing_or("swtpm", "cannot start swtpm"))
}

fn pair() -> Result<(UnixStream, OwnedFd), SwtpmError> {
    let (ours, theirs) = UnixStream::pair().map_err(io_error("cannot make a socket pair"))?;
    Ok((ours, theirs.into()))
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> SwtpmError {
    move |source| SwtpmError::Io { what, source }
}

fn missing_or(program: &'static str, what: &'static str) -> impl Fn(io::Error) -> SwtpmError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => SwtpmError::Missing { program, packages: "swtpm swtpm-tools" },
        _ => SwtpmError::Io { what, source },
    }
}

/// The file in which swtpm keeps a TPM 2.0.
const STATE_FILE: &str = "tpm2-00.permall";
const SOCKET_FILE: &str = "tpm.sock";
/// With a descriptor, swtpm's `tcp` means a stream that is already connected, of whatever family.
const SERVER_END: &str = "type=tcp,fd=0";
const CONTROL_END: &str = "type=unixio,clientfd=1";
/// CMD_INIT of swtpm's control protocol: power-cycles the TPM.
const CMD_INIT: u32 = 2;
const CONTROL_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
