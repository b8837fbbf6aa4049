//! The operator's own door: the console on a unix socket in the data folder, for programs on the same machine.
//!
//! Whoever may open it could read the operator's token, which is asked for here too. What the public does at the
//! console's address, and what becomes of its certificate, does not reach this door.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::UnixListener;

/// The socket's name in the data folder.
pub(crate) const SOCKET: &str = "operator.sock";

/// Makes the socket anew; one that is there is an earlier run's, as one server has the folder.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
