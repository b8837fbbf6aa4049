//! Signed tokens in compact form: EARs, JWT-SVIDs, and others. Signatures are not looked at: whose keys count is not
//! in the token.

use assay_evidence::time::UnixTime;
use assay_trust::ear::{EarClaims, PROFILE};
use data_encoding::BASE64URL_NOPAD;

use super::json::value_of;
use super::report::{Report, Severity};
use super::{Context, Fault, malformed};

/// Base64url of an object, and dots.
pub(super) fn begins(head: &[u8], is_all: bool) -> bool {
    let text = head.trim_ascii();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let dots = text.iter().filter(|byte| **byte == b'.').count();
    text.starts_with(b"eyJ") && text.iter().all(is_token) && (dots == 2 || !is_all && dots <= 2)
}

/// Reads a token.
pub(super) fn read(bytes: &[u8], context: &Context) -> Result<Report, Fault> {
    let bad = |error: &'static str| malformed("a signed token", error);
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|_| bad("it is not text"))?;
    let parts: Vec<&str> = text.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else { return Err(bad("it has not three parts")) };
    let part = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).ok();
    let object =
        |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok().filter(|v| v.is_object());
    let header =
        part(header).and_then(|bytes| object(&bytes)).ok_or_else(|| bad("its header is no JSON object"))?;
    let payload = part(payload).ok_or_else(|| bad("its payload is not base64url"))?;
    let claims = object(&payload).ok_or_else(|| bad("its payload is no JSON object"))?;
    let signature = part(signature).ok_or_else(|| bad("its signature is not base64url"))?;
    let subject = claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or("nobody");
    let (kind, what) = match claims.get("eat_profile").and_then(serde_json::Value::as_str) {
        Some(PROFILE) => ("ear", "attestation result (EAR)"),
        Some(_) => ("eat", "attestation token"),
        None if subject.starts_with("spiffe://") => ("jwt-svid", "JWT-SVID"),
        None => ("jwt", "signed token"),
    };
    let mut report = Report::new(kind, format!("{what} about {subject}"))
        .with("header", value_of(&header))
        .with("claims", value_of(&claims))
        .with("signature_bytes", signature.len());
    remarks(kind, &header, &claims, &payload, context, &mut report);
    Ok(report)
}

fn remarks(
    kind: &str,
    header: &serde_json::Value,
    claims: &serde_json::Value,
    payload: &[u8],
    context: &Context,
    report: &mut Report,
) {
    let time = |name| claims.get(name).and_then(serde_json::Value::as_u64).map(UnixTime);
    for (name, word) in [("iat", "issued at"), ("nbf", "not valid before"), ("exp", "valid until")] {
        if let Some(time) = time(name) {
            report.remark(Severity::Note, format!("{word} {time}"));
        }
    }
    if kind == "ear" {
        if let Err(error) = EarClaims::read(payload, context.now) {
            report.remark(Severity::Error, format!("a reader of attestation results refuses it: {error}"));
        }
    } else if time("exp").is_some_and(|exp| exp <= context.now) {
        report.remark(Severity::Warning, "it has expired");
    }
    if header
        .get("alg")
        .and_then(serde_json::Value::as_str)
        .is_none_or(|alg| alg.eq_ignore_ascii_case("none"))
    {
        report.remark(Severity::Error, "it names no algorithm, so nobody signed it");
    }
    let how = if kind == "ear" { " (assay ear verify)" } else { "" };
    report.remark(Severity::Note, format!("the signature was not looked at{how}"));
}

/// The claims of an EAR without its signature, as JSON.
pub(super) fn read_claims(json: &serde_json::Value) -> Report {
    Report::new("ear-claims", "claims of an attestation result, unsigned").with("claims", value_of(json))
}
