//! Clients whose `:authority` no HTTP library takes: they are given another before HTTP/2 reads it.
//!
//! On a unix socket there is nobody to name, and gRPC's core (Python, C++, Ruby, PHP) names the socket's path there,
//! percent-encoded. RFC 3986 §3.2.2 allows that in a host, the library that reads our requests does not, and answers each
//! with PROTOCOL_ERROR. So what a client sends passes through [`frames`], which puts a value of ours in its place.
//! Nothing on a local door looks at it: who calls is found out from the kernel.

mod frames;
mod header_block;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use frames::Frames;

/// A connection as its server reads it: every `:authority` is ours. What is written goes out unchanged.
#[derive(Debug)]
pub(super) struct Readdressed<S> {
    stream: S,
    frames: Frames,
    /// What is ready to be read, and how much of it was.
    passed: Vec<u8>,
    read: usize,
}

impl<S> Readdressed<S> {
    pub(super) fn new(stream: S) -> Self {
        Readdressed { stream, frames: Frames::default(), passed: Vec::new(), read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Readdressed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.read == this.passed.len() {
            this.passed.clear();
            this.read = 0;
            let mut bytes = [0; READ_BYTES];
            let mut arrived = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut arrived))?;
            if arrived.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.frames
                .pass(arrived.filled(), &mut this.passed)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        let left = this.passed.get(this.read..).unwrap_or_default();
        let fits = left.get(..buffer.remaining()).unwrap_or(left);
        buffer.put_slice(fits);
        this.read += fits.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Readdressed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Requests of local protocols are a few hundred bytes.
const READ_BYTES: usize = 4096;
