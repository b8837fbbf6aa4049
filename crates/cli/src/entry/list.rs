//! `assay entry list`: the server says which entries are meant, a page at a time.

use anyhow::Result;
use assay_identity::Selector;
use serde_json::{Value, json};

use crate::console::{Client, segment};
use crate::output;

/// Which entries; without any of these, all.
#[derive(clap::Args)]
pub(super) struct Which {
    /// Those of this SPIFFE ID; spiffe://example.org/web/* means every one that begins so.
    #[arg(long)]
    spiffe_id: Option<String>,
    /// Those of this device: its name, SPIFFE ID or the hash in it.
    #[arg(long)]
    parent: Option<String>,
    /// Those with this selector.
    #[arg(long)]
    selector: Option<Selector>,
    /// Those with this hint.
    #[arg(long)]
    hint: Option<String>,
    /// No more than so many; the answer says how to go on.
    #[arg(long)]
    limit: Option<usize>,
    /// Go on where an earlier answer ended.
    #[arg(long)]
    cursor: Option<String>,
    /// Say how many there are, and nothing of them.
    #[arg(long)]
    count: bool,
}

/// Asks for page after page until there are as many as are wanted.
pub(super) fn list(client: &Client, which: &Which) -> Result<Value> {
    let limit = if which.count { Some(1) } else { which.limit };
    let (mut entries, mut cursor) = (Vec::new(), which.cursor.clone());
    loop {
        let left = limit.map(|limit| limit.saturating_sub(entries.len()));
        let mut page: Value = client.get(&which.path(left, cursor.as_deref()))?;
        let count = page.get("count").cloned();
        if which.count {
            return Ok(json!({ "count": count }));
        }
        if let Some(Value::Array(more)) = page.get_mut("entries") {
            entries.append(more);
        }
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || limit.is_some_and(|limit| entries.len() >= limit) {
            return Ok(json!({ "entries": entries, "count": count, "next": cursor }));
        }
    }
}

impl Which {
    fn path(&self, limit: Option<usize>, cursor: Option<&str>) -> String {
        let asked = [
            ("spiffe_id", self.spiffe_id.clone()),
            ("parent", self.parent.clone()),
            ("selector", self.selector.as_ref().map(ToString::to_string)),
            ("hint", self.hint.clone()),
            ("limit", limit.map(|limit| limit.min(PAGE_MAX).to_string())),
            ("cursor", cursor.map(str::to_owned)),
        ];
        let asked =
            asked.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(&value?))));
        format!("/v1/entries?{}", asked.collect::<Vec<_>>().join("&"))
    }
}

pub(super) fn print(answer: &Value) {
    let Some(entries) = answer.get("entries").and_then(Value::as_array) else {
        return output::out!("{}", output::text(answer, "count"));
    };
    output::out!("{}", table(entries));
    if let Some(next) = answer.get("next").and_then(Value::as_str) {
        eprintln!("{} of {}; there are more: --cursor {next}", entries.len(), output::text(answer, "count"));
    }
}

pub(super) fn table(entries: &[Value]) -> String {
    let row = |entry: &Value| {
        let selectors: Vec<String> = output::list(entry, "selectors")
            .iter()
            .map(|one| format!("{}:{}", output::text(one, "type"), output::text(one, "value")))
            .collect();
        vec![
            output::text(entry, "id"),
            output::text(entry, "spiffe_id"),
            output::text(entry, "parent"),
            selectors.join(" "),
            output::text(entry, "ttl_seconds"),
            output::text(entry, "hint"),
        ]
    };
    output::table(&["entry", "spiffe id", "parent", "selectors", "ttl", "hint"], entries.iter().map(row))
}

/// What the console gives at once.
const PAGE_MAX: usize = 1000;
