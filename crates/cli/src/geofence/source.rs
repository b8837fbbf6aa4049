//! The policy that is asked: a file, or the one of a server.

use std::path::PathBuf;

use anyhow::{Context, Result};
use assay_trust::Policy;
use assay_wire::console::policy::Shown;

use crate::console::{Console, segment};
use crate::policy::text;

/// Which policy.
#[derive(clap::Args)]
pub struct Source {
    /// The policy in this file, instead of one that is in force.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "name"])]
    policy: Option<PathBuf>,
    /// The policy that judges this device; nothing: the one for every device.
    #[arg(long, conflicts_with = "name")]
    device: Option<String>,
    /// The policy of this name that is in force.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    console: Console,
}

impl Source {
    pub fn read(&self) -> Result<Policy> {
        if let Some(path) = &self.policy {
            return text::read(path);
        }
        let asked = match (&self.device, &self.name) {
            (Some(device), _) => format!("?device={}", segment(device)),
            (None, Some(name)) => format!("?name={}", segment(name)),
            (None, None) => String::new(),
        };
        let shown: Shown = self.console.client()?.get(&format!("/v1/policy{asked}"))?;
        let text = shown.text.context("no policy is in force there: name a file with --policy")?;
        Policy::from_text(&text)
            .context("the policy that is in force does not read here: update this program")
    }
}
