//! Space on the disk that is kept for what must not fail there: a file whose blocks are taken, given up when the database
//! finds no more, and taken again once there is room.
//!
//! While it is given up, only what takes something back or makes room is written; everything else is refused, and says why.
//! The writer alone moves it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::time::Instant;

/// The reserve.
#[derive(Debug)]
pub(super) struct Space {
    /// `None`: the disk is another machine's.
    file: Option<PathBuf>,
    is_short: Shortage,
    look_at: Instant,
}

/// Whether the reserve is given up.
#[derive(Clone, Debug, Default)]
pub(super) struct Shortage(Arc<AtomicBool>);

impl Shortage {
    pub(super) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Space {
    /// Takes the reserve beside the database. Where there is no room for it, that is as if it had been given up.
    pub(super) fn reserve(database: &Path) -> Space {
        let file = Some(database.with_file_name(FILE_NAME));
        let space = Space { file, is_short: Shortage::default(), look_at: Instant::now() };
        if let Err(error) = space.take() {
            space.is_short.0.store(true, Ordering::Relaxed);
            tracing::error!(%error, "there is no room for the space kept in reserve: {SHORT}");
        }
        space
    }

    /// None: where the database is on another's disk, which is found full and no longer full by writing.
    pub(super) fn elsewhere() -> Space {
        Space { file: None, is_short: Shortage::default(), look_at: Instant::now() }
    }

    pub(super) fn shortage(&self) -> Shortage {
        self.is_short.clone()
    }

    /// The database found no more: gives the reserve up.
    pub(super) fn ran_out(&mut self) {
        self.look_at = Instant::now() + LOOK_EVERY;
        if self.is_short.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let Some(file) = &self.file else {
            tracing::error!("the database's disk is full: {SHORT}");
            return;
        };
        match fs::remove_file(file) {
            Ok(()) => tracing::error!("the disk is full, and the space kept in reserve is given up: {SHORT}"),
            Err(error) => tracing::error!(%error, "the disk is full, and there is no reserve: {SHORT}"),
        }
    }

    /// Takes the reserve again, if there is room for it and as much more; looked for now and then.
    pub(super) fn look(&mut self) {
        if !self.is_short.is() || Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        let has_room =
            |file: &PathBuf| file.parent().and_then(free_bytes).is_some_and(|free| free >= 2 * BYTES);
        if self.file.as_ref().is_none_or(has_room) && self.take().is_ok() {
            self.is_short.0.store(false, Ordering::Relaxed);
            tracing::warn!("there is room on the disk again, and space is kept in reserve");
        }
    }

    /// Makes the file, all of its blocks or none.
    fn take(&self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let taken = fs::metadata(path).is_ok_and(|file| file.len() == BYTES);
        if taken {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let filled = match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            // A file system that cannot: then by writing.
            Err(rustix::io::Errno::OPNOTSUPP) => fill(file),
            taken => taken.map_err(io::Error::from),
        };
        filled.inspect_err(|_| drop(fs::remove_file(path)))
    }
}

/// Bytes that the file system of a folder has left for us.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let of = statvfs(folder).ok()?;
    Some(of.f_bavail.saturating_mul(of.f_frsize))
}

fn fill(mut file: File) -> io::Result<()> {
    let block = vec![0; 1 << 20];
    for _ in 0..BYTES >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()
}

const FILE_NAME: &str = "reserve";
/// A write-ahead log of its usual 4 MiB, and a fall of some KiB for each of thousands of devices.
const BYTES: u64 = 16 << 20;
/// How often it is looked whether there is room again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SHORT: &str = "only what withdraws is written until there is room";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn year_5_the_reserve_takes_its_blocks_and_is_given_up_once_and_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("assay.db");
        let mut space = Space::reserve(&database);
        let reserve = folder.path().join(FILE_NAME);
        let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap()) * 512;
        assert!(blocks(&reserve) >= BYTES, "{}", blocks(&reserve));
        assert!(!space.shortage().is());
        space.ran_out();
        space.ran_out();
        assert!(space.shortage().is() && !reserve.exists());
        space.look();
        assert!(space.shortage().is(), "not at once");
        tokio::time::advance(LOOK_EVERY).await;
        space.look();
        assert!(!space.shortage().is() && reserve.exists());
        // One that is there from the run before is as good.
        assert!(!Space::reserve(&database).shortage().is());
    }
}
