//! AMD SEV-SNP: the report that the security processor signs of a guest, with the key that AMD vouches for.
//!
//! [`verify`] is the only maker of [`SnpClaims`]. The report's signature is checked over the bytes received, its key's
//! certificate up to a root key that is pinned here ([`Product::root_spki_sha256`]), and what the certificate says of
//! chip and firmware is held against what the report says. `report.rs` has the layout, `vek.rs` the certificate.

mod product;
mod report;
mod tcb;
mod vek;

use crate::check::{Check, Failure};
use crate::digest::HashAlgorithm;
use crate::time::UnixTime;
use crate::tpm::ek_certificate::{Endorsers, IssuerList};
use crate::tpm::path::{Path, PathChecks, verify_path};
use crate::tpm::public_key::{SignatureAlgorithm, SignatureScheme};

pub use self::product::Product;
pub use self::report::{GuestPolicy, Mitigations, PlatformInfo, ReportError, SigningKey, TcbVersions};
use self::report::{REPORT_BYTES, Report};
pub use self::tcb::Tcb;
use self::vek::Vek;
pub use self::vek::VekError;
use super::{Verified, not_understood, pinned_root};

/// What a guest sent, believed by nobody yet.
#[derive(Clone, Copy, Debug)]
pub struct SnpEvidence<'a> {
    /// ATTESTATION_REPORT, 1,184 bytes.
    pub report: &'a [u8],
    /// The certificate of the key that signed it, in DER.
    pub vek: &'a [u8],
    /// Certificates above it in DER, in any order: ASK or ASVK, and the ARK.
    pub authorities: &'a [&'a [u8]],
}

/// What the verifier knows, and asked for.
#[derive(Clone, Debug, Default)]
pub struct SnpExpectation {
    /// What REPORT_DATA has to be; `None` where nobody asked.
    pub report_data: Option<[u8; 64]>,
    /// Roots that count beside AMD's, and revocation lists.
    pub endorsers: Endorsers,
}

/// What a genuine report says. Made by [`verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnpClaims {
    /// Of the structure, 2 to 5.
    pub version: u32,
    /// Which line of processors.
    pub product: Product,
    /// Which kind of key signed.
    pub signing_key: SigningKey,
    /// Which chip, where the report says so: a VLEK is of no chip, and a platform may mask it.
    pub chip_id: Option<Vec<u8>>,
    /// Which cloud provider's key signed, of a VLEK.
    pub csp_id: Option<String>,
    /// Security version of the guest, as its owner signed it.
    pub guest_svn: u32,
    /// What the guest's owner allows.
    pub policy: GuestPolicy,
    /// How the platform is set up.
    pub platform: PlatformInfo,
    /// The privilege level that asked for the report; 0 is the highest.
    pub vmpl: u32,
    /// What the guest put in.
    pub report_data: [u8; 64],
    /// What was loaded into the guest before it ran.
    pub measurement: [u8; 48],
    /// What the host put in at the launch.
    pub host_data: [u8; 32],
    /// The guest's family, as its owner names it.
    pub family_id: [u8; 16],
    /// The guest's image, as its owner names it.
    pub image_id: [u8; 16],
    /// SHA-384 over the key that signed the guest's identity; zero where none did.
    pub id_key_digest: [u8; 48],
    /// SHA-384 over the key that signed that key; `None` where none did.
    pub author_key_digest: Option<[u8; 48]>,
    /// Identifies the guest as long as it runs.
    pub report_id: [u8; 32],
    /// The firmware's versions.
    pub tcb: TcbVersions,
    /// Mitigations that were on, of version 5.
    pub mitigations: Option<Mitigations>,
    /// The root at which the key's path ends, for people.
    pub anchor: String,
    /// When the first certificate of that path expires.
    pub valid_until: UnixTime,
    /// What is known of the revocation of that path.
    pub lists: Vec<IssuerList>,
}

/// Whether the bytes can be a report, by their length and what they start with.
pub fn is_report(bytes: &[u8]) -> bool {
    bytes.len() == REPORT_BYTES && matches!(bytes, [2..=5, 0, 0, 0, ..])
}

/// Whether the bytes are the certificate of a key that signs reports, going by its own words.
pub fn is_vek(der: &[u8]) -> bool {
    vek::is_vek(der)
}

/// Makes every check of a report at a time, each reported on its own.
pub fn verify(evidence: &SnpEvidence<'_>, expectation: &SnpExpectation, at: UnixTime) -> Verified<SnpClaims> {
    let report = Report::parse(evidence.report)
        .map_err(|error| Failure::new(Check::TeeParse, "SNP report", "an SNP report", error.to_string()));
    let vek = Vek::parse(evidence.vek).map_err(|error| {
        Failure::new(Check::TeeEndorsement, "SNP key certificate", "a VCEK's or VLEK's", error.to_string())
    });
    let (report, vek) = match (report, vek) {
        (Ok(report), Ok(vek)) => (report, vek),
        (report, vek) => return Verified::refused(report.err().into_iter().chain(vek.err()).collect()),
    };
    let mut failures = Vec::new();
    let path = match verify_vek(&vek, evidence.authorities, expectation, at) {
        Ok(path) => Some(path),
        Err(flaws) => {
            failures.extend(flaws);
            None
        }
    };
    failures.extend(check_signature(&report, &vek));
    failures.extend(check_kind(&report, &vek));
    failures.extend(check_product(&report, &vek));
    failures.extend(check_tcb(&report, &vek));
    failures.extend(check_chip(&report, &vek));
    failures.extend(expectation.report_data.and_then(|wanted| check_report_data(&report, &wanted)));
    let notes = notes(&report, &vek, path.as_ref(), at);
    let claims = path.filter(|_| failures.is_empty()).map(|path| claims(&report, vek, path));
    Verified { claims, failures, notes }
}

/// The certificate, up to a root that counts.
fn verify_vek(
    vek: &Vek,
    authorities: &[&[u8]],
    expectation: &SnpExpectation,
    at: UnixTime,
) -> Result<Path, Vec<Failure>> {
    let certificate = &vek.certificate;
    let mut flaws: Vec<Failure> = not_understood(certificate, "SNP key certificate").collect();
    if vek.issuer_found() != vek.issuer_name() {
        // The same authority's other keys sign what is of another kind, or of another product.
        let claim = format!("issuer of the {} certificate", vek.product);
        flaws.push(Failure::new(Check::TeeEndorsement, claim, vek.issuer_name(), vek.issuer_found()));
    }
    let mut anchors = expectation.endorsers.anchors.to_vec();
    let is_root = |spki: &str| spki == vek.product.root_spki_sha256();
    anchors.extend(authorities.iter().take(AUTHORITIES_MAX).filter_map(|der| pinned_root(der, is_root)));
    let endorsers = expectation.endorsers.with_anchors(anchors);
    match verify_path(certificate, authorities, &endorsers, at, CHECKS) {
        Ok(path) if flaws.is_empty() => Ok(path),
        path => {
            flaws.extend(path.err().unwrap_or_default());
            Err(flaws)
        }
    }
}

fn check_signature(report: &Report<'_>, vek: &Vek) -> Option<Failure> {
    let wrong = |found: String| {
        Failure::new(Check::TeeReportSignature, "SNP report", "a signature by the certified key", found)
    };
    let Some(key) = &vek.certificate.key else {
        return Some(wrong("a key that is not on P-384".to_owned()));
    };
    let algorithm = SignatureAlgorithm { scheme: SignatureScheme::EcDsa, hash: HashAlgorithm::Sha384 };
    key.verify(algorithm, report.signed, &report.signature).err().map(|error| wrong(error.to_string()))
}

fn check_kind(report: &Report<'_>, vek: &Vek) -> Option<Failure> {
    (report.signing_key != vek.kind).then(|| {
        let (expected, found) = (format!("{:?}", report.signing_key), format!("{:?}", vek.kind));
        Failure::new(
            Check::TeeEndorsement,
            "kind of the SNP key certificate",
            expected.to_uppercase(),
            found.to_uppercase(),
        )
    })
}

/// Of version 2 the processor is what the certificate says; its TCB layout fits all products but Turin.
fn check_product(report: &Report<'_>, vek: &Vek) -> Option<Failure> {
    let wrong = |expected: String, found: String| {
        Some(Failure::new(Check::TeeProduct, "processor of the SNP report", expected, found))
    };
    match report.cpuid {
        Some((family, model)) => match Product::from_cpuid(family, model) {
            Some(product) if product == vek.product => None,
            Some(product) => wrong(vek.product.to_string(), product.to_string()),
            None => wrong(vek.product.to_string(), format!("family {family:#x}, model {model:#x}")),
        },
        None if vek.product == Product::Turin => {
            wrong("a version that names the processor, as Turin's do".to_owned(), "version 2".to_owned())
        }
        None => None,
    }
}

fn check_tcb(report: &Report<'_>, vek: &Vek) -> Option<Failure> {
    let reported = report.tcb(vek.product).reported;
    (reported != vek.tcb).then(|| {
        Failure::new(
            Check::TeeTcb,
            "REPORTED_TCB of the SNP report",
            vek.tcb.to_string(),
            reported.to_string(),
        )
    })
}

/// A VCEK is one chip's. Turin's identifier is 8 bytes, the rest of the field is zero.
fn check_chip(report: &Report<'_>, vek: &Vek) -> Option<Failure> {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let chip_id = report.chip_id.as_slice();
    let wrong = |expected: String| {
        Some(Failure::new(Check::TeeChip, "CHIP_ID of the SNP report", expected, hex(chip_id)))
    };
    match &vek.hwid {
        _ if is_zero(chip_id) => None,
        None => wrong("zero, as a VLEK is of no chip".to_owned()),
        Some(hwid) => match chip_id.split_at_checked(hwid.len()) {
            Some((id, rest)) if id == hwid.as_slice() && is_zero(rest) => None,
            _ => wrong(hex(hwid)),
        },
    }
}

fn check_report_data(report: &Report<'_>, wanted: &[u8; 64]) -> Option<Failure> {
    (report.report_data != *wanted).then(|| {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        Failure::new(
            Check::TeeReportData,
            "REPORT_DATA of the SNP report",
            hex(wanted),
            hex(&report.report_data),
        )
    })
}

/// What is left open.
fn notes(report: &Report<'_>, vek: &Vek, path: Option<&Path>, at: UnixTime) -> Vec<Failure> {
    let mut notes = Vec::new();
    if vek.kind == SigningKey::Vcek && is_zero(&report.chip_id) {
        let found = "zero: the platform masks it".to_owned();
        notes.push(Failure::new(Check::TeeChip, "CHIP_ID of the SNP report", "the chip's", found));
    }
    notes.extend(path.into_iter().flat_map(|path| &path.lists).filter_map(|list| super::list_note(list, at)));
    notes
}

fn claims(report: &Report<'_>, vek: Vek, path: Path) -> SnpClaims {
    SnpClaims {
        version: report.version,
        product: vek.product,
        signing_key: vek.kind,
        chip_id: vek.hwid.filter(|_| !is_zero(&report.chip_id)),
        csp_id: vek.csp_id,
        guest_svn: report.guest_svn,
        policy: report.policy,
        platform: report.platform,
        vmpl: report.vmpl,
        report_data: report.report_data,
        measurement: report.measurement,
        host_data: report.host_data,
        family_id: report.family_id,
        image_id: report.image_id,
        id_key_digest: report.id_key_digest,
        author_key_digest: report.has_author_key.then_some(report.author_key_digest),
        report_id: report.report_id,
        tcb: report.tcb(vek.product),
        mitigations: report.mitigations,
        anchor: path.anchor,
        valid_until: path.valid_until,
        lists: path.lists,
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

const CHECKS: PathChecks = PathChecks {
    chain: Check::TeeChain,
    signature: Check::TeeChain,
    validity: Check::TeeValidity,
    revoked: Check::TeeRevoked,
};
/// Two are enough; AMD's files hold three.
const AUTHORITIES_MAX: usize = 8;
