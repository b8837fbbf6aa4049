//! One policy: the one in force, or a version that once was, and putting another in its place.

use std::sync::Arc;

use assay_trust::Policy;
use assay_trust::assignment::Plan;
use assay_trust::labels::Selector;
use assay_trust::policy::{self, Coverage, POLICY_BYTES_MAX};
use assay_wire::console::policy::{Set, Shown};
use assay_wire::console::trial::Covered;
use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::devices::find;
use super::parameters::Asked;
use crate::actor::Actor;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::policy::PolicyChangeError;
use crate::store::PolicyRecord;

/// Which policy; nothing: the one for every device.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// The one in force for this device.
    device: Option<String>,
    /// The one assigned to these labels.
    selector: Option<String>,
    /// The one of this name.
    name: Option<String>,
    /// This version of the name, whether or not it is in force.
    version: Option<u64>,
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Shown>, Refusal> {
    Ok(Json(shown(find_policy(&server, which).await?)))
}

/// A version of a policy; the one in force of several is the first that is assigned, if none is said.
pub(super) async fn version_of(
    server: &Server,
    name: &str,
    version: Option<u64>,
) -> Result<PolicyRecord, Refusal> {
    if let Some(version) = version {
        return Ok(server.store.policy_version(name, version).await?);
    }
    let plan = &server.policies.current().plan;
    let assigned = plan.assignments().iter().find(|assigned| assigned.name == name);
    let revision = match assigned {
        Some(assigned) => assigned.revision,
        None => named(plan, name)?,
    };
    Ok(server.store.policy(revision).await?)
}

pub(super) fn shown(policy: Option<PolicyRecord>) -> Shown {
    let shown = policy.map(|policy| Shown {
        name: Some(policy.name),
        version: Some(policy.version),
        coverage: Policy::from_text(&policy.text).ok().map(|policy| covered(&Coverage::of(&policy))),
        text: Some(policy.text.to_string()),
        revision: Some(policy.revision),
        set_at: Some(policy.set_at),
        set_by: Some(policy.set_by),
        digest: Some(policy.digest),
        signed: policy.envelope.is_some(),
    });
    shown.unwrap_or_default()
}

/// What a policy covers of a device, row by row.
pub(super) fn covered(coverage: &Coverage) -> Vec<Covered> {
    let row = |row: &policy::Covered| Covered {
        row: word(&row.row),
        cover: word(&row.cover),
        meaning: row.meaning.to_owned(),
    };
    coverage.rows().iter().map(row).collect()
}

/// The stable word that something is written as.
fn word(of: &impl Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

async fn find_policy(server: &Server, which: Which) -> Result<Option<PolicyRecord>, Refusal> {
    let plan = &server.policies.current().plan;
    let revision = match which {
        Which { device: Some(device), selector: None, name: None, version: None } => {
            let device = find(server, &device).await?;
            plan.revision_for(&device.id, &device.labels)
        }
        Which { device: None, selector: Some(selector), name: None, version: None } => {
            Some(plan.assigned(&selector_of(&selector)?).map_err(PolicyChangeError::from)?.revision)
        }
        Which { device: None, selector: None, name: Some(name), version: Some(version) } => {
            return server.store.policy_version(&name, version).await.map(Some).map_err(Refusal::from);
        }
        Which { device: None, selector: None, name: Some(name), version: None } => Some(named(plan, &name)?),
        Which { device: None, selector: None, name: None, version: None } => {
            plan.assigned(&Selector::default()).ok().map(|assigned| assigned.revision)
        }
        _ => {
            let message = "say one of device, selector and name, and version only beside name";
            return Err(Refusal::new(Kind::Malformed, "query", message));
        }
    };
    match revision {
        Some(revision) => Ok(Some(server.store.policy(revision).await?)),
        None => Ok(None),
    }
}

/// The revision in force of the policies of a name, if there is one.
fn named(plan: &Plan, name: &str) -> Result<u64, Refusal> {
    let mut assigned = plan.assignments().iter().filter(|assigned| assigned.name == name);
    match (assigned.next(), assigned.next()) {
        (Some(one), None) => Ok(one.revision),
        (Some(one), Some(other)) => {
            let (one, other) = (one.selector.whom(), other.selector.whom());
            let message =
                format!("{name} is in force for {one} and for {other}: say the version or a device");
            Err(Refusal::new(Kind::OutOfTurn, "ambiguous", message))
        }
        (None, _) => {
            let message = format!("no policy {name} is in force: assay policy list shows what is");
            Err(Refusal::new(Kind::NotFound, "unknown-policy", message))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    /// As labels are written; nothing: every device.
    #[serde(default)]
    selector: String,
    /// Whether devices may fall of it.
    #[serde(default)]
    force: bool,
}

pub(super) async fn set(
    State(server): State<Arc<Server>>,
    by: Actor,
    Asked(whom): Asked<Whom>,
    PolicyText(text): PolicyText,
) -> Result<Json<Set>, Refusal> {
    let selector = selector_of(&whom.selector)?;
    let policy = server.planning(by, server.now()).set(text, &selector, whom.force).await?;
    let PolicyRecord { name, version, digest, .. } = policy;
    Ok(Json(Set { name, version, digest, selector: selector.to_string() }))
}

/// A policy as it was sent.
pub(super) struct PolicyText(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for PolicyText {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let text = String::from_request(request, state).await;
        text.map(PolicyText).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!("the policy has more than the {POLICY_BYTES_MAX} bytes that are read");
                Refusal::new(Kind::Malformed, "size", message)
            }
            _ => Refusal::new(Kind::Malformed, "text", "the policy did not arrive whole, as text in UTF-8"),
        })
    }
}

/// Reads a selector.
pub(super) fn selector_of(text: &str) -> Result<Selector, PolicyChangeError> {
    Ok(text.parse()?)
}
