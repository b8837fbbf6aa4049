//! The trail, newest first, for people and programs: who did what, to whom, and why.

use std::sync::Arc;

use askama::Template;
use assay_wire::console::record::Leaves;
use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::HeaderMap;
use serde::Deserialize;

use super::{Frame, moment, render, wants_json};
use crate::audit::Leaf;
use crate::door::console::parameters::Asked;
use crate::door::console::records;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::principal::Principal;

#[derive(Template)]
#[template(path = "ledger.html")]
struct Page {
    frame: Frame,
    which: Which,
    leaves: Vec<Row>,
    leaves_in_all: u64,
    /// Where older ones are: what stands behind the `?`.
    older: Option<String>,
}

struct Row {
    index: u64,
    at: String,
    kind: String,
    actor: String,
    subject: String,
    detail: String,
}

/// Which leaves; an empty value says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::door::console) struct Which {
    kind: String,
    actor: String,
    subject: String,
    /// The newest that is looked at.
    from: Option<u64>,
}

pub(in crate::door::console) const PARAMETERS: &[&str] = &["kind", "actor", "subject", "from"];

pub(in crate::door::console) async fn page(
    State(server): State<Arc<Server>>,
    principal: Principal,
    headers: HeaderMap,
    Asked(which): Asked<Which>,
) -> Result<Response, Refusal> {
    let leaves_in_all = server.store.trail_head().await?.leaves;
    let end = which.from.map_or(leaves_in_all, |from| from.saturating_add(1).min(leaves_in_all));
    let (found, looked_from) = look(&server, &which, end).await?;
    if wants_json(&headers) {
        let leaves = found.into_iter().map(records::told).collect();
        return Ok(Json(Leaves { leaves }).into_response());
    }
    let now = server.now();
    let older = looked_from.checked_sub(1).map(|from| which.query(from));
    let rows = found.into_iter().map(|leaf| Row {
        index: leaf.index,
        at: moment(leaf.at, now),
        kind: leaf.kind,
        actor: leaf.actor,
        subject: leaf.subject,
        detail: leaf.detail,
    });
    let (frame, leaves) = (Frame::of(&server, &principal, "/ledger"), rows.collect());
    Ok(Html(render(&Page { frame, which, leaves, leaves_in_all, older })?).into_response())
}

/// The newest of those that are meant before `end`, of so many that are looked at, and the oldest that was.
async fn look(server: &Server, which: &Which, end: u64) -> Result<(Vec<Leaf>, u64), Refusal> {
    let (mut found, mut end) = (Vec::new(), end);
    let floor = end.saturating_sub(LOOKED_AT_MAX);
    while end > floor {
        let start = end.saturating_sub(AT_ONCE).max(floor);
        let leaves = server.store.audit_leaves(start, u32::try_from(end - start).unwrap_or(u32::MAX)).await?;
        for leaf in leaves.into_iter().rev().filter(|leaf| leaf.index < end) {
            if which.means(&leaf) {
                let index = leaf.index;
                found.push(leaf);
                if found.len() >= LEAVES_SHOWN {
                    return Ok((found, index));
                }
            }
        }
        end = start;
    }
    Ok((found, floor))
}

impl Which {
    fn means(&self, leaf: &Leaf) -> bool {
        let is = |wanted: &str, found: &str| match wanted.strip_suffix('*') {
            Some(beginning) => found.starts_with(beginning),
            None => wanted.is_empty() || wanted == found,
        };
        is(&self.kind, &leaf.kind) && is(&self.actor, &leaf.actor) && is(&self.subject, &leaf.subject)
    }

    fn query(&self, from: u64) -> String {
        let from = from.to_string();
        let said =
            [("kind", &self.kind), ("actor", &self.actor), ("subject", &self.subject), ("from", &from)];
        let said: Vec<_> = said.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        serde_urlencoded::to_string(said).unwrap_or_default()
    }
}

const LEAVES_SHOWN: usize = 100;
/// Leaves that are looked at for a page: some tens of milliseconds.
const LOOKED_AT_MAX: u64 = 20_000;
const AT_ONCE: u64 = 1000;

#[cfg(test)]
mod tests {
    use assay_evidence::time::UnixTime;

    use super::*;

    #[test]
    fn leaves_are_meant_by_all_that_is_said() {
        let leaf = Leaf {
            index: 1,
            at: UnixTime(0),
            kind: "device.revoked".to_owned(),
            actor: "token/ci".to_owned(),
            subject: "x".to_owned(),
            detail: String::new(),
            hash: [0; 32],
        };
        let which =
            |kind: &str, actor: &str| Which { kind: kind.into(), actor: actor.into(), ..Which::default() };
        assert!(which("", "").means(&leaf) && which("device.*", "token/ci").means(&leaf));
        assert!(!which("device", "").means(&leaf) && !which("device.*", "operator").means(&leaf));
        assert_eq!(which("a&b", "").query(7), "kind=a%26b&from=7");
    }
}
