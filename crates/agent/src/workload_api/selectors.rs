//! What a caller is: the `unix` selectors, as SPIRE spells them.
//!
//! An entry is a caller's if every selector of the entry holds for the caller. Selectors are looked up when an entry
//! asks for them, so that hashing a program costs only those who are told apart by it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use assay_wire::edge::{Selector, WorkloadEntry};
use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use thiserror::Error;

use super::peer::Peer;

/// A process that asks for its identity, held fast against another one taking its number.
#[derive(Debug)]
pub(super) struct Caller {
    peer: Peer,
    /// Effective user and group, and the further groups.
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    path: Option<String>,
    sha256: OnceLock<Option<String>>,
}

/// A caller could not be attested.
#[derive(Debug, Error)]
pub(super) enum CallerError {
    /// Its entry in procfs cannot be read.
    #[error("process {pid}: cannot be looked at")]
    Proc { pid: i32, source: io::Error },
    /// The process ended, or is no longer what connected.
    #[error("process {pid}: is not the one that connected")]
    Gone { pid: i32 },
}

impl Caller {
    pub(super) fn attest(peer: Peer) -> Result<Self, CallerError> {
        let failed = |source| CallerError::Proc { pid: peer.pid, source };
        let status = fs::read_to_string(peer.proc("status")).map_err(failed)?;
        let [uid, gid] = ["Uid:", "Gid:"].map(|label| ids(&status, label).nth(1));
        let (Some(uid), Some(gid)) = (uid, gid) else {
            return Err(failed(io::Error::from(io::ErrorKind::InvalidData)));
        };
        let groups = ids(&status, "Groups:").take(GROUPS_MAX).collect();
        let path = fs::read_link(peer.proc("exe")).ok().map(|path| path.to_string_lossy().into_owned());
        // Read first, then asked: what was read was of the process that connected.
        if !peer.is_same_process() || (peer.uid, peer.gid) != (uid, gid) {
            return Err(CallerError::Gone { pid: peer.pid });
        }
        Ok(Caller { peer, uid, gid, groups, path, sha256: OnceLock::new() })
    }

    /// Whether the entry is this caller's. An entry without selectors is nobody's.
    pub(super) fn has(&self, entry: &WorkloadEntry) -> bool {
        !entry.selectors.is_empty() && entry.selectors.iter().all(|selector| self.is(selector))
    }

    fn is(&self, selector: &Selector) -> bool {
        let (true, Some((kind, value))) = (selector.r#type == "unix", selector.value.split_once(':')) else {
            return false;
        };
        match kind {
            "uid" => value.parse() == Ok(self.uid),
            "gid" => value.parse() == Ok(self.gid),
            "user" => id_of("/etc/passwd", value) == Some(self.uid),
            "group" => id_of("/etc/group", value) == Some(self.gid),
            "supplementary_gid" => value.parse().is_ok_and(|gid| self.groups.contains(&gid)),
            "supplementary_group" => id_of("/etc/group", value).is_some_and(|gid| self.groups.contains(&gid)),
            "path" => self.path.as_deref() == Some(value),
            "sha256" => self.sha256().is_some_and(|sha256| sha256.eq_ignore_ascii_case(value)),
            _ => false,
        }
    }

    /// The hash of the program that runs, which is not always the file that its path names now.
    fn sha256(&self) -> Option<&str> {
        let hashed = self.sha256.get_or_init(|| match hash_program(&self.peer) {
            Ok(hash) => self.peer.is_same_process().then_some(hash),
            Err(error) => {
                tracing::warn!(pid = self.peer.pid, %error, "program could not be hashed");
                None
            }
        });
        hashed.as_deref()
    }
}

fn hash_program(peer: &Peer) -> io::Result<String> {
    let file = File::open(peer.proc("exe"))?;
    if file.metadata()?.size() > PROGRAM_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let mut file = file.take(PROGRAM_BYTES_MAX);
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            Some([]) | None => return Ok(HEXLOWER.encode(context.finish().as_ref())),
            Some(part) => context.update(part),
        }
    }
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
/// Programs larger than this have no hash.
const PROGRAM_BYTES_MAX: u64 = 1 << 30;
const HASH_BUFFER_BYTES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller {
            peer: peer(),
            uid: 0,
            gid: 7,
            groups: vec![7, 1000],
            path: Some("/usr/bin/web".into()),
            sha256: OnceLock::from(Some("ab".into())),
        }
    }

    fn peer() -> Peer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (one, _two) = tokio::net::UnixStream::pair().unwrap();
            let connection = super::super::peer::Connection::new(one);
            tonic::transport::server::Connected::connect_info(&connection).unwrap()
        })
    }

    fn entry(selectors: &[(&str, &str)]) -> WorkloadEntry {
        let selector =
            |(kind, value): &(&str, &str)| Selector { r#type: (*kind).into(), value: (*value).into() };
        WorkloadEntry { selectors: selectors.iter().map(selector).collect(), ..WorkloadEntry::default() }
    }

    #[test]
    fn a_caller_has_an_entry_if_every_selector_holds() {
        let check = |selectors: &[(&str, &str)], expected| {
            assert_eq!(caller().has(&entry(selectors)), expected, "{selectors:?}");
        };
        check(&[("unix", "uid:0")], true);
        check(&[("unix", "uid:1")], false);
        check(&[("unix", "gid:7"), ("unix", "uid:0")], true);
        check(&[("unix", "gid:7"), ("unix", "uid:1")], false);
        check(&[("unix", "user:root")], true);
        check(&[("unix", "user:nobody at all")], false);
        check(&[("unix", "group:root")], false);
        check(&[("unix", "supplementary_gid:1000")], true);
        check(&[("unix", "supplementary_gid:1001")], false);
        check(&[("unix", "path:/usr/bin/web")], true);
        check(&[("unix", "path:/usr/bin")], false);
        check(&[("unix", "sha256:AB")], true);
        check(&[("unix", "sha256:abc")], false);
        // What we do not know holds for nobody, and so does nothing at all.
        check(&[("unix", "colour:blue")], false);
        check(&[("unix", "uid")], false);
        check(&[("unix", "uid:")], false);
        check(&[("docker", "uid:0")], false);
        check(&[], false);
    }

    #[test]
    fn this_process_is_attested_as_itself() {
        let peer = peer();
        let caller = Caller::attest(peer).unwrap();
        let path = std::env::current_exe().unwrap();
        assert!(caller.has(&entry(&[
            ("unix", &format!("uid:{}", peer.uid)),
            ("unix", &format!("path:{}", path.display())),
        ])));
        assert_eq!(caller.sha256().unwrap().len(), 64);
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
