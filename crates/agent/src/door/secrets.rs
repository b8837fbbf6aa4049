//! Secrets for programs of this device: files in a folder that is in memory, for as long as the device may have them.
//!
//! Here and nowhere else the TPM opens them. What is no longer granted is overwritten and removed, and so is everything when
//! the agent starts or ends: nobody else would take it back.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_clock::Clock;
use assay_identity::hpke::Plain;
use assay_identity::secret::SecretName;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use nix::unistd::{Group, geteuid};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::device::OpenSecretError;
use crate::holding::{Holding, Secret};
use crate::link::Linked;
use crate::program::{Output, Program};

/// Where secrets are put.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsConfig {
    /// A folder on a tmpfs or ramfs for secrets and nothing else, such as `/run/assay/secrets`; made if it is not there. Whatever
    /// is in it is removed when the agent starts and when it ends.
    pub folder: PathBuf,
    /// Whose group may read them; without it the agent's user alone.
    pub group: Option<String>,
    /// Whether programs among them are run, each version once. The folder must not be mounted `noexec` then.
    #[serde(default)]
    pub autorun: bool,
    /// For how many seconds such a program may run before it is killed with all that it started; 1 to 3600.
    #[serde(default = "autorun_seconds")]
    pub autorun_seconds: u64,
}

fn autorun_seconds() -> u64 {
    60
}

/// The folder cannot be used.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// The file system says no.
    #[error("{path}: the folder for secrets cannot {what}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It would write secrets to a disk.
    #[error(
        "{path}: the folder for secrets is not on a tmpfs or ramfs: what is written there may stay on a disk"
    )]
    NotInMemory {
        /// The folder.
        path: PathBuf,
    },
    /// It is somebody else's, or others may write there.
    #[error(
        "{path}: the folder for secrets is somebody else's, or others may write in it: give them a folder of their own"
    )]
    Shared {
        /// The folder.
        path: PathBuf,
    },
    /// Something else is in it.
    #[error("{path}: is in the folder for secrets and none: give them a folder of their own")]
    Foreign {
        /// What.
        path: PathBuf,
    },
    /// There is no such group.
    #[error("secrets.group: there is no group {0:?}")]
    NoGroup(String),
    /// A time out of its bounds.
    #[error("secrets.autorun_seconds: {0} is not from 1 to 3600")]
    Seconds(u64),
}

/// A secret could not be put there.
#[derive(Debug, Error)]
enum PlaceError {
    #[error(transparent)]
    Open(#[from] OpenSecretError),
    #[error(transparent)]
    Folder(#[from] SecretsError),
    #[error("the agent is not attached, and nothing can be opened")]
    NoDevice,
}

/// The folder, empty but for what is placed. Dropped, it is empty.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    group: Option<u32>,
}

impl Folder {
    fn open(config: &SecretsConfig) -> Result<Folder, SecretsError> {
        let path = config.folder.clone();
        let failed = |what| move |source| SecretsError::Io { path: config.folder.clone(), what, source };
        let group = match &config.group {
            Some(name) => match Group::from_name(name) {
                Ok(Some(group)) => Some(group.gid.as_raw()),
                _ => return Err(SecretsError::NoGroup(name.clone())),
            },
            None => None,
        };
        let mode = if group.is_some() { 0o750 } else { 0o700 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(&path).map_err(failed("be made"))?;
        let folder = File::open(&path).map_err(failed("be opened"))?;
        let system = fstatfs(&folder).map_err(|error| failed("be looked at")(error.into()))?;
        if system.filesystem_type() != TMPFS_MAGIC && system.filesystem_type() != RAMFS_MAGIC {
            return Err(SecretsError::NotInMemory { path });
        }
        let found = folder.metadata().map_err(failed("be looked at"))?;
        // Nothing is changed or removed before it is sure whose it is.
        if found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
            return Err(SecretsError::Shared { path });
        }
        secrets_in(&path)?;
        folder.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("be made private"))?;
        if let Some(group) = group {
            std::os::unix::fs::fchown(&folder, None, Some(group)).map_err(failed("be given to its group"))?;
        }
        let folder = Folder { path, group };
        folder.empty()?;
        Ok(folder)
    }

    fn path(&self, name: &SecretName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Puts a secret in the place of an earlier version of it: readers see one or the other, whole.
    fn place(&self, name: &SecretName, plain: &Plain, is_program: bool) -> Result<(), SecretsError> {
        let new = self.path.join(format!("{NEW}{name}"));
        let failed = |what| {
            let path = new.clone();
            move |source| SecretsError::Io { path, what, source }
        };
        wipe(&new).map_err(failed("be cleared"))?;
        let mut mode = if self.group.is_some() { 0o440 } else { 0o400 };
        mode |= if is_program { (mode & 0o440) >> 2 } else { 0 };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)
            .map_err(failed("take a secret"))?;
        if let Some(group) = self.group {
            std::os::unix::fs::fchown(&file, None, Some(group))
                .map_err(failed("give a secret to its group"))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("protect a secret"))?;
        file.write_all(plain.bytes()).map_err(failed("take a secret"))?;
        drop(file);
        let path = self.path(name);
        // Kept open over the renaming, so that what it held can be overwritten once nobody finds it any more.
        let old = writable(&path).map_err(failed("be cleared"))?;
        fs::rename(&new, &path).map_err(failed("take a secret"))?;
        old.map_or(Ok(()), |old| overwrite(&old)).map_err(failed("be cleared"))
    }

    fn remove(&self, name: &SecretName) -> Result<(), SecretsError> {
        let path = self.path(name);
        wipe(&path).map_err(|source| SecretsError::Io { path, what: "be cleared", source })
    }

    /// Removes every secret there is.
    fn empty(&self) -> Result<(), SecretsError> {
        for path in secrets_in(&self.path)? {
            wipe(&path).map_err(|source| SecretsError::Io { path, what: "be cleared", source })?;
        }
        Ok(())
    }
}

/// The files of a folder for secrets. What is none was put there by somebody else, and nothing of it is touched.
fn secrets_in(folder: &Path) -> Result<Vec<PathBuf>, SecretsError> {
    let failed = |source| SecretsError::Io { path: folder.to_owned(), what: "be read", source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_name = name.strip_prefix(NEW).unwrap_or(name).parse::<SecretName>().is_ok();
        let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_file());
        if !is_name || !is_file {
            return Err(SecretsError::Foreign { path });
        }
        found.push(path);
    }
    Ok(found)
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = self.empty() {
            tracing::error!(%error, "secrets could not be removed");
        }
    }
}

/// Overwrites a file and removes it; one that is not there is removed.
fn wipe(path: &Path) -> io::Result<()> {
    let Some(file) = writable(path)? else { return Ok(()) };
    let removed = fs::remove_file(path);
    overwrite(&file).and(removed)
}

/// Opened for writing, if it is there: the owner may write what its mode protects from others.
fn writable(path: &Path) -> io::Result<Option<File>> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let open = || OpenOptions::new().write(true).custom_flags(flags).open(path);
    let opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).and_then(|()| open())
        }
        opened => opened,
    };
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// In memory a file's pages are overwritten where they are.
fn overwrite(mut file: &File) -> io::Result<()> {
    let mut left = file.metadata()?.size();
    let zeros = [0; 4096];
    while let Some(some) = zeros.get(..usize::try_from(left.min(4096)).unwrap_or_default())
        && !some.is_empty()
    {
        file.write_all(some)?;
        left -= some.len() as u64;
    }
    Ok(())
}

/// What is in the folder, and what runs of it.
#[derive(Debug)]
struct Placed {
    version: u64,
    _program: Option<AbortOnDrop>,
}

/// A task that ends with its holder.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The door: what it is told, what it looks at, and what it has done.
pub(crate) struct SecretsDoor {
    config: SecretsConfig,
    folder: Folder,
    placed: HashMap<SecretName, Placed>,
    linked: Linked,
}

impl SecretsDoor {
    /// Makes the folder, and empties it.
    pub(crate) fn open(config: SecretsConfig, linked: Linked) -> Result<SecretsDoor, SecretsError> {
        if !(1..=3600).contains(&config.autorun_seconds) {
            return Err(SecretsError::Seconds(config.autorun_seconds));
        }
        let folder = Folder::open(&config)?;
        Ok(SecretsDoor { config, folder, placed: HashMap::new(), linked })
    }

    /// Keeps the folder in step with what the device holds, until dropped.
    pub(crate) async fn keep(mut self, mut holding: watch::Receiver<Holding>, clock: Clock) {
        let mut again = clock.ticks(AGAIN);
        loop {
            let secrets = holding.borrow_and_update().secrets.clone();
            self.take_back(&secrets);
            self.place(&secrets, &clock).await;
            tokio::select! {
                changed = holding.changed() => if changed.is_err() { return },
                _ = self.linked.changed() => {}
                _ = again.tick() => {}
            }
        }
    }

    /// What is not granted any more goes first.
    fn take_back(&mut self, secrets: &[Secret]) {
        let gone: Vec<SecretName> = self
            .placed
            .keys()
            .filter(|name| !secrets.iter().any(|secret| secret.name == **name))
            .cloned()
            .collect();
        for name in gone {
            match self.folder.remove(&name) {
                Ok(()) => {
                    self.placed.remove(&name);
                    tracing::warn!(secret = %name, "secret withdrawn");
                }
                Err(error) => tracing::error!(secret = %name, %error, "a secret could not be removed"),
            }
        }
    }

    async fn place(&mut self, secrets: &[Secret], clock: &Clock) {
        for Secret { name, version, sealed } in secrets {
            let is_there = self.placed.get(name).is_some_and(|placed| placed.version == *version);
            let Some(sealed) = sealed.clone().filter(|_| !is_there) else { continue };
            let autorun = sealed.autorun;
            let opened = async {
                let device = self.linked.borrow().as_ref().map(|link| link.device.clone());
                let device = device.ok_or(PlaceError::NoDevice)?;
                let open = move |device: &crate::device::Device| {
                    Ok(device.open_secret(&sealed.sealed, &sealed.info))
                };
                let plain = device.run(open).await.map_err(OpenSecretError::Tpm)??;
                Ok::<_, PlaceError>(self.folder.place(name, &plain, autorun)?)
            };
            match opened.await {
                Ok(()) => {
                    tracing::info!(secret = %name, version, "secret received");
                    let program = if autorun { self.start(name, clock) } else { None };
                    self.placed.insert(name.clone(), Placed { version: *version, _program: program });
                }
                Err(PlaceError::NoDevice) => {}
                Err(error) => tracing::error!(secret = %name, %error, "a secret could not be used"),
            }
        }
    }

    fn start(&self, name: &SecretName, clock: &Clock) -> Option<AbortOnDrop> {
        if !self.config.autorun {
            tracing::warn!(secret = %name, "the secret is a program, and this device runs none (secrets.autorun)");
            return None;
        }
        // What it says may be what it was given.
        match Program::start(&self.folder.path(name), &[("ASSAY_SECRET", name.as_str())], Output::Nowhere) {
            Ok(program) => {
                let within = Duration::from_secs(self.config.autorun_seconds);
                Some(AbortOnDrop(tokio::spawn(run(program, name.clone(), within, clock.clone()))))
            }
            Err(error) => {
                tracing::error!(secret = %name, %error, "the program could not be started");
                None
            }
        }
    }
}

async fn run(program: Program, name: SecretName, within: Duration, clock: Clock) {
    match program.run(&[], within, &clock).await {
        Ok(_) => tracing::info!(secret = %name, "the program has ended"),
        Err(error) => tracing::error!(secret = %name, %error, "the program was no success"),
    }
}

/// Before a secret's name, while it is written; no name begins so.
const NEW: &str = ".";
/// How often it is tried again what failed.
const AGAIN: Duration = Duration::from_secs(10);
/// Linux's magic.h; the library has the other one only.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
