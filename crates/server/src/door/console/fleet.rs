//! The fleet for programs: a page of devices at a time.

use std::sync::Arc;

use assay_wire::console::device::{Device as Told, Devices};
use axum::Json;
use axum::extract::State;

use super::devices::told;
use super::parameters::Asked;
use crate::device::Device;
use crate::fleet::Which;
use crate::outcome::{Refusal, fault};
use crate::parts::Server;
use crate::principal::Principal;

/// What a program asks the fleet by, and a browser.
pub(super) const PARAMETERS: &[&str] = &["status", "label", "name", "attached", "limit", "cursor"];

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    principal: Principal,
    Asked(which): Asked<Which>,
) -> Result<Json<Devices>, Refusal> {
    let now = server.now();
    let page =
        which.filter(DEVICES_DEFAULT, principal.scope)?.page(&server.store, &server.registry, now).await?;
    let devices = page
        .devices
        .into_iter()
        .map(|record| {
            let (id, name) = (record.id.clone(), record.name.clone());
            match Device::of(record) {
                Ok(device) => {
                    let held = page.svids.get(device.id.as_str()).copied().unwrap_or(0);
                    told(&server, &device, held, now)
                }
                // It is there, and whoever looks has to see that nothing is known of it.
                Err(error) => {
                    fault("store", &error);
                    let (status, tier) = ("unreadable".to_owned(), "none".to_owned());
                    Told { id, name, status, tier, reason: error.to_string(), ..Told::default() }
                }
            }
        })
        .collect();
    Ok(Json(Devices { devices, next: page.next }))
}

const DEVICES_DEFAULT: usize = 500;
