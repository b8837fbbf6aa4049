//! The messages of a stream that stands for days, out of an HTTP body in gRPC's framing.
//!
//! tonic's own reader keeps the room of the longest message for as long as the stream lasts, so that a device would hold
//! a quarter of a mebibyte for one IMA list that it sent at the start. This one keeps nothing between messages.

use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use assay_wire::EDGE_MESSAGE_BYTES_MAX;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use prost::Message;
use prost::bytes::{Buf, Bytes, BytesMut};
use tokio_stream::Stream;
use tonic::Status;
use tonic::codegen::http::Extensions;

/// Keeps the body of a standing stream from tonic's reader, for [`Messages::of`].
pub(super) async fn keep_body(mut request: Request, next: Next) -> Response {
    if request.uri().path().ends_with("/Attach") {
        let body = mem::take(request.body_mut());
        request.extensions_mut().insert(KeptBody(Arc::new(Mutex::new(Some(body)))));
    }
    next.run(request).await
}

/// In the extensions of a request, which have to be cloneable.
#[derive(Clone)]
struct KeptBody(Arc<Mutex<Option<Body>>>);

/// Messages, one after the other.
pub(super) struct Messages<M> {
    body: Body,
    unread: Unread,
    message: PhantomData<fn() -> M>,
}

impl<M> Messages<M> {
    /// The messages of the request that has these extensions.
    pub(super) fn of(extensions: &Extensions) -> Result<Messages<M>, Status> {
        let kept = extensions.get::<KeptBody>();
        let body = kept.and_then(|KeptBody(body)| body.lock().unwrap_or_else(PoisonError::into_inner).take());
        let body = body.ok_or_else(|| Status::internal("the request has no body"))?;
        Ok(Messages { body, unread: Unread::default(), message: PhantomData })
    }
}

impl<M: Message + Default> Stream for Messages<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.unread.next()? {
                let decoded = M::decode(message).map_err(|error| Status::internal(error.to_string()));
                return Poll::Ready(Some(decoded));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.unread.0.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::cancelled(error.to_string())))),
                None if self.unread.0.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(Status::internal("the stream ends inside a message")))),
            }
        }
    }
}

/// What came and belongs to messages that are not whole yet. It grows with what was received, not with what was said
/// to come.
#[derive(Debug, Default)]
struct Unread(BytesMut);

impl Unread {
    /// The next whole message: a byte that says whether it is compressed, its length, itself.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some([compressed, length @ ..]) = self.0.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        if *compressed != 0 {
            return Err(Status::internal("a compressed message"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > EDGE_MESSAGE_BYTES_MAX {
            return Err(Status::out_of_range("the message is too large"));
        }
        if self.0.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.0.advance(HEADER_BYTES);
        let message = self.0.split_to(length).freeze();
        if self.0.is_empty() {
            // Else the room would be kept with it.
            self.0 = BytesMut::new();
        }
        Ok(Some(message))
    }
}

/// gRPC over HTTP/2, Length-Prefixed-Message: Compressed-Flag and Message-Length.
const HEADER_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    /// Every message that is whole after each chunk.
    fn read(chunks: &[&[u8]]) -> Result<Vec<Bytes>, Status> {
        let mut unread = Unread::default();
        let mut messages = Vec::new();
        for chunk in chunks {
            unread.0.extend_from_slice(chunk);
            while let Some(message) = unread.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn nothing_is_kept_between_messages() {
        let mut unread = Unread::default();
        unread.0.extend_from_slice(&framed(&[7; 300_000]));
        assert_eq!(unread.next().unwrap().unwrap().len(), 300_000);
        assert_eq!(unread.0.capacity(), 0);
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused_by_its_header() {
        let length = u32::try_from(EDGE_MESSAGE_BYTES_MAX).unwrap();
        let header = |compressed: u8, length: u32| [&[compressed], &length.to_be_bytes()[..]].concat();
        assert_eq!(read(&[&header(0, length)]).unwrap().len(), 0);
        assert_eq!(read(&[&header(0, length + 1)]).unwrap_err().code(), tonic::Code::OutOfRange);
        assert_eq!(read(&[&header(1, 3)]).unwrap_err().code(), tonic::Code::Internal);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_give_no_more_than_they_are(
            bytes in proptest::collection::vec(prop_oneof![2 => Just(0u8), 1 => any::<u8>()], 0..200),
        ) {
            let read: usize = read(&[&bytes]).map_or(0, |messages| messages.iter().map(Bytes::len).sum());
            prop_assert!(read <= bytes.len());
        }

        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1usize..20,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let chunks: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(read(&chunks).unwrap(), messages);
        }
    }
}
