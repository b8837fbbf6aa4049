//! One TPM, many connections: swtpm serves a single one, a machine's resource manager serves several.
//!
//! Commands of all connections go through one lock, each with its response, so they never mix. When the last
//! connection ends, what it left loaded is flushed, as the kernel does for a program that died.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::tpm::{Tpm, read_message};

/// The one connection to the TPM and how many share it.
struct Shared {
    tpm: UnixStream,
    connections: usize,
}

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
        let tpm = Arc::new(Mutex::new(Shared { tpm, connections: 0 }));
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

fn accept(listener: &UnixListener, shared: &Arc<Mutex<Shared>>, closed: &AtomicBool) {
    for connection in listener.incoming() {
        if closed.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(connection), shared) = (connection, Arc::clone(shared)) else { continue };
        lock(&shared).connections += 1;
        // A connection ends when either end is gone; nobody waits for its thread.
        thread::spawn(move || {
            // Its end is no error of ours, however it came.
            let _ = serve(connection, &shared);
            let mut shared = lock(&shared);
            shared.connections -= 1;
            if shared.connections == 0 {
                let _ = shared.tpm.try_clone().map(|tpm| Tpm::over(tpm).and_then(|mut tpm| tpm.flush_all()));
            }
        });
    }
}

fn serve(mut connection: UnixStream, shared: &Mutex<Shared>) -> io::Result<()> {
    loop {
        let command = read_message(&mut connection)?;
        let response = {
            let tpm = &mut lock(shared).tpm;
            tpm.write_all(&command)?;
            read_message(tpm)?
        };
        connection.write_all(&response)?;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
