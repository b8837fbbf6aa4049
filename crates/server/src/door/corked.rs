//! A socket that hands to the kernel at once what is written in one turn of the scheduler.
//!
//! A gateway carries hundreds of devices in one connection. What several streams have to say at the same time would go out in a
//! packet each, as each is flushed, and a packet costs the system more than what is in it costs us. So a flush first lets
//! everybody have their turn who is ready to run; what they write goes out with it. Nothing waits for time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A corked socket.
#[derive(Debug)]
pub(super) struct Corked<S> {
    socket: S,
    unsent: BytesMut,
    /// Whether the others have had their turn since a flush was asked for.
    has_let_others: bool,
}

impl<S> Corked<S> {
    pub(super) fn new(socket: S) -> Corked<S> {
        Corked { socket, unsent: BytesMut::new(), has_let_others: false }
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Hands everything to the kernel.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        // A connection that waits keeps no room.
        self.unsent = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= UNSENT_BYTES_MAX {
            ready!(self.send(cx))?;
        }
        let taken = bytes.get(..UNSENT_BYTES_MAX).unwrap_or(bytes);
        self.unsent.extend_from_slice(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unsent.is_empty() && !self.has_let_others {
            self.has_let_others = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.send(cx))?;
        self.has_let_others = false;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, bytes)
    }
}

/// A few TLS records of the longest kind.
const UNSENT_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn what_others_write_before_their_turn_is_over_goes_out_with_it() {
        let mut counted = Counted::default();
        let mut corked = Corked::new(&mut counted);
        let mut flushes = 0;
        corked.write_all(b"one ").await.unwrap();
        std::future::poll_fn(|cx| {
            let flushed = Pin::new(&mut corked).poll_flush(cx);
            flushes += 1;
            if flushes == 1 {
                assert!(flushed.is_pending(), "others have their turn");
                let _ = Pin::new(&mut corked).poll_write(cx, b"two ");
            }
            flushed.map(Result::unwrap)
        })
        .await;
        corked.write_all(b"three").await.unwrap();
        corked.shutdown().await.unwrap();
        assert_eq!(counted.0, [b"one two ".to_vec(), b"three".to_vec()]);
    }

    #[tokio::test]
    async fn everything_arrives_in_order_however_little_the_socket_takes() {
        let (mut far, near) = duplex(7);
        let sent: Vec<u8> = (0..3 * UNSENT_BYTES_MAX).map(|at| (at % 251) as u8).collect();
        let mut corked = Corked::new(near);
        let write = async {
            corked.write_all(&sent).await.unwrap();
            corked.flush().await.unwrap();
            assert_eq!(corked.unsent.capacity(), 0, "nothing is kept of what is sent");
            drop(corked);
        };
        let mut received = Vec::new();
        tokio::join!(write, async { far.read_to_end(&mut received).await.unwrap() });
        assert_eq!(received, sent);
    }

    /// What was handed to it, each time.
    #[derive(Default)]
    struct Counted(Vec<Vec<u8>>);

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}
