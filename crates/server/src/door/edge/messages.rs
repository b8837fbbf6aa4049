//! The messages of a stream that stands for days, out of an HTTP body in gRPC's framing.
//!
//! tonic's own reader keeps the room of the longest message for as long as the stream lasts, so that a device would hold
//! a quarter of a mebibyte for one IMA list that it sent at the start. This one keeps nothing between messages. What waits
//! for the rest of its message is counted against whoever sends it, and not for ever; and whoever has proven nothing yet
//! sends small messages only, or proves it by the beginning of a long one.

use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use assay_admission::{Peer, Spent};
use assay_wire::EDGE_MESSAGE_BYTES_MAX;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use prost::Message;
use prost::bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::codegen::http::Extensions;

use super::answers;
use crate::door::admission::InFlight;
use crate::outcome::{Kind, Outcome, Refusal};

/// Keeps the bodies of a stream from tonic: what comes for [`Messages::of`], what goes out for [`Answers`].
///
/// [`Answers`]: super::answers::Answers
pub(super) async fn keep_bodies(mut request: Request, next: Next) -> Response {
    if request.uri().path().ends_with("/Attach") || request.uri().path().ends_with("/Enroll") {
        let body = mem::take(request.body_mut());
        request.extensions_mut().insert(KeptBody(Arc::new(Mutex::new(Some(body)))));
    }
    answers::in_place(next.run(request).await)
}

/// In the extensions of a request, which have to be cloneable.
#[derive(Clone)]
struct KeptBody(Arc<Mutex<Option<Body>>>);

/// Messages, one after the other. The bytes of a message count until the next one is asked for.
pub(super) struct Messages<M> {
    body: Body,
    unread: Unread,
    in_flight: InFlight,
    /// Until when the message that has begun has to be whole.
    deadline: Option<Pin<Box<Sleep>>>,
    message: PhantomData<fn() -> M>,
}

/// What comes of a stream.
#[derive(Debug)]
pub(super) enum Heard<M> {
    /// A message.
    Message(M),
    /// The first bytes of one that is longer than a sender may send who has not proven anything.
    Beginning(Bytes),
}

impl<M: Message + Default> Messages<M> {
    /// The messages of the request that has these extensions, their bytes counted so.
    pub(super) fn of(extensions: &Extensions, in_flight: InFlight) -> Result<Messages<M>, MessageError> {
        let kept = extensions.get::<KeptBody>();
        let body = kept.and_then(|KeptBody(body)| body.lock().unwrap_or_else(PoisonError::into_inner).take());
        let body = body.ok_or(MessageError::NoBody)?;
        Ok(Messages { body, unread: Unread::default(), in_flight, deadline: None, message: PhantomData })
    }

    /// The sender has proven to be this peer: it may send long messages, and they count against it.
    pub(super) fn believe(&mut self, peer: Peer) -> Result<(), MessageError> {
        if *self.in_flight.peer() != peer {
            self.in_flight.become_of(peer)?;
        }
        self.unread.bytes_max = EDGE_MESSAGE_BYTES_MAX;
        Ok(())
    }

    /// The next message, or the beginning of a long one; nothing after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Heard<M>>, MessageError> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Heard<M>>, MessageError>> {
        self.in_flight.keep(self.unread.bytes.len());
        loop {
            match self.unread.next()? {
                Some(Heard::Message(message)) => {
                    self.deadline = None;
                    let message = M::decode(message).map_err(|_| MessageError::Malformed)?;
                    return Poll::Ready(Ok(Some(Heard::Message(message))));
                }
                Some(Heard::Beginning(bytes)) => return Poll::Ready(Ok(Some(Heard::Beginning(bytes)))),
                None => {}
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.in_flight.spend(data.len())?;
                    self.unread.bytes.extend_from_slice(&data);
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(MessageError::Gone)),
                Poll::Ready(None) if self.unread.bytes.is_empty() => return Poll::Ready(Ok(None)),
                Poll::Ready(None) => return Poll::Ready(Err(MessageError::Malformed)),
                Poll::Pending if self.unread.bytes.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(MESSAGE_WITHIN)));
                    ready!(deadline.as_mut().poll(cx));
                    return Poll::Ready(Err(MessageError::Late));
                }
            }
        }
    }
}

/// Why nothing more can be read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum MessageError {
    /// The connection is gone.
    #[error("the connection broke")]
    Gone,
    /// Not gRPC's framing, or not the message.
    #[error("the message does not decode")]
    Malformed,
    /// Longer than any message may be.
    #[error("the message is too large")]
    TooLarge,
    /// The rest of a message did not come.
    #[error("a message was not whole within {MESSAGE_WITHIN:?}")]
    Late,
    /// Too much waits already.
    #[error(transparent)]
    Spent(#[from] Spent),
    /// The reader before this one took the body.
    #[error("the request has no body")]
    NoBody,
}

impl Outcome for MessageError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            MessageError::Gone => (Kind::Late, "gone"),
            MessageError::Malformed => (Kind::Malformed, "message"),
            MessageError::TooLarge => (Kind::Exhausted, "size"),
            MessageError::Late => (Kind::Late, "deadline"),
            MessageError::Spent(_) => (Kind::Exhausted, "bytes"),
            MessageError::NoBody => (Kind::Fault, "body"),
        }
    }
}

/// The body of a request that is one message, counted while it comes.
pub(crate) struct Counted {
    body: Body,
    in_flight: InFlight,
}

impl Counted {
    pub(crate) fn new(body: Body, in_flight: InFlight) -> Counted {
        Counted { body, in_flight }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let length = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        match self.in_flight.spend(length) {
            Ok(()) => Poll::Ready(frame),
            // tonic looks for a status among the causes.
            Err(spent) => {
                let refusal = Refusal::from(MessageError::from(spent));
                Poll::Ready(Some(Err(axum::Error::new(Status::from(refusal)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What came and belongs to messages that are not whole yet. It grows with what was received, not with what was said
/// to come.
#[derive(Debug)]
struct Unread {
    bytes: BytesMut,
    /// How long a message may be.
    bytes_max: usize,
}

impl Default for Unread {
    fn default() -> Self {
        Unread { bytes: BytesMut::new(), bytes_max: UNPROVEN_MESSAGE_BYTES_MAX }
    }
}

impl Unread {
    /// The next whole message: a byte that says whether it is compressed, its length, itself.
    fn next(&mut self) -> Result<Option<Heard<Bytes>>, MessageError> {
        let Some([compressed, length @ ..]) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if *compressed != 0 {
            return Err(MessageError::Malformed);
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > EDGE_MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge);
        }
        if length > self.bytes_max {
            let beginning = self.bytes.get(HEADER_BYTES..HEADER_BYTES + BEGINNING_BYTES);
            return Ok(beginning.map(|beginning| Heard::Beginning(Bytes::copy_from_slice(beginning))));
        }
        if self.bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(HEADER_BYTES);
        let message = self.bytes.split_to(length).freeze();
        if self.bytes.is_empty() {
            // Else the room would be kept with it.
            self.bytes = BytesMut::new();
        }
        Ok(Some(Heard::Message(message)))
    }
}

/// gRPC over HTTP/2, Length-Prefixed-Message: Compressed-Flag and Message-Length.
pub(super) const HEADER_BYTES: usize = 5;
/// What an enrollment needs, and evidence with a boot log and a short IMA list.
const UNPROVEN_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// The nonce and a quote of the PCRs of three banks, twice over.
const BEGINNING_BYTES: usize = 16 << 10;
/// The longest message at some 9 Mbit/s; who is challenged has less.
const MESSAGE_WITHIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    /// Every message that is whole after each chunk.
    fn read(chunks: &[&[u8]]) -> Result<Vec<Bytes>, MessageError> {
        let mut unread = Unread::default();
        let mut messages = Vec::new();
        for chunk in chunks {
            unread.bytes.extend_from_slice(chunk);
            while let Some(Heard::Message(message)) = unread.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn nothing_is_kept_between_messages() {
        let mut unread = Unread::default();
        unread.bytes.extend_from_slice(&framed(&[7; 200_000]));
        let Some(Heard::Message(message)) = unread.next().unwrap() else { panic!("no message") };
        assert_eq!((message.len(), unread.bytes.capacity()), (200_000, 0));
    }

    #[test]
    fn finding_7_a_long_message_of_a_stranger_is_read_no_further_than_its_beginning() {
        let mut unread = Unread::default();
        let framed = framed(&[7; UNPROVEN_MESSAGE_BYTES_MAX + 1]);
        unread.bytes.extend_from_slice(&framed[..HEADER_BYTES + BEGINNING_BYTES - 1]);
        assert!(unread.next().unwrap().is_none());
        unread.bytes.extend_from_slice(&framed[HEADER_BYTES + BEGINNING_BYTES - 1..][..1]);
        let Some(Heard::Beginning(beginning)) = unread.next().unwrap() else { panic!("no beginning") };
        assert_eq!(beginning, framed[HEADER_BYTES..HEADER_BYTES + BEGINNING_BYTES]);
        // Once it is believed, the same bytes are the message's.
        unread.bytes_max = EDGE_MESSAGE_BYTES_MAX;
        assert!(unread.next().unwrap().is_none());
        unread.bytes.extend_from_slice(&framed[HEADER_BYTES + BEGINNING_BYTES..]);
        let Some(Heard::Message(message)) = unread.next().unwrap() else { panic!("no message") };
        assert_eq!(message, framed[HEADER_BYTES..]);
    }

    #[test]
    fn what_is_too_long_or_compressed_is_refused_by_its_header() {
        let length = u32::try_from(EDGE_MESSAGE_BYTES_MAX).unwrap();
        let header = |compressed: u8, length: u32| [&[compressed], &length.to_be_bytes()[..]].concat();
        assert_eq!(read(&[&header(0, length)]).unwrap().len(), 0);
        assert_eq!(read(&[&header(0, length + 1)]).unwrap_err(), MessageError::TooLarge);
        assert_eq!(read(&[&header(1, 3)]).unwrap_err(), MessageError::Malformed);
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
