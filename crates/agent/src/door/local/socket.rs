//! A unix socket: where it stands, who may reach it, and who removes it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

/// The socket cannot be made.
#[derive(Debug, Error)]
pub enum SocketError {
    /// A file system step failed.
    #[error("{path}: {action}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process serves there.
    #[error("{path}: another agent serves there")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is something that is no socket.
    #[error("{path}: there is a file that is no socket; it is left alone")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
}

/// The bound socket; once served, it is removed at the end.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Binds the socket, making its folder (0755) if needed and replacing one that nobody serves any more.
    ///
    /// Every user may connect: who they are decides what they get.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |action| move |source| SocketError::Io { path: path.to_owned(), action, source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            // Nobody but us may put another socket in its place.
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(failed("cannot make the folder"))?;
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(SocketError::NotASocket { path: path.to_owned() });
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(SocketError::InUse { path: path.to_owned() });
            }
            Ok(_) => fs::remove_file(path).map_err(failed("cannot replace the stale socket"))?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed("cannot bind the socket"))?;
        let socket = Socket { path: path.to_owned(), listener };
        fs::set_permissions(path, Permissions::from_mode(0o777))
            .map_err(failed("cannot open the socket to all"))?;
        Ok(socket)
    }

    /// The listener, and what removes the socket when it is dropped.
    pub(super) fn into_parts(self) -> (UnixListener, RemoveOnDrop) {
        (self.listener, RemoveOnDrop(self.path))
    }
}

/// Removes the socket's file.
#[derive(Debug)]
pub(super) struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/workload.sock");
        let first = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse { .. })));
        // Dropped without serving, it stays behind, as after a crash.
        drop(first);
        Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);

        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(Socket::bind(&file), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
}
