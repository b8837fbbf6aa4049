//! Reports of confidential machines: AMD SEV-SNP reports, Intel TDX and SGX quotes, and Arm CCA tokens. Their main fields are
//! told; signatures and the chains behind them are not looked at (`assay tee verify` does).

use assay_evidence::read::Reader;

use super::report::{Report, Severity, Value};
use super::{Context, Fault, malformed};

/// SEV-SNP ABI (AMD 56860), ATTESTATION_REPORT: versions 2 to 5, signed with ECDSA P-384, and of one length.
pub(super) fn begins_snp(head: &[u8], is_all: bool) -> bool {
    let word = |at: usize| head.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    is_all
        && head.len() == SNP_BYTES
        && word(0).is_some_and(|version| (2..=5).contains(&version))
        && word(SNP_ALGORITHM_AT) == Some(SNP_ECDSA_P384)
}

/// Reads an attestation report.
pub(super) fn read_snp(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let fields = || -> Option<Report> {
        let number = |at: usize, count: usize| {
            let bytes = bytes.get(at..at + count)?;
            Some(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let hex = |at: usize, count: usize| {
            bytes.get(at..at + count).map(|part| data_encoding::HEXLOWER.encode(part))
        };
        let (version, policy) = (number(0, 4)?, number(8, 8)?);
        let key = match number(0x48, 4)? >> 2 & 7 {
            0 => "VCEK (of the chip)",
            1 => "VLEK (of the cloud provider)",
            7 => "none",
            _ => "of a kind that is not known",
        };
        let has_cpuid = version >= 3;
        let mut report = Report::new("snp-report", format!("AMD SEV-SNP report, version {version}"))
            .with("version", version)
            .with("guest_svn", number(4, 4)?)
            .with("vmpl", number(0x30, 4)?)
            .with("policy", format!("{policy:#x}"))
            .with("signed_by", key)
            .with("report_data", hex(0x50, 64)?)
            .with("measurement", hex(0x90, 48)?)
            .with("host_data", hex(0xc0, 32)?)
            .with("id_key_digest", hex(0xe0, 48)?)
            .with("author_key_digest", hex(0x110, 48)?)
            .with("report_id", hex(0x140, 32)?)
            .with("current_tcb", hex(0x38, 8)?)
            .with("reported_tcb", hex(0x180, 8)?)
            .with("committed_tcb", hex(0x1e0, 8)?)
            .with("launch_tcb", hex(0x1f0, 8)?)
            .with("platform_info", format!("{:#x}", number(0x40, 8)?))
            .with("cpuid", Value::of(hex(0x188, 3).filter(|_| has_cpuid)))
            .with("chip_id", hex(0x1a0, 64)?);
        if policy & SNP_POLICY_DEBUG != 0 {
            report.remark(
                Severity::Error,
                "its policy lets the host debug the guest, so it keeps nothing from the host",
            );
        }
        if policy & SNP_POLICY_MIGRATE_MA != 0 {
            report.remark(Severity::Warning, "its policy lets a migration agent take the guest along");
        }
        Some(report)
    };
    let report = fields().ok_or_else(|| malformed("an SEV-SNP report", "it ends early"))?;
    Ok(unverified(report))
}

/// Intel's DCAP quotes: a version, a key of ECDSA, and the vendor of Intel's quoting enclave.
pub(super) fn begins_dcap(head: &[u8], _is_all: bool) -> bool {
    matches!(head, [3..=5, 0, 2 | 3, 0, ..]) && head.get(12..28) == Some(INTEL_QE_VENDOR.as_slice())
}

/// Reads a quote of versions 3 to 5 (Intel SGX and TDX DCAP Quoting Library API, appendix A).
pub(super) fn read_dcap(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let short = |error: assay_evidence::read::Truncated| malformed("a TDX or SGX quote", error);
    let mut reader = Reader::new(bytes);
    let version = reader.u16_le().map_err(short)?;
    let _key_type = reader.u16_le().map_err(short)?;
    let tee = reader.u32_le().map_err(short)?;
    reader.bytes(QUOTE_HEADER_BYTES - 8).map_err(short)?;
    let body_bytes = match (version, tee) {
        (3, _) | (4, TEE_SGX) => SGX_BODY_BYTES,
        (4, _) => TDX_BODY_BYTES,
        _ => {
            let _kind = reader.u16_le().map_err(short)?;
            usize::try_from(reader.u32_le().map_err(short)?).unwrap_or(usize::MAX)
        }
    };
    let body = reader.bytes(body_bytes).map_err(short)?;
    let signature_bytes = usize::try_from(reader.u32_le().map_err(short)?).unwrap_or(usize::MAX);
    reader.bytes(signature_bytes).map_err(short)?;
    let report = match (version, tee) {
        (3, _) | (_, TEE_SGX) => sgx(version, body),
        (_, TEE_TDX) => tdx(version, body),
        _ => return Err(malformed("a TDX or SGX quote", format!("its TEE type {tee:#x} is not known"))),
    };
    let mut report = report.map_err(short)?;
    if !reader.is_empty() {
        let filled = if reader.rest().iter().all(|byte| *byte == 0) { "zeros" } else { "bytes" };
        report.remark(Severity::Note, format!("{} {filled} follow the quote", reader.rest().len()));
    }
    Ok(unverified(report))
}

type Fields = Result<Report, assay_evidence::read::Truncated>;

/// SGX report body, 384 bytes.
fn sgx(version: u16, body: &[u8]) -> Fields {
    let mut reader = Reader::new(body);
    let cpu_svn = hex(reader.bytes(16)?);
    let misc_select = reader.u32_le()?;
    reader.bytes(12 + 16)?;
    let (flags, xfrm) = (reader.u64_le()?, reader.u64_le()?);
    let mr_enclave = hex(reader.bytes(32)?);
    reader.bytes(32)?;
    let mr_signer = hex(reader.bytes(32)?);
    reader.bytes(32 + 64)?;
    let (product, svn) = (reader.u16_le()?, reader.u16_le()?);
    reader.bytes(2 + 42 + 16)?;
    let report_data = hex(reader.bytes(64)?);
    let mut report = Report::new("sgx-quote", format!("Intel SGX quote, version {version}"))
        .with("version", u64::from(version))
        .with("mr_enclave", mr_enclave)
        .with("mr_signer", mr_signer)
        .with("product", u64::from(product))
        .with("svn", u64::from(svn))
        .with("attributes", format!("{flags:#x}"))
        .with("xfrm", format!("{xfrm:#x}"))
        .with("misc_select", format!("{misc_select:#x}"))
        .with("cpu_svn", cpu_svn)
        .with("report_data", report_data);
    if flags & SGX_DEBUG != 0 {
        report.remark(Severity::Error, "it is a debug enclave, so it keeps nothing from the host");
    }
    Ok(report)
}

/// TD report bodies 1.0 and later, which begin alike.
fn tdx(version: u16, body: &[u8]) -> Fields {
    let mut reader = Reader::new(body);
    let tee_tcb_svn = hex(reader.bytes(16)?);
    let mr_seam = hex(reader.bytes(48)?);
    reader.bytes(48 + 8)?;
    let (attributes, xfam) = (reader.u64_le()?, reader.u64_le()?);
    let mr_td = hex(reader.bytes(48)?);
    let mr_config_id = hex(reader.bytes(48)?);
    let mr_owner = hex(reader.bytes(48)?);
    let mr_owner_config = hex(reader.bytes(48)?);
    let mut rtmrs = Vec::new();
    for index in 0..4 {
        rtmrs.push((format!("rtmr{index}"), Value::from(hex(reader.bytes(48)?))));
    }
    let report_data = hex(reader.bytes(64)?);
    let mut report = Report::new("tdx-quote", format!("Intel TDX quote, version {version}"))
        .with("version", u64::from(version))
        .with("mr_td", mr_td)
        .with("registers", Value::group(rtmrs))
        .with("report_data", report_data)
        .with("mr_config_id", mr_config_id)
        .with("mr_owner", mr_owner)
        .with("mr_owner_config", mr_owner_config)
        .with("mr_seam", mr_seam)
        .with("td_attributes", format!("{attributes:#x}"))
        .with("xfam", format!("{xfam:#x}"))
        .with("tee_tcb_svn", tee_tcb_svn);
    if attributes & TD_DEBUG != 0 {
        report.remark(Severity::Error, "the host may debug the guest, so it keeps nothing from the host");
    }
    if attributes & TD_SEPT_VE_DISABLE == 0 {
        report.remark(
            Severity::Warning,
            "SEPT_VE_DISABLE is off: the host can make the guest take exceptions on its own memory",
        );
    }
    Ok(report)
}

/// The CBOR tag of CCA tokens, 399.
pub(super) fn begins_cca(head: &[u8], _is_all: bool) -> bool {
    head.starts_with(&[0xd9, 0x01, 0x8f])
}

/// Says of a CCA token that it is one.
pub(super) fn read_cca(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let mut report = Report::new("cca-token", "Arm CCA token").with("bytes", bytes.len());
    report.remark(Severity::Note, "its claims are CBOR that is not read here: `assay tee verify` shows them");
    Ok(unverified(report))
}

/// Whether these bytes are GET_MEASUREMENTS of SPDM 1.1 with a nonce, and the answer (DSP0274 1.1, 10.11): so GPUs attest.
pub(super) fn is_spdm(bytes: &[u8]) -> bool {
    matches!(bytes, [SPDM_VERSION, SPDM_GET_MEASUREMENTS, ..])
        && matches!(bytes.get(SPDM_REQUEST_BYTES..), Some([SPDM_VERSION, SPDM_MEASUREMENTS, ..]))
}

/// Reads a request for signed measurements with its answer.
pub(super) fn read_spdm(bytes: &[u8]) -> Result<Report, Fault> {
    let bad = |error| malformed("SPDM measurements", error);
    let mut reader = Reader::new(bytes);
    let mut skip = |count: usize| reader.bytes(count).map(hex).map_err(bad);
    skip(4)?;
    let nonce = skip(32)?;
    skip(5)?;
    let blocks = skip(1)?;
    let length = skip(3)?;
    let report = Report::new("spdm-measurements", "measurements of a device such as a GPU, by SPDM 1.1")
        .with("nonce", nonce)
        .with("blocks", u64::from_str_radix(&blocks, 16).unwrap_or_default())
        .with("record_bytes", little_endian(&length))
        .with("bytes", bytes.len());
    Ok(unverified(report))
}

/// A number of hex digits, the least byte first.
fn little_endian(digits: &str) -> u64 {
    let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether these are the members of evidence as guests on Azure gather it: the paravisor's report and a vTPM's quote.
pub(super) fn is_azure(has: impl Fn(&str) -> bool) -> bool {
    has("hcl_report") && has("tpm_quote") || has("report") && has("quote") && has("vcek")
}

/// Says of evidence of a confidential machine on Azure what is in it.
pub(super) fn read_azure<'a>(members: impl Iterator<Item = &'a str>) -> Report {
    let report = Report::new(
        "azure-evidence",
        "evidence of a confidential machine on Azure: its paravisor's report and its vTPM's quote",
    )
    .with("members", Value::list(members));
    unverified(report)
}

/// What it takes to believe it is another verb's work.
fn unverified(mut report: Report) -> Report {
    report.remark(
        Severity::Note,
        "signature and chain were not looked at: what it says is worth something once they lead to the maker's root or key \
         (assay tee verify)",
    );
    report
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

const SPDM_VERSION: u8 = 0x11;
const SPDM_GET_MEASUREMENTS: u8 = 0xe0;
const SPDM_MEASUREMENTS: u8 = 0x60;
/// Four bytes of header, a nonce, and which slot of certificates signs.
const SPDM_REQUEST_BYTES: usize = 4 + 32 + 1;
/// SNP: the length of a report with its signature.
const SNP_BYTES: usize = 0x4a0;
const SNP_ALGORITHM_AT: usize = 0x34;
const SNP_ECDSA_P384: u32 = 1;
const SNP_POLICY_MIGRATE_MA: u64 = 1 << 18;
const SNP_POLICY_DEBUG: u64 = 1 << 19;
/// The vendor of Intel's quoting enclaves, 939a7233-f79c-4ca9-940a-0db3957f0607.
const INTEL_QE_VENDOR: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
const QUOTE_HEADER_BYTES: usize = 48;
const SGX_BODY_BYTES: usize = 384;
const TDX_BODY_BYTES: usize = 584;
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
/// SGX ATTRIBUTES.FLAGS.DEBUG.
const SGX_DEBUG: u64 = 1 << 1;
/// TDX TDATTRIBUTES: the TD may be debugged; violations of its page tables give no exception.
const TD_DEBUG: u64 = 1;
const TD_SEPT_VE_DISABLE: u64 = 1 << 28;
