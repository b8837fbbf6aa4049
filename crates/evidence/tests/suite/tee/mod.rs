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
