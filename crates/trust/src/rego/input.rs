//! The claims as `input`: see [`RegoSection`](crate::policy::RegoSection) for each member.

use std::collections::BTreeMap;

use assay_evidence::Digest;
use assay_evidence::boot_log::{Authority, BootFacts, SecureBootVariables, Signature, SignatureKind};
use assay_evidence::ima::Entry;
use assay_evidence::tpm::ek_certificate::EkCertificate;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::{Claims, ImaClaims};
use regorus::Value;
use serde_json::{Value as Json, json};

use crate::path;

/// All that rules see. `None`: more entries are new than they are shown, so that they cannot judge.
pub(crate) fn input(claims: &Claims, endorsement: Option<&Endorsement>) -> Option<Value> {
    let new = claims.ima().map_or(0, |ima| ima.attested_total().saturating_sub(ima.first_index()));
    if new > NEW_ENTRIES_MAX {
        return None;
    }
    let mut pcrs: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for (bank, index, value) in claims.pcrs().iter() {
        pcrs.entry(bank.name()).or_default().insert(index.to_string(), value.to_hex());
    }
    let clock = claims.clock();
    Some(Value::from(json!({
        "pcrs": pcrs,
        "clock": {
            "milliseconds": clock.clock,
            "reset_count": clock.reset_count,
            "restart_count": clock.restart_count,
            "safe": clock.safe,
        },
        "tpm": { "firmware_version": claims.firmware_version() },
        "ak": {
            "name": claims.ak_name().to_string(),
            "signature_algorithm": claims.signature_algorithm().to_string(),
        },
        "endorsement": endorsement.map(of_endorsement),
        "boot": claims.boot().map(|boot| of_boot(boot.facts())),
        "ima": claims.ima().map(of_ima),
    })))
}

fn of_endorsement(endorsement: &Endorsement) -> Json {
    let of_certificate = |certificate: &EkCertificate| {
        json!({
            "manufacturer": certificate.manufacturer(),
            "model": certificate.model(),
            "version": certificate.version(),
            "issuer": certificate.issuer(),
        })
    };
    json!({
        "ek_sha256": endorsement.ek_sha256().to_hex(),
        "certificate": endorsement.certificate().map(of_certificate),
    })
}

fn of_boot(facts: &BootFacts) -> Json {
    let of_authority = |authority: &Authority| {
        json!({
            "variable": authority.variable,
            "digest": authority.signature.as_ref().map(|signature| digest(signature).to_string()),
        })
    };
    let of_variables = |variables: &SecureBootVariables| {
        let dbx = variables.dbx.iter().map(|entry: &Signature| digest(&entry.kind).to_string());
        json!({ "enabled": variables.is_enabled, "dbx": dbx.collect::<Vec<_>>() })
    };
    let applications = facts.boot_applications.iter().map(|image| image.digest.to_string());
    json!({
        "bank": facts.bank.name(),
        "firmware_version": facts.firmware_version,
        "sbat_level": facts.sbat_level,
        "secure_boot": facts.secure_boot.as_ref().map(of_variables),
        "authorities": facts.authorities.iter().map(of_authority).collect::<Vec<_>>(),
        "applications": applications.collect::<Vec<_>>(),
        "kernel_command_lines": facts.kernel_lines(),
    })
}

fn digest(signature: &SignatureKind) -> &Digest {
    match signature {
        SignatureKind::Certificate { sha256, .. } | SignatureKind::Other { sha256, .. } => sha256,
        SignatureKind::ImageDigest(digest) => digest,
    }
}

fn of_ima(ima: &ImaClaims) -> Json {
    let of_entry = |entry: Entry<'_>| {
        let digest = entry.file_digest().or_else(|| entry.verity_digest());
        json!({
            "path": path::to_text(entry.path()),
            "digest": digest.filter(|_| !entry.is_violation()).map(|digest| digest.to_string()),
            "violation": entry.is_violation(),
        })
    };
    json!({
        "total": ima.attested_total(),
        "first_index": ima.first_index(),
        "undecided": ima.undecided(),
        "new": ima.entries().map(of_entry).collect::<Vec<_>>(),
    })
}

/// Entries of one list that rules are shown; each takes about a kilobyte while they are judged.
pub(crate) const NEW_ENTRIES_MAX: u64 = 100_000;
