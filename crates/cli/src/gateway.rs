//! `assay gateway list` and `revoke`: which gateways there are, and the end of one.

use anyhow::Result;
use assay_wire::console::Because;
use assay_wire::console::gateway::{Ended, Gateways};

use crate::console::{Asking, segment};
use crate::output;

/// Prints every gateway with a certificate that has not ended.
pub fn list(asking: &Asking) -> Result<()> {
    let answer: Gateways = asking.console.client()?.get("/v1/gateways")?;
    output::answer(&answer, asking.json, |Gateways { gateways }| {
        let rows = gateways.iter().map(|one| {
            let [name, status, serial] =
                [&one.name, &one.status, &one.serial].map(|text| output::shown(text));
            vec![name, status, serial, output::when(one.not_after)]
        });
        output::out!("{}", output::table(&["gateway", "status", "serial", "until"], rows));
    })
}

/// Ends a gateway.
pub fn revoke(name: &str, reason: &str, asking: &Asking) -> Result<()> {
    let path = format!("/v1/gateways/{}/revoke", segment(name));
    let because = Because { reason: reason.to_owned() };
    let answer: Ended = asking.console.client()?.post(&path, &because)?;
    output::answer(&answer, asking.json, |Ended { certificates, .. }| {
        output::out!(
            "gateway {name} is revoked: {certificates} of its certificates are on the revocation list now"
        );
    })
}
