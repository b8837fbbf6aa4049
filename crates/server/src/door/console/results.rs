//! Results on record, and what each was made of.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

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
) -> Result<Json<Value>, Refusal> {
    let device = find(&server, &which.device).await?;
    let limit = which.limit.unwrap_or(RESULTS_DEFAULT).clamp(1, RESULTS_MAX);
    let results = server.store.appraisals(device.id.as_str(), limit).await?;
    let result = |(id, appraisal, has_evidence): (u64, AppraisalRecord, bool)| {
        Ok(json!({
            "id": id, "at": appraisal.at, "tier": appraisal.tier, "policy": appraisal.policy,
            "findings": findings(&appraisal.findings)?, "evidence_kept": has_evidence,
        }))
    };
    let results = results.into_iter().map(result).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(Json(json!({ "device": device.id.as_str(), "results": results })))
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
