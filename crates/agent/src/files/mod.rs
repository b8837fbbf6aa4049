//! `assay-agent files`: keeps in files what a program of this device is given, for programs that read nothing else.
//!
//! A client of the Workload API like any other, as SPIFFE's helper is. The revocation list is among the files, and an
//! identity that is withdrawn or over is gone from the disk: the files are what the stream says, or they are not there.

mod place;
mod plan;
mod tell;

use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_clock::{Backoff, Clock};
use assay_wire::workload::X509svidResponse;
use thiserror::Error;
use tokio::time::Instant;
use tonic::Streaming;

use crate::fetch::{self, FetchError, FetchedSvid};
pub(crate) use place::{Beside, settle};
pub use plan::{Plan, WhenWithdrawn};
use tell::{Change, Teller};

/// The files cannot be kept.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The endpoint's address is none.
    #[error(transparent)]
    Address(FetchError),
    /// Two files would be one.
    #[error("{0:?} is the name of two of the files")]
    Twice(String),
    /// Somebody else keeps files there.
    #[error("{folder}: another program keeps files there: give each a folder of its own")]
    InUse {
        /// Which folder.
        folder: PathBuf,
    },
    /// A file cannot be written or removed.
    #[error("{path}: cannot be opened, written or removed")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the files are kept no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Whoever started it wants no more.
    Stopped,
    /// There is no identity any more, and why.
    Withdrawn(String),
}

/// Keeps the files until `stop` is done, or the identity is withdrawn where that is the end.
pub async fn keep(plan: Plan, clock: Clock, stop: impl Future<Output = ()>) -> Result<Ended, FilesError> {
    if let Some(name) = plan.twice() {
        return Err(FilesError::Twice(name.to_owned()));
    }
    let _mine = take(&plan.folder)?;
    let mut source = Source::new(fetch::socket_or_default(plan.socket.clone()), clock.clone());
    let plan = Arc::new(plan);
    let mut teller = Teller::new(plan.clone(), clock.clone());
    let mut kept = Kept { plan, clock, shown: None };
    tokio::pin!(stop);
    loop {
        let gone = tokio::select! {
            () = &mut stop => return Ok(Ended::Stopped),
            () = teller.tell() => continue,
            () = kept.over() => "its time is over, and it was not renewed".to_owned(),
            answer = source.next() => match answer {
                Ok(svids) => match kept.plan.pick(svids) {
                    Some(svid) => {
                        if kept.show(svid)? {
                            teller.changed(Change::Changed);
                        }
                        continue;
                    }
                    None => "none of the identities of this process is the one that is asked for".to_owned(),
                },
                Err(error) if error.is_no() => error.to_string(),
                Err(error @ FetchError::Address(_)) => return Err(FilesError::Address(error)),
                Err(error) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::warn!(error, "no news from the agent: the files stay as they are");
                    continue;
                }
            },
        };
        if kept.remove(&gone)? {
            teller.changed(Change::Removed);
        }
        if kept.plan.when_withdrawn == WhenWithdrawn::Stop {
            // Nobody is told by a command: that this ends is the word.
            return Ok(Ended::Withdrawn(gone));
        }
    }
}

/// Takes a folder for this process, until it is dropped.
fn take(folder: &Path) -> Result<File, FilesError> {
    let taken = File::open(folder).map_err(failed(folder))?;
    match taken.try_lock() {
        Ok(()) => Ok(taken),
        Err(TryLockError::WouldBlock) => Err(FilesError::InUse { folder: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(folder)(error)),
    }
}

/// The stream of what this process is given; opened again whenever it ended.
struct Source {
    socket: String,
    clock: Clock,
    stream: Option<Streaming<X509svidResponse>>,
    /// Not before then.
    again: Instant,
    backoff: Backoff,
}

impl Source {
    fn new(socket: String, clock: Clock) -> Self {
        let (again, backoff) = (clock.instant(), AGAIN);
        Source { socket, clock, stream: None, again, backoff }
    }

    /// The next complete state. May be dropped at any time without losing one.
    async fn next(&mut self) -> Result<Vec<FetchedSvid>, FetchError> {
        if self.stream.is_none() {
            self.clock.sleep_until(self.again).await;
            // Set first: whoever drops this while it connects does not make it connect in a circle.
            self.again = self.clock.instant() + self.backoff.wait();
        }
        let read = self.read().await;
        match &read {
            Ok(_) => self.backoff.succeeded(),
            Err(_) => self.stream = None,
        }
        read
    }

    async fn read(&mut self) -> Result<Vec<FetchedSvid>, FetchError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(fetch::x509_stream(&self.socket).await?),
        };
        let message = stream.message().await?.ok_or(FetchError::Ended)?;
        FetchedSvid::read_all(message)
    }
}

/// What is in the files.
struct Kept {
    plan: Arc<Plan>,
    clock: Clock,
    shown: Option<FetchedSvid>,
}

impl Kept {
    /// Waits until what is shown is worth nothing.
    async fn over(&self) {
        let Some(svid) = &self.shown else { return std::future::pending().await };
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(svid.not_after);
        // By a short sleep at a time: the calendar may be set meanwhile.
        while let Ok(left) = end.duration_since(self.clock.now()) {
            self.clock.sleep(left.clamp(SHORTLY, LOOK_EVERY)).await;
        }
    }

    /// Puts an SVID into the files: all are written before the first is in its place. False if it is in them already.
    fn show(&mut self, svid: FetchedSvid) -> Result<bool, FilesError> {
        if self.shown.as_ref() == Some(&svid) {
            return Ok(false);
        }
        let plan = &self.plan;
        let files = [
            (&plan.bundle, svid.bundle.as_bytes(), PUBLIC),
            (&plan.crl, svid.revocation_list.as_bytes(), PUBLIC),
            (&plan.certificate, svid.certificates.as_bytes(), PUBLIC),
            (&plan.key, svid.key().as_bytes(), plan.key_mode()),
        ];
        let mut written = Vec::with_capacity(files.len());
        for (name, bytes, mode) in files {
            let path = plan.path(name);
            let beside = Beside::write(&path, bytes, mode, plan.owner());
            written.push((beside.map_err(failed(&path))?, path));
        }
        for (beside, path) in written {
            beside.put().map_err(failed(&path))?;
        }
        settle(&plan.folder).map_err(failed(&plan.folder))?;
        tracing::info!(spiffe_id = %svid.spiffe_id, until = svid.not_after, folder = %plan.folder.display(), "files written");
        self.shown = Some(svid);
        Ok(true)
    }

    /// Takes certificate and key away; false if they were not there. Whom to believe stays: it is nobody's identity.
    fn remove(&mut self, reason: &str) -> Result<bool, FilesError> {
        self.shown = None;
        let mut removed = false;
        for name in [&self.plan.key, &self.plan.certificate] {
            let path = self.plan.path(name);
            removed |= place::remove(&path).map_err(failed(&path))?;
        }
        if removed {
            settle(&self.plan.folder).map_err(failed(&self.plan.folder))?;
            tracing::warn!(reason, folder = %self.plan.folder.display(), "certificate and key removed");
        }
        Ok(removed)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError::Io { path, source }
}

/// Certificates, bundle and list are for whoever uses the service.
const PUBLIC: u32 = 0o644;
/// After the stream ended: the agent is on this machine, and what it says next may be what is waited for.
const AGAIN: Backoff = Backoff::between(Duration::from_millis(200), Duration::from_secs(5));
const LOOK_EVERY: Duration = Duration::from_secs(10);
const SHORTLY: Duration = Duration::from_millis(10);
