//! Results on record, and what each was made of.

use std::sync::Arc;

use assay_wire::console::device::{Appraised, Results};
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::devices::{find, findings};
use super::parameters::Asked;
use crate::archive::KeptResult;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::store::{AppraisalRecord, StoreError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    device: String,
    limit: Option<u32>,
}

/// The results of a device, newest first.
pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Results>, Refusal> {
    let device = find(&server, &which.device).await?;
    let limit = which.limit.unwrap_or(RESULTS_DEFAULT).clamp(1, RESULTS_MAX);
    let results = server.store.appraisals(device.id.as_str(), limit).await?;
    let result = |(id, appraisal, has_evidence): (u64, AppraisalRecord, bool)| {
        let findings = findings(&appraisal.findings)?;
        let AppraisalRecord { at, tier, policy, .. } = appraisal;
        Ok(Appraised { id, at, tier, policy, findings, evidence_kept: has_evidence })
    };
    let results = results.into_iter().map(result).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(Json(Results { device: device.id.to_string(), results }))
}

/// A result with its evidence, its policy and who was trusted to vouch for TPMs.
pub(super) async fn evidence(
    State(server): State<Arc<Server>>,
    Path(result): Path<u64>,
) -> Result<Json<KeptResult>, Refusal> {
    Ok(Json(KeptResult::load(&server.store, result).await?))
}

const RESULTS_DEFAULT: u32 = 100;
const RESULTS_MAX: u32 = 1000;
