//! Programs that the agent runs: in a process group of their own, for a bounded time, and with nothing of the agent's environment.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use assay_clock::Clock;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// A program that runs and all that it started, which ends with it. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    group: Option<Pid>,
}

/// What becomes of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// It is thrown away: it may be what the program was given.
    Nowhere,
    /// Its beginning is kept.
    Beginning,
}

/// Why a program is no success.
#[derive(Debug, Error)]
pub(crate) enum ProgramError {
    /// It could not be started, or was lost.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It said that it failed.
    #[error("it ended with {0}")]
    Failed(ExitStatus),
    /// Its time was over.
    #[error("it ran for more than {} s, and was killed with all that it started", .0.as_secs())]
    Late(Duration),
}

impl Program {
    /// Starts one with these variables beside a plain `PATH`.
    pub(crate) fn start(path: &Path, variables: &[(&str, &str)], output: Output) -> io::Result<Program> {
        let piped = || if output == Output::Beginning { Stdio::piped() } else { Stdio::null() };
        let child = Command::new(path)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(variables.iter().copied())
            .current_dir("/")
            .stdin(piped())
            .stdout(piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Program { child, group })
    }

    /// Hands it this on standard input and waits for its end; the beginning of what it said, where that is kept.
    pub(crate) async fn run(
        mut self,
        input: &[u8],
        within: Duration,
        clock: &Clock,
    ) -> Result<String, ProgramError> {
        tokio::select! {
            ended = talk(&mut self.child, input) => {
                let (status, said) = ended?;
                if status.success() { Ok(said) } else { Err(ProgramError::Failed(status)) }
            }
            () = clock.sleep(within) => Err(ProgramError::Late(within)),
        }
    }
}

async fn talk(child: &mut Child, input: &[u8]) -> io::Result<(ExitStatus, String)> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let hand = async {
        if let Some(mut stdin) = stdin {
            // One that does not read has not asked for it.
            let _ = stdin.write_all(input).await;
        }
    };
    let hear = async {
        let mut said = Vec::new();
        if let Some(mut stdout) = stdout {
            (&mut stdout).take(SAID_BYTES_MAX).read_to_end(&mut said).await?;
            // What is more is read and thrown away, so that nobody waits for a reader.
            tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await?;
        }
        Ok::<_, io::Error>(said)
    };
    let ((), said) = tokio::join!(hand, hear);
    Ok((child.wait().await?, String::from_utf8_lossy(&said?).into_owned()))
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // Nobody is left of it, where it has ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

const SAID_BYTES_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn run(script: &str, input: &[u8], within: Duration) -> Result<String, ProgramError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let program = Program::start(&path, &[("WORD", "said")], Output::Beginning)?;
        program.run(input, within, &Clock::system()).await
    }

    #[tokio::test]
    async fn a_program_gets_its_input_and_little_else_and_says_a_bounded_amount() {
        let long = Duration::from_secs(20);
        let said =
            run("cat; echo $WORD; env | cut -d= -f1 | sort | tr '\\n' ' '", b"in ", long).await.unwrap();
        assert_eq!(said, "in said\nPATH PWD WORD ");
        assert_eq!(run("yes | head -c 1000000", b"", long).await.unwrap().len(), 4096);
        assert_eq!(run("exec <&-; echo deaf", &vec![0; 1 << 20], long).await.unwrap(), "deaf\n");
        assert!(matches!(run("exit 3", b"", long).await, Err(ProgramError::Failed(_))));
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        let script = format!("(while :; do touch {0}; sleep 0.05; done) & sleep 1000", alive.display());
        let ended = run(&script, b"", Duration::from_millis(500)).await;
        assert!(matches!(ended, Err(ProgramError::Late(_))));
        std::fs::remove_file(&alive).unwrap();
        Clock::system().sleep(Duration::from_millis(300)).await;
        assert!(!alive.exists(), "what it started lives on");
    }
}
