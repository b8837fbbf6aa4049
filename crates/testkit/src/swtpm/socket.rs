//! One TPM, many connections: swtpm serves a single one, a machine's resource manager serves several.
//!
//! Commands of all connections go through one lock, each with its response, so they never mix.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::tpm::read_message;

/// A listening unix socket in front of one TPM connection; it is gone when dropped.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    closed: Arc<AtomicBool>,
}

impl Socket {
    /// Serves `tpm` at `path`.
    pub(super) fn bind(path: &Path, tpm: UnixStream) -> io::Result<Socket> {
        // A socket file outlives its process; a stale one would make bind fail.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let closed = Arc::new(AtomicBool::new(false));
        let tpm = Arc::new(Mutex::new(tpm));
        let stop = Arc::clone(&closed);
        thread::Builder::new().name("tpm-socket".into()).spawn(move || accept(&listener, &tpm, &stop))?;
        Ok(Socket { path: path.to_owned(), closed })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the thread in accept, which sees the flag and ends.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, tpm: &Arc<Mutex<UnixStream>>, closed: &AtomicBool) {
    for connection in listener.incoming() {
        if closed.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(connection), tpm) = (connection, Arc::clone(tpm)) else { continue };
        // A connection ends when either end is gone; nobody waits for its thread.
        thread::spawn(move || serve(connection, &tpm));
    }
}

fn serve(mut connection: UnixStream, tpm: &Mutex<UnixStream>) -> io::Result<()> {
    loop {
        let command = read_message(&mut connection)?;
        let response = {
            let mut tpm = tpm.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            tpm.write_all(&command)?;
            read_message(&mut *tpm)?
        };
        connection.write_all(&response)?;
    }
}
