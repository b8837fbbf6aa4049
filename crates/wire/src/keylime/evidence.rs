//! Evidence that somebody wants judged once, with what to judge it by: `/verify/evidence`.

use assay_evidence::request::Quote;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{KeylimeError, base64, read_quote};

/// Evidence of a TPM, and what judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The quote.
    pub quote: Quote,
    /// What it has to answer.
    pub nonce: Bytes,
    /// The bank and the hash of its signature, as its asker calls it.
    pub hash: String,
    /// TPM2B_PUBLIC of the EK that the asker vouches for.
    pub ek_public: Bytes,
    /// TPM2B_PUBLIC of the AK.
    pub ak_public: Bytes,
    /// The IMA list in ASCII; empty: none was given.
    pub ima_list: Bytes,
    /// The boot log; empty: none was given.
    pub boot_log: Bytes,
    /// What judges files, JSON.
    pub runtime_policy: Option<String>,
    /// What judges PCRs, JSON.
    pub tpm_policy: Option<String>,
    /// What judges the boot, JSON.
    pub mb_policy: Option<String>,
}

impl Presented {
    /// Reads it.
    pub fn read(body: &[u8]) -> Result<Presented, KeylimeError> {
        #[derive(Deserialize)]
        struct Sent {
            #[serde(rename = "type")]
            kind: String,
            data: Value,
        }
        #[derive(Deserialize)]
        struct OfTpm {
            quote: Option<String>,
            nonce: Option<String>,
            hash_alg: Option<String>,
            tpm_ek: Option<String>,
            tpm_ak: Option<String>,
            ima_measurement_list: Option<String>,
            mb_log: Option<String>,
            runtime_policy: Option<Value>,
            tpm_policy: Option<Value>,
            mb_policy: Option<Value>,
        }
        let Sent { kind, data } = serde_json::from_slice(body)?;
        if kind != "tpm" {
            return Err(KeylimeError::Unexpected { member: "type", found: kind, expected: "tpm" });
        }
        let sent = OfTpm::deserialize(data)?;
        let needed = |member, text: Option<String>| match text {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(KeylimeError::Missing(member)),
        };
        let presented = Presented {
            quote: read_quote(&needed("quote", sent.quote)?)?,
            nonce: needed("nonce", sent.nonce)?.into(),
            hash: needed("hash_alg", sent.hash_alg)?,
            ek_public: base64("tpm_ek", &needed("tpm_ek", sent.tpm_ek)?)?,
            ak_public: base64("tpm_ak", &needed("tpm_ak", sent.tpm_ak)?)?,
            ima_list: sent.ima_measurement_list.unwrap_or_default().into(),
            boot_log: base64("mb_log", sent.mb_log.as_deref().unwrap_or_default())?,
            runtime_policy: policy(sent.runtime_policy),
            tpm_policy: policy(sent.tpm_policy),
            mb_policy: policy(sent.mb_policy),
        };
        let Presented { runtime_policy, tpm_policy, mb_policy, .. } = &presented;
        match runtime_policy.is_some() || tpm_policy.is_some() || mb_policy.is_some() {
            true => Ok(presented),
            false => Err(KeylimeError::Missing("runtime_policy, tpm_policy or mb_policy")),
        }
    }
}

/// A policy is an object, or the text of one.
fn policy(value: Option<Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text).filter(|text| !text.trim().is_empty()),
        policy => Some(policy.to_string()),
    }
}

/// What came of it: whether it is good, and each thing that is not, by a word and in a sentence.
pub fn judged(is_good: bool, findings: impl Iterator<Item = (&'static str, String)>) -> Value {
    let failures: Vec<Value> =
        findings.map(|(kind, message)| json!({ "type": kind, "context": { "message": message } })).collect();
    json!({ "valid": is_good, "claims": {}, "failures": failures })
}
