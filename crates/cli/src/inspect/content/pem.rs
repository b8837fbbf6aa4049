//! PEM: certificates one by one or as a bundle, revocation lists, public keys. Of private keys nothing is shown.

use assay_evidence::tpm::CertificateSummary;
use assay_evidence::tpm::revocation::RevocationList;
use rustls_pki_types::pem::{PemObject as _, SectionKind};

use super::report::{Report, Severity, Value};
use super::{Context, Fault, Looks, certificate, der, malformed};

/// Armour at the very start, but for white space.
pub(super) fn begins(head: &[u8], _is_all: bool) -> bool {
    head.trim_ascii_start().starts_with(b"-----BEGIN ")
}

/// Reads every section.
pub(super) fn read(bytes: &[u8], context: &Context) -> Result<Report, Fault> {
    let mut certificates: Vec<Vec<u8>> = Vec::new();
    let mut others: Vec<(SectionKind, Vec<u8>)> = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let number = certificates.len() + others.len();
        match section.map_err(|error| malformed("PEM", format!("section {number}: {error}")))? {
            (SectionKind::Certificate, der) => certificates.push(der),
            other => others.push(other),
        }
        if certificates.len() + others.len() > SECTIONS_MAX {
            return Err(malformed("PEM", format!("it has more than {SECTIONS_MAX} sections")));
        }
    }
    match (certificates.as_slice(), others.as_slice()) {
        ([one], []) => describe_certificate(one, context),
        ([_, ..], []) => describe_bundle(&certificates, context),
        ([], [(SectionKind::Crl, _), ..]) => {
            let lists = RevocationList::from_pem_or_der(bytes.trim_ascii_start());
            Ok(der::describe_lists(&lists.map_err(|error| malformed("a revocation list", error))?, context))
        }
        ([], [(SectionKind::PublicKey, key)]) => der::describe_key(key),
        (_, sections) if sections.iter().any(|(kind, _)| is_private(*kind)) => {
            Err(Fault::Unknown(Looks::PrivateKey))
        }
        _ => Err(malformed("PEM", "it holds sections that do not belong together, or none that is known")),
    }
}

fn is_private(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

fn describe_certificate(der: &[u8], context: &Context) -> Result<Report, Fault> {
    let summary = CertificateSummary::read(der).map_err(|error| malformed("a certificate", error))?;
    Ok(certificate::describe(der, &summary, context))
}

/// Several certificates: a trust bundle where all are authorities, or else a chain.
pub(super) fn describe_bundle<D: AsRef<[u8]>>(
    certificates: &[D],
    context: &Context,
) -> Result<Report, Fault> {
    let mut reports = Vec::new();
    let mut all_authorities = true;
    for (index, der) in certificates.iter().enumerate() {
        let der = der.as_ref();
        let summary = CertificateSummary::read(der)
            .map_err(|error| malformed("certificates", format!("certificate {index}: {error}")))?;
        all_authorities &= summary.is_ca;
        reports.push(certificate::describe(der, &summary, context));
    }
    let count = reports.len();
    let (kind, title) = match all_authorities {
        true => ("bundle", format!("bundle of {count} authorities")),
        false => ("certificate-chain", format!("{count} certificates")),
    };
    let mut report = Report::new(kind, title);
    for (index, one) in reports.into_iter().enumerate() {
        for remark in one.remarks.iter().filter(|remark| remark.severity != Severity::Note) {
            report.remark(remark.severity, format!("certificate {index}: {}", remark.message));
        }
        let members = one.members.into_iter().map(|member| (member.name, member.value));
        let titled = std::iter::once(("is".into(), Value::from(one.title))).chain(members);
        report = report.with(index.to_string(), Value::group(titled));
    }
    Ok(report)
}

/// Sections that are read of one file.
const SECTIONS_MAX: usize = 1024;
