//! The fleet for programs: a page of devices at a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::devices::device_json;
use super::parameters::Asked;
use crate::device::Device;
use crate::fleet::Which;
use crate::outcome::{Refusal, fault};
use crate::parts::Server;

/// What a program asks the fleet by, and a browser.
pub(super) const PARAMETERS: &[&str] = &["status", "label", "name", "attached", "limit", "cursor"];

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Value>, Refusal> {
    let now = server.now();
    let page = which.filter(DEVICES_DEFAULT)?.page(&server.store, &server.registry, now).await?;
    let devices: Vec<Value> = page
        .devices
        .into_iter()
        .map(|record| {
            let (id, name) = (record.id.clone(), record.name.clone());
            match Device::of(record) {
                Ok(device) => {
                    let held = page.svids.get(device.id.as_str()).copied().unwrap_or(0);
                    device_json(&server, &device, held, now)
                }
                // It is there, and whoever looks has to see that nothing is known of it.
                Err(error) => {
                    fault("store", &error);
                    json!({ "id": id, "name": name, "status": "unreadable", "tier": "none", "reason": error.to_string() })
                }
            }
        })
        .collect();
    Ok(Json(json!({ "devices": devices, "next": page.next })))
}

const DEVICES_DEFAULT: usize = 500;
