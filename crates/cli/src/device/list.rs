//! `assay device list`: the server says which devices are meant, a page at a time.

use anyhow::Result;
use assay_wire::console::device::{Device, Devices};

use super::labels;
use crate::console::{Client, segment};
use crate::output;

/// Which devices; without any of these, all.
#[derive(clap::Args)]
pub(super) struct Which {
    /// Those with this status: pending, enrolled, trusted, suspect, expired or revoked.
    #[arg(long)]
    status: Option<String>,
    /// Those with this label (may be repeated: those with all of them).
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Those of this name; press-* means every name that begins with press-.
    #[arg(long)]
    name: Option<String>,
    /// Those that are attached, or with false those that are not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    attached: Option<bool>,
    /// No more than so many; the answer says how to go on.
    #[arg(long)]
    limit: Option<usize>,
    /// Go on where an earlier answer ended.
    #[arg(long)]
    cursor: Option<String>,
}

/// Asks for page after page until there are as many as are wanted.
pub(super) fn list(client: &Client, which: &Which) -> Result<Devices> {
    let (mut devices, mut cursor) = (Vec::new(), which.cursor.clone());
    loop {
        let left = which.limit.map(|limit| limit.saturating_sub(devices.len()));
        let mut page: Devices = client.get(&which.path(left, cursor.as_deref()))?;
        devices.append(&mut page.devices);
        if page.next.is_none() || which.limit.is_some_and(|limit| devices.len() >= limit) {
            return Ok(Devices { devices, next: page.next });
        }
        cursor = page.next;
    }
}

impl Which {
    fn path(&self, limit: Option<usize>, cursor: Option<&str>) -> String {
        let labels = Some(self.labels.join(",")).filter(|labels| !labels.is_empty());
        let asked = [
            ("status", self.status.clone()),
            ("label", labels),
            ("name", self.name.clone()),
            ("attached", self.attached.map(|attached| attached.to_string())),
            ("limit", limit.map(|limit| limit.min(PAGE_MAX).to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        let asked =
            asked.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
        format!("/v1/devices?{}", asked.collect::<Vec<_>>().join("&"))
    }
}

pub(super) fn print(Devices { devices, next }: &Devices) {
    if devices.is_empty() {
        output::out!(
            "No device is there that this would mean. Start one with: assay-agent run --config agent.toml"
        );
    } else {
        let columns = ["device", "id", "status", "tier", "attached", "svids", "labels", "evidence", "reason"];
        output::out!("{}", output::table(&columns, devices.iter().map(row)));
    }
    if let Some(next) = next {
        eprintln!("there are more: --cursor {next}");
    }
}

fn row(device: &Device) -> Vec<String> {
    vec![
        output::shown(&device.name),
        short(&output::shown(&device.id)),
        output::shown(&device.status),
        output::shown(&device.tier),
        if device.attached { "yes" } else { "no" }.to_owned(),
        device.svids.to_string(),
        labels(device),
        output::when(device.evidence_at),
        reason(device),
    ]
}

/// Why it is what it is; and what is to be said of its clock, which may be why its workloads have nothing.
fn reason(Device { reason, clock, .. }: &Device) -> String {
    let said = [reason.as_str(), clock.as_deref().unwrap_or_default()];
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    output::shown(&said.join("; "))
}

/// As much of the hash as every verb takes for the whole; `--json` has all of it.
fn short(id: &str) -> String {
    let hash = id.rsplit('/').next().unwrap_or(id);
    hash.get(..HASH_DIGITS_SHOWN).unwrap_or(hash).to_owned()
}

/// What the console gives at once.
const PAGE_MAX: usize = 1000;
const HASH_DIGITS_SHOWN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_9_what_is_asked_is_asked_of_the_server() {
        let which = Which {
            status: Some("suspect".into()),
            labels: vec!["site=paris".into(), "line=3".into()],
            name: Some("press *".into()),
            attached: Some(false),
            limit: Some(5000),
            cursor: None,
        };
        let asked = "status=suspect&label=site%3Dparis%2Cline%3D3&name=press%20%2A&attached=false&limit=1000&cursor=YQ";
        assert_eq!(which.path(which.limit, Some("YQ")), format!("/v1/devices?{asked}"));
    }
}
