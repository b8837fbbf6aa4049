//! Collateral: what Intel signs about platforms, quoting enclaves and TDX modules, and has taken back.
//!
//! The forms are those of Intel's Provisioning Certification Service, version 4, put together in one JSON document as the
//! usual clients write it: `tcb_info`, `qe_identity`, their signatures and chains, `pck_crl`, `root_ca_crl`.

use serde::Deserialize;
use thiserror::Error;

use super::pck::Pck;
use super::quote::{EnclaveReport, TdReport};
use super::tcb::{Standing, TcbStatus};
use crate::time::UnixTime;
use crate::tpm::ek_certificate::Endorsers;
use crate::tpm::revocation::{RevocationList, RevocationListError};

/// Collateral, read; nothing of it is verified.
#[derive(Debug)]
pub struct DcapCollateral {
    pub(super) tcb_info: Signed<TcbInfo>,
    pub(super) qe_identity: Signed<EnclaveIdentity>,
    /// The lists, without anybody who is trusted.
    pub(super) lists: Endorsers,
}

/// A JSON text that is signed as it stands.
#[derive(Debug)]
pub(super) struct Signed<T> {
    pub(super) text: String,
    pub(super) content: T,
    /// ECDSA over P-256: r, then s.
    pub(super) signature: [u8; 64],
    /// The signer's certificate and those above it, DER.
    pub(super) chain: Vec<Vec<u8>>,
}

/// The document.
#[derive(Deserialize)]
struct Document {
    tcb_info: String,
    tcb_info_signature: String,
    tcb_info_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
    qe_identity_issuer_chain: String,
    pck_crl: String,
    root_ca_crl: String,
}

/// TCB info, version 3.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TcbInfo {
    pub(super) id: String,
    pub(super) version: u32,
    issue_date: String,
    next_update: String,
    #[serde(deserialize_with = "hex")]
    pub(super) fmspc: [u8; 6],
    #[serde(deserialize_with = "hex")]
    pub(super) pce_id: [u8; 2],
    pub(super) tcb_type: u32,
    pub(super) tcb_evaluation_data_number: u32,
    pub(super) tdx_module: Option<TdxModule>,
    #[serde(default)]
    pub(super) tdx_module_identities: Vec<ModuleIdentity>,
    tcb_levels: Vec<PlatformLevel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TdxModule {
    #[serde(deserialize_with = "hex")]
    mrsigner: [u8; 48],
    #[serde(deserialize_with = "hex")]
    attributes: [u8; 8],
    #[serde(deserialize_with = "hex")]
    attributes_mask: [u8; 8],
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModuleIdentity {
    id: String,
    #[serde(flatten)]
    module: TdxModule,
    tcb_levels: Vec<PartLevel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlatformLevel {
    tcb: PlatformTcb,
    tcb_status: TcbStatus,
    #[serde(default, rename = "advisoryIDs")]
    advisories: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct PlatformTcb {
    sgxtcbcomponents: [Component; 16],
    pcesvn: u16,
    tdxtcbcomponents: Option<[Component; 16]>,
}

#[derive(Debug, Deserialize)]
struct Component {
    svn: u8,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartLevel {
    tcb: PartTcb,
    tcb_status: TcbStatus,
    #[serde(default, rename = "advisoryIDs")]
    advisories: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct PartTcb {
    isvsvn: u16,
}

/// What Intel says of its quoting enclave.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnclaveIdentity {
    pub(super) id: String,
    pub(super) version: u32,
    issue_date: String,
    next_update: String,
    #[serde(deserialize_with = "hex")]
    miscselect: [u8; 4],
    #[serde(deserialize_with = "hex")]
    miscselect_mask: [u8; 4],
    #[serde(deserialize_with = "hex")]
    attributes: [u8; 16],
    #[serde(deserialize_with = "hex")]
    attributes_mask: [u8; 16],
    #[serde(deserialize_with = "hex")]
    mrsigner: [u8; 32],
    isvprodid: u16,
    tcb_levels: Vec<PartLevel>,
}

impl DcapCollateral {
    /// Reads the JSON document.
    pub fn from_json(json: &[u8]) -> Result<Self, CollateralError> {
        if json.len() > COLLATERAL_BYTES_MAX {
            return Err(CollateralError::TooLong(json.len()));
        }
        let document: Document = serde_json::from_slice(json).map_err(CollateralError::Json)?;
        let mut lists = read_list("pck_crl", &document.pck_crl)?;
        lists.extend(read_list("root_ca_crl", &document.root_ca_crl)?);
        Ok(DcapCollateral {
            tcb_info: signed(
                "tcb_info",
                document.tcb_info,
                &document.tcb_info_signature,
                &document.tcb_info_issuer_chain,
            )?,
            qe_identity: signed(
                "qe_identity",
                document.qe_identity,
                &document.qe_identity_signature,
                &document.qe_identity_issuer_chain,
            )?,
            lists: Endorsers::new(Vec::new(), lists),
        })
    }
}

impl TcbInfo {
    /// From when until when it counts.
    pub(super) fn in_force(&self) -> Option<(UnixTime, UnixTime)> {
        Some((UnixTime::from_rfc3339(&self.issue_date)?, UnixTime::from_rfc3339(&self.next_update)?))
    }

    /// The platform's level, with what keeps it from the level above; `Err` with what keeps it from the lowest.
    pub(super) fn level(
        &self,
        pck: &Pck,
        td: Option<&TdReport<'_>>,
    ) -> Result<(Standing, Option<String>), String> {
        let mut missing = None;
        for level in &self.tcb_levels {
            match level.tcb.missing(pck, td) {
                None => {
                    let standing =
                        Standing { status: level.tcb_status, advisories: level.advisories.clone() };
                    return Ok((standing, missing));
                }
                Some(part) => missing = Some(part),
            }
        }
        Err(missing.unwrap_or_else(|| "no level at all".to_owned()))
    }

    /// The module's identity that is for the module's version, and the standing of that version; `None` where the platform's
    /// level says it.
    pub(super) fn module(&self, td: &TdReport<'_>) -> Result<Option<Standing>, String> {
        let [svn, version, ..] = td.tee_tcb_svn;
        let general = self.tdx_module.as_ref().ok_or("no tdxModule in the TCB info")?;
        if version == 0 {
            general.check(td)?;
            return Ok(None);
        }
        let id = format!("TDX_{version:02}");
        let identity = self.tdx_module_identities.iter().find(|identity| identity.id == id);
        let identity = identity.ok_or_else(|| format!("no identity {id} in the TCB info"))?;
        identity.module.check(td)?;
        part_level(&identity.tcb_levels, u16::from(svn)).map(Some)
    }
}

impl PlatformTcb {
    /// The first version that is below this level's.
    fn missing(&self, pck: &Pck, td: Option<&TdReport<'_>>) -> Option<String> {
        let below = |kind: &str, number: usize, have: u8, need: u8| {
            (have < need).then(|| format!("{kind} component {number}: have {have}, need {need}"))
        };
        let sgx = pck.components.iter().zip(&self.sgxtcbcomponents).zip(1..);
        let sgx = sgx.into_iter().find_map(|((have, need), number)| below("SGX", number, *have, need.svn));
        let pce = (pck.pce_svn < self.pcesvn)
            .then(|| format!("PCESVN: have {}, need {}", pck.pce_svn, self.pcesvn));
        let tdx = td.and_then(|td| {
            let Some(components) = &self.tdxtcbcomponents else {
                return Some("a level without TDX components".to_owned());
            };
            // The first two are the module's, and judged by its identity where it has one.
            let of_module = if td.tee_tcb_svn.get(1).is_some_and(|version| *version > 0) { 2 } else { 0 };
            let parts = td.tee_tcb_svn.iter().zip(components).zip(1..).skip(of_module);
            parts.into_iter().find_map(|((have, need), number)| below("TDX", number, *have, need.svn))
        });
        sgx.or(pce).or(tdx)
    }
}

impl TdxModule {
    fn check(&self, td: &TdReport<'_>) -> Result<(), String> {
        if td.mr_signer_seam != self.mrsigner {
            return Err("a TDX module of another signer".to_owned());
        }
        if masked(&td.seam_attributes, &self.attributes_mask)
            != masked(&self.attributes, &self.attributes_mask)
        {
            return Err("a TDX module with other attributes".to_owned());
        }
        Ok(())
    }
}

impl EnclaveIdentity {
    /// From when until when it counts.
    pub(super) fn in_force(&self) -> Option<(UnixTime, UnixTime)> {
        Some((UnixTime::from_rfc3339(&self.issue_date)?, UnixTime::from_rfc3339(&self.next_update)?))
    }

    /// Whether the quoting enclave is the one that this is about, and how its version stands.
    pub(super) fn standing(&self, qe: &EnclaveReport<'_>) -> Result<Standing, String> {
        if qe.mr_signer != self.mrsigner {
            return Err("another signer".to_owned());
        }
        if qe.product_id != self.isvprodid {
            return Err(format!("product {}, not {}", qe.product_id, self.isvprodid));
        }
        let misc = |value: &[u8; 4]| masked(value, &self.miscselect_mask);
        if misc(&qe.misc_select) != misc(&self.miscselect) {
            return Err("another MISCSELECT".to_owned());
        }
        let attributes = |value: &[u8; 16]| masked(value, &self.attributes_mask);
        if attributes(&qe.attributes) != attributes(&self.attributes) {
            return Err("other attributes".to_owned());
        }
        part_level(&self.tcb_levels, qe.svn)
    }
}

fn part_level(levels: &[PartLevel], svn: u16) -> Result<Standing, String> {
    let level = levels.iter().find(|level| svn >= level.tcb.isvsvn);
    let level = level.ok_or_else(|| format!("version {svn}, below every level"))?;
    Ok(Standing { status: level.tcb_status, advisories: level.advisories.clone() })
}

fn masked<const N: usize>(value: &[u8; N], mask: &[u8; N]) -> [u8; N] {
    let mut masked = [0; N];
    for ((masked, value), mask) in masked.iter_mut().zip(value).zip(mask) {
        *masked = value & mask;
    }
    masked
}

fn signed<T: serde::de::DeserializeOwned>(
    field: &'static str,
    text: String,
    signature: &str,
    chain: &str,
) -> Result<Signed<T>, CollateralError> {
    let content = serde_json::from_str(&text).map_err(|error| CollateralError::Content { field, error })?;
    let signature = decode(signature).and_then(|bytes| bytes.try_into().ok());
    let signature = signature.ok_or(CollateralError::Signature { field })?;
    let chain = certificates(field, chain.as_bytes())?;
    Ok(Signed { text, content, signature, chain })
}

/// The certificates of a PEM text. Trailing zeros and line ends are nothing.
pub(super) fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<Vec<u8>>, CollateralError> {
    let mut chain = Vec::new();
    let end = pem.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    for block in x509_parser::pem::Pem::iter_from_buffer(pem.get(..end).unwrap_or_default()) {
        let block = block.map_err(|_| CollateralError::Chain { field })?;
        if block.label != "CERTIFICATE" || chain.len() >= CHAIN_MAX {
            return Err(CollateralError::Chain { field });
        }
        chain.push(block.contents);
    }
    if chain.is_empty() { Err(CollateralError::Chain { field }) } else { Ok(chain) }
}

/// A list in hex, or in PEM.
fn read_list(field: &'static str, text: &str) -> Result<Vec<RevocationList>, CollateralError> {
    let bytes = decode(text).unwrap_or_else(|| text.as_bytes().to_vec());
    RevocationList::from_pem_or_der(&bytes).map_err(|error| CollateralError::List { field, error })
}

fn decode(hex: &str) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(hex.trim().as_bytes()).ok()
}

fn hex<'de, D: serde::Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = decode(&text).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| serde::de::Error::custom(format_args!("{N} bytes in hex are wanted")))
}

/// A document that is no collateral.
#[derive(Debug, Error)]
pub enum CollateralError {
    /// Longer than any collateral.
    #[error("{0} bytes, at most {COLLATERAL_BYTES_MAX} make sense")]
    TooLong(usize),
    /// Not the JSON document.
    #[error("not collateral in JSON: {0}")]
    Json(serde_json::Error),
    /// A signed text that does not read.
    #[error("{field}: {error}")]
    Content {
        /// Which of them.
        field: &'static str,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A signature that is not r and s of P-256 in hex.
    #[error("{field}_signature: not 64 bytes in hex")]
    Signature {
        /// Whose.
        field: &'static str,
    },
    /// A chain that is none.
    #[error("{field}: not one to {CHAIN_MAX} certificates in PEM")]
    Chain {
        /// Whose.
        field: &'static str,
    },
    /// A revocation list that does not read.
    #[error("{field}: {error}")]
    List {
        /// Which of them.
        field: &'static str,
        /// What is wrong.
        error: RevocationListError,
    },
}

/// Ten times the largest seen.
const COLLATERAL_BYTES_MAX: usize = 256 << 10;
/// Three is what there is.
const CHAIN_MAX: usize = 4;
