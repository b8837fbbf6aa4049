//! Who vouches for the TPM.

use assay_evidence::tpm::ek_certificate::{EkCertificate, RevocationDoubt};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::Claims;
use assay_evidence::{Check, Failure};

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
    findings: &mut Vec<Finding>,
) {
    let certificate = endorsement.and_then(Endorsement::certificate);
    let manufacturer = certificate.and_then(EkCertificate::manufacturer);
    let rule = policy.endorsement.rule(manufacturer);
    let required = rule.required.unwrap_or_default();
    let vouched = endorsement.is_some_and(|endorsement| vouches(required, &policy.endorsement, endorsement));
    if !vouched && required != EndorsementKind::DangerousNone {
        not_vouched(policy, required, endorsement, findings);
    }
    if let Some(certificate) = certificate {
        judge_manufacturer(policy, certificate, findings);
        judge_revocation(policy, certificate.revocation_doubts(), findings);
    }
    judge_identity(policy, endorsement, findings);
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

/// Says what is missing, and what would help.
fn not_vouched(
    policy: &CompiledPolicy,
    required: EndorsementKind,
    endorsement: Option<&Endorsement>,
    findings: &mut Vec<Finding>,
) {
    let certified = endorsement.is_some_and(|endorsement| endorsement.certificate().is_some());
    if !certified && required != EndorsementKind::Allowlist {
        let failures = endorsement.map_or(&[][..], Endorsement::failures);
        findings.extend(failures.iter().map(|failure| Finding::from_failure(failure, Tier::Contraindicated)));
        let or_listed = match required {
            EndorsementKind::Either => ", or vouch for the EK yourself in endorsement.ek_sha256",
            _ => "",
        };
        let message = format!(
            "No EK certificate vouches for this TPM, and policy {} requires one: enroll the device with its EK \
             certificate, or trust its manufacturer's root{or_listed}.",
            policy.citation()
        );
        findings.push(refusal(
            "EK certificate",
            "an EK certificate that chains to a trust anchor",
            "none",
            message,
        ));
    }
    let listed = endorsement.is_some_and(|endorsement| policy.endorsement.lists(endorsement.ek_sha256()));
    if !listed && matches!(required, EndorsementKind::Allowlist | EndorsementKind::Both) {
        let ek = endorsement.map_or("unknown".to_owned(), |endorsement| endorsement.ek_sha256().to_hex());
        let message = format!(
            "Policy {} lists the endorsement keys that it accepts, and not this one: if the device is yours, add \
             \"{ek}\" to endorsement.ek_sha256.",
            policy.citation()
        );
        findings.push(refusal("EK", "one of endorsement.ek_sha256", &ek, message));
    }
}

fn judge_manufacturer(policy: &CompiledPolicy, certificate: &EkCertificate, findings: &mut Vec<Finding>) {
    let accepted = &policy.endorsement.manufacturers;
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
fn judge_identity(policy: &CompiledPolicy, endorsement: Option<&Endorsement>, findings: &mut Vec<Finding>) {
    if let Some(identity) = endorsement.and_then(Endorsement::identity) {
        judge_revocation(policy, identity.revocation_doubts(), findings);
        return;
    }
    let failures = endorsement.map_or(&[][..], Endorsement::identity_failures);
    findings.extend(failures.iter().map(|failure| Finding::from_failure(failure, Tier::Contraindicated)));
    if policy.endorsement.idevid == Demand::Required {
        let message = format!(
            "The device has shown no IDevID and IAK that hold, and policy {} requires them: tell the agent where its \
             TPM has them and enroll the device again, or set endorsement.idevid = \"optional\".",
            policy.citation()
        );
        findings.push(refusal(
            "IDevID",
            "an IDevID and an IAK that chain to a trust anchor",
            "none",
            message,
        ));
    }
}

fn judge_revocation(policy: &CompiledPolicy, doubts: &[RevocationDoubt], findings: &mut Vec<Finding>) {
    let Some(tier) = policy.endorsement.stale_crl.tier() else { return };
    for doubt in doubts {
        let (issuer, found, what) = match doubt {
            RevocationDoubt::Stale { issuer, next_update } => {
                (issuer, format!("one that ended {next_update}"), "is past its time")
            }
            RevocationDoubt::NotSigned { issuer } => {
                (issuer, "one that it did not sign".to_owned(), "is not signed by it")
            }
        };
        let message = format!(
            "The revocation list of {issuer} {what}, so that a certificate revoked lately may pass: fetch the \
             authority's newest list into ek_crls. Policy {} weighs this by endorsement.stale_crl.",
            policy.citation()
        );
        let finding = Finding {
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
        check: Check::EndorsementPolicy,
        tier: Tier::Contraindicated,
        claim: claim.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        message,
    }
}
