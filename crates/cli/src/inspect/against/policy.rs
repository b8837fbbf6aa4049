//! Policies against each other, in whatever form: what is allowed from then on, and what no longer is.

use anyhow::{Context as _, Result};
use assay_trust::policy::diff;

use super::{Difference, Subject, said};
use crate::inspect::content;

/// Whether the file is one of which a policy is made; an envelope may hold something else.
pub(super) fn is_policy(subject: &Subject) -> bool {
    let kind = subject.report.kind;
    content::POLICY_KINDS.contains(&kind)
        || kind == "dsse" && content::policy_of(kind, &subject.bytes).is_some()
}

/// What changes for a device when one takes the other's place.
pub(super) fn compare(before: &Subject, after: &Subject) -> Result<Vec<Difference>> {
    let read = |subject: &Subject, which| {
        content::policy_of(subject.report.kind, &subject.bytes)
            .with_context(|| format!("no policy can be made of the {which} file, so nothing can be compared"))
    };
    let changes = diff(&read(before, "earlier")?, &read(after, "later")?);
    let difference = |change: assay_trust::policy::Change| Difference {
        what: change.field.to_string(),
        before: None,
        after: None,
        message: Some(format!("{}: {}", change.effect, change.value)),
    };
    let mut differences: Vec<Difference> = changes.into_iter().map(difference).collect();
    if before.report.kind != after.report.kind {
        return Ok(differences);
    }
    match (after.report.kind, differences.is_empty()) {
        ("policy", _) => {}
        // The same policy may be signed by others, and an import leaves out what a policy of ours does not have.
        (_, true) => differences = super::compare_reports(before, after),
        ("dsse", false) => {
            differences.extend(said::compare(&before.report, &after.report, |name| name == "signatures"));
        }
        _ => {}
    }
    Ok(differences)
}
