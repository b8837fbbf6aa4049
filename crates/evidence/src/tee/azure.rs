//! Azure's confidential machines: a virtual TPM whose key the hardware's report is bound to.
//!
//! The paravisor (HCL) runs at the machine's highest privilege and holds the TPM. NV index 0x01400001 has what it got from the
//! hardware at boot: an SNP report or a TDREPORT whose REPORT_DATA begins with the hash of a JSON text, and in that text the TPM's
//! AK. So the hardware vouches for the AK, and the AK for PCRs and nonce. The guest can ask for reports too, at a lower privilege,
//! which is why the privilege counts.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::dcap::{self, DcapClaims, DcapCollateral, DcapEvidence, DcapExpectation, Subject};
use super::snp::{self, SnpClaims, SnpEvidence, SnpExpectation};
use super::{Verified, certificates_of};
use crate::check::{Check, Failure};
use crate::digest::{Digest, HashAlgorithm, PcrIndex};
use crate::read::{Reader, Truncated};
use crate::time::UnixTime;
use crate::tpm::attest::{Attest, Body, ClockInfo};
use crate::tpm::pcr::PcrValues;
use crate::tpm::public_key::{PublicKey, SignatureAlgorithm, SignatureScheme};

/// What a machine showed, as the usual clients write it in JSON.
#[derive(Clone, Debug)]
pub struct AzureEvidence {
    hcl_report: Vec<u8>,
    quote: Vec<u8>,
    signature: Vec<u8>,
    pcrs: Vec<Digest>,
    platform: Platform,
}

#[derive(Clone, Debug)]
enum Platform {
    Snp { vek: Vec<u8> },
    Tdx { quote: Vec<u8> },
}

/// What vouches for the platform, and what was asked for.
#[derive(Debug, Default)]
pub struct AzureExpectation<'a> {
    /// The nonce that the TPM's quote has to answer; `None` where nobody asked.
    pub nonce: Option<&'a [u8]>,
    /// Of SNP: AMD's certificates above the key's, in DER.
    pub authorities: &'a [&'a [u8]],
    /// Of SNP: roots and lists.
    pub snp: SnpExpectation,
    /// Of TDX: Intel's statements.
    pub collateral: Option<&'a DcapCollateral>,
    /// Of TDX: roots.
    pub dcap: DcapExpectation,
}

/// What a genuine machine says. Made by [`verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AzureClaims {
    /// The hardware's part.
    pub platform: AzurePlatform,
    /// The PCRs of the virtual TPM, of SHA-256.
    pub pcrs: PcrValues,
    /// What the quote was asked with.
    pub nonce: Vec<u8>,
    /// The virtual TPM's clock and counters.
    pub clock: ClockInfo,
    /// SubjectPublicKeyInfo of the AK that the hardware vouches for.
    pub ak_spki: Vec<u8>,
    /// What the paravisor says of the machine's set-up, such as `secure-boot`.
    pub configuration: Value,
}

/// The hardware's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzurePlatform {
    /// A report of SEV-SNP.
    Snp(Box<SnpClaims>),
    /// A quote of TDX.
    Tdx(Box<DcapClaims>),
}

impl AzureEvidence {
    /// Whether a JSON text looks like one.
    pub fn is_json(bytes: &[u8]) -> bool {
        let text = bytes.get(..bytes.len().min(JSON_BYTES_MAX)).unwrap_or_default();
        let has = |name: &[u8]| text.windows(name.len()).any(|window| window == name);
        has(b"\"hcl_report\"") || (has(b"\"report\"") && has(b"\"vcek\""))
    }

    /// Reads the JSON, with bytes as text or as lists of numbers.
    pub fn from_json(bytes: &[u8]) -> Result<Self, AzureError> {
        if bytes.len() > JSON_BYTES_MAX {
            return Err(AzureError::TooLong(bytes.len()));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(AzureError::Json)?;
        let Quote { message, signature, pcrs } = document.quote;
        if pcrs.len() != usize::from(PcrIndex::COUNT) {
            return Err(AzureError::Field("pcrs"));
        }
        let pcrs = pcrs.into_iter().map(|pcr| Digest::new(HashAlgorithm::Sha256, &pcr.hex()?));
        let platform = match (document.vcek, document.td_quote) {
            (Some(vek), None) => Platform::Snp { vek: vek.certificate().ok_or(AzureError::Field("vcek"))? },
            (None, Some(quote)) => {
                Platform::Tdx { quote: quote.base64().ok_or(AzureError::Field("td_quote"))? }
            }
            _ => return Err(AzureError::Platform),
        };
        Ok(AzureEvidence {
            hcl_report: document.report.base64().ok_or(AzureError::Field("hcl_report"))?,
            quote: message.hex().ok_or(AzureError::Field("message"))?,
            signature: signature.hex().ok_or(AzureError::Field("signature"))?,
            pcrs: pcrs.collect::<Option<_>>().ok_or(AzureError::Field("pcrs"))?,
            platform,
        })
    }

    /// Whether the hardware is SNP's, where it otherwise is TDX's.
    pub fn is_snp(&self) -> bool {
        matches!(self.platform, Platform::Snp { .. })
    }
}

/// Makes every check of a machine's evidence at a time, each reported on its own.
pub fn verify(
    evidence: &AzureEvidence,
    expectation: &AzureExpectation<'_>,
    at: UnixTime,
) -> Verified<AzureClaims> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let expected = "the paravisor's report";
        Verified::refused(vec![Failure::new(Check::TeeParse, "HCL report", expected, error.to_string())])
    };
    let report = match HclReport::parse(&evidence.hcl_report) {
        Ok(report) => report,
        Err(error) => return unreadable(&error),
    };
    let runtime = match Runtime::read(report.runtime) {
        Ok(runtime) => runtime,
        Err(error) => return unreadable(&error),
    };
    let (platform, mut failures, notes) = verify_platform(evidence, expectation, &report, at);
    failures.extend(platform.as_ref().and_then(|platform| check_binding(platform, &report)));
    let quoted = verify_quote(evidence, &runtime.ak, expectation.nonce);
    let (quoted, flaws) = quoted.map_or_else(|flaws| (None, flaws), |quoted| (Some(quoted), Vec::new()));
    failures.extend(flaws);
    let claims = match (platform, quoted) {
        (Some(platform), Some(quoted)) if failures.is_empty() => Some(AzureClaims {
            platform,
            pcrs: quoted.pcrs,
            nonce: quoted.attest.extra_data,
            clock: quoted.attest.clock_info,
            ak_spki: runtime.ak.spki_der(),
            configuration: runtime.configuration,
        }),
        _ => None,
    };
    Verified { claims, failures, notes }
}

type PlatformOutcome = (Option<AzurePlatform>, Vec<Failure>, Vec<Failure>);

fn verify_platform(
    evidence: &AzureEvidence,
    expectation: &AzureExpectation<'_>,
    report: &HclReport<'_>,
    at: UnixTime,
) -> PlatformOutcome {
    match &evidence.platform {
        Platform::Snp { vek } => {
            let evidence = SnpEvidence { report: report.hardware, vek, authorities: expectation.authorities };
            let Verified { claims, failures, notes } = snp::verify(&evidence, &expectation.snp, at);
            (claims.map(|claims| AzurePlatform::Snp(Box::new(claims))), failures, notes)
        }
        Platform::Tdx { quote } => {
            let evidence = DcapEvidence { quote, cc_log: None };
            let Verified { claims, failures, notes } =
                dcap::verify(&evidence, expectation.collateral, &expectation.dcap, at);
            (claims.map(|claims| AzurePlatform::Tdx(Box::new(claims))), failures, notes)
        }
    }
}

/// The hardware's report is for this runtime data, and it was the paravisor that asked for it.
fn check_binding(platform: &AzurePlatform, report: &HclReport<'_>) -> Option<Failure> {
    let wrong = |claim: &str, expected: &str, found: String| {
        Some(Failure::new(Check::TeeBinding, claim, expected, found))
    };
    let (report_data, kind) = match platform {
        AzurePlatform::Snp(claims) => (&claims.report_data, RuntimeKind::Snp),
        AzurePlatform::Tdx(claims) => (&claims.report_data, RuntimeKind::Tdx),
    };
    if report.kind != kind {
        return wrong("HCL report", "of the same kind as the hardware's evidence", "of another".to_owned());
    }
    match platform {
        AzurePlatform::Snp(claims) if claims.vmpl != 0 => {
            return wrong("VMPL of the report in the HCL report", "0", claims.vmpl.to_string());
        }
        AzurePlatform::Tdx(claims) if !matches!(claims.subject, Subject::Tdx(_)) => {
            return wrong("hardware's evidence", "a TDX guest's", "an enclave's".to_owned());
        }
        _ => {}
    }
    let hash = HashAlgorithm::Sha256.hash(&[report.runtime]);
    if report_data.get(..32) == Some(hash.as_bytes()) {
        return None;
    }
    let found = data_encoding::HEXLOWER.encode(report_data.get(..32).unwrap_or_default());
    wrong("REPORT_DATA over the HCL report's runtime data", &hash.to_hex(), found)
}

struct Quoted {
    attest: Attest,
    pcrs: PcrValues,
}

fn verify_quote(
    evidence: &AzureEvidence,
    ak: &PublicKey,
    nonce: Option<&[u8]>,
) -> Result<Quoted, Vec<Failure>> {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let attest = Attest::parse(&evidence.quote).map_err(|error| {
        vec![Failure::new(Check::QuoteParse, "quote of the virtual TPM", "a TPMS_ATTEST", error.to_string())]
    })?;
    let mut failures = Vec::new();
    let mut fail = |check, expected: &str, found: String| {
        failures.push(Failure::new(check, "quote of the virtual TPM", expected, found));
    };
    let algorithm = SignatureAlgorithm { scheme: SignatureScheme::RsaSsa, hash: HashAlgorithm::Sha256 };
    if let Err(error) = ak.verify(algorithm, &evidence.quote, &evidence.signature) {
        fail(Check::QuoteSignature, "a signature by the AK that the hardware vouches for", error.to_string());
    }
    if attest.magic != Attest::MAGIC {
        fail(Check::QuoteMagic, "TPM_GENERATED_VALUE", format!("{:#010x}", attest.magic));
    }
    if let Some(nonce) = nonce.filter(|nonce| *nonce != attest.extra_data) {
        fail(Check::QuoteNonce, &hex(nonce), hex(&attest.extra_data));
    }
    let mut pcrs = PcrValues::default();
    match &attest.body {
        Body::Quote { selection, pcr_digest } => {
            let mut values = Vec::new();
            for (bank, index) in selection.iter() {
                let value = evidence.pcrs.get(usize::from(index.get()));
                match value.filter(|_| bank == HashAlgorithm::Sha256) {
                    Some(value) => {
                        values.push(value.as_bytes());
                        pcrs.insert(index, *value);
                    }
                    None => fail(Check::QuoteSelection, "the SHA-256 bank alone", bank.to_string()),
                }
            }
            let digest = HashAlgorithm::Sha256.hash(&values);
            if digest.as_bytes() != pcr_digest.as_slice() {
                fail(Check::QuotePcrDigest, &hex(pcr_digest), digest.to_hex());
            }
        }
        Body::Certify { .. }
        | Body::SessionAudit { .. }
        | Body::NvCertify { .. }
        | Body::Creation { .. }
        | Body::Other => {
            fail(Check::QuoteType, "a quote", format!("{:#06x}", attest.attest_type));
        }
    }
    if failures.is_empty() { Ok(Quoted { attest, pcrs }) } else { Err(failures) }
}

/// The content of NV index 0x01400001.
struct HclReport<'a> {
    /// The report of SNP, or the TDREPORT, and what is left of its place.
    hardware: &'a [u8],
    kind: RuntimeKind,
    /// The JSON text, as it was hashed.
    runtime: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuntimeKind {
    Snp,
    Tdx,
}

impl<'a> HclReport<'a> {
    /// A header of 32 bytes, the hardware's 1,184, a header of 20, and the text.
    fn parse(bytes: &'a [u8]) -> Result<Self, HclError> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(4)? != b"HCLA" {
            return Err(HclError::Magic);
        }
        reader.bytes(28)?;
        let hardware = reader.bytes(HARDWARE_BYTES)?;
        let _size = reader.u32_le()?;
        let _version = reader.u32_le()?;
        let kind = match reader.u32_le()? {
            2 => RuntimeKind::Snp,
            4 => RuntimeKind::Tdx,
            other => return Err(HclError::Kind(other)),
        };
        let hash = reader.u32_le()?;
        if hash != HASH_SHA256 {
            return Err(HclError::Hash(hash));
        }
        let length = reader.u32_le()?;
        let runtime = reader.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(HclReport { hardware, kind, runtime })
    }
}

/// What the hardware's report is bound to.
struct Runtime {
    ak: PublicKey,
    configuration: Value,
}

impl Runtime {
    fn read(json: &[u8]) -> Result<Self, HclError> {
        #[derive(Deserialize)]
        struct Text {
            keys: Vec<Key>,
            #[serde(default, rename = "vm-configuration")]
            configuration: Value,
        }
        #[derive(Deserialize)]
        struct Key {
            kid: String,
            kty: String,
            #[serde(default)]
            n: String,
            #[serde(default)]
            e: String,
        }
        let Text { keys, configuration } = serde_json::from_slice(json).map_err(|_| HclError::Runtime)?;
        let mut named = keys.into_iter().filter(|key| key.kid == AK_NAME);
        let (Some(key), None) = (named.next(), named.next()) else { return Err(HclError::Ak) };
        let number =
            |text: &str| data_encoding::BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok();
        let modulus = number(&key.n).filter(|_| key.kty == "RSA").ok_or(HclError::Ak)?;
        let exponent = number(&key.e).filter(|bytes| bytes.len() <= 4).ok_or(HclError::Ak)?;
        let exponent = exponent.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let modulus = crate::der::strip_zeros(&modulus).to_vec();
        Ok(Runtime { ak: PublicKey::Rsa { modulus, exponent }, configuration })
    }
}

/// The JSON of a client, in its present and its earlier form.
#[derive(Deserialize)]
struct Document {
    #[serde(alias = "hcl_report")]
    report: Text,
    #[serde(alias = "tpm_quote")]
    quote: Quote,
    vcek: Option<Text>,
    td_quote: Option<Text>,
}

#[derive(Deserialize)]
struct Quote {
    message: Text,
    signature: Text,
    pcrs: Vec<Text>,
}

/// Bytes, as text or as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Encoded(String),
    Bytes(Vec<u8>),
}

impl Text {
    fn hex(&self) -> Option<Vec<u8>> {
        match self {
            Text::Encoded(text) => data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
            Text::Bytes(bytes) => Some(bytes.clone()),
        }
    }

    fn base64(&self) -> Option<Vec<u8>> {
        match self {
            Text::Encoded(text) => {
                data_encoding::BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()
            }
            Text::Bytes(bytes) => Some(bytes.clone()),
        }
    }

    /// DER: as it is, in base64url, or in PEM.
    fn certificate(&self) -> Option<Vec<u8>> {
        match self {
            Text::Encoded(pem) if pem.starts_with("-----BEGIN") => {
                certificates_of(pem.as_bytes()).ok()?.into_iter().next()
            }
            other => other.base64(),
        }
    }
}

/// A JSON text that is no evidence of such a machine.
#[derive(Debug, Error)]
pub enum AzureError {
    /// Longer than any.
    #[error("{0} bytes, at most {JSON_BYTES_MAX} make sense")]
    TooLong(usize),
    /// Not the document.
    #[error("not evidence of an Azure machine in JSON: {0}")]
    Json(serde_json::Error),
    /// A member that does not read.
    #[error("{0}: not bytes as text (hex, or base64url) or as numbers, or too few of them")]
    Field(&'static str),
    /// Neither of both, or both.
    #[error("either vcek or td_quote has to be there")]
    Platform,
}

/// Bytes that are not what the paravisor leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum HclError {
    #[error(transparent)]
    Truncated(#[from] Truncated),
    #[error("it does not begin with HCLA")]
    Magic,
    #[error("hardware of kind {0}; 2 (SNP) and 4 (TDX) are known")]
    Kind(u32),
    #[error("hash {0} over the runtime data; 1 (SHA-256) is known")]
    Hash(u32),
    #[error("runtime data that is not JSON with keys")]
    Runtime,
    #[error("runtime data without exactly one RSA key named {AK_NAME}")]
    Ak,
}

const HARDWARE_BYTES: usize = 1184;
const HASH_SHA256: u32 = 1;
const AK_NAME: &str = "HCLAkPub";
/// Twice what lists of numbers make of the largest seen.
const JSON_BYTES_MAX: usize = 128 << 10;
