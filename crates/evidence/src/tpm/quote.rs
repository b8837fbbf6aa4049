//! Quote verification: from four pieces of foreign bytes to PCR values that the TPM vouches for.

use super::attest::{Attest, Body, ClockInfo};
use super::pcr::{PcrSelection, PcrValues};
use super::public_area::PublicArea;
use super::public_key::{SignatureAlgorithm, SignatureError};
use super::signature::Signature;
use crate::check::{Check, Failure};
use crate::digest::HashAlgorithm;

/// A quote as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Quote<'a> {
    /// What findings call it, such as `quote`.
    pub label: &'a str,
    /// TPMS_ATTEST.
    pub message: &'a [u8],
    /// TPMT_SIGNATURE.
    pub signature: &'a [u8],
    /// The values it is said to cover; others are ignored.
    pub pcrs: &'a PcrValues,
    /// The verifier's nonce that it has to answer.
    pub nonce: &'a [u8],
}

/// A quote of which every check held. Made by [`verify_quote`] alone.
#[derive(Clone, Debug)]
pub struct VerifiedQuote {
    selection: PcrSelection,
    pcrs: PcrValues,
    clock_info: ClockInfo,
    firmware_version: u64,
    algorithm: SignatureAlgorithm,
}

impl VerifiedQuote {
    /// The PCRs it covers.
    pub fn selection(&self) -> &PcrSelection {
        &self.selection
    }

    /// Their values: exactly those of the selection.
    pub fn pcrs(&self) -> &PcrValues {
        &self.pcrs
    }

    /// The TPM's clock and counters at the time of the quote.
    pub fn clock_info(&self) -> ClockInfo {
        self.clock_info
    }

    /// The TPM's firmware version, as its vendor counts.
    pub fn firmware_version(&self) -> u64 {
        self.firmware_version
    }

    /// How it was signed.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

/// What a quote is over, as whoever made it looks for the values: nothing of it is verified.
#[derive(Clone, Debug)]
pub struct Quoted {
    selection: PcrSelection,
    digest: Vec<u8>,
    hash: HashAlgorithm,
}

impl Quoted {
    /// Reads it out of TPMS_ATTEST and TPMT_SIGNATURE; `None` where they are no quote.
    pub fn parse(message: &[u8], signature: &[u8]) -> Option<Self> {
        let hash = Signature::parse(signature).ok()?.algorithm().hash;
        match Attest::parse(message).ok()?.body {
            Body::Quote { selection, pcr_digest } => Some(Quoted { selection, digest: pcr_digest, hash }),
            Body::Certify { .. }
            | Body::SessionAudit { .. }
            | Body::NvCertify { .. }
            | Body::Creation { .. }
            | Body::Other => None,
        }
    }

    /// The PCRs.
    pub fn selection(&self) -> &PcrSelection {
        &self.selection
    }

    /// Whether it is over these values.
    pub fn is_over(&self, pcrs: &PcrValues) -> bool {
        let values: Option<Vec<&[u8]>> =
            self.selection.iter().map(|(bank, index)| Some(pcrs.get(bank, index)?.as_bytes())).collect();
        values.is_some_and(|values| self.hash.hash(&values).as_bytes() == self.digest)
    }
}

/// Makes every check of a quote, each on its own; the quote is there only if all of them held.
pub fn verify_quote(quote: &Quote<'_>, ak: &PublicArea) -> (Option<VerifiedQuote>, Vec<Failure>) {
    let mut failures = Vec::new();
    let signature = Signature::parse(quote.signature).map_err(|error| {
        Failure::new(Check::QuoteParse, format!("{}.sig", quote.label), "a TPMT_SIGNATURE", error.to_string())
    });
    let attest = Attest::parse(quote.message).map_err(|error| {
        Failure::new(Check::QuoteParse, format!("{}.msg", quote.label), "a TPMS_ATTEST", error.to_string())
    });

    let signature = signature.map_err(|failure| failures.push(failure)).ok();
    if let Some(signature) = &signature {
        failures.extend(check_signature(quote, ak, signature));
    }
    let attest = attest.map_err(|failure| failures.push(failure)).ok();
    let quoted = attest.as_ref().and_then(|attest| check_attest(quote, attest, &mut failures));
    let hash = signature.as_ref().map(|signature| signature.algorithm().hash);
    let pcrs = match (quoted, hash) {
        (Some((selection, digest)), Some(hash)) => {
            check_pcr_digest(quote, selection, digest, hash).map_err(|failure| failures.push(failure)).ok()
        }
        _ => None,
    };

    let verified = match (failures.is_empty(), attest, signature, pcrs) {
        (true, Some(Attest { clock_info, firmware_version, body, .. }), Some(signature), Some(pcrs)) => {
            match body {
                Body::Quote { selection, .. } => Some(VerifiedQuote {
                    selection,
                    pcrs,
                    clock_info,
                    firmware_version,
                    algorithm: signature.algorithm(),
                }),
                Body::Certify { .. }
                | Body::SessionAudit { .. }
                | Body::NvCertify { .. }
                | Body::Creation { .. }
                | Body::Other => None,
            }
        }
        _ => None,
    };
    failures.sort_by_key(|failure| failure.check);
    (verified, failures)
}

fn check_signature(quote: &Quote<'_>, ak: &PublicArea, signature: &Signature) -> Option<Failure> {
    let error = ak.verify(signature, quote.message).err()?;
    let expected = match error {
        SignatureError::WeakHash => "SHA-256 or better".to_owned(),
        SignatureError::KeyScheme { key, .. } => key.to_string(),
        SignatureError::KeyKind { .. } | SignatureError::Wrong { .. } => {
            format!("a signature by the {} AK {}", ak.key(), ak.name())
        }
    };
    Some(Failure::new(Check::QuoteSignature, quote.label, expected, error.to_string()))
}

/// Magic, type and nonce; the quote's own content if it is one.
fn check_attest<'a>(
    quote: &Quote<'_>,
    attest: &'a Attest,
    failures: &mut Vec<Failure>,
) -> Option<(&'a PcrSelection, &'a [u8])> {
    // Part 2, 10.12.12: without the magic, what follows may be anybody's data that a key was asked to sign.
    if attest.magic != Attest::MAGIC {
        failures.push(Failure::new(
            Check::QuoteMagic,
            quote.label,
            format!("{:#010x}", Attest::MAGIC),
            format!("{:#010x}", attest.magic),
        ));
    }
    if attest.extra_data != quote.nonce {
        let hex = |bytes| data_encoding::HEXLOWER.encode(bytes);
        failures.push(Failure::new(
            Check::QuoteNonce,
            quote.label,
            hex(quote.nonce),
            hex(&attest.extra_data),
        ));
    }
    match &attest.body {
        Body::Quote { selection, pcr_digest } => Some((selection, pcr_digest)),
        Body::Certify { .. }
        | Body::SessionAudit { .. }
        | Body::NvCertify { .. }
        | Body::Creation { .. }
        | Body::Other => {
            failures.push(Failure::new(
                Check::QuoteType,
                quote.label,
                format!("{:#06x}", Attest::TYPE_QUOTE),
                format!("{:#06x}", attest.attest_type),
            ));
            None
        }
    }
}

/// Part 3, TPM2_Quote: the digest is over the selected values in order, by the hash of the signing scheme.
fn check_pcr_digest(
    quote: &Quote<'_>,
    selection: &PcrSelection,
    digest: &[u8],
    hash: HashAlgorithm,
) -> Result<PcrValues, Failure> {
    let mut covered = PcrValues::new();
    let mut values: Vec<&[u8]> = Vec::new();
    for (bank, index) in selection.iter() {
        let Some(value) = quote.pcrs.get(bank, index) else {
            let claim = format!("{} {bank} PCR {index}", quote.label);
            return Err(Failure::new(Check::QuotePcrDigest, claim, "a value", "none"));
        };
        covered.insert(index, *value);
        values.push(value.as_bytes());
    }
    let computed = hash.hash(&values);
    if computed.as_bytes() != digest {
        let expected = format!("{hash}:{}", data_encoding::HEXLOWER.encode(digest));
        return Err(Failure::new(Check::QuotePcrDigest, quote.label, expected, computed.to_string()));
    }
    Ok(covered)
}
