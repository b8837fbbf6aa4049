//! What the files are that processes run: their hashes, made a few at a time and remembered.
//!
//! Hashing is the one thing a caller can make the agent do that takes long. It has turns of its own, so that TPM and
//! logs never wait for it; a user has one turn at a time, so that nobody waits for more than one program of each other
//! user; and a file that has not changed is hashed once.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use assay_identity::selector::Sha256;
use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::peer::{FileId, Peer};

/// The hashes of programs; one for the whole agent.
#[derive(Debug)]
pub(crate) struct Programs {
    turns: Arc<Semaphore>,
    /// One turn for each user that is waiting or being served. Locked for look-ups only.
    lanes: Mutex<HashMap<u32, Arc<tokio::sync::Mutex<()>>>>,
    /// Locked for look-ups only.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    hashes: HashMap<FileState, Hash>,
    /// Counts uses, so that the least recently used can be found.
    uses: u64,
}

#[derive(Debug)]
struct Hash {
    sha256: Sha256,
    used: u64,
}

/// A file as it was at some moment. Its change time cannot be set back, only passed by the clock's granularity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileState {
    file: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        FileState {
            file: FileId::of(metadata),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later change would show: one in the same tick of the file system's clock might not.
    fn is_settled(&self, now_seconds: i64) -> bool {
        self.changed.0.saturating_add(SETTLED_AFTER_SECONDS) < now_seconds
    }
}

impl Programs {
    pub(crate) fn new() -> Self {
        let turns = Arc::new(Semaphore::new(TURNS));
        Programs { turns, lanes: Mutex::default(), known: Mutex::default() }
    }

    /// The hash of the program that a process runs, which is not always the file that its path names now.
    pub(crate) async fn sha256(&self, peer: &Peer) -> io::Result<Sha256> {
        let path = peer.proc("exe");
        let expected = peer.program().map(|program| program.file);
        let opened = spawn_blocking(move || open(&path)).await.map_err(io::Error::other)??;
        let (file, state) = opened;
        if Some(state.file) != expected {
            return Err(io::Error::other("the program is not the one that connected"));
        }
        if let Some(known) = self.recall(&state) {
            return Ok(known);
        }
        let lane = self.lane(peer.uid());
        let _mine = lane.lock().await;
        // Another caller may have had the same file hashed while this one waited.
        if let Some(known) = self.recall(&state) {
            return Ok(known);
        }
        let turn = self.turns.clone().acquire_owned().await.map_err(io::Error::other)?;
        let hashing = spawn_blocking(move || {
            // Held until the file is read, also where the caller went away meanwhile.
            let _turn = turn;
            hash(file, &state)
        });
        let sha256 = hashing.await.map_err(io::Error::other)??;
        self.remember(state, sha256);
        Ok(sha256)
    }

    fn recall(&self, state: &FileState) -> Option<Sha256> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.uses += 1;
        let uses = known.uses;
        let hash = known.hashes.get_mut(state)?;
        hash.used = uses;
        Some(hash.sha256)
    }

    fn remember(&self, state: FileState, sha256: Sha256) {
        if !state.is_settled(now_seconds()) {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.hashes.len() >= KNOWN_MAX {
            let oldest = known.hashes.iter().min_by_key(|(_, hash)| hash.used).map(|(state, _)| *state);
            oldest.and_then(|oldest| known.hashes.remove(&oldest));
        }
        known.uses += 1;
        let used = known.uses;
        known.hashes.insert(state, Hash { sha256, used });
    }

    fn lane(&self, uid: u32) -> Arc<tokio::sync::Mutex<()>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        lanes.entry(uid).or_default().clone()
    }
}

/// Whether the file that a path names is this one.
pub(crate) fn is_at(path: &str, file: FileId) -> bool {
    Path::new(path).is_absolute() && std::fs::metadata(path).is_ok_and(|found| FileId::of(&found) == file)
}

fn open(path: &Path) -> io::Result<(File, FileState)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.size() > PROGRAM_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok((file, FileState::of(&metadata)))
}

/// Hashes a file, and refuses it if it changed meanwhile.
fn hash(mut file: File, before: &FileState) -> io::Result<Sha256> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut read = (&mut file).take(PROGRAM_BYTES_MAX);
    loop {
        let count = read.read(&mut buffer)?;
        match buffer.get(..count) {
            Some([]) | None => break,
            Some(part) => context.update(part),
        }
    }
    if FileState::of(&file.metadata()?) != *before {
        return Err(io::Error::other("the program changed while it was hashed"));
    }
    let hash: Option<[u8; 32]> = context.finish().as_ref().try_into().ok();
    Ok(hash.ok_or_else(|| io::Error::other("a SHA-256 has 32 bytes"))?.into())
}

fn now_seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// Files hashed at a time: a reader of each disk and one more.
const TURNS: usize = 2;
/// A device runs some dozens of attested programs; an entry takes about 200 bytes.
const KNOWN_MAX: usize = 1024;
/// Programs larger than this have no hash.
const PROGRAM_BYTES_MAX: u64 = 1 << 30;
const HASH_BUFFER_BYTES: usize = 1 << 16;
/// File systems stamp in ticks of up to two seconds (FAT's are the coarsest).
const SETTLED_AFTER_SECONDS: i64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn state_of(path: &Path) -> FileState {
        FileState::of(&std::fs::metadata(path).unwrap())
    }

    #[test]
    fn a_file_that_changes_under_the_hand_has_no_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, b"one").unwrap();
        let (file, state) = open(&path).unwrap();
        let expected = aws_lc_rs::digest::digest(&SHA256, b"one");
        assert_eq!(hash(file, &state).unwrap().as_bytes(), expected.as_ref());
        let (file, state) = open(&path).unwrap();
        std::fs::write(&path, b"three").unwrap();
        assert!(hash(file, &state).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_goes_by_more_than_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, b"one").unwrap();
        let programs = Programs::new();
        let state = state_of(&path);
        assert!(!state.is_settled(state.changed.0), "a change within the same tick would not show");
        let settled = |size| FileState { size, changed: (0, 0), ..state };
        for size in 0..u64::try_from(KNOWN_MAX).unwrap() {
            programs.remember(settled(size), [7; 32].into());
        }
        assert!(programs.recall(&settled(0)).is_some());
        programs.remember(settled(u64::MAX), [7; 32].into());
        assert!(programs.recall(&settled(1)).is_none(), "the least recently used makes room");
        assert!(programs.recall(&settled(0)).is_some() && programs.recall(&settled(u64::MAX)).is_some());
        assert_eq!(programs.known.lock().unwrap().hashes.len(), KNOWN_MAX);
        let moved = FileState { modified: (1, 1), ..settled(0) };
        assert!(programs.recall(&moved).is_none());
    }

    #[tokio::test]
    async fn a_user_has_one_turn_at_a_time_and_lanes_go_with_their_users() {
        let programs = Programs::new();
        let lane = programs.lane(7);
        let waiting = programs.lane(7);
        let _held = lane.lock().await;
        assert!(waiting.try_lock().is_err());
        assert!(programs.lane(8).try_lock().is_ok());
        drop(programs.lane(9));
        programs.lane(10);
        assert!(!programs.lanes.lock().unwrap().contains_key(&9));
    }
}
