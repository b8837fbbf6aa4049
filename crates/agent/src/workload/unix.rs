//! What a caller is: the `unix` selectors, as SPIRE spells them.
//!
//! User and groups tell callers apart. Programs of one user are told apart by `path` and `sha256` only as far as that
//! user wants them to be: whoever may trace a process, or write to its memory, can have its identity. So the two count
//! beside a `uid` only, and narrow what that user's programs get by mistake, not by malice. They hold for callers that
//! see files and users as the agent does; in a container's namespaces any file can bear any name.

use std::fs;
use std::io;

use thiserror::Error;

use super::peer::{Peer, PeerError, Program};
use super::program::is_at;
use crate::holding::Selector;

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

    /// Whether there are selectors and all of them hold.
    pub(crate) fn has_all(&self, selectors: &[Selector], hash: Hash<'_>) -> bool {
        let is_of =
            |wanted: &str| selectors.iter().any(|one| unix(one).is_some_and(|(kind, _)| kind == wanted));
        let by_program_alone = (is_of("path") || is_of("sha256")) && !is_of("uid");
        !selectors.is_empty() && !by_program_alone && selectors.iter().all(|one| self.has(one, hash))
    }

    fn has(&self, selector: &Selector, hash: Hash<'_>) -> bool {
        let Some((kind, value)) = unix(selector) else { return false };
        match kind {
            "uid" => value.parse() == Ok(self.uid),
            "gid" => value.parse() == Ok(self.gid),
            "user" => id_of("/etc/passwd", value) == Some(self.uid),
            "group" => id_of("/etc/group", value) == Some(self.gid),
            "supplementary_gid" => value.parse().is_ok_and(|gid| self.groups.contains(&gid)),
            "supplementary_group" => id_of("/etc/group", value).is_some_and(|gid| self.groups.contains(&gid)),
            "path" => self.program.is_some_and(|program| is_at(value, program.file)),
            "sha256" => self.program.is_some() && hash.may_be(value),
            _ => false,
        }
    }
}

/// The hash of the caller's program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hash<'a> {
    /// Not made yet, as it may not be needed: anything may be it.
    Later,
    /// In hex.
    Is(&'a str),
}

impl Hash<'_> {
    fn may_be(self, value: &str) -> bool {
        match self {
            Hash::Later => true,
            Hash::Is(sha256) => sha256.eq_ignore_ascii_case(value),
        }
    }
}

/// Whether a selector asks for the hash of the caller's program.
pub(crate) fn is_hash(selector: &Selector) -> bool {
    unix(selector).is_some_and(|(kind, _)| kind == "sha256")
}

/// Kind and value of a selector of this file.
fn unix(selector: &Selector) -> Option<(&str, &str)> {
    if selector.kind == "unix" { selector.value.split_once(':') } else { None }
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

    fn selectors(selectors: &[(&str, &str)]) -> Vec<Selector> {
        let selector =
            |(kind, value): &(&str, &str)| Selector { kind: (*kind).into(), value: (*value).into() };
        selectors.iter().map(selector).collect()
    }

    #[tokio::test]
    async fn a_caller_has_an_entry_if_every_selector_holds() {
        let caller = caller().await;
        let check = |wanted: &[(&str, &str)], expected| {
            assert_eq!(caller.has_all(&selectors(wanted), Hash::Is("ab")), expected, "{wanted:?}");
        };
        let own = std::env::current_exe().unwrap();
        let own = format!("path:{}", own.display());
        check(&[("unix", "uid:0")], true);
        check(&[("unix", "uid:1")], false);
        check(&[("unix", "gid:7"), ("unix", "uid:0")], true);
        check(&[("unix", "gid:7"), ("unix", "uid:1")], false);
        check(&[("unix", "user:root")], true);
        check(&[("unix", "user:nobody at all")], false);
        check(&[("unix", "group:root")], false);
        check(&[("unix", "supplementary_gid:1000")], true);
        check(&[("unix", "supplementary_gid:1001")], false);
        check(&[("unix", "uid:0"), ("unix", &own)], true);
        check(&[("unix", "uid:0"), ("unix", "path:/proc/self/exe")], true);
        check(&[("unix", "uid:0"), ("unix", "path:/bin/sh")], false);
        check(&[("unix", "uid:0"), ("unix", "sha256:AB")], true);
        check(&[("unix", "uid:0"), ("unix", "sha256:abc")], false);
        // What we do not know holds for nobody.
        check(&[("unix", "colour:blue")], false);
        check(&[("unix", "uid")], false);
        check(&[("unix", "uid:")], false);
        check(&[("docker", "uid:0")], false);
        check(&[], false);
    }

    #[tokio::test]
    async fn finding_12_a_program_counts_beside_its_user_and_in_our_world_only() {
        let mut caller = caller().await;
        let own = format!("path:{}", std::env::current_exe().unwrap().display());
        let (path, hash) = (("unix", own.as_str()), ("unix", "sha256:ab"));
        let by_program = [path, hash].map(|one| selectors(&[("unix", "uid:0"), one]));
        assert!(by_program.iter().all(|wanted| caller.has_all(wanted, Hash::Is("ab"))));
        for alone in [path, hash] {
            assert!(!caller.has_all(&selectors(&[alone]), Hash::Is("ab")), "{alone:?}");
            assert!(!caller.has_all(&selectors(&[("unix", "gid:7"), alone]), Hash::Is("ab")), "{alone:?}");
        }
        assert!(
            !by_program
                .iter()
                .any(|wanted| caller.has_all(wanted, Hash::Is("cd")) && wanted.iter().any(is_hash))
        );
        assert!(by_program.iter().all(|wanted| caller.has_all(wanted, Hash::Later)));
        // Where it is seen from elsewhere, a file's name and hash are what the caller says they are.
        caller.program = None;
        assert!(!by_program.iter().any(|wanted| caller.has_all(wanted, Hash::Is("ab"))));
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
