//! What a TPM signs: quotes and certifications (TPMS_ATTEST).

use assay_evidence::HashAlgorithm;
use assay_evidence::tpm::attest::{Attest, Body};
use assay_evidence::tpm::name::Name;

use super::report::{Report, Severity, Value};
use super::{Context, Fault, malformed};

/// TPM_GENERATED_VALUE, with or without the length of a TPM2B_ATTEST before it.
pub(super) fn begins(head: &[u8], _is_all: bool) -> bool {
    let magic = Attest::MAGIC.to_be_bytes();
    head.starts_with(&magic) || head.get(2..).is_some_and(|head| head.starts_with(&magic))
}

/// Reads a statement.
pub(super) fn read(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let inner = match bytes.starts_with(&Attest::MAGIC.to_be_bytes()) {
        true => bytes,
        false => bytes.get(2..).unwrap_or_default(),
    };
    let attest = Attest::parse(inner).map_err(|error| malformed("a TPM's statement", error))?;
    let (kind, title) = match &attest.body {
        Body::Quote { selection, .. } => ("quote", format!("quote of {selection}")),
        Body::Certify { .. } => ("certification", "certification of a key by a TPM".to_owned()),
        Body::SessionAudit { .. } => ("session-audit", "what went through a session of a TPM".to_owned()),
        Body::NvCertify { .. } => ("nv-certification", "what is in an NV index of a TPM".to_owned()),
        Body::Creation { .. } => ("creation", "how a key was made in a TPM".to_owned()),
        Body::Other => ("attestation", format!("statement of a TPM of type {:#06x}", attest.attest_type)),
    };
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let clock = attest.clock_info;
    let mut report = Report::new(kind, title)
        .with("nonce", hex(&attest.extra_data))
        .with("signer", signer(&attest.qualified_signer))
        .with("reset_count", u64::from(clock.reset_count))
        .with("restart_count", u64::from(clock.restart_count))
        .with("clock_ms", clock.clock)
        .with("clock_is_safe", clock.safe)
        .with("firmware_version", format!("{:#018x}", attest.firmware_version));
    report = match &attest.body {
        Body::Quote { selection, pcr_digest } => {
            let banks = selection.banks().map(|(bank, set)| {
                (bank.name(), Value::list(set.iter().map(|index| u64::from(index.get()))))
            });
            report.with("pcrs", Value::group(banks)).with("pcr_digest", hex(pcr_digest))
        }
        Body::Certify { name, qualified_name } => {
            report.with("name", hex(name)).with("qualified_name", hex(qualified_name))
        }
        Body::SessionAudit { digest } => report.with("session_digest", hex(digest)),
        Body::NvCertify { index_name, offset, contents } => report
            .with("name", hex(index_name))
            .with("offset", u64::from(*offset))
            .with("contents", hex(contents)),
        Body::Creation { name, creation_hash } => {
            report.with("name", hex(name)).with("creation_hash", hex(creation_hash))
        }
        Body::Other => report,
    };
    if let Body::Quote { selection, .. } = &attest.body
        && selection.banks().next().is_some()
        && selection.banks().all(|(bank, _)| bank == HashAlgorithm::Sha1)
    {
        report.remark(Severity::Warning, "it is of the SHA-1 bank alone, which nobody should rely on");
    }
    if attest.extra_data.is_empty() {
        report.remark(Severity::Warning, "there is no nonce in it, so it may be of any time");
    }
    if !clock.safe {
        report.remark(
            Severity::Note,
            "the TPM was switched off without warning since, so its clock may have been ahead already",
        );
    }
    report.remark(
        Severity::Note,
        "the signature is a file of its own, and was not looked at (assay appraise verifies both)",
    );
    Ok(report)
}

fn signer(qualified_name: &[u8]) -> String {
    let hex = data_encoding::HEXLOWER.encode(qualified_name);
    match Name::from_bytes(qualified_name) {
        Some(_) => format!("qualified Name {hex}"),
        None => hex,
    }
}
