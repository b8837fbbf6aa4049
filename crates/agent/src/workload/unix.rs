//! What a caller is: the `unix` selectors, as SPIRE spells them.
//!
//! User and groups tell callers apart. Programs of one user are told apart by `path` and `sha256` only as far as that
//! user wants them to be: whoever may trace a process, or write to its memory, can have its identity. So the two count
//! beside a `uid` only, and narrow what that user's programs get by mistake, not by malice. They hold for callers that
//! see files and users as the agent does; in a container's namespaces any file can bear any name.

use std::fs;
use std::io;

use assay_identity::selector::unix::Unix as Wanted;
use thiserror::Error;

use super::peer::{Peer, PeerError, Program};
use super::program::is_at;

/// What is known at once of a process that asks for its identity.
#[derive(Debug)]
pub(crate) struct Unix {
    uid: u32,
    gid: u32,
    /// The further groups.
    groups: Vec<u32>,
    /// What it runs, where it sees the file system as the agent does.
    program: Option<Program>,
}

/// A caller could not be attested.
#[derive(Debug, Error)]
pub(crate) enum UnixError {
    /// It is gone, or another.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Its user or group is not the one that it connected with.
    #[error("process {pid}: has another user or group than when it connected")]
    Became { pid: i32 },
    /// The agent ends.
    #[error("the agent is stopping")]
    Stopping,
}

impl Unix {
    pub(crate) fn of(peer: &Peer) -> Result<Self, UnixError> {
        let pid = peer.pid();
        let failed = |source| PeerError::Proc { pid, source };
        let status = fs::read_to_string(peer.proc("status")).map_err(failed)?;
        let [uid, gid] = ["Uid:", "Gid:"].map(|label| ids(&status, label).nth(1));
        let (Some(uid), Some(gid)) = (uid, gid) else {
            return Err(failed(io::Error::from(io::ErrorKind::InvalidData)).into());
        };
        let groups = ids(&status, "Groups:").take(GROUPS_MAX).collect();
        // Read first, then asked: what was read was of the process that connected.
        peer.check()?;
        if (peer.uid(), peer.gid()) != (uid, gid) {
            return Err(UnixError::Became { pid });
        }
        let program = peer.program().filter(Program::is_in_our_world);
        Ok(Unix { uid, gid, groups, program })
    }

    /// Whether this holds of the caller. The hash of its program is not known here.
    pub(crate) fn has(&self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::Uid(uid) => *uid == self.uid,
            Wanted::Gid(gid) => *gid == self.gid,
            Wanted::User(name) => id_of("/etc/passwd", name) == Some(self.uid),
            Wanted::Group(name) => id_of("/etc/group", name) == Some(self.gid),
            Wanted::SupplementaryGid(gid) => self.groups.contains(gid),
            Wanted::SupplementaryGroup(name) => {
                id_of("/etc/group", name).is_some_and(|gid| self.groups.contains(&gid))
            }
            Wanted::Path(path) => self.program.is_some_and(|program| is_at(path, program.file)),
            Wanted::Sha256(_) => false,
        }
    }

    /// Whether it sees files as the agent does, so that the hash of its program is what it seems.
    pub(crate) fn is_in_our_world(&self) -> bool {
        self.program.is_some()
    }
}

/// The numbers of a line of /proc/pid/status.
fn ids<'a>(status: &'a str, label: &str) -> impl Iterator<Item = u32> + use<'a> {
    let line = status.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|id| id.parse().ok())
}

/// The number of a name in /etc/passwd or /etc/group: in both the first and the third field of a line.
pub(crate) fn id_of(file: &str, name: &str) -> Option<u32> {
    parse_id(&fs::read_to_string(file).ok()?, name)
}

fn parse_id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        fields.nth(1).filter(|_| found)?.parse().ok()
    })
}

/// NGROUPS_MAX of Linux.
const GROUPS_MAX: usize = 65_536;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// This test program, as user 0.
    pub(in crate::workload) async fn caller() -> Unix {
        let (one, _two) = tokio::net::UnixStream::pair().unwrap();
        let program = Unix::of(&Peer::of(&one).unwrap()).unwrap().program;
        assert!(program.is_some());
        Unix { uid: 0, gid: 7, groups: vec![7, 1000], program }
    }

    /// The same, seen from elsewhere.
    pub(in crate::workload) async fn caller_in_another_world() -> Unix {
        Unix { program: None, ..caller().await }
    }

    #[test]
    fn names_are_looked_up_whole() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nweb:x:1000:1000::/:/bin/sh\nbroken\nodd:x:y:z\n";
        assert_eq!(parse_id(passwd, "web"), Some(1000));
        assert_eq!(parse_id(passwd, "we"), None);
        assert_eq!(parse_id(passwd, "odd"), None);
        assert_eq!(parse_id(passwd, "broken"), None);
        assert_eq!(parse_id("", ""), None);
    }
}
