//! What a caller is: the `unix` selectors, as SPIRE spells them.
//!
//! User and groups tell callers apart. Programs of one user are told apart by `path` and `sha256` only as far as that
//! user wants them to be: whoever may trace a process, or write to its memory, can have its identity. So the two count
//! beside a `uid` only, and narrow what that user's programs get by mistake, not by malice. They hold for callers that
//! see files and users as the agent does; in a container's namespaces any file can bear any name.

use std::fs;
use std::io;

use assay_identity::Selector;
use assay_identity::selector::unix::Unix as Wanted;
use assay_identity::selector::{Sha256, check_all};
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

    /// Whether all of these hold. Those that nobody should have together, or anybody could, hold of nobody: what a server
    /// would not make an entry of is none here either.
    pub(crate) fn has_all(&self, selectors: &[Selector], hash: Hash) -> bool {
        check_all(selectors).is_ok() && selectors.iter().all(|one| self.has(one, hash))
    }

    fn has(&self, selector: &Selector, hash: Hash) -> bool {
        let Selector::Unix(wanted) = selector;
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
            Wanted::Sha256(sha256) => self.program.is_some() && hash.may_be(sha256),
        }
    }
}

/// The hash of the caller's program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hash {
    /// Not made yet, as it may not be needed: anything may be it.
    Later,
    /// It.
    Is(Sha256),
}

impl Hash {
    fn may_be(self, wanted: &Sha256) -> bool {
        match self {
            Hash::Later => true,
            Hash::Is(sha256) => sha256 == *wanted,
        }
    }
}

/// Whether a selector asks for the hash of the caller's program.
pub(crate) fn is_hash(selector: &Selector) -> bool {
    matches!(selector, Selector::Unix(Wanted::Sha256(_)))
}

/// The numbers of a line of /proc/pid/status.
fn ids<'a>(status: &'a str, label: &str) -> impl Iterator<Item = u32> + use<'a> {
    let line = status.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|id| id.parse().ok())
}

/// The number of a name in /etc/passwd or /etc/group: in both the first and the third field of a line.
fn id_of(file: &str, name: &str) -> Option<u32> {
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
mod tests {
    use super::*;

    /// This test program, as user 0.
    async fn caller() -> Unix {
        let (one, _two) = tokio::net::UnixStream::pair().unwrap();
        let program = Unix::of(&Peer::of(&one).unwrap()).unwrap().program;
        assert!(program.is_some());
        Unix { uid: 0, gid: 7, groups: vec![7, 1000], program }
    }

    fn selectors(texts: &[&str]) -> Vec<Selector> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn hash(byte: u8) -> Hash {
        Hash::Is([byte; 32].into())
    }

    #[tokio::test]
    async fn a_caller_has_an_entry_if_every_selector_holds() {
        let caller = caller().await;
        let check = |wanted: &[&str], expected| {
            assert_eq!(caller.has_all(&selectors(wanted), hash(0xab)), expected, "{wanted:?}");
        };
        let own = std::env::current_exe().unwrap();
        let own = format!("unix:path:{}", own.display());
        let [its_hash, other_hash] =
            [0xab, 0xac].map(|byte: u8| format!("unix:sha256:{}", Sha256::from([byte; 32])));
        check(&["unix:uid:0"], true);
        check(&["unix:uid:1"], false);
        check(&["unix:gid:7", "unix:uid:0"], true);
        check(&["unix:gid:7", "unix:uid:1"], false);
        check(&["unix:user:root"], true);
        check(&["unix:user:nobody at all"], false);
        check(&["unix:group:root"], false);
        check(&["unix:supplementary_gid:1000"], true);
        check(&["unix:supplementary_gid:1001"], false);
        check(&["unix:uid:0", &own], true);
        check(&["unix:uid:0", "unix:path:/proc/self/exe"], true);
        check(&["unix:uid:0", "unix:path:/bin/sh"], false);
        check(&["unix:uid:0", &its_hash], true);
        check(&["unix:uid:0", &other_hash], false);
        check(&["unix:uid:0", "unix:uid:1"], false);
        check(&[], false);
    }

    #[tokio::test]
    async fn finding_12_a_program_counts_beside_its_user_and_in_our_world_only() {
        let mut caller = caller().await;
        let own = format!("unix:path:{}", std::env::current_exe().unwrap().display());
        let its_hash = format!("unix:sha256:{}", Sha256::from([0xab; 32]));
        let (path, program) = (own.as_str(), its_hash.as_str());
        let by_program = [path, program].map(|one| selectors(&["unix:uid:0", one]));
        assert!(by_program.iter().all(|wanted| caller.has_all(wanted, hash(0xab))));
        for alone in [path, program] {
            assert!(!caller.has_all(&selectors(&[alone]), hash(0xab)), "{alone:?}");
            assert!(!caller.has_all(&selectors(&["unix:gid:7", alone]), hash(0xab)), "{alone:?}");
        }
        let [_, by_hash] = &by_program;
        assert!(by_hash.iter().any(is_hash) && !caller.has_all(by_hash, hash(0xcd)));
        assert!(by_program.iter().all(|wanted| caller.has_all(wanted, Hash::Later)));
        // Where it is seen from elsewhere, a file's name and hash are what the caller says they are.
        caller.program = None;
        assert!(!by_program.iter().any(|wanted| caller.has_all(wanted, hash(0xab))));
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
