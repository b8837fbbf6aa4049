//! Who is at the other end of the socket, as the kernel knows it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

/// A process that connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its number, which another process may get when it ends.
    pub(super) pid: i32,
    /// Its user when it connected.
    pub(super) uid: u32,
    /// Its group when it connected.
    pub(super) gid: u32,
    /// When it started, in clock ticks since boot: with the number, a process for good.
    started: u64,
}

impl Peer {
    /// The peer of a connection that was just accepted.
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().ok_or_else(|| io::Error::other("no process id"))?;
        Ok(Peer { pid, uid: credentials.uid(), gid: credentials.gid(), started: start_time(pid)? })
    }

    /// Whether the process that connected is still the one that has its number.
    pub(super) fn is_same_process(&self) -> bool {
        start_time(self.pid).is_ok_and(|started| started == self.started)
    }

    /// A file of the process in procfs.
    pub(super) fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// proc(5), /proc/pid/stat: field 22. The name before it is in parentheses and may hold anything, also parentheses.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// A connection that knows its peer.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    peer: Option<Peer>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        let peer = Peer::of(&stream);
        if let Err(error) = &peer {
            tracing::warn!(%error, "caller could not be identified");
        }
        Connection { stream, peer: peer.ok() }
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<Peer>;

    fn connect_info(&self) -> Option<Peer> {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let check = |name: &str| {
            let stat = format!("42 ({name}) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 2 3");
            assert_eq!(parse_start_time(&stat), Some(123_456), "{name}");
        };
        check("bash");
        check("a b");
        check(") 1 2 3 (");
        assert_eq!(parse_start_time("42 (bash) S 1"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[tokio::test]
    async fn a_peer_is_this_process() {
        let (one, _two) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert!(peer.is_same_process());
        assert!(!Peer { started: peer.started + 1, ..peer }.is_same_process());
    }
}
