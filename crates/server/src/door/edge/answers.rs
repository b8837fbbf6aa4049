//! What a stream that stands for days says, in gRPC's framing, into an HTTP body.
//!
//! tonic's own writer encodes a message for each stream into a buffer of that stream. Here what everybody is told, a revocation list
//! of megabytes among it, is encoded once and is the same bytes in memory for all; and a stream that waits has no buffer.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use assay_wire::edge::{ServerMessage, server_message};
use axum::body::{Body, HttpBody};
use axum::response::Response as HttpResponse;
use http_body::Frame;
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::Empty;
use tonic::codegen::http::HeaderMap;
use tonic::{Response, Status};

use super::messages::HEADER_BYTES;

/// A message in its frame, or why the stream ends. A queue has room for dozens from the start, so that each stream pays for
/// their size.
pub(crate) type Answer = Box<Result<Bytes, Status>>;

/// A message as it goes over the stream: not compressed, its length, itself.
pub(super) fn framed(message: server_message::Message) -> Bytes {
    let message = ServerMessage { message: Some(message) };
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + length);
    frame.put_u8(0);
    // Far longer messages than may be sent would still fit.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// The answers to a stream; they end when nobody can say anything more.
pub(super) struct Answers(Option<mpsc::Receiver<Answer>>);

impl Answers {
    /// What is said into the queue.
    pub(super) fn of(queue: mpsc::Receiver<Answer>) -> Answers {
        Answers(Some(queue))
    }

    /// As tonic passes it on to [`in_place`].
    pub(super) fn into_response<T>(self) -> Response<Empty<T>> {
        let mut response = Response::new(tokio_stream::empty());
        response.extensions_mut().insert(KeptAnswers(Arc::new(Mutex::new(Some(self)))));
        response
    }
}

/// In the extensions of a response, which have to be cloneable.
#[derive(Clone)]
struct KeptAnswers(Arc<Mutex<Option<Answers>>>);

/// Puts answers in the place of a body that says nothing.
pub(super) fn in_place(mut response: HttpResponse) -> HttpResponse {
    let kept = response.extensions_mut().remove::<KeptAnswers>();
    let answers =
        kept.and_then(|KeptAnswers(kept)| kept.lock().unwrap_or_else(PoisonError::into_inner).take());
    if let Some(answers) = answers {
        *response.body_mut() = Body::new(answers);
    }
    response
}

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(queue) = &mut self.0 else { return Poll::Ready(None) };
        let ended = match ready!(queue.poll_recv(cx)).map(|answer| *answer) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        drop(mem::take(&mut self.0));
        let mut trailers = HeaderMap::new();
        let told = ended.add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers)).map_err(axum::Error::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_wire::edge;
    use std::future::poll_fn;

    async fn next(answers: &mut Answers) -> Option<Frame<Bytes>> {
        poll_fn(|cx| Pin::new(&mut *answers).poll_frame(cx)).await.map(Result::unwrap)
    }

    #[tokio::test]
    async fn finding_11_a_long_list_is_one_piece_of_memory_for_all_streams() {
        let signed = edge::Signed { statement: vec![7; 1 << 20].into(), ..edge::Signed::default() };
        let announcement = framed(server_message::Message::Trust(signed));
        for _ in 0..3 {
            let (queue, answers) = mpsc::channel(1);
            let mut answers = Answers::of(answers);
            queue.send(Box::new(Ok(announcement.clone()))).await.unwrap();
            let sent = next(&mut answers).await.unwrap().into_data().unwrap();
            assert_eq!((sent.as_ptr(), sent.len()), (announcement.as_ptr(), announcement.len()));
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_status_and_says_nothing_after_it() {
        let check = async |last: Option<Status>, code: &str| {
            let (queue, answers) = mpsc::channel(2);
            let mut answers = Answers::of(answers);
            queue.send(Box::new(Ok(Bytes::from_static(b"\0\0\0\0\0")))).await.unwrap();
            if let Some(status) = last {
                queue.send(Box::new(Err(status))).await.unwrap();
            }
            drop(queue);
            assert_eq!(next(&mut answers).await.unwrap().into_data().unwrap().len(), HEADER_BYTES);
            let trailers = next(&mut answers).await.unwrap().into_trailers().unwrap();
            assert_eq!(trailers.get("grpc-status").unwrap(), code);
            assert!(answers.is_end_stream() && next(&mut answers).await.is_none());
        };
        check(None, "0").await;
        check(Some(Status::unauthenticated("no")), "16").await;
    }

    #[test]
    fn a_frame_is_a_message_with_its_length_before_it() {
        let message = server_message::Message::Challenge(edge::Challenge::default());
        let frame = framed(message.clone());
        assert_eq!(frame[..HEADER_BYTES], [0, 0, 0, 0, 2]);
        let read = ServerMessage::decode(&frame[HEADER_BYTES..]).unwrap();
        assert_eq!(read.message, Some(message));
    }
}
