//! DER, and NV indexes that hold a certificate among other bytes: whatever its content shows it to be.

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::SigningKey;
use assay_evidence::tpm::ek_certificate::CertificateError;
use assay_evidence::tpm::revocation::{RevocationList, RevocationListError};
use assay_evidence::tpm::{AttributeCertificate, CertificateSummary, NvCertificate};

use super::report::{Report, Severity, Value};
use super::{Context, Fault, Looks, certificate, malformed};

/// A SEQUENCE; a short one, such as a key on a curve, is all there is.
pub(super) fn begins(head: &[u8], is_all: bool) -> bool {
    match head {
        [0x30, length, ..] if *length >= 0x80 => true,
        [0x30, length, rest @ ..] => is_all && usize::from(*length) == rest.len() && rest.len() > 1,
        _ => false,
    }
}

/// A SEQUENCE that begins a few bytes further on.
pub(super) fn begins_nv(head: &[u8], is_all: bool) -> bool {
    is_all && (NvCertificate::find(head).is_some() || CertificateSummary::is_cut_short(head))
}

/// Reads DER.
pub(super) fn read(bytes: &[u8], context: &Context) -> Result<Report, Fault> {
    if let Ok(summary) = CertificateSummary::read(bytes) {
        return Ok(certificate::describe(bytes, &summary, context));
    }
    if AttributeCertificate::begins(bytes) {
        let read = AttributeCertificate::read(bytes)
            .map_err(|error| malformed("an attribute certificate", error))?;
        return Ok(certificate::describe_attributes(&read, context));
    }
    match RevocationList::from_pem_or_der(bytes) {
        Ok(lists) => return Ok(describe_lists(&lists, context)),
        Err(RevocationListError::Der) => {}
        Err(error) => return Err(malformed("a revocation list", error)),
    }
    if let Ok(key) = SigningKey::from_certificate_or_spki(bytes) {
        return Ok(Report::new("public-key", "public key")
            .with("spki_sha256", key.spki_sha256().to_hex())
            .with("bytes", bytes.len()));
    }
    if is_private_key(bytes) {
        return Err(Fault::Unknown(Looks::PrivateKey));
    }
    let stated = stated_bytes(bytes).filter(|stated| *stated > bytes.len());
    match (CertificateSummary::read(bytes), stated) {
        (Err(error @ CertificateError::CutShort { .. }), _) => {
            Err(malformed("a certificate or a revocation list", error))
        }
        (_, Some(stated)) => Err(malformed("DER", CertificateError::CutShort { stated, found: bytes.len() })),
        _ => Err(Fault::Unknown(Looks::Der)),
    }
}

/// How long the first element says it is, with its own head.
fn stated_bytes(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, 0x81, length, ..] => Some(3 + usize::from(*length)),
        [_, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        [_, 0x83, high, middle, low, ..] => {
            usize::try_from(u32::from_be_bytes([0, *high, *middle, *low])).ok()?.checked_add(5)
        }
        _ => None,
    }
}

/// Reads an NV index.
pub(super) fn read_nv(bytes: &[u8], context: &Context) -> Result<Report, Fault> {
    let summary = CertificateSummary::read(bytes)
        .map_err(|error| malformed("an NV index with a certificate", error))?;
    Ok(certificate::describe(bytes, &summary, context))
}

/// Revocation lists; their signatures are not looked at.
pub(super) fn describe_lists(lists: &[RevocationList], context: &Context) -> Report {
    let revoked: usize = lists.iter().map(RevocationList::revoked_count).sum();
    let issuers = lists.iter().map(|list| {
        let times = [
            ("issuer", Value::from(list.issuer())),
            ("this_update", list.this_update().to_string().into()),
            ("next_update", list.next_update().to_string().into()),
            ("revoked", list.revoked_count().into()),
        ];
        Value::group(times)
    });
    let what = if lists.len() == 1 {
        "revocation list".to_owned()
    } else {
        format!("{} revocation lists", lists.len())
    };
    let mut report = Report::new("crl", format!("{what}, {revoked} certificates are taken back"))
        .with("lists", Value::List(issuers.collect()));
    for list in lists.iter().filter(|list| list.next_update() < context.now) {
        report.remark(
            Severity::Warning,
            format!("its authority promised a newer list for {}: get that", list.next_update()),
        );
    }
    report.remark(Severity::Note, "the signature was not looked at: its authority's certificate decides");
    report
}

/// PKCS #8, PKCS #1 and SEC 1 begin with a version and what belongs to it.
fn is_private_key(bytes: &[u8]) -> bool {
    let body = match bytes {
        [0x30, 0x81, _, body @ ..] | [0x30, 0x82, _, _, body @ ..] => body,
        [0x30, length, body @ ..] if *length < 0x80 => body,
        _ => return false,
    };
    matches!(body, [2, 1, 0 | 1, 0x30 | 0x02 | 0x04, ..])
}

/// A public key, for people.
pub(super) fn describe_key(der: &[u8]) -> Result<Report, Fault> {
    let key = SigningKey::from_certificate_or_spki(der).map_err(|error| malformed("a public key", error))?;
    let spki = key.spki_sha256().to_hex();
    Ok(Report::new("public-key", "public key")
        .with("spki_sha256", spki)
        .with("sha256", HashAlgorithm::Sha256.hash(&[der]).to_hex()))
}
