//! Revocation lists against each other: which certificates were taken back since, and which no longer are.

use std::collections::BTreeMap;

use anyhow::Result;
use assay_evidence::tpm::revocation::RevocationList;

use super::{Difference, Subject};

/// What changed, by issuer and serial number.
pub(super) fn compare(before: &Subject, after: &Subject) -> Result<Vec<Difference>> {
    let (old, new) = (entries(before)?, entries(after)?);
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed: Vec<&String> = names.into_iter().filter(|name| old.get(*name) != new.get(*name)).collect();
    let difference = |name: &String| Difference {
        what: name.clone(),
        before: old.get(name).cloned(),
        after: new.get(name).cloned(),
        message: None,
    };
    let mut differences: Vec<Difference> =
        changed.iter().take(SHOWN_MAX).map(|name| difference(name)).collect();
    if changed.len() > SHOWN_MAX {
        differences.push(Difference {
            what: format!("{} more", changed.len() - SHOWN_MAX),
            before: None,
            after: None,
            message: Some("they are not shown".to_owned()),
        });
    }
    Ok(match differences.is_empty() {
        true => super::compare_reports(before, after),
        false => differences,
    })
}

/// What each list says of its times and of each certificate.
fn entries(subject: &Subject) -> Result<BTreeMap<String, String>> {
    let mut entries = BTreeMap::new();
    for list in RevocationList::from_pem_or_der(subject.bytes.trim_ascii_start())? {
        let issuer = list.issuer();
        entries.insert(format!("{issuer}: this_update"), list.this_update().to_string());
        entries.insert(format!("{issuer}: next_update"), list.next_update().to_string());
        for (serial, since, reason) in list.revoked() {
            let serial = data_encoding::HEXLOWER.encode(serial);
            entries.insert(format!("{issuer}: {serial}"), format!("taken back at {since}, {reason}"));
        }
    }
    Ok(entries)
}

/// Changes that are shown.
const SHOWN_MAX: usize = 1000;
