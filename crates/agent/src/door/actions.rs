//! What this device does when its trust falls or comes back: the programs of a folder, one after the other.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assay_clock::Clock;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::holding::Holding;
use crate::program::{Output, Program};

/// Programs that are run when trust falls or comes back.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionsConfig {
    /// The folder that they are in, such as `/etc/assay/actions`. It and they have to be root's or the agent's user's, and writable by
    /// nobody else.
    pub folder: PathBuf,
    /// For how many seconds each may run before it is killed with all that it started; 1 to 3600.
    #[serde(default = "seconds")]
    pub seconds: u64,
}

fn seconds() -> u64 {
    30
}

/// The actions cannot be used.
#[derive(Debug, Error)]
pub enum ActionsError {
    /// A time out of its bounds.
    #[error("actions.seconds: {0} is not from 1 to 3600")]
    Seconds(u64),
    /// The folder does not read.
    #[error("{path}: the folder of actions cannot be read")]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Somebody else could have put a program there.
    #[error("{path}: is somebody else's, or others may write it: nothing of this folder is run")]
    Writable {
        /// What.
        path: PathBuf,
    },
    /// More than there may be.
    #[error("{path}: has more than {ACTIONS_MAX} programs in it")]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
}

/// What a program is told on standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Event {
    /// `withdrawn` or `granted`.
    event: &'static str,
    /// Why, where it was withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The policy that the device was judged by last.
    policy: String,
    /// Seconds since 1970.
    at: u64,
}

impl Event {
    /// What a change of the holding is to programs; `None`: nothing.
    fn of(before: Option<bool>, holding: &Holding, now: SystemTime) -> Option<Event> {
        let is_granted = granted(holding)?;
        if before == Some(is_granted) {
            return None;
        }
        let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let event = if is_granted { "granted" } else { "withdrawn" };
        Some(Event { event, reason: holding.withdrawn.clone(), policy: holding.policy.clone(), at })
    }
}

/// Whether the device is granted anything; `None`: nobody has said so yet.
fn granted(holding: &Holding) -> Option<bool> {
    holding.ready.then_some(holding.withdrawn.is_none())
}

/// Runs them until dropped. What came meanwhile is told as it is then: a device that has fallen and come back has come back.
pub(crate) async fn run(config: ActionsConfig, mut holding: watch::Receiver<Holding>, clock: Clock) {
    let mut told = None;
    loop {
        let event = Event::of(told, &holding.borrow_and_update(), clock.now());
        if let Some(event) = event {
            told = Some(event.event == "granted");
            act(&config, &event, &clock).await;
            // Another change may have come.
            continue;
        }
        if holding.changed().await.is_err() {
            return;
        }
    }
}

async fn act(config: &ActionsConfig, event: &Event, clock: &Clock) {
    let programs = match programs(&config.folder) {
        Ok(programs) => programs,
        Err(error) => {
            tracing::error!(event = event.event, %error, "no action is run");
            return;
        }
    };
    let input = serde_json::to_vec(event).unwrap_or_default();
    for program in programs {
        let started = Program::start(&program, &[("ASSAY_EVENT", event.event)], Output::Beginning);
        let ended = async { started?.run(&input, Duration::from_secs(config.seconds), clock).await };
        match ended.await {
            Ok(said) => {
                tracing::info!(program = %program.display(), event = event.event, said, "action done")
            }
            // The next one is no worse for it.
            Err(error) => {
                tracing::error!(program = %program.display(), event = event.event, %error, "action failed")
            }
        }
    }
}

/// The programs of the folder, in the order of their names. As with `run-parts`, what is not executable is none.
fn programs(folder: &Path) -> Result<Vec<PathBuf>, ActionsError> {
    let unread = |source| ActionsError::Read { path: folder.to_owned(), source };
    let is_ours = |path: &Path| -> Result<fs::Metadata, ActionsError> {
        let found = fs::metadata(path).map_err(unread)?;
        let is_owned = found.uid() == 0 || found.uid() == geteuid().as_raw();
        match is_owned && found.mode() & 0o022 == 0 {
            true => Ok(found),
            false => Err(ActionsError::Writable { path: path.to_owned() }),
        }
    };
    is_ours(folder)?;
    let mut programs = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        let found = is_ours(&path)?;
        if found.is_file() && found.mode() & 0o111 != 0 {
            programs.push(path);
        }
        if programs.len() > ACTIONS_MAX {
            return Err(ActionsError::TooMany { path: folder.to_owned() });
        }
    }
    programs.sort();
    Ok(programs)
}

impl ActionsConfig {
    /// Whether they can be run at all.
    pub(crate) fn check(&self) -> Result<(), ActionsError> {
        if !(1..=3600).contains(&self.seconds) {
            return Err(ActionsError::Seconds(self.seconds));
        }
        programs(&self.folder).map(drop)
    }
}

/// Each may take its time, and the last one waits for all.
const ACTIONS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(folder: &Path, name: &str, mode: u32, script: &str) {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn folder() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
    }

    #[test]
    fn what_others_could_have_put_there_is_not_run_nor_anything_beside_it() {
        let folder = folder();
        let names = || -> Result<Vec<String>, ActionsError> {
            let names = programs(folder.path())?;
            Ok(names.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
        };
        write(folder.path(), "20-b", 0o755, "");
        write(folder.path(), "10-a", 0o700, "");
        write(folder.path(), "README", 0o644, "");
        assert_eq!(names().unwrap(), ["10-a", "20-b"]);
        for (mode, of_folder) in [(0o777, 0o755), (0o775, 0o755), (0o755, 0o777)] {
            write(folder.path(), "30-c", mode, "");
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(of_folder)).unwrap();
            assert!(matches!(names(), Err(ActionsError::Writable { .. })), "{mode:o} {of_folder:o}");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for number in 0..=ACTIONS_MAX {
            write(folder.path(), "30-c", 0o755, "");
            write(folder.path(), &format!("40-{number}"), 0o755, "");
        }
        assert!(matches!(names(), Err(ActionsError::TooMany { .. })));
        let none = ActionsConfig { folder: "/nowhere".into(), seconds: 1 };
        assert!(matches!(none.check(), Err(ActionsError::Read { .. })));
        assert!(matches!(ActionsConfig { seconds: 0, ..none }.check(), Err(ActionsError::Seconds(0))));
    }

    #[tokio::test]
    async fn each_fall_and_each_return_is_told_once_in_order_and_a_failure_stops_nothing() {
        let (folder, told) = (folder(), tempfile::NamedTempFile::new().unwrap());
        let file = told.path().display().to_string();
        write(folder.path(), "10-fails", 0o700, "exit 1");
        write(folder.path(), "20-tells", 0o700, &format!("echo \"$ASSAY_EVENT $(cat)\" >> {file}"));
        let config = ActionsConfig { folder: folder.path().to_owned(), seconds: 10 };
        let (held, holding) = watch::channel(Holding::default());
        let running = tokio::spawn(run(config, holding, Clock::system()));
        let lines = async |count: usize| {
            for _ in 0..400 {
                let lines = fs::read_to_string(&file).unwrap();
                if lines.lines().count() >= count {
                    return lines.lines().map(str::to_owned).collect::<Vec<_>>();
                }
                Clock::system().sleep(Duration::from_millis(25)).await;
            }
            panic!("{}", fs::read_to_string(&file).unwrap());
        };
        let trusted = Holding { ready: true, policy: "edge v1".to_owned(), ..Holding::default() };
        held.send_replace(trusted.clone());
        let first = lines(1).await;
        assert!(first[0].starts_with(r#"granted {"event":"granted","policy":"edge v1","at":"#), "{first:?}");
        // Other grants of a device that stands are no event.
        held.send_replace(Holding { policy: "edge v2".to_owned(), ..trusted.clone() });
        held.send_replace(Holding::withdrawn("it \"fell\"".to_owned(), Vec::new()));
        let then = lines(2).await;
        assert!(then[1].starts_with(r#"withdrawn {"event":"withdrawn","reason":"it \"fell\"","#), "{then:?}");
        held.send_replace(trusted);
        assert!(lines(3).await[2].starts_with("granted "));
        running.abort();
        assert_eq!(lines(3).await.len(), 3);
    }
}
