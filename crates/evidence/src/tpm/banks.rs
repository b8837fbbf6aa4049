//! The PCR banks of a TPM, by the TPM's own word.
//!
//! A quote does not say which banks there are: one that is off, and one of which no PCR was asked for, look alike in its
//! selection. Whoever is root asks, and leaves out the bank that firmware measured the real boot into. So the TPM's
//! answer to TPM2_GetCapability is attested: it is given in an audit session, and the AK signs the digest of what went through that
//! session (TPM 2.0 Part 1, 19.5 "Session-Based Audit"; Part 3, TPM2_GetSessionAuditDigest).

use thiserror::Error;

use super::attest::{Attest, Body};
pub use super::pcr::BANKS_MAX;
use super::public_area::PublicArea;
use super::signature::Signature;
use crate::check::{Check, Failure};
use crate::digest::HashAlgorithm;
use crate::read::{Reader, Truncated};

/// What a device shows of its banks, as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct BankStatement<'a> {
    /// The parameters of the response to TPM2_GetCapability(TPM_CAP_PCRS, 0, [`BANKS_MAX`]).
    pub capability: &'a [u8],
    /// TPMS_ATTEST of the session that it was given in.
    pub message: &'a [u8],
    /// TPMT_SIGNATURE.
    pub signature: &'a [u8],
    /// The verifier's nonce that it has to answer.
    pub nonce: &'a [u8],
}

/// The banks that a TPM has active in one boot. Made by [`verify_banks`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveBanks {
    known: Vec<HashAlgorithm>,
    unknown: Vec<u16>,
    reset_count: u32,
}

impl ActiveBanks {
    /// Those whose algorithm we compute, the weakest first.
    pub fn known(&self) -> &[HashAlgorithm] {
        &self.known
    }

    /// TPM_ALG_ID of the others: nothing that was measured into them can be replayed.
    pub fn unknown(&self) -> &[u16] {
        &self.unknown
    }

    /// The boot that it was said in. Banks change at a reset only (TPM 2.0 Part 3, TPM2_PCR_Allocate).
    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }
}

/// Makes every check of a statement about banks.
pub fn verify_banks(statement: &BankStatement<'_>, ak: &PublicArea) -> Result<ActiveBanks, Vec<Failure>> {
    let mut failures = Vec::new();
    let mut fail = |claim: &str, expected: String, found: String| {
        failures.push(Failure::new(Check::PcrBanks, claim, expected, found));
    };
    match Signature::parse(statement.signature) {
        Ok(signature) => {
            if let Err(error) = ak.verify(&signature, statement.message) {
                fail(
                    "PCR banks signature",
                    format!("a signature by the AK {}", ak.name()),
                    error.to_string(),
                );
            }
        }
        Err(error) => fail("PCR banks signature", "a TPMT_SIGNATURE".to_owned(), error.to_string()),
    }
    let mut reset_count = 0;
    match Attest::parse(statement.message) {
        Ok(attest) => {
            reset_count = attest.clock_info.reset_count;
            check_attest(&attest, statement, &mut fail);
        }
        Err(error) => fail("PCR banks statement", "a TPMS_ATTEST".to_owned(), error.to_string()),
    }
    let banks = parse_capability(statement.capability);
    match banks {
        Ok((known, unknown)) if failures.is_empty() => Ok(ActiveBanks { known, unknown, reset_count }),
        Ok(_) => Err(failures),
        Err(error) => {
            let expected = "the response to TPM2_GetCapability(TPM_CAP_PCRS)";
            failures.push(Failure::new(Check::PcrBanks, "PCR banks", expected, error.to_string()));
            Err(failures)
        }
    }
}

/// Magic, type, nonce, and that nothing but the question and this answer went through the session.
fn check_attest(attest: &Attest, statement: &BankStatement<'_>, fail: &mut impl FnMut(&str, String, String)) {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    // Part 2, 10.12.12: without the magic, what follows may be anybody's data that a key was asked to sign.
    if attest.magic != Attest::MAGIC {
        fail("PCR banks magic", format!("{:#010x}", Attest::MAGIC), format!("{:#010x}", attest.magic));
    }
    if attest.extra_data != statement.nonce {
        fail("PCR banks nonce", hex(statement.nonce), hex(&attest.extra_data));
    }
    match &attest.body {
        Body::SessionAudit { digest } => {
            let expected = session_digest(statement.capability);
            if *digest != expected {
                fail("PCR banks session", hex(&expected), hex(digest));
            }
        }
        Body::Quote { .. }
        | Body::Certify { .. }
        | Body::NvCertify { .. }
        | Body::Creation { .. }
        | Body::Other => {
            let expected = format!("{:#06x}", Attest::TYPE_SESSION_AUDIT);
            fail("PCR banks type", expected, format!("{:#06x}", attest.attest_type));
        }
    }
}

/// What a new SHA-256 session's audit digest is after one command: Part 1, 19.5.3 to 19.5.5. cpHash has the command's code and
/// parameters, no handle has a Name in it; rpHash has the response's code, the command's and the parameters.
fn session_digest(capability: &[u8]) -> Vec<u8> {
    let hash = HashAlgorithm::Sha256;
    let code = GET_CAPABILITY.to_be_bytes();
    let [first, count] = [0, BANKS_MAX].map(u32::to_be_bytes);
    let asked = hash.hash(&[&code, &CAP_PCRS.to_be_bytes(), &first, &count]);
    let answered = hash.hash(&[&SUCCESS.to_be_bytes(), &code, capability]);
    hash.hash(&[hash.zero().as_bytes(), asked.as_bytes(), answered.as_bytes()]).as_bytes().to_vec()
}

/// moreData and TPMS_CAPABILITY_DATA with TPML_PCR_SELECTION: a bank without PCRs is off.
fn parse_capability(bytes: &[u8]) -> Result<(Vec<HashAlgorithm>, Vec<u16>), CapabilityError> {
    let mut reader = Reader::new(bytes);
    let more_data = reader.u8()?;
    let capability = reader.u32_be()?;
    if (more_data, capability) != (0, CAP_PCRS) {
        return Err(CapabilityError::Other { more_data, capability });
    }
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let count = reader.u32_be()?;
    if count > BANKS_MAX {
        return Err(CapabilityError::Banks(count));
    }
    for _ in 0..count {
        let id = reader.u16_be()?;
        let size = reader.u8()?;
        let is_active = reader.bytes(usize::from(size))?.iter().any(|byte| *byte != 0);
        match HashAlgorithm::from_tpm_id(id) {
            _ if !is_active => {}
            Some(bank) => known.push(bank),
            None => unknown.push(id),
        }
    }
    if !reader.is_empty() {
        return Err(CapabilityError::Surplus(reader.rest().len()));
    }
    known.sort_unstable();
    known.dedup();
    Ok((known, unknown))
}

/// Bytes that do not say which banks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum CapabilityError {
    #[error(transparent)]
    Truncated(#[from] Truncated),
    #[error("capability {capability:#x}, more data {more_data}")]
    Other { more_data: u8, capability: u32 },
    #[error("{0} PCR banks, at most {BANKS_MAX} exist")]
    Banks(u32),
    #[error("{0} bytes after the banks")]
    Surplus(usize),
}

/// TPM_CAP_PCRS.
const CAP_PCRS: u32 = 5;
/// TPM_CC_GetCapability.
const GET_CAPABILITY: u32 = 0x017a;
/// TPM_RC_SUCCESS.
const SUCCESS: u32 = 0;
