//! Hands sealed batches in, and says in the log what came of it.

use std::time::Duration;

use assay_wire::edge::{SubmitRequest, SubmitResponse};
use tokio::time::timeout;

use super::TelemetryError;
use super::seal::Sealed;
use crate::upstream::Client;

/// Hands in one batch.
pub(super) async fn send(client: &mut Client, sealed: Sealed) -> Result<SubmitResponse, TelemetryError> {
    let request = SubmitRequest {
        statement: sealed.statement.into(),
        signature: sealed.signature.into(),
        payload: sealed.payload.into(),
    };
    let answer = timeout(SUBMIT_WITHIN, client.submit(request)).await;
    Ok(answer.map_err(|_| TelemetryError::Silent)??.into_inner())
}

/// The last outcome, so that only a change is logged.
#[derive(Debug, Default)]
pub(super) struct Said(String);

impl Said {
    pub(super) fn log(&mut self, answer: &SubmitResponse) {
        let says = if answer.accepted { "accepted" } else { &answer.reason };
        if says == self.0 {
            tracing::debug!(
                accepted = answer.accepted,
                ledger = answer.ledger_sequence,
                "telemetry submitted"
            );
            return;
        }
        self.0 = says.to_owned();
        match answer.accepted {
            true => tracing::info!(ledger = answer.ledger_sequence, "telemetry accepted"),
            false => tracing::warn!(reason = %answer.reason, "telemetry refused"),
        }
    }
}

pub(super) const SUBMIT_WITHIN: Duration = Duration::from_secs(15);
