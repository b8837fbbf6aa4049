//! A result on record, judged again and read aloud for people.

use std::sync::Arc;

use assay_trust::AttestationResult;
use assay_trust::reading::{Reading, read_aloud};
use tokio::sync::Semaphore;

use super::{JudgeAgainError, KeptResult, KeptResultError};
use crate::outcome::{Kind, Refusal};
use crate::store::Store;
use crate::thread::aside;

/// What it is found to be now, and what its evidence says.
#[derive(Debug)]
pub(crate) struct Read {
    pub kept: KeptResult,
    pub again: Result<AttestationResult, JudgeAgainError>,
    /// `None`: the evidence does not verify, so that it says nothing.
    pub reading: Option<Reading>,
}

impl Read {
    /// Reads a result of a device, in turn: whole lists are read, and policies of thousands of files made ready.
    pub(crate) async fn load(
        store: &Store,
        turns: &Arc<Semaphore>,
        device_id: &str,
        result: u64,
    ) -> Result<Read, Refusal> {
        let stopping = |_| Refusal::new(Kind::Unavailable, "stopping", "the server is stopping");
        let turn = turns.clone().acquire_owned().await.map_err(stopping)?;
        let kept = KeptResult::load(store, result).await?;
        if kept.device != device_id {
            return Err(KeptResultError::Unknown.into());
        }
        let read = aside(move || {
            let read = Read::of(kept);
            drop(turn);
            read
        });
        Ok(read.await?)
    }

    fn of(kept: KeptResult) -> Read {
        let (policy, again) = match kept.policy() {
            Ok(policy) => (policy.clone(), kept.judge_by(policy)),
            Err(error) => (None, Err(error.into())),
        };
        let claims = kept.evidence.claims(&Arc::default()).ok().flatten();
        let reading = claims.map(|claims| read_aloud(&claims, policy.as_deref()));
        Read { kept, again, reading }
    }

    /// Whether judging it again came to what is on record.
    pub(crate) fn is_on_record(&self) -> bool {
        self.again.as_ref().is_ok_and(|result| self.kept.is_on_record(result))
    }
}
