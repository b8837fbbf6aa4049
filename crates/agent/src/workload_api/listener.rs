//! The Workload API's socket: where it stands, who may reach it, and who removes it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use assay_identity::TrustDomain;
use assay_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::WorkloadApi;
use super::peer::Connection;
use crate::holding::Holding;

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
pub struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
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
        let listener = Listener { path: path.to_owned(), listener };
        fs::set_permissions(path, Permissions::from_mode(0o777))
            .map_err(failed("cannot open the socket to all"))?;
        Ok(listener)
    }

    /// Serves until dropped.
    pub async fn serve(self, holding: watch::Receiver<Holding>, trust_domain: TrustDomain) {
        let Listener { path, listener } = self;
        let _remove = RemoveOnDrop(path);
        let connections = UnixListenerStream::new(listener).map(|stream| stream.map(Connection::new));
        let service = SpiffeWorkloadApiServer::new(WorkloadApi { holding, trust_domain })
            .max_decoding_message_size(REQUEST_BYTES_MAX);
        let server = Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .concurrency_limit_per_connection(STREAMS_PER_CONNECTION as usize)
            .add_service(service);
        if let Err(error) = server.serve_with_incoming(connections).await {
            tracing::error!(%error, "workload API failed");
        }
    }
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "socket could not be removed");
        }
    }
}

/// Requests of this API are empty.
const REQUEST_BYTES_MAX: usize = 4096;
/// A workload needs two.
const STREAMS_PER_CONNECTION: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/workload.sock");
        let first = Listener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(SocketError::InUse { .. })));
        // Dropped without serving, it stays behind, as after a crash.
        drop(first);
        Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);

        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(Listener::bind(&file), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
}
