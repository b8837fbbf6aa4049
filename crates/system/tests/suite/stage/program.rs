//! A program of the product as a process: started, told to end, or killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running program; it is killed when dropped.
pub struct Program {
    process: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program and waits until it says that it is ready.
    pub fn start(program: &str, configuration: &Path) -> Result<Program> {
        let log = configuration.with_extension("log");
        let mut process = Command::new(env!("CARGO_BIN_EXE_assay-system"))
            .arg(program)
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()?;
        let stdout = process.stdout.take().context("stdout was asked for")?;
        let mut program = Program { process, log };
        let mut line = String::new();
        // The line comes, or the program ends and with it the stream.
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("not ready: {:?} {}", program.process.wait()?, program.said());
        }
        Ok(program)
    }

    /// Ends it without a word, as a power cut does.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits: how long it took, and how it ended.
    pub async fn terminate(mut self) -> Result<(Duration, ExitStatus)> {
        let pid = Pid::from_child(&self.process);
        let start = Instant::now();
        kill_process(pid, Signal::TERM)?;
        let ended =
            tokio::task::spawn_blocking(move || self.process.wait().map(|status| (start.elapsed(), status)));
        Ok(ended.await??)
    }

    /// Its log.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
