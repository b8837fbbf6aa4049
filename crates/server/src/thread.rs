//! Long work on a thread of its own, so that it holds up no stream.

use thiserror::Error;

use crate::outcome::{Kind, Outcome};

/// Does work that takes longer than a stream should wait.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    // The only other reason would be that the runtime is gone, and this with it.
    tokio::task::spawn_blocking(work).await.map_err(|_| Panicked)
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
