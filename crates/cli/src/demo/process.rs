//! Child processes of the demo: started with a log file each, ended by their own id.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A running program, asked to end when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output going to `<folder>/<name>.log`.
    pub fn start(name: &str, program: &Path, arguments: &[&str], folder: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        Self::spawn(name, command, folder, true)
    }

    fn spawn(name: &str, mut command: Command, folder: &Path, log_output: bool) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        if log_output {
            command.stdout(file.try_clone()?);
        }
        let child = command.stderr(file).spawn().with_context(|| {
            format!("{}: could not start {name}", command.get_program().to_string_lossy())
        })?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// Fails, with the end of its log, if the program has ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(3).collect();
            bail!(
                "{} ended ({status}): {}",
                self.name,
                tail.into_iter().rev().collect::<Vec<_>>().join(" / ")
            );
        }
        Ok(())
    }

    /// Asks the program to end, and insists after two seconds.
    fn stop(&mut self) {
        let Ok(None) = self.child.try_wait() else { return };
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program that is spoken to in lines of JSON.
pub struct Talking {
    process: Process,
    stdin: ChildStdin,
    lines: Receiver<(Instant, Value)>,
}

impl Talking {
    /// Starts `program`; what it says is stamped with the time it arrived.
    pub fn start(name: &str, program: &Path, arguments: &[&str], folder: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(name, command, folder, false)?;
        let stdin = process.child.stdin.take().context("stdin was asked for")?;
        let stdout = process.child.stdout.take().context("stdout was asked for")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { continue };
                if sender.send((Instant::now(), value)).is_err() {
                    return;
                }
            }
        });
        Ok(Talking { process, stdin, lines })
    }

    /// Sends one line.
    pub fn say(&mut self, value: &Value) -> Result<()> {
        writeln!(self.stdin, "{value}").with_context(|| format!("{} does not listen", self.process.name))
    }

    /// Waits for a line whose `event` is one of `events`; others are passed over.
    pub fn hear(&mut self, events: &[&str], within: Duration) -> Result<(Instant, Value)> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((at, value)) => {
                    let event = value.get("event").and_then(Value::as_str).unwrap_or_default();
                    if events.contains(&event) {
                        return Ok((at, value));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} said none of {events:?} within {within:?}", self.process.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.process.alive()?;
                    bail!("{} closed its output", self.process.name)
                }
            }
        }
    }
}

/// Asks `look` again and again until it answers, at most `within`. Its last reason is the error.
pub fn until<T>(within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let outcome = look();
        match outcome {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() >= deadline => bail!("did not happen within {within:?}"),
            Err(error) if Instant::now() >= deadline => return Err(error),
            _ => std::thread::sleep(LOOK_AGAIN_AFTER),
        }
    }
}

const STOP_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
