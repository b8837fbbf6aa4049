//! Certificates: of endorsement keys, of platforms, of workloads, of authorities.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::{AttributeCertificate, CertificateSummary};
use assay_identity::x509_svid;

use super::Context;
use super::report::{Column, Place, Report, Severity, Table, Value};

/// What kind a certificate is: a stable name, and words.
fn kind(summary: &CertificateSummary) -> (&'static str, String) {
    let spiffe = summary.uris().find(|uri| uri.starts_with("spiffe://"));
    match spiffe {
        Some(id) if summary.is_ca => ("spiffe-authority", format!("authority of {id}")),
        Some(id) => ("svid", format!("X.509-SVID of {id}")),
        None if summary.is_of_platform() => {
            let [maker, model, ..] = &summary.platform;
            ("platform-certificate", titled("platform certificate", [maker, model]))
        }
        None if summary.is_of_ek() => {
            let [maker, model, _] = &summary.tpm;
            ("ek-certificate", titled("EK certificate", [maker, model]))
        }
        None if summary.is_ca => {
            ("ca-certificate", format!("certificate of the authority {}", summary.subject))
        }
        None => ("certificate", format!("certificate of {}", summary.subject)),
    }
}

/// What it is, and of what by whom, as far as it says so.
fn titled(what: &str, names: [&Option<String>; 2]) -> String {
    let names: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
    if names.is_empty() { what.to_owned() } else { format!("{what}, {}", names.join(" ")) }
}

/// Everything that a certificate says.
pub(super) fn describe(der: &[u8], summary: &CertificateSummary, context: &Context) -> Report {
    let (kind, title) = kind(summary);
    let texts = |names: &[&'static str], values: &[Option<String>]| {
        if values.iter().all(Option::is_none) {
            return Value::Absent;
        }
        Value::group(names.iter().copied().zip(values).map(|(name, value)| (name, Value::of(value.clone()))))
    };
    let extensions =
        summary.extensions.iter().map(|(name, critical)| vec![name.as_str().into(), (*critical).into()]);
    let (before, after) = summary.around;
    let mut report = Report::new(kind, title)
        .with("subject", summary.subject.as_str())
        .with("issuer", summary.issuer.as_str())
        .with("serial", summary.serial.as_str())
        .with("not_before", summary.not_before.to_string())
        .with("not_after", summary.not_after.to_string())
        .with("tpm", texts(&["manufacturer", "model", "version"], &summary.tpm))
        .with("platform", texts(&["manufacturer", "model", "version", "serial"], &summary.platform))
        .with("names", Value::list(summary.names.iter().map(String::as_str)))
        .with("key", summary.key.as_str())
        .with("signature", summary.signature.as_str())
        .with("is_authority", summary.is_ca)
        .with("path_length", Value::of(summary.path_length.map(u64::from)))
        .with("key_usage", Value::list(summary.key_usage.iter().copied()))
        .with("extended_key_usage", Value::list(summary.extended_key_usage.iter().map(String::as_str)))
        .with("subject_key_id", Value::of(summary.subject_key_id.clone()))
        .with("authority_key_id", Value::of(summary.authority_key_id.clone()))
        .with("sha256", summary.sha256.to_hex())
        .with("spki_sha256", summary.spki_sha256.to_hex())
        .with("extensions", Table { columns: EXTENSION_COLUMNS, rows: extensions.collect() });
    if (before, after) != (0, 0) {
        report.remark(
            Severity::Note,
            format!("{before} bytes before the certificate and {after} after it are the NV index's, and were passed over"),
        );
    }
    remarks(der, summary, kind, context, &mut report);
    report
}

/// Everything that an attribute certificate says.
pub(super) fn describe_attributes(certificate: &AttributeCertificate, context: &Context) -> Report {
    let (kind, title) = match certificate.is_of_platform() {
        true => {
            let [maker, model, ..] = &certificate.platform;
            ("platform-attribute-certificate", titled("platform certificate", [maker, model]))
        }
        false => ("attribute-certificate", format!("attribute certificate of {}", certificate.issuer)),
    };
    let holder = certificate.holder.as_ref().map_or(Value::Absent, |(issuer, serial)| {
        Value::group([("issuer", Value::from(issuer.as_str())), ("serial", serial.as_str().into())])
    });
    let names = ["manufacturer", "model", "version", "serial"];
    let platform = names.into_iter().zip(&certificate.platform);
    let extensions =
        certificate.extensions.iter().map(|(name, critical)| vec![name.as_str().into(), (*critical).into()]);
    let mut report = Report::new(kind, title)
        .with("holder", holder)
        .with("issuer", certificate.issuer.as_str())
        .with("serial", certificate.serial.as_str())
        .with("not_before", certificate.not_before.to_string())
        .with("not_after", certificate.not_after.to_string())
        .with("platform", Value::group(platform.map(|(name, value)| (name, Value::of(value.clone())))))
        .with("attributes", Value::list(certificate.attributes.iter().map(String::as_str)))
        .with("signature", certificate.signature.as_str())
        .with("sha256", certificate.sha256.to_hex())
        .with("extensions", Table { columns: EXTENSION_COLUMNS, rows: extensions.collect() });
    of_time(certificate.not_before, certificate.not_after, context, &mut report);
    report.remark(
        Severity::Note,
        "it has no key: it belongs to whoever has the certificate that it names as its holder, of a platform its TPM's EK",
    );
    report.remark(Severity::Note, "the signature was not looked at: its issuer's certificate decides");
    report
}

fn of_time(not_before: UnixTime, not_after: UnixTime, context: &Context, report: &mut Report) {
    if not_after < context.now {
        report.remark(Severity::Warning, format!("it expired at {not_after}"));
    }
    if not_before > context.now {
        report.remark(Severity::Warning, format!("it is not valid before {not_before}"));
    }
}

fn remarks(der: &[u8], summary: &CertificateSummary, kind: &str, context: &Context, report: &mut Report) {
    of_time(summary.not_before, summary.not_after, context, report);
    if summary.signature.ends_with("sha1") {
        report.remark(
            Severity::Warning,
            "it is signed over SHA-1, which no path of certificates is built on here",
        );
    }
    match kind {
        "svid" => {
            if let Err(error) = x509_svid::presented_id(der) {
                report.remark(Severity::Error, format!("nobody is authenticated by it: {error}"));
            }
        }
        "ek-certificate" => match CertificateSummary::ek_rules(der) {
            Ok(broken) => {
                for failure in broken {
                    let (expected, found) = (&failure.expected, &failure.found);
                    report.remark(
                        Severity::Error,
                        format!(
                            "no EK is endorsed by it: {}: expected {expected}, found {found}",
                            failure.claim
                        ),
                    );
                }
            }
            Err(error) => report.remark(Severity::Error, format!("the strict reader refuses it: {error}")),
        },
        "platform-certificate" | "ca-certificate" => {
            if let Err(error) = CertificateSummary::strict_reader(der) {
                report.remark(
                    Severity::Warning,
                    format!("the strict reader of TPM certificates refuses it: {error}"),
                );
            }
        }
        _ => {}
    }
    report.remark(Severity::Note, "the signature was not looked at: its issuer's certificate decides");
}

const EXTENSION_COLUMNS: &[Column] =
    &[Column { name: "extension", place: Place::Row }, Column { name: "critical", place: Place::Row }];
