//! What a refusal leaves unread. Over HTTP/2 a body that nobody reads to its end is cut off by a reset of its stream, and
//! clients such as curl drop the answer with it. So it is read and thrown away before the answer goes out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::timeout;

/// A request's body in two hands: the handler's, and that of whoever sees to it that it was read.
#[derive(Clone, Debug)]
pub(super) struct Unread(Arc<Mutex<Body>>);

/// Keeps a hand on the body, where that is needed.
pub(super) fn hold(request: Request) -> (Request, Option<Unread>) {
    if request.version() != Version::HTTP_2 || http_body::Body::is_end_stream(request.body()) {
        return (request, None);
    }
    let (parts, body) = request.into_parts();
    let unread = Unread(Arc::new(Mutex::new(body)));
    (Request::from_parts(parts, Body::new(unread.clone())), Some(unread))
}

impl Unread {
    /// Reads to the end, within the bounds of what any route takes.
    pub(super) async fn discard(mut self) {
        let reading = async {
            let mut left = super::BODY_BYTES_MAX;
            while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await {
                left = match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(left) => left,
                    None => break,
                };
            }
        };
        timeout(DISCARDED_WITHIN, reading).await.ok();
    }
}

impl http_body::Body for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

const DISCARDED_WITHIN: Duration = Duration::from_secs(10);
