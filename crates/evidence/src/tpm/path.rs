//! Certification paths: from a certificate that a device shows to an anchor that an operator trusts.
//!
//! A path checker of our own, strict and bounded: by name, key identifier and signature, with the revocation lists
//! at hand and no fetching. Every check is made and reported on its own.

use super::certificate::Certificate;
use super::endorsers::{Endorsers, IssuerList, Standing, TrustAnchor};
use crate::check::{Check, Failure};
use crate::time::UnixTime;

/// What failures of a path are called, by the kind of its first certificate.
#[derive(Clone, Copy)]
pub(crate) struct PathChecks {
    pub(crate) chain: Check,
    /// For a signature that nobody should rely on.
    pub(crate) signature: Check,
    pub(crate) validity: Check,
    pub(crate) revoked: Check,
}

/// A path that holds.
pub(crate) struct Path {
    /// The anchor at which it ends, for people.
    pub(crate) anchor: String,
    /// When the first of its certificates expires.
    pub(crate) valid_until: UnixTime,
    /// What is known of its certificates' revocation, by who issued them.
    pub(crate) lists: Vec<IssuerList>,
}

/// Finds a path from `leaf` through `intermediates` to an anchor, one that holds at `at` if there is one.
pub(crate) fn verify_path(
    leaf: &Certificate,
    intermediates: &[&[u8]],
    endorsers: &Endorsers,
    at: UnixTime,
    checks: PathChecks,
) -> Result<Path, Vec<Failure>> {
    // One that does not parse cannot be part of a path; the path will be missed if it was needed.
    let intermediates: Vec<Certificate> =
        intermediates.iter().take(INTERMEDIATES_MAX).filter_map(|der| Certificate::parse(der).ok()).collect();
    let mut search = Search::new(&intermediates, endorsers, at, checks);
    let mut issuers = Vec::new();
    if search.extend(leaf, leaf, &mut issuers) {
        let path = || std::iter::once(leaf).chain(issuers.iter().copied());
        return Ok(Path {
            anchor: issuers.last().map(|anchor| anchor.title()).unwrap_or_default(),
            valid_until: path().map(|certificate| certificate.not_after).min().unwrap_or(at),
            lists: search.lists,
        });
    }
    match search.flaws.take() {
        Some(flaws) => Err(flaws),
        None => {
            let mut failures = vec![search.failure(leaf)];
            failures.extend(check_validity(leaf, at, checks));
            Err(failures)
        }
    }
}

fn check_validity(certificate: &Certificate, at: UnixTime, checks: PathChecks) -> Option<Failure> {
    let Certificate { not_before, not_after, .. } = certificate;
    let valid = *not_before <= at && at <= *not_after;
    (!valid).then(|| {
        let expected = format!("valid at {at}");
        let found = format!("valid from {not_before} to {not_after}");
        Failure::new(checks.validity, certificate.title(), expected, found)
    })
}

/// A depth-first search for a path, on a budget: an attacker chooses the intermediates.
struct Search<'a> {
    intermediates: &'a [Certificate],
    endorsers: &'a Endorsers,
    at: UnixTime,
    checks: PathChecks,
    signatures_left: u32,
    /// What is wrong with the first path that holds but for dates or revocation: what to report if none is better.
    flaws: Option<Vec<Failure>>,
    /// Of the last path that was looked at.
    lists: Vec<IssuerList>,
    /// Why the last candidate was not an issuer.
    obstacle: Option<String>,
    /// Whether that was a signature which nobody should rely on.
    is_weak: bool,
}

impl<'a> Search<'a> {
    fn new(
        intermediates: &'a [Certificate],
        endorsers: &'a Endorsers,
        at: UnixTime,
        checks: PathChecks,
    ) -> Self {
        let signatures_left = SIGNATURES_MAX;
        let (flaws, lists, obstacle) = (None, Vec::new(), None);
        Search {
            intermediates,
            endorsers,
            at,
            checks,
            signatures_left,
            flaws,
            lists,
            obstacle,
            is_weak: false,
        }
    }

    /// Adds issuers of `child`, the last of the path from `leaf`, up to an anchor; whether the path holds.
    fn extend(
        &mut self,
        leaf: &'a Certificate,
        child: &'a Certificate,
        issuers: &mut Vec<&'a Certificate>,
    ) -> bool {
        if issuers.len() >= DEPTH_MAX {
            self.obstacle = Some(format!("a path longer than {DEPTH_MAX} issuers"));
            return false;
        }
        let Search { intermediates, endorsers, .. } = *self;
        for TrustAnchor(anchor) in endorsers.anchors.iter() {
            if self.is_issuer(anchor, child, issuers.len()) {
                issuers.push(anchor);
                let flaws = self.flaws_of(leaf, issuers);
                if flaws.is_empty() {
                    return true;
                }
                self.flaws.get_or_insert(flaws);
                issuers.pop();
            }
        }
        for intermediate in intermediates {
            let repeated = issuers.iter().any(|issuer| issuer.sha256 == intermediate.sha256);
            if !repeated && self.is_issuer(intermediate, child, issuers.len()) {
                issuers.push(intermediate);
                if self.extend(leaf, intermediate, issuers) {
                    return true;
                }
                issuers.pop();
            }
        }
        false
    }

    /// What is wrong with a path that reaches an anchor: dates, and what was taken back.
    fn flaws_of(&mut self, leaf: &'a Certificate, issuers: &[&'a Certificate]) -> Vec<Failure> {
        let mut path: Vec<&Certificate> = std::iter::once(leaf).chain(issuers.iter().copied()).collect();
        let dates = path.iter().filter_map(|certificate| check_validity(certificate, self.at, self.checks));
        let mut flaws: Vec<Failure> = dates.collect();
        self.lists.clear();
        self.add_anchors_above(&mut path);
        for (certificate, issuer) in path.iter().zip(path.iter().skip(1)) {
            match self.endorsers.standing(certificate, issuer) {
                Standing::NotNamed(list) => self.lists.push(IssuerList { issuer: issuer.title(), list }),
                Standing::Revoked(revocation) => {
                    let serial = data_encoding::HEXLOWER.encode(&certificate.serial);
                    let claim = format!("{}, serial number {serial}", certificate.title());
                    let expected = format!("not revoked by {}", issuer.title());
                    let found = format!("revoked since {}: {}", revocation.since, revocation.reason);
                    flaws.push(Failure::new(self.checks.revoked, claim, expected, found));
                }
            }
        }
        flaws
    }

    /// An anchor that is no root may have been taken back by an authority that is an anchor as well.
    fn add_anchors_above(&mut self, path: &mut Vec<&'a Certificate>) {
        let endorsers = self.endorsers;
        while let Some(last) = path.last().copied().filter(|_| path.len() <= DEPTH_MAX) {
            let below = path.len().saturating_sub(1);
            let mut anchors = endorsers.anchors.iter().map(|TrustAnchor(anchor)| anchor);
            let above =
                anchors.find(|anchor| anchor.sha256 != last.sha256 && self.is_issuer(anchor, last, below));
            match above {
                Some(above) if path.iter().all(|known| known.sha256 != above.sha256) => path.push(above),
                _ => return,
            }
        }
    }

    /// RFC 5280, 6.1: name, key identifier, CA constraints, and only then the signature.
    fn is_issuer(&mut self, issuer: &Certificate, child: &Certificate, intermediates_below: usize) -> bool {
        if issuer.subject != child.issuer {
            return false;
        }
        let ids = (&issuer.extensions.subject_key_id, &child.extensions.authority_key_id);
        if matches!(ids, (Some(subject), Some(authority)) if subject != authority) {
            return false;
        }
        let obstacle = self.obstacle_to_issuing(issuer, child, intermediates_below);
        let good = obstacle.is_none();
        if let Some(obstacle) = obstacle {
            self.obstacle = Some(format!("{}: {obstacle}", issuer.title()));
        }
        good
    }

    fn obstacle_to_issuing(
        &mut self,
        issuer: &Certificate,
        child: &Certificate,
        intermediates_below: usize,
    ) -> Option<String> {
        let extensions = &issuer.extensions;
        if !extensions.is_ca {
            return Some("not a CA".to_owned());
        }
        if !extensions.key_usage.is_some_and(|usage| usage.cert_sign) {
            return Some("may not sign certificates".to_owned());
        }
        if let Some(oid) = extensions.not_understood.first() {
            return Some(format!("critical extension {oid} is not understood"));
        }
        let allowed = extensions.path_length.and_then(|length| usize::try_from(length).ok());
        if allowed.is_some_and(|allowed| intermediates_below > allowed) {
            return Some("its path length constraint is exceeded".to_owned());
        }
        let Some(key) = &issuer.key else {
            return Some("its key is of an unsupported kind".to_owned());
        };
        match self.signatures_left.checked_sub(1) {
            None => return Some("too many signatures to check".to_owned()),
            Some(left) => self.signatures_left = left,
        }
        child.verify_signed_by(key).err().map(|error| {
            self.is_weak |= error.is_weak();
            error.to_string()
        })
    }

    fn failure(self, leaf: &Certificate) -> Failure {
        if self.is_weak {
            // The anchor is there; another one would not help.
            let found = self.obstacle.unwrap_or_default();
            return Failure::new(
                self.checks.signature,
                leaf.title(),
                "signatures over SHA-256 or better",
                found,
            );
        }
        let found = self.obstacle.unwrap_or_else(|| format!("no certificate of {}", leaf.issuer_text));
        Failure::new(self.checks.chain, leaf.title(), "a path to a trust anchor", found)
    }
}

/// Makers use two or three levels of CAs.
const DEPTH_MAX: usize = 5;
/// More intermediates than a path may be long make no sense.
const INTERMEDIATES_MAX: usize = 8;
/// A good path needs one for each level; the rest is for CAs that renewed their keys under one name.
const SIGNATURES_MAX: u32 = 16;
