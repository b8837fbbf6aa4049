//! Evidence of TEEs: recorded from real ones, and made by platforms in software that lie.

mod azure;
mod cca;
mod dcap;
mod nvidia;
mod snp;

use std::fs;

use assay_evidence::Check;
use assay_evidence::check::Failure;
use assay_evidence::tpm::ek_certificate::TrustAnchor;

/// A recorded file; the root folder says in one line when it is absent.
fn recorded(path: &str) -> Option<Vec<u8>> {
    let root = crate::files::recorded("../tee")?;
    let path = root.join(path);
    Some(fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The certificates of a recorded PEM file, in DER.
fn recorded_pem(path: &str) -> Option<Vec<Vec<u8>>> {
    let pem = recorded(path)?;
    Some(x509_parser::pem::Pem::iter_from_buffer(&pem).map(|pem| pem.unwrap().contents).collect())
}

fn checks(failures: &[Failure]) -> Vec<Check> {
    failures.iter().map(|failure| failure.check).collect()
}

fn anchor(der: &[u8]) -> Vec<TrustAnchor> {
    TrustAnchor::from_pem_or_der(der).unwrap()
}

/// A certificate with the last year of its life made another, as its key did not sign it.
fn with_a_longer_life(der: &[u8]) -> Vec<u8> {
    let mut edited = der.to_vec();
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    let until = certificate.validity().not_after.to_datetime();
    let digits = format!("{:02}{:02}{:02}", until.year() % 100, u8::from(until.month()), until.day());
    let at = der.windows(digits.len()).rposition(|window| window == digits.as_bytes()).unwrap();
    edited[at] = if edited[at] == b'9' { b'8' } else { edited[at] + 1 };
    edited
}
