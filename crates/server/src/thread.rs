//! Work that is watched: on a thread of its own where it takes long, and never lost without a word where it panics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use thiserror::Error;

use crate::outcome::{Kind, Outcome};

/// Does work that takes longer than a stream should wait.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    // The only other reason would be that the runtime is gone, and this with it.
    tokio::task::spawn_blocking(work).await.map_err(|_| Panicked)
}

/// Runs a task to its end or its panic. Nothing of it is used again after a panic.
pub(crate) async fn caught<T>(task: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut task = pin!(task);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// Work ended in a panic: a fault of the server's, whatever it was given.
#[derive(Clone, Copy, Debug, Error)]
#[error("the server failed while it worked on this; its log says where")]
pub struct Panicked;

impl Outcome for Panicked {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Fault, "panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_wherever_it_was() {
        assert_eq!(caught(async { 7 }).await.ok(), Some(7));
        let late = async {
            tokio::task::yield_now().await;
            panic!("in a task");
        };
        assert!(caught(late).await.is_err());
        assert!(aside(|| panic!("on a thread")).await.is_err());
    }
}
