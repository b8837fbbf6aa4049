//! Hands sealed batches in, and says in the log what came of it.

use std::time::Duration;

use assay_wire::edge::SubmitRequest;
use tokio::time::timeout;
use tonic::Code;

use super::TelemetryError;
use super::seal::Sealed;
use crate::upstream::Client;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken in.
    Taken {
        /// Where its run begins in the trail.
        ledger: u64,
    },
    /// A batch of this number was taken in before.
    HadBefore,
    /// It is not taken in, now or as it is.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Hands in one batch. What may go better as it is is an error.
pub(super) async fn send(client: &mut Client, sealed: &Sealed) -> Result<Answer, TelemetryError> {
    let request = SubmitRequest {
        statement: sealed.statement.clone(),
        signature: sealed.signature.clone(),
        payload: sealed.payload.clone(),
    };
    let answer = timeout(SUBMIT_WITHIN, client.submit(request)).await.map_err(|_| TelemetryError::Silent)?;
    match answer.map(tonic::Response::into_inner) {
        Ok(answer) if answer.accepted => Ok(Answer::Taken { ledger: answer.ledger_sequence }),
        Ok(answer) => Ok(Answer::Refused { reason: answer.reason }),
        Err(status) => match status.code() {
            Code::AlreadyExists => Ok(Answer::HadBefore),
            Code::InvalidArgument | Code::FailedPrecondition => {
                Ok(Answer::Refused { reason: format!("{}: {}", status.code(), status.message()) })
            }
            _ => Err(status.into()),
        },
    }
}

/// The last outcome, so that only a change is logged.
#[derive(Debug, Default)]
pub(super) struct Said(Option<Answer>);

impl Said {
    pub(super) fn taken(&mut self, ledger: u64) {
        match self.0.replace(Answer::Taken { ledger: 0 }) {
            Some(Answer::Taken { .. }) => tracing::debug!(ledger, "telemetry accepted"),
            _ => tracing::info!(ledger, "telemetry accepted"),
        }
    }

    pub(super) fn refused(&mut self, answer: &Answer) {
        if self.0.replace(answer.clone()).as_ref() == Some(answer) {
            return;
        }
        match answer {
            Answer::HadBefore => {
                tracing::error!(
                    "another batch of this number was taken in: this device's state was set back"
                );
            }
            Answer::Refused { reason } => {
                tracing::warn!(%reason, "telemetry refused; it waits on disk");
            }
            Answer::Taken { .. } => {}
        }
    }
}

pub(super) const SUBMIT_WITHIN: Duration = Duration::from_secs(15);
