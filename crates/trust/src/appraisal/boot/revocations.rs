//! dbx: what Secure Boot must no longer trust.

use std::collections::HashSet;

use assay_evidence::boot_log::{BootFacts, SignatureKind};

use super::{Report, refusal};
use crate::appraisal::demand::{SecureBootShown, witness};
use crate::policy::{BootSection, Revocation};

impl Report<'_> {
    /// dbx holds every entry that is listed, and as many as are wanted.
    pub(super) fn judge_dbx(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let BootSection { dbx_contains, dbx_also_contains, dbx_entries_min, .. } = boot;
        if dbx_contains.is_empty() && dbx_also_contains.is_empty() && dbx_entries_min.is_none() {
            return;
        }
        let citation = self.policy.citation();
        let update = "install the firmware's Secure Boot database update (fwupdmgr update)";
        let missing = || {
            let message =
                format!("The boot log does not show dbx, and policy {citation} makes demands on it.");
            refusal("dbx", "a revocation list", "unknown", message)
        };
        let Some(SecureBootShown(shown)) = witness(facts, self.findings, missing) else { return };
        let (_, variables) = *shown;
        let images: HashSet<_> = variables.dbx.iter().filter_map(|entry| image(&entry.kind)).collect();
        let others: HashSet<_> =
            variables.dbx.iter().filter_map(|entry| Revocation::of(&entry.kind)).collect();
        let lacking_images =
            dbx_contains.iter().filter(|digest| !images.contains(digest)).map(ToString::to_string);
        let lacking_others =
            dbx_also_contains.iter().filter(|entry| !others.contains(entry)).map(ToString::to_string);
        let lacking: Vec<String> = lacking_images.chain(lacking_others).collect();
        for entry in lacking {
            let message = format!(
                "Secure Boot's revocation list dbx lacks {entry}, which policy {citation} wants in it: {update}."
            );
            self.refuse("dbx", entry.as_str(), "not in dbx", message);
        }
        let entries = u32::try_from(variables.dbx.len()).unwrap_or(u32::MAX);
        if let Some(min) = dbx_entries_min.filter(|min| entries < *min) {
            let message = format!(
                "Secure Boot's revocation list dbx has {entries} entries, and policy {citation} wants {min}: {update}."
            );
            self.refuse("dbx", format!("{min} entries or more"), entries.to_string(), message);
        }
    }
}

fn image(kind: &SignatureKind) -> Option<&assay_evidence::Digest> {
    match kind {
        SignatureKind::ImageDigest(digest) => Some(digest),
        SignatureKind::Certificate { .. } | SignatureKind::Other { .. } => None,
    }
}
