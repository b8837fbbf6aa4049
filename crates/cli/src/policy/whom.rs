//! The devices that a policy is for: as an operator names them, as the console is asked, as people read it.

use anyhow::Result;
use assay_trust::labels::Selector;

use crate::console::segment;
use crate::output;

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

/// Whom a selector means, as people read it.
pub fn whom(selector: &str) -> String {
    if selector.is_empty() { "every device".to_owned() } else { output::shown(selector) }
}
