//! Intel SGX and TDX: DCAP quotes, with the collateral that says how the platform stands.
//!
//! [`verify`] is the only maker of [`DcapClaims`]. Intel's root key is pinned; everything below it is verified in its order:
//! the platform's certificate and the lists that may take it back, the quoting enclave's report by the platform's key, the
//! quote by the key in that report, and then what Intel says of these versions, in collateral that is in force. Without
//! collateral nothing is claimed. `quote.rs` has the layouts, `collateral.rs` what Intel signs, `tcb.rs` what follows.

mod collateral;
mod pck;
mod quote;
mod tcb;

use crate::boot_log::parse_cc;
use crate::check::{Check, Failure};
use crate::der;
use crate::digest::HashAlgorithm;
use crate::time::UnixTime;
use crate::tpm::certificate::Certificate;
use crate::tpm::ek_certificate::{Endorsers, IssuerList, ListStanding, TrustAnchor};
use crate::tpm::path::{Path, PathChecks, verify_path};
use crate::tpm::public_key::{PublicKey, SignatureAlgorithm, SignatureError, SignatureScheme};

pub use self::collateral::{CollateralError, DcapCollateral};
use self::collateral::{Signed, certificates};
use self::pck::Pck;
pub use self::pck::PckError;
pub use self::quote::QuoteError;
use self::quote::{Body, EnclaveReport, Quote, TdReport};
use self::tcb::Standing;
pub use self::tcb::TcbStatus;
use super::{Verified, not_understood, pinned_root};

/// What was sent, believed by nobody yet.
#[derive(Clone, Copy, Debug)]
pub struct DcapEvidence<'a> {
    /// The quote; zeros may follow it.
    pub quote: &'a [u8],
    /// The boot log of a TDX guest (ACPI table CCEL), where it is to be held against the guest's registers.
    pub cc_log: Option<&'a [u8]>,
}

/// What the verifier knows, and asked for.
#[derive(Clone, Debug, Default)]
pub struct DcapExpectation {
    /// What REPORTDATA has to be; `None` where nobody asked.
    pub report_data: Option<[u8; 64]>,
    /// Roots that count beside Intel's.
    pub anchors: Vec<TrustAnchor>,
}

/// What a genuine quote says. Made by [`verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DcapClaims {
    /// Of the structure, 3 to 5.
    pub version: u16,
    /// What was put in by whoever asked for it.
    pub report_data: [u8; 64],
    /// The enclave or the guest.
    pub subject: Subject,
    /// Which kind of platform it is.
    pub fmspc: [u8; 6],
    /// How platform, quoting enclave and TDX module stand together.
    pub tcb_status: TcbStatus,
    /// How many events of the boot log replay to the guest's registers; `None` where there was no log.
    pub log_events: Option<usize>,
    /// What keeps the platform from the newest level, such as `SGX component 7: have 2, need 3`.
    pub tcb_missing: Option<String>,
    /// Intel's advisories on the versions that run.
    pub advisories: Vec<String>,
    /// `tcbEvaluationDataNumber` of the TCB info, which tells newer views from older ones.
    pub evaluation: u32,
    /// The root at which the path ends, for people.
    pub anchor: String,
    /// When the first of its certificates, lists and statements runs out.
    pub valid_until: UnixTime,
}

/// What a quote is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An SGX enclave.
    Sgx {
        /// What was loaded.
        mr_enclave: [u8; 32],
        /// Who signed it.
        mr_signer: [u8; 32],
        /// Its signer's number for the product.
        product_id: u16,
        /// Its security version.
        svn: u16,
        /// What it was configured with.
        config_id: Vec<u8>,
        /// The security version of that.
        config_svn: u16,
        /// The host may read and change its memory.
        is_debug: bool,
    },
    /// A TDX guest.
    Tdx(Box<Guest>),
}

/// A TDX guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// What was loaded before it ran.
    pub mr_td: [u8; 48],
    /// What its owner put in, three times.
    pub mr_config_id: [u8; 48],
    /// Of the owner.
    pub mr_owner: [u8; 48],
    /// Of the owner's configuration.
    pub mr_owner_config: [u8; 48],
    /// What was measured while it booted and ran.
    pub rtmr: [[u8; 48]; 4],
    /// ATTRIBUTES, as they stand.
    pub attributes: TdAttributes,
    /// Which state of the processor it may use.
    pub xfam: u64,
    /// The TDX module.
    pub mr_seam: [u8; 48],
    /// A service TD that is bound to it and can move it; from TD 1.5 on, zero where there is none.
    pub mr_service_td: Option<[u8; 48]>,
    /// Bytes that are signed and that we do not read: what TD 1.5ex adds.
    pub unread_bytes: usize,
}

/// ATTRIBUTES of a TDX guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdAttributes(u64);

impl TdAttributes {
    /// The host may read and change the guest's memory: any of the bits that say a guest is under test.
    pub fn is_debug(self) -> bool {
        self.0 & 0xff != 0
    }

    /// A host cannot inject exceptions for pages that it took away.
    pub fn disables_sept_ve(self) -> bool {
        self.0 & (1 << 28) != 0
    }

    /// A service TD may move it to another platform.
    pub fn is_migratable(self) -> bool {
        self.0 & (1 << 29) != 0
    }

    /// The bits as they stand.
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// Whether the bytes start as a quote does.
pub fn is_quote(bytes: &[u8]) -> bool {
    quote::is_quote(bytes)
}

/// Makes every check of a quote at a time, each reported on its own.
pub fn verify(
    evidence: &DcapEvidence<'_>,
    collateral: Option<&DcapCollateral>,
    expectation: &DcapExpectation,
    at: UnixTime,
) -> Verified<DcapClaims> {
    let refused = |check, claim: &str, expected: &str, found: String| {
        Verified::refused(vec![Failure::new(check, claim, expected, found)])
    };
    let quote = match Quote::parse(evidence.quote) {
        Ok(quote) => quote,
        Err(error) => return refused(Check::TeeParse, "DCAP quote", "a quote", error.to_string()),
    };
    let chain = match certificates("the quote's certification data", quote.pck_chain) {
        Ok(chain) => chain,
        Err(error) => {
            return refused(Check::TeeParse, "DCAP quote", "a certificate chain", error.to_string());
        }
    };
    let pck = match Pck::parse(chain.first().map(Vec::as_slice).unwrap_or_default()) {
        Ok(pck) => pck,
        Err(error) => {
            return refused(Check::TeeEndorsement, "PCK certificate", "a platform's", error.to_string());
        }
    };
    let mut judge = Judge { expectation, at, failures: Vec::new(), valid_until: UnixTime(u64::MAX) };
    judge.signatures(&quote, &pck);
    judge.report_data(&quote);
    let log_events = evidence.cc_log.and_then(|log| judge.log(&quote, log));
    let Some(collateral) = collateral else {
        judge.fail(Check::TeeCollateral, "DCAP collateral", "Intel's statements on this platform", "none");
        return Verified::refused(judge.failures);
    };
    let anchor = judge.chains(&pck, &chain, collateral);
    judge.dates(collateral);
    let standing = judge.standing(&quote, &pck, collateral);
    let Judge { failures, valid_until, .. } = judge;
    let claims = match (anchor, standing) {
        (Some(anchor), Some((standing, tcb_missing))) if failures.is_empty() => Some(DcapClaims {
            version: quote.version,
            report_data: *quote.report_data(),
            subject: subject(&quote.body),
            log_events,
            fmspc: pck.fmspc,
            tcb_status: standing.status,
            tcb_missing,
            advisories: standing.advisories,
            evaluation: collateral.tcb_info.content.tcb_evaluation_data_number,
            anchor,
            valid_until,
        }),
        _ => None,
    };
    Verified { claims, failures, notes: Vec::new() }
}

/// The checks of one quote, and what they found.
struct Judge<'a> {
    expectation: &'a DcapExpectation,
    at: UnixTime,
    failures: Vec<Failure>,
    valid_until: UnixTime,
}

impl Judge<'_> {
    fn fail(&mut self, check: Check, claim: &str, expected: impl Into<String>, found: impl Into<String>) {
        self.failures.push(Failure::new(check, claim, expected, found));
    }

    /// The quoting enclave's report by the platform's key, its key by that report, and the quote by that key.
    fn signatures(&mut self, quote: &Quote<'_>, pck: &Pck) {
        let by_platform = match &pck.certificate.key {
            Some(key) => check_raw(key, quote.qe_report_bytes, &quote.qe_report_signature),
            None => Err("a key that is not on P-256".to_owned()),
        };
        if let Err(found) = by_platform {
            let expected = "a signature by the platform's certified key";
            self.fail(Check::TeeReportSignature, "report of the quoting enclave", expected, found);
        }
        let bound = HashAlgorithm::Sha256.hash(&[&quote.attestation_key, quote.qe_authentication_data]);
        if quote.qe_report.report_data.as_slice() != [bound.as_bytes(), &[0; 32]].concat() {
            let expected = "the hash of the attestation key";
            let found = "another key's".to_owned();
            self.fail(Check::TeeReportSignature, "REPORTDATA of the quoting enclave", expected, found);
        }
        let by_enclave = match point(&quote.attestation_key) {
            Some(key) => check_raw(&key, quote.signed, &quote.signature),
            None => Err("a key that is no point".to_owned()),
        };
        if let Err(found) = by_enclave {
            self.fail(Check::TeeReportSignature, "DCAP quote", "a signature by its attestation key", found);
        }
    }

    fn report_data(&mut self, quote: &Quote<'_>) {
        let found = quote.report_data();
        if let Some(wanted) = self.expectation.report_data.filter(|wanted| wanted != found) {
            let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
            self.fail(Check::TeeReportData, "REPORTDATA of the quote", hex(&wanted), hex(found));
        }
    }

    /// The log, replayed to the guest's registers. One that the log does not speak of may have been extended since.
    fn log(&mut self, quote: &Quote<'_>, log: &[u8]) -> Option<usize> {
        let Body::Tdx(td) = &quote.body else {
            self.fail(Check::TeeLog, "boot log", "a TDX guest", "an enclave, which has no registers");
            return None;
        };
        let log = match parse_cc(log) {
            Ok(log) => log,
            Err(error) => {
                self.fail(Check::TeeLog, "boot log", "the data of the table CCEL", error.to_string());
                return None;
            }
        };
        for (register, value) in log.replay() {
            let found = td.rtmr.get(usize::from(register.get())).map(<[u8; 48]>::as_slice);
            if found != Some(value.as_bytes()) {
                let found = found.map_or_else(
                    || "no such register".to_owned(),
                    |found| data_encoding::HEXLOWER.encode(found),
                );
                self.fail(Check::TeeLog, &format!("RTMR {}", register.get()), value.to_hex(), found);
            }
        }
        Some(log.events().count())
    }

    /// The platform's certificate, and those of whoever signed the collateral, each with lists in force.
    fn chains(&mut self, pck: &Pck, chain: &[Vec<u8>], collateral: &DcapCollateral) -> Option<String> {
        let (tcb_info, qe_identity) = (&collateral.tcb_info, &collateral.qe_identity);
        let mut anchors = self.expectation.anchors.clone();
        let everything = chain.iter().chain(&tcb_info.chain).chain(&qe_identity.chain);
        let is_root = |spki: &str| spki == ROOT_SPKI_SHA256;
        anchors.extend(everything.filter_map(|der| pinned_root(der, is_root)).take(1));
        let endorsers = collateral.lists.with_anchors(anchors);
        let above: Vec<&[u8]> = chain.iter().skip(1).map(Vec::as_slice).collect();
        let anchor = self.path(&pck.certificate, &above, &endorsers);
        self.signed(tcb_info, "TCB info", &endorsers);
        self.signed(qe_identity, "QE identity", &endorsers);
        anchor
    }

    fn path(&mut self, leaf: &Certificate, above: &[&[u8]], endorsers: &Endorsers) -> Option<String> {
        self.failures.extend(not_understood(leaf, &leaf.subject_text));
        match verify_path(leaf, above, endorsers, self.at, CHECKS) {
            Ok(Path { anchor, valid_until, lists }) => {
                self.valid_until = self.valid_until.min(valid_until);
                lists.iter().for_each(|list| self.list(list));
                Some(anchor)
            }
            Err(failures) => {
                self.failures.extend(failures);
                None
            }
        }
    }

    /// Intel publishes a list for each of its authorities, so that none of them may be missing.
    fn list(&mut self, list: &IssuerList) {
        match list.list {
            ListStanding::Until(until) if self.at <= until => self.valid_until = self.valid_until.min(until),
            _ => {
                let note = super::list_note(list, self.at);
                let failure = note.map(|note| Failure { check: Check::TeeCollateral, ..note });
                // Several paths have the root in them, and its list is one.
                self.failures.extend(failure.filter(|failure| !self.failures.contains(failure)));
            }
        }
    }

    /// A statement, by a key that the root itself certified for this: the platforms' keys chain to the same root.
    fn signed<T>(&mut self, statement: &Signed<T>, what: &str, endorsers: &Endorsers) {
        let claim = format!("signer of the {what}");
        let signer = statement.chain.first().map(|der| Certificate::parse(der));
        let Some(Ok(signer)) = signer else {
            return self.fail(Check::TeeCollateral, &claim, "a certificate", "one that does not read");
        };
        if !signer.subject_text.split(", ").any(|attribute| attribute == STATEMENT_SIGNER) {
            self.fail(Check::TeeCollateral, &claim, STATEMENT_SIGNER, signer.subject_text.as_str());
        }
        self.path(&signer, &[], endorsers);
        let good = match &signer.key {
            Some(key) => check_raw(key, statement.text.as_bytes(), &statement.signature),
            None => Err("a key that is not on P-256".to_owned()),
        };
        if let Err(found) = good {
            self.fail(Check::TeeCollateral, what, "signed by its signer", found);
        }
    }

    fn dates(&mut self, collateral: &DcapCollateral) {
        let statements = [
            ("TCB info", collateral.tcb_info.content.in_force()),
            ("QE identity", collateral.qe_identity.content.in_force()),
        ];
        for (what, dates) in statements {
            match dates {
                Some((from, until)) if from <= self.at && self.at <= until => {
                    self.valid_until = self.valid_until.min(until);
                }
                Some((from, until)) => {
                    let expected = format!("in force at {}", self.at);
                    self.fail(
                        Check::TeeCollateral,
                        what,
                        expected,
                        format!("in force from {from} to {until}"),
                    );
                }
                None => self.fail(Check::TeeCollateral, what, "two dates", "what does not read as dates"),
            }
        }
    }

    /// What Intel says of this platform, its quoting enclave and its TDX module.
    fn standing(
        &mut self,
        quote: &Quote<'_>,
        pck: &Pck,
        collateral: &DcapCollateral,
    ) -> Option<(Standing, Option<String>)> {
        let (info, enclave) = (&collateral.tcb_info.content, &collateral.qe_identity.content);
        let (td, ids) = match &quote.body {
            Body::Sgx(_) => (None, ("SGX", "QE")),
            Body::Tdx(td) => (Some(td.as_ref()), ("TDX", "TD_QE")),
        };
        let found = (info.id.as_str(), enclave.id.as_str());
        if found != ids || (info.version, enclave.version, info.tcb_type) != (3, 2, 0) {
            let expected = format!("{} of version 3 and {} of version 2", ids.0, ids.1);
            let found = format!(
                "{} of version {} and {} of version {}",
                found.0, info.version, found.1, enclave.version
            );
            self.fail(Check::TeeCollateral, "kind of the collateral", expected, found);
            return None;
        }
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        if (info.fmspc, info.pce_id) != (pck.fmspc, pck.pce_id) {
            let of = |fmspc: &[u8], pce_id: &[u8]| format!("FMSPC {}, PCE-ID {}", hex(fmspc), hex(pce_id));
            let (expected, found) = (of(&pck.fmspc, &pck.pce_id), of(&info.fmspc, &info.pce_id));
            self.fail(Check::TeeCollateral, "platform of the TCB info", expected, found);
            return None;
        }
        let platform = info.level(pck, td);
        let (mut standing, missing) =
            self.judged("TCB level of the platform", "a level that Intel lists", platform)?;
        let of_enclave = enclave.standing(&quote.qe_report);
        add(&mut standing, self.judged("quoting enclave", "Intel's, of a listed version", of_enclave)?);
        if let Some(td) = td {
            let of_module = self.judged("TDX module", "Intel's, of a listed version", info.module(td))?;
            of_module.into_iter().for_each(|part| add(&mut standing, part));
        }
        Some((standing, missing))
    }

    fn judged<T>(&mut self, claim: &str, expected: &str, found: Result<T, String>) -> Option<T> {
        found.map_err(|found| self.fail(Check::TeeTcb, claim, expected, found)).ok()
    }
}

fn add(whole: &mut Standing, part: Standing) {
    whole.status = whole.status.with_part(part.status);
    for advisory in part.advisories {
        if !whole.advisories.contains(&advisory) {
            whole.advisories.push(advisory);
        }
    }
}

fn subject(body: &Body<'_>) -> Subject {
    match body {
        Body::Sgx(report) => sgx(report),
        Body::Tdx(report) => Subject::Tdx(Box::new(guest(report))),
    }
}

fn sgx(report: &EnclaveReport<'_>) -> Subject {
    Subject::Sgx {
        mr_enclave: report.mr_enclave,
        mr_signer: report.mr_signer,
        product_id: report.product_id,
        svn: report.svn,
        config_id: report.config_id.to_vec(),
        config_svn: report.config_svn,
        // SGX ATTRIBUTES: bit 1 of the flags.
        is_debug: report.attributes.first().is_some_and(|flags| flags & 2 != 0),
    }
}

fn guest(report: &TdReport<'_>) -> Guest {
    Guest {
        mr_td: report.mr_td,
        mr_config_id: report.mr_config_id,
        mr_owner: report.mr_owner,
        mr_owner_config: report.mr_owner_config,
        rtmr: report.rtmr,
        attributes: TdAttributes(u64::from_le_bytes(report.attributes)),
        xfam: u64::from_le_bytes(report.xfam),
        mr_seam: report.mr_seam,
        mr_service_td: report.later.map(|(_, service)| service),
        unread_bytes: report.unread.len(),
    }
}

/// ECDSA over P-256 with SHA-256, as r and s side by side.
fn check_raw(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> Result<(), String> {
    let (r, s) = signature.split_at(32);
    let signature = der::sequence(&[&der::unsigned(r), &der::unsigned(s)]);
    let algorithm = SignatureAlgorithm { scheme: SignatureScheme::EcDsa, hash: HashAlgorithm::Sha256 };
    key.verify(algorithm, message, &signature).map_err(|error: SignatureError| error.to_string())
}

fn point(bytes: &[u8; 64]) -> Option<PublicKey> {
    let (x, y) = bytes.split_at(32);
    Some(PublicKey::EcP256 { x: x.try_into().ok()?, y: y.try_into().ok()? })
}

const CHECKS: PathChecks = PathChecks {
    chain: Check::TeeChain,
    signature: Check::TeeChain,
    validity: Check::TeeValidity,
    revoked: Check::TeeRevoked,
};
/// SHA-256 over the SubjectPublicKeyInfo of the Intel SGX Root CA.
const ROOT_SPKI_SHA256: &str = "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e";
/// Whom Intel has sign statements.
const STATEMENT_SIGNER: &str = "CN=Intel SGX TCB Signing";
