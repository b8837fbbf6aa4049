//! Bodies on their way through: requests counted, answers that end with a proper gRPC status whatever happens.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use thiserror::Error;
use tokio::time::Sleep;

use crate::refusal::Refusal;

/// The body of everything the gateway answers.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// A body with nothing in it.
pub(crate) fn nothing() -> AnswerBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is all there.
pub(crate) fn full(content: impl Into<Bytes>) -> AnswerBody {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Whether a request turned out larger than allowed; shared by its two directions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The body of a request to a server.
pub(crate) enum RequestBody {
    /// A device's, cut off where it grows too large.
    Passing {
        incoming: Incoming,
        /// Bytes that may still come; `None` for a standing stream.
        left: Option<u64>,
        exceeded: Exceeded,
    },
    /// The gateway's own.
    Own(Full<Bytes>),
}

/// Why a request body ended early.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    #[error("the request is too large")]
    TooLarge,
    #[error(transparent)]
    Peer(#[from] hyper::Error),
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, left: Option<u64>, exceeded: Exceeded) -> Self {
        RequestBody::Passing { incoming, left, exceeded }
    }

    pub(crate) fn own(content: impl Into<Bytes>) -> Self {
        RequestBody::Own(Full::new(content.into()))
    }
}

fn count(left: &mut Option<u64>, exceeded: &Exceeded, bytes: usize) -> Result<(), RequestError> {
    let Some(left) = left else {
        return Ok(());
    };
    match left.checked_sub(u64::try_from(bytes).unwrap_or(u64::MAX)) {
        Some(rest) => *left = rest,
        None => {
            exceeded.set();
            return Err(RequestError::TooLarge);
        }
    }
    Ok(())
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestError>>> {
        match &mut *self {
            RequestBody::Own(content) => {
                Pin::new(content).poll_frame(context).map_err(|never| match never {})
            }
            RequestBody::Passing { incoming, left, exceeded } => {
                let Some(frame) = ready!(Pin::new(incoming).poll_frame(context)) else {
                    return Poll::Ready(None);
                };
                let frame = frame?;
                if let Some(data) = frame.data_ref() {
                    count(left, exceeded, data.len())?;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Own(content) => content.is_end_stream(),
            RequestBody::Passing { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Own(content) => content.size_hint(),
            RequestBody::Passing { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// The body of a server's answer. What it holds is given back when it ends or the device goes away.
pub(crate) struct Answer<H> {
    incoming: Incoming,
    exceeded: Exceeded,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
    _held: H,
}

impl<H> Answer<H> {
    pub(crate) fn new(
        incoming: Incoming,
        exceeded: Exceeded,
        deadline: Option<Pin<Box<Sleep>>>,
        held: H,
    ) -> Self {
        Answer { incoming, exceeded, deadline, ended: false, _held: held }
    }

    fn end(&mut self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.ended = true;
        Poll::Ready(Some(Ok(Frame::trailers(refusal.trailers()))))
    }
}

impl<H: Unpin> Body for Answer<H> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return self.end(Refusal::TooLong);
        }
        match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
            Some(Err(_)) if self.exceeded.get() => self.end(Refusal::TooLarge),
            Some(Err(_)) => self.end(Refusal::Unavailable),
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }
}
