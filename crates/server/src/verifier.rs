//! Where verification runs: at once if it is short, on threads of its own if the logs are long.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::attest::{AttestError, Job, Judged};

/// The door to those threads; so many at a time, the rest wait in line.
#[derive(Debug)]
pub(crate) struct Verifier {
    threads: Arc<Semaphore>,
}

impl Verifier {
    pub(crate) fn new(verifications_max: usize) -> Verifier {
        Verifier { threads: Arc::new(Semaphore::new(verifications_max.max(1))) }
    }

    /// Judges evidence without holding up the other streams.
    pub(crate) async fn run(&self, job: Job) -> Result<Judged, AttestError> {
        if job.log_bytes() <= INLINE_BYTES_MAX {
            return Ok(job.judge());
        }
        let permit = self.threads.clone().acquire_owned().await.map_err(|_| AttestError::Busy)?;
        let judged = tokio::task::spawn_blocking(move || {
            let judged = job.judge();
            drop(permit);
            judged
        });
        judged.await.map_err(|_| AttestError::Busy)
    }
}

/// Some 300 IMA entries, about as long as a quote's signature takes.
const INLINE_BYTES_MAX: usize = 32 * 1024;
