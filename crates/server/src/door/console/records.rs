//! What was recorded: telemetry that came in or was refused, and the audit trail.

use std::sync::Arc;

use assay_identity::tlog::Tile;
use assay_telemetry::json_protocol::Acceptance;
use assay_telemetry::sha256;
use assay_wire::console::record::{Leaf, Leaves};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use data_encoding::{BASE64, HEXLOWER};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};

use super::devices::find;
use super::parameters::Asked;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::{Store, StoreError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    device: Option<String>,
    limit: Option<u32>,
}

/// The last batches, newest first, accepted and refused.
pub(super) async fn telemetry(
    State(server): State<Arc<Server>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Value>, Refusal> {
    let device = match which.device {
        Some(name) => Some(find(&server, &name).await?.id.to_string()),
        None => None,
    };
    let limit = which.limit.unwrap_or(RECORDS_DEFAULT).clamp(1, RECORDS_MAX);
    let accepted = server.store.telemetry(device.as_deref(), limit).await?;
    let refused = server.store.telemetry_refusals(device.as_deref(), limit).await?;
    let accepted = accepted.into_iter().map(|batch| {
        let record = json!({
            "accepted": true, "at": batch.received_at, "device": batch.device_id, "sequence": batch.sequence,
            "items": batch.items, "location": batch.location, "bytes": batch.payload_bytes, "leaf": batch.leaf,
        });
        ((batch.received_at, batch.sequence), record)
    });
    let refused = refused.into_iter().map(|refusal| {
        let record = json!({
            "accepted": false, "at": refusal.at, "device": refusal.device_id, "sequence": refusal.sequence,
            "code": refusal.code, "reason": refusal.reason,
        });
        ((refusal.at, refusal.sequence), record)
    });
    let mut records: Vec<_> = accepted.chain(refused).collect();
    // Several batches may arrive within one second.
    records.sort_by_key(|(order, _)| std::cmp::Reverse(*order));
    let records: Vec<Value> = records.into_iter().map(|(_, record)| record).collect();
    Ok(Json(json!({ "records": records })))
}

/// A batch with the exact bytes that were signed, and the key that signed them: enough to verify it by hand.
pub(super) async fn batch(
    State(server): State<Arc<Server>>,
    Path((leaf, sequence)): Path<(u64, u64)>,
) -> Result<Json<Value>, Refusal> {
    let found = server.store.telemetry_batch(leaf, sequence).await?;
    let (record, batch) = found.ok_or_else(|| {
        let message = format!("batch {sequence} of the run at leaf {leaf} is not kept");
        Refusal::new(Kind::NotFound, "unknown-batch", message)
    })?;
    let key = signing_key(&server.store, &record.device_id, &batch.statement).await?;
    Ok(Json(json!({
        "at": record.received_at, "device": record.device_id, "sequence": record.sequence, "items": record.items,
        "location": record.location, "leaf": record.leaf, "bytes": record.payload_bytes,
        "statement": BASE64.encode(&batch.statement), "signature": BASE64.encode(&batch.signature),
        "payload": BASE64.encode(&batch.payload),
        "device_key": key.map(|key| BASE64.encode(&key)),
    })))
}

/// The device's key; of what came by the JSON protocol, the one that signed it, if it still signs for the device.
async fn signing_key(
    store: &Store,
    device_id: &str,
    statement: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    match Acceptance::read(statement) {
        Ok(Acceptance { key_id, .. }) => {
            let keys = store.telemetry_keys(Some(device_id), RECORDS_MAX).await?;
            Ok(keys.into_iter().map(|key| key.spki).find(|spki| sha256(spki) == key_id))
        }
        Err(_) => Ok(store.device(device_id).await?.map(|device| device.device_key_spki)),
    }
}

/// A tile of the ledger, or a bundle of its entries, as C2SP tlog-tiles has them.
pub(super) async fn tile(
    State(server): State<Arc<Server>>,
    Path(path): Path<String>,
) -> Result<impl IntoResponse, Refusal> {
    let found = match Tile::parse(&path) {
        Some(tile) => server.ledger_head.tree().tile(&server.store, tile).await?,
        None => None,
    };
    let bytes = found.ok_or_else(|| {
        let message = format!("the ledger has no tile/{path}: its size is in /ledger/checkpoint");
        Refusal::new(Kind::NotFound, "unknown-tile", message)
    })?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    /// The index to start from.
    after: Option<u64>,
    limit: Option<u32>,
}

/// Leaves of the audit trail with an index above `after`, oldest first.
pub(super) async fn audit(
    State(server): State<Arc<Server>>,
    Asked(range): Asked<Range>,
) -> Result<Json<Leaves>, Refusal> {
    leaves(&server.store, &range).await.map(Json)
}

pub(super) async fn leaves(store: &Store, range: &Range) -> Result<Leaves, Refusal> {
    let from = range.after.map_or(0, |after| after.saturating_add(1));
    let limit = range.limit.unwrap_or(RECORDS_DEFAULT).clamp(1, RECORDS_MAX);
    let leaves = store.audit_leaves(from, limit).await?.into_iter().map(told);
    Ok(Leaves { leaves: leaves.collect() })
}

pub(super) fn told(leaf: crate::audit::Leaf) -> Leaf {
    Leaf {
        index: leaf.index,
        at: leaf.at,
        kind: leaf.kind,
        actor: leaf.actor,
        subject: leaf.subject,
        hash: HEXLOWER.encode(&leaf.hash),
        detail: serde_json::from_str(&leaf.detail).unwrap_or_default(),
    }
}

const RECORDS_DEFAULT: u32 = 100;
const RECORDS_MAX: u32 = 1000;
