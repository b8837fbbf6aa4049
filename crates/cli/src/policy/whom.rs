//! The devices that a policy is for: as an operator names them, as the console is asked, as people read it.

use anyhow::Result;
use assay_trust::labels::Selector;
use serde_json::Value;

use crate::console::segment;

/// Whom a policy is for.
#[derive(clap::Args)]
pub struct Whom {
    /// Only devices with this label, key=value (may be repeated: all of them); otherwise every device.
    #[arg(long = "selector", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

impl Whom {
    /// As labels are written; empty: every device.
    pub fn selector(&self) -> Result<Selector> {
        Ok(self.labels.join(",").parse()?)
    }
}

/// A selector as a query.
pub fn query(selector: &Selector) -> String {
    format!("?selector={}", segment(&selector.to_string()))
}

/// Whom an assignment is for, as people read it.
pub fn whom(assigned: &Value) -> String {
    match assigned.get("selector").and_then(Value::as_str) {
        None | Some("") => "every device".to_owned(),
        Some(selector) => selector.to_owned(),
    }
}
