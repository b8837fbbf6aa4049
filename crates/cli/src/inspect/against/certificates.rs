//! Certificates against each other, alone, in chains or in bundles: by which they are, wherever they stand.

use super::{Difference, Subject, said};
use crate::inspect::content::report::{Member, Report, Value};

/// One of several certificates.
struct Certificate {
    is: String,
    subject: String,
    spki_sha256: String,
    sha256: String,
    not_after: String,
}

impl Certificate {
    fn of(is: &str, members: &[Member]) -> Self {
        let said = |name: &str| {
            let found = members.iter().find(|member| member.name == name);
            found.map_or_else(String::new, |member| member.value.line())
        };
        Certificate {
            is: is.to_owned(),
            subject: said("subject"),
            spki_sha256: said("spki_sha256"),
            sha256: said("sha256"),
            not_after: said("not_after"),
        }
    }

    fn words(&self) -> String {
        format!("{}, until {}", self.sha256, self.not_after)
    }

    /// Whether it says of the same key what the other says, anew.
    fn renews(&self, other: &Certificate) -> bool {
        (&self.spki_sha256, &self.subject) == (&other.spki_sha256, &other.subject)
    }
}

/// Whether these are certificates, several at least on one side. A bundle of one authority is that authority's certificate.
pub(super) fn are_several(before: &Subject, after: &Subject) -> bool {
    let kinds = [before, after].map(|subject| subject.report.kind);
    kinds.iter().all(|kind| SEVERAL.contains(kind) || ONE.contains(kind))
        && kinds.iter().any(|kind| SEVERAL.contains(kind))
}

/// What came, went or was renewed, and what else is said of the whole.
pub(super) fn compare(before: &Subject, after: &Subject) -> Vec<Difference> {
    let (mut old, mut new) = (all(&before.report), all(&after.report));
    let first = |all: &[Certificate]| all.first().map(|first| (first.is.clone(), first.sha256.clone()));
    let (old_first, new_first) = (first(&old), first(&new));
    take_pairs(&mut old, &mut new, |old, new| old.sha256 == new.sha256);
    let mut differences: Vec<Difference> = take_pairs(&mut old, &mut new, |old, new| new.renews(old))
        .into_iter()
        .map(|(old, new)| difference(new.is.clone(), Some(old.words()), Some(new.words())))
        .collect();
    differences.extend(old.iter().map(|gone| difference(gone.is.clone(), Some(gone.words()), None)));
    differences.extend(new.iter().map(|came| difference(came.is.clone(), None, Some(came.words()))));
    // Whose chain it is stands first; of a bundle, the order says nothing.
    let are_chains = [before, after].iter().all(|subject| subject.report.kind == CHAIN);
    if differences.is_empty() && are_chains && old_first != new_first {
        let is = |first: Option<(String, String)>| first.map(|(is, _)| is);
        differences.push(difference("first".to_owned(), is(old_first), is(new_first)));
    }
    if before.report.kind == after.report.kind {
        differences.extend(said::compare(&before.report, &after.report, |name| {
            before.report.kind == SPIFFE_BUNDLE && name != AUTHORITIES
        }));
    }
    differences
}

fn difference(what: String, before: Option<String>, after: Option<String>) -> Difference {
    Difference { what, before, after, message: None }
}

/// Takes out of both what belongs together.
fn take_pairs(
    old: &mut Vec<Certificate>,
    new: &mut Vec<Certificate>,
    belong: impl Fn(&Certificate, &Certificate) -> bool,
) -> Vec<(Certificate, Certificate)> {
    let mut pairs = Vec::new();
    let mut rest = Vec::new();
    for one in old.drain(..) {
        match new.iter().position(|other| belong(&one, other)) {
            Some(found) => pairs.push((one, new.remove(found))),
            None => rest.push(one),
        }
    }
    *old = rest;
    pairs
}

fn all(report: &Report) -> Vec<Certificate> {
    if ONE.contains(&report.kind) {
        return vec![Certificate::of(&report.title, &report.members)];
    }
    let authorities =
        report.members.iter().find(|member| member.name == AUTHORITIES).map(|member| &member.value);
    let members = match (report.kind, authorities) {
        (SPIFFE_BUNDLE, Some(Value::Group(authorities))) => authorities.as_slice(),
        (SPIFFE_BUNDLE, _) => &[],
        _ => report.members.as_slice(),
    };
    let certificate = |member: &Member| match &member.value {
        Value::Group(members) => {
            let is = members.iter().find(|member| member.name == "is").map(|member| member.value.line());
            Some(Certificate::of(&is?, members))
        }
        _ => None,
    };
    members.iter().filter_map(certificate).collect()
}

const CHAIN: &str = "certificate-chain";
const SPIFFE_BUNDLE: &str = "spiffe-bundle";
const AUTHORITIES: &str = "authorities";
const SEVERAL: &[&str] = &["bundle", CHAIN, SPIFFE_BUNDLE];
const ONE: &[&str] =
    &["ca-certificate", "spiffe-authority", "certificate", "svid", "ek-certificate", "platform-certificate"];
