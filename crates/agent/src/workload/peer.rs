//! Who is at the other end of a local socket, as the kernel knows it, held fast from the moment it was accepted.
//!
//! The kernel names the process that *connected*. What that process is may change afterwards: it may end and its number
//! go to another, or it may execute another program and leave its end of the socket to a child. So the process is held
//! by a descriptor of its own (pidfd), and what it runs is looked at when it is accepted and again at each use: another
//! program than at first is another caller, and gets nothing.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use thiserror::Error;
use tokio::net::UnixStream;

/// A process that connected. Clones are the same process.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its number, which is its own for as long as [`Peer::is_alive`].
    pid: i32,
    uid: u32,
    gid: u32,
    pidfd: Arc<OwnedFd>,
    /// What it ran when it was accepted; `None` where the agent may not look.
    program: Option<Program>,
}

/// What a process runs, and from where it sees the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The file, wherever it lies.
    pub(crate) file: FileId,
    /// The mount namespace, in which paths have their meaning.
    mounts: u64,
    /// The user namespace: in one of its own a process may call any file its program (`PR_SET_MM_EXE_FILE`).
    users: u64,
}

/// A file, however many names it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A caller is not who connected, or cannot be looked at.
#[derive(Debug, Error)]
pub(crate) enum PeerError {
    /// The kernel does not say who connected.
    #[error("the kernel does not say which process connected")]
    Unknown(#[source] io::Error),
    /// It ended.
    #[error("process {pid}: has ended")]
    Ended { pid: i32 },
    /// It runs another program than when it connected.
    #[error("process {pid}: runs another program than when it connected")]
    Executed { pid: i32 },
    /// Its entry in procfs cannot be read.
    #[error("process {pid}: cannot be looked at")]
    Proc { pid: i32, source: io::Error },
}

impl Peer {
    /// The peer of a connection that was just accepted.
    pub(crate) fn of(stream: &UnixStream) -> Result<Self, PeerError> {
        let credentials = stream.peer_cred().map_err(PeerError::Unknown)?;
        let pid = credentials.pid().filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| PeerError::Unknown(io::Error::other("no process id")))?;
        let pidfd = Arc::new(hold(stream, pid)?);
        let (uid, gid) = (credentials.uid(), credentials.gid());
        let mut peer = Peer { pid, uid, gid, pidfd, program: None };
        peer.program = peer.running().ok();
        // Looked at first, then asked: what was seen was of the process that connected.
        if peer.is_alive() { Ok(peer) } else { Err(PeerError::Ended { pid }) }
    }

    /// Its user when it connected.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Its group when it connected.
    pub(crate) fn gid(&self) -> u32 {
        self.gid
    }

    /// Its number, for the log.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// What it ran when it was accepted.
    pub(crate) fn program(&self) -> Option<Program> {
        self.program
    }

    /// Refuses a process that ended, or that runs another program than when it connected.
    pub(crate) fn check(&self) -> Result<(), PeerError> {
        let pid = self.pid;
        let runs = self.program.map(|program| (program, self.running()));
        if !self.is_alive() {
            return Err(PeerError::Ended { pid });
        }
        match runs {
            None => Ok(()),
            Some((before, Ok(now))) if before == now => Ok(()),
            Some((_, Ok(_))) => Err(PeerError::Executed { pid }),
            Some((_, Err(source))) => Err(PeerError::Proc { pid, source }),
        }
    }

    /// A file of the process in procfs. What is read there counts only if [`Peer::check`] holds afterwards.
    pub(crate) fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }

    /// Whether the process has not ended: until then its number is nobody else's.
    fn is_alive(&self) -> bool {
        // pidfd_open(2): a pidfd is readable when its process has ended.
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut ended, Some(&now)), Ok(0))
    }

    fn running(&self) -> io::Result<Program> {
        // proc(5): these links lead to the thing itself, whatever its name says and wherever it can be reached from.
        let file = FileId::of(&fs::metadata(self.proc("exe"))?);
        let mounts = fs::metadata(self.proc("ns/mnt"))?.ino();
        Ok(Program { file, mounts, users: fs::metadata(self.proc("ns/user"))?.ino() })
    }
}

impl Program {
    /// Whether the process sees files and users as the agent does, so that what the agent sees of it is what it is.
    pub(crate) fn is_in_our_world(&self) -> bool {
        let ours =
            |namespace: &str| fs::metadata(format!("/proc/self/ns/{namespace}")).map(|found| found.ino());
        matches!((ours("mnt"), ours("user")), (Ok(mounts), Ok(users)) if (mounts, users) == (self.mounts, self.users))
    }
}

impl FileId {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A descriptor of the process that connected.
fn hold(stream: &UnixStream, pid: i32) -> Result<OwnedFd, PeerError> {
    match getsockopt(&stream.as_fd(), PeerPidfd) {
        Ok(pidfd) => Ok(pidfd),
        // Before Linux 6.5: by its number, which may have become another's only between connecting and here.
        Err(nix::errno::Errno::ENOPROTOOPT) => {
            let number = Pid::from_raw(pid).ok_or(PeerError::Ended { pid })?;
            let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|_| PeerError::Ended { pid })?;
            let same = fs::metadata(format!("/proc/{pid}")).map(|process| process.uid());
            let connected = stream.peer_cred().map(|credentials| credentials.uid());
            // A number that went to another user's process shows here.
            if matches!((same, connected), (Ok(now), Ok(then)) if now == then) {
                Ok(pidfd)
            } else {
                Err(PeerError::Ended { pid })
            }
        }
        Err(_) => Err(PeerError::Ended { pid }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_is_this_process() {
        let (one, _two) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        peer.check().unwrap();
        assert!(peer.program().unwrap().is_in_our_world());
    }

    #[tokio::test]
    async fn another_program_than_at_first_is_another_caller() {
        let (one, _two) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        let before = peer.program.unwrap();
        let check = |change: fn(&mut Program)| {
            let mut program = before;
            change(&mut program);
            let other = Peer { program: Some(program), ..peer.clone() };
            assert!(matches!(other.check(), Err(PeerError::Executed { .. })));
            program
        };
        check(|program| program.file.inode += 1);
        check(|program| program.file.device += 1);
        assert!(!check(|program| program.mounts += 1).is_in_our_world());
        assert!(!check(|program| program.users += 1).is_in_our_world());
    }
}
