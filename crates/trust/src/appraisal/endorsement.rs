//! Who vouches for the TPM.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{EkCertificate, IssuerList, ListStanding};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::Claims;
use assay_evidence::{Check, Failure};

use super::demand::{CertifiedKey, IdentifiedDevice, Missing, VouchedKey, witness, witness_if};
use crate::finding::{Finding, Tier};
use crate::policy::{Demand, EndorsementKind, EndorsementSection, FirmwareVersion};
use crate::reference::CompiledPolicy;

/// Whether a device may enroll on what vouches for its EK: a certificate, or a policy that lists the EK and lets that
/// be enough. Everything else a policy says is for appraisal.
pub fn admit(policy: Option<&CompiledPolicy>, endorsement: &Endorsement) -> Result<(), Vec<Failure>> {
    if endorsement.certificate().is_some() {
        return Ok(());
    }
    let section = policy.map(|policy| &policy.endorsement);
    let listed = section.is_some_and(|section| {
        let required = section.rule(None).required.unwrap_or_default();
        required.accepts_list_alone() && vouches(required, section, endorsement)
    });
    if listed {
        return Ok(());
    }
    let mut failures = endorsement.failures().to_vec();
    if failures.is_empty() {
        failures.push(Failure::new(Check::EkChain, "EK certificate", "a certificate", "none"));
    }
    failures.push(Failure::new(
        Check::EndorsementPolicy,
        format!("EK {}", endorsement.ek_sha256().to_hex()),
        "an EK certificate that chains to a trust anchor, or a place in endorsement.ek_sha256 of a policy whose \
         endorsement.required is \"either\" or \"allowlist\"",
        "neither",
    ));
    Err(failures)
}

/// Without an endorsement, the keys may be those of any program that plays a TPM. Without claims, only what needs
/// none is judged.
pub(super) fn judge(
    policy: &CompiledPolicy,
    endorsement: Option<&Endorsement>,
    claims: Option<&Claims>,
    at: UnixTime,
    findings: &mut Vec<Finding>,
) {
    let certificate = endorsement.and_then(Endorsement::certificate);
    let manufacturer = certificate.and_then(EkCertificate::manufacturer);
    let rule = policy.endorsement.rule(manufacturer);
    let required = rule.required.unwrap_or_default();
    if required != EndorsementKind::DangerousNone {
        judge_key(policy, required, endorsement, findings);
    }
    if let Some(certificate) = certificate {
        judge_revocation(policy, certificate.revocation_lists(), at, findings);
    }
    judge_manufacturer(policy, required, endorsement, findings);
    judge_identity(policy, endorsement, at, findings);
    if let (Some(least), Some(claims)) = (rule.firmware_version_min, claims) {
        let found = FirmwareVersion(claims.firmware_version());
        judge_firmware(policy, manufacturer.unwrap_or_default(), least, found, findings);
    }
}

/// Whether enough vouches for the EK.
fn vouches(required: EndorsementKind, section: &EndorsementSection, endorsement: &Endorsement) -> bool {
    let certified = endorsement.certificate().is_some();
    required.is_met(certified, section.lists(endorsement.ek_sha256()), endorsement.is_revoked())
}

/// Enough vouches for the EK, as the policy sees it.
fn judge_key(
    policy: &CompiledPolicy,
    required: EndorsementKind,
    endorsement: Option<&Endorsement>,
    findings: &mut Vec<Finding>,
) {
    let by = (endorsement, required, &policy.endorsement);
    let _: Option<VouchedKey<'_>> = witness(by, findings, || not_vouched(policy, required, endorsement));
}

/// Says what is missing, and what would help.
fn not_vouched(
    policy: &CompiledPolicy,
    required: EndorsementKind,
    endorsement: Option<&Endorsement>,
) -> Missing {
    let is_certified = endorsement.is_some_and(|endorsement| endorsement.certificate().is_some());
    let is_listed = endorsement.is_some_and(|endorsement| policy.endorsement.lists(endorsement.ek_sha256()));
    let wants_list = matches!(required, EndorsementKind::Allowlist | EndorsementKind::Both);
    if is_certified || required == EndorsementKind::Allowlist {
        return not_listed(policy, endorsement).into();
    }
    let failures = endorsement.map_or(&[][..], Endorsement::failures);
    let failures = failures.iter().map(|failure| Finding::from_failure(failure, Tier::Contraindicated));
    let not_certified = not_certified(policy, required);
    if wants_list && !is_listed {
        let why = failures.chain([not_certified]).collect();
        return Missing { why, finding: not_listed(policy, endorsement) };
    }
    Missing { why: failures.collect(), finding: not_certified }
}

fn not_certified(policy: &CompiledPolicy, required: EndorsementKind) -> Finding {
    let or_listed = match required {
        EndorsementKind::Either => ", or vouch for the EK yourself in endorsement.ek_sha256",
        _ => "",
    };
    let message = format!(
        "No EK certificate vouches for this TPM, and policy {} requires one: enroll the device with its EK \
         certificate, or trust its manufacturer's root{or_listed}.",
        policy.citation()
    );
    refusal("EK certificate", "an EK certificate that chains to a trust anchor", "none", message)
}

fn not_listed(policy: &CompiledPolicy, endorsement: Option<&Endorsement>) -> Finding {
    let ek = endorsement.map_or("unknown".to_owned(), |endorsement| endorsement.ek_sha256().to_hex());
    let message = format!(
        "Policy {} lists the endorsement keys that it accepts, and not this one: if the device is yours, add \
         \"{ek}\" to endorsement.ek_sha256.",
        policy.citation()
    );
    refusal("EK", "one of endorsement.ek_sha256", &ek, message)
}

/// The maker is one of those that are listed. An EK that the operator lists, where that is enough, needs none.
fn judge_manufacturer(
    policy: &CompiledPolicy,
    required: EndorsementKind,
    endorsement: Option<&Endorsement>,
    findings: &mut Vec<Finding>,
) {
    let accepted = &policy.endorsement.manufacturers;
    let is_vouched_for = required.accepts_list_alone()
        && endorsement.is_some_and(|endorsement| policy.endorsement.lists(endorsement.ek_sha256()));
    let missing = || {
        let message = format!(
            "No certificate names the TPM's maker, and policy {} lists the makers that it trusts: enroll the device with its EK \
             certificate.",
            policy.citation()
        );
        refusal("EK certificate", &accepted.join(", "), "none", message)
    };
    let is_asked = !accepted.is_empty() && !is_vouched_for;
    let Some(CertifiedKey(certificate)) = witness_if(is_asked, endorsement, findings, missing) else {
        return;
    };
    let named = |name: &str| accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(name));
    if accepted.is_empty() || certificate.manufacturer().is_some_and(named) {
        return;
    }
    let found = certificate.manufacturer().unwrap_or("a manufacturer that is not named");
    let message = format!(
        "The TPM is by {found}, which policy {} does not list: add it to endorsement.manufacturers if it is to be \
         trusted.",
        policy.citation()
    );
    findings.push(refusal("EK certificate", &accepted.join(", "), found, message));
}

/// An identity that was shown has to hold, asked for or not: enrollment took it up as good.
fn judge_identity(
    policy: &CompiledPolicy,
    endorsement: Option<&Endorsement>,
    at: UnixTime,
    findings: &mut Vec<Finding>,
) {
    let is_asked = policy.endorsement.idevid == Demand::Required;
    let missing = || {
        let message = format!(
            "The device has shown no IDevID and IAK that hold, and policy {} requires them: tell the agent where its \
             TPM has them and enroll the device again, or set endorsement.idevid = \"optional\".",
            policy.citation()
        );
        refusal("IDevID", "an IDevID and an IAK that chain to a trust anchor", "none", message)
    };
    let failures = endorsement.map_or(&[][..], Endorsement::identity_failures);
    findings.extend(failures.iter().map(|failure| Finding::from_failure(failure, Tier::Contraindicated)));
    if let Some(IdentifiedDevice(identity)) = witness_if(is_asked, endorsement, findings, missing) {
        judge_revocation(policy, identity.revocation_lists(), at, findings);
    }
}

/// What authorities took back is known only as far as their lists go. One that the policy names has to have a list that it
/// signed, and that did not end longer ago than the policy bears; of others a bad list is weighed, and none is missed.
fn judge_revocation(
    policy: &CompiledPolicy,
    lists: &[IssuerList],
    at: UnixTime,
    findings: &mut Vec<Finding>,
) {
    for IssuerList { issuer, list } in lists {
        let Some((tier, found, what)) = weigh(&policy.endorsement, issuer, *list, at) else { continue };
        let message = format!(
            "The revocation list of {issuer} {what}, so that a certificate revoked lately may pass: fetch the \
             authority's newest list into ek_crls. Policy {} weighs this by endorsement.stale_crl, and for the \
             authorities of endorsement.crl_required refuses it.",
            policy.citation()
        );
        let finding = Finding {
            accept: None,
            check: Check::EndorsementPolicy,
            tier,
            claim: format!("revocation list of {issuer}"),
            expected: "a current list".to_owned(),
            found,
            message,
        };
        // The certificates of a device often have one authority in common.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
}

/// What it weighs, what was found and what is wrong with it; `None`: nothing is.
fn weigh(
    section: &EndorsementSection,
    issuer: &str,
    list: ListStanding,
    at: UnixTime,
) -> Option<(Tier, String, String)> {
    let required = section.requires_list_of(issuer);
    let other = section.stale_crl.tier();
    let (tier, found, what) = match list {
        ListStanding::Missing if required => {
            (Some(Tier::Contraindicated), "none".to_owned(), "is not there".to_owned())
        }
        ListStanding::Missing => return None,
        ListStanding::NotSigned => {
            let tier = if required { Some(Tier::Contraindicated) } else { other };
            (tier, "one that it did not sign".to_owned(), "is not signed by it".to_owned())
        }
        ListStanding::Until(next_update) if at <= next_update => return None,
        ListStanding::Until(next_update) => {
            let grace_until = next_update.plus(section.crl_grace_seconds);
            let (tier, what) = match (required, at > grace_until) {
                (true, true) => (Some(Tier::Contraindicated), "is past its time and its grace".to_owned()),
                // That the grace runs is never left unsaid.
                (true, false) => (
                    other.or(Some(Tier::Affirming)),
                    format!("is past its time, and from {grace_until} on its devices are refused"),
                ),
                (false, _) => (other, "is past its time".to_owned()),
            };
            (tier, format!("one that ended {next_update}"), what)
        }
    };
    tier.map(|tier| (tier, found, what))
}

fn judge_firmware(
    policy: &CompiledPolicy,
    manufacturer: &str,
    least: FirmwareVersion,
    found: FirmwareVersion,
    findings: &mut Vec<Finding>,
) {
    if found >= least {
        return;
    }
    let message = format!(
        "The TPM by {manufacturer} has firmware {found}, and policy {} wants {least} or later: update the TPM's \
         firmware.",
        policy.citation()
    );
    findings.push(refusal("TPM firmware version", &format!("{least} or later"), &found.to_string(), message));
}

fn refusal(claim: &str, expected: &str, found: &str, message: String) -> Finding {
    Finding {
        accept: None,
        check: Check::EndorsementPolicy,
        tier: Tier::Contraindicated,
        claim: claim.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        message,
    }
}
