//! A private PostgreSQL in a temporary folder, for tests: what Debian's `postgresql` package has, started as nobody of importance,
//! heard on a socket in that folder alone, and gone with the process that started it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    settings: Mutex<Vec<String>>,
    made: AtomicU64,
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The package is not here.
    #[error("PostgreSQL is not installed: scripts/setup installs it")]
    Absent,
    /// A program of it failed.
    #[error("{program}: {said}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// A file or a process.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not listen.
    #[error("PostgreSQL did not come up: {log}")]
    Silent {
        /// The end of its log.
        log: String,
    },
}

/// Where tests that were told to run on PostgreSQL (`ASSAY_TEST_DATABASE=postgres`) put their data: a new database of a cluster
/// that all tests of this process share.
pub fn test_database() -> Option<String> {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    std::env::var(TEST_DATABASE).is_ok_and(|asked| asked == "postgres").then(|| {
        let cluster = SHARED.get_or_init(|| Cluster::start().expect("PostgreSQL was asked for"));
        cluster.database().expect("a cluster that runs makes databases")
    })
}

/// The variable that says which database tests run on.
pub const TEST_DATABASE: &str = "ASSAY_TEST_DATABASE";

impl Cluster {
    /// Whether PostgreSQL is installed.
    pub fn is_installed() -> bool {
        programs().is_some()
    }

    /// Makes and starts one.
    pub fn start() -> Result<Cluster, ClusterError> {
        let programs = programs().ok_or(ClusterError::Absent)?;
        let user = other_user()?;
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("assay-postgres-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid))?;
        }
        let (settings, made) = (Mutex::default(), AtomicU64::new(0));
        let cluster = Cluster { folder, programs, user, settings, made };
        cluster.run(
            "initdb",
            &["-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions", "-D"],
        )?;
        cluster.launch()?;
        Ok(cluster)
    }

    /// A new, empty database, as a URL.
    pub fn database(&self) -> Result<String, ClusterError> {
        let name = format!("assay{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://{USER}@localhost/{name}?host={}", self.folder.display()))
    }

    /// Runs SQL on one of its databases, by PostgreSQL's own client; says what it answers.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-c", sql, "-h"]);
        said("psql", command.arg(&self.folder).arg(database))
    }

    /// The database of a URL of [`Cluster::database`].
    pub fn name_of(url: &str) -> &str {
        let path = url.split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// Starts it with this setting from the next start on.
    pub fn set(&self, setting: &str) {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).push(setting.to_owned());
    }

    /// Its folder; the user that it runs as can read there.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&self) -> Result<(), ClusterError> {
        self.signal("QUIT")
    }

    /// Starts it again.
    pub fn launch(&self) -> Result<(), ClusterError> {
        let socket = format!("unix_socket_directories={}", self.folder.display());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "sh", "-c", KEEPER]).arg(&self.folder);
        command.arg(self.programs.join("postgres")).arg("-D").arg(self.data());
        let own = [socket.as_str(), "listen_addresses=", "fsync=off", "max_connections=200"];
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for setting in own.into_iter().chain(settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(self.folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(&self.folder);
        self.as_user(&mut command);
        keep(command)?;
        self.wait()
    }

    fn wait(&self) -> Result<(), ClusterError> {
        let until = Instant::now() + UP_WITHIN;
        while Instant::now() < until {
            if self.sql("postgres", "SELECT 1").is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(ClusterError::Silent { log: fs::read_to_string(self.folder.join("log")).unwrap_or_default() })
    }

    fn signal(&self, name: &str) -> Result<(), ClusterError> {
        let file = self.data().join("postmaster.pid");
        let Some(pid) = fs::read_to_string(&file)?.lines().next().map(str::to_owned) else { return Ok(()) };
        said("kill", Command::new("kill").args(["-s", name, &pid]))?;
        let until = Instant::now() + UP_WITHIN;
        while Path::new("/proc").join(&pid).exists() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<String, ClusterError> {
        let mut command = self.command(program);
        self.as_user(&mut command);
        said(program, command.args(arguments).arg(self.data()).current_dir(&self.folder))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env_remove("PGOPTIONS");
        command
    }

    fn as_user(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What is left of it goes with the process.
        self.signal("INT").ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Starts a process that ends with this one: the thread that started it has to live as long.
fn keep(mut command: Command) -> io::Result<()> {
    let (started, starting) = mpsc::channel();
    thread::spawn(move || {
        let child = command.spawn();
        let failed = child.as_ref().err().map(|error| io::Error::from(error.kind()));
        started.send(failed.map_or(Ok(()), Err)).ok();
        child.map(|mut child| child.wait()).ok();
    });
    starting.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

fn said(program: &'static str, command: &mut Command) -> Result<String, ClusterError> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => {
            Err(ClusterError::Failed { program, said: String::from_utf8_lossy(&output.stderr).into_owned() })
        }
    }
}

/// Where its programs are: Debian has a folder for each version.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = debian.chain(std::env::split_paths(&path)).collect();
    folders.retain(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
    folders.into_iter().next()
}

/// Root may not run it; then somebody may who may nothing else.
fn other_user() -> Result<Option<(u32, u32)>, ClusterError> {
    let id = |arguments: &[&str]| said("id", Command::new("id").args(arguments));
    let number =
        |text: String| text.parse::<u32>().map_err(|_| ClusterError::Failed { program: "id", said: text });
    if number(id(&["-u"])?)? != 0 {
        return Ok(None);
    }
    Ok(Some((number(id(&["-u", "nobody"])?)?, number(id(&["-g", "nobody"])?)?)))
}

const USER: &str = "assay";

/// Runs what it is given until it ends or this process is told to, and leaves nothing behind where it was told to.
const KEEPER: &str = r#"trap 'kill -INT $pid; wait $pid; rm -rf "$0"; exit' TERM; "$@" & pid=$!; wait $pid"#;

const UP_WITHIN: Duration = Duration::from_secs(30);
