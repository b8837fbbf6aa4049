//! `assay gateway list` and `revoke`: which gateways there are, and the end of one.

use anyhow::Result;
use serde_json::{Value, json};

use crate::console::{Asking, segment};
use crate::output;

/// Prints every gateway with a certificate that has not ended.
pub fn list(asking: &Asking) -> Result<()> {
    let answer = asking.console.client()?.get("/v1/gateways")?;
    if asking.json {
        return output::json(&answer);
    }
    let rows = output::list(&answer, "gateways").iter().map(|gateway| {
        let text = |member| output::text(gateway, member);
        vec![text("name"), text("status"), text("serial"), output::time(gateway, "not_after")]
    });
    output::out!("{}", output::table(&["gateway", "status", "serial", "until"], rows));
    Ok(())
}

/// Ends a gateway.
pub fn revoke(name: &str, reason: &str, asking: &Asking) -> Result<()> {
    let path = format!("/v1/gateways/{}/revoke", segment(name));
    let answer = asking.console.client()?.post(&path, &json!({ "reason": reason }))?;
    if asking.json {
        return output::json(&answer);
    }
    let certificates = answer.get("certificates").and_then(Value::as_u64).unwrap_or_default();
    output::out!(
        "gateway {name} is revoked: {certificates} of its certificates are on the revocation list now"
    );
    Ok(())
}
