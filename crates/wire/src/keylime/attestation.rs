//! Attestation of agents that push: an agent says what it can show, is asked for some of it, and shows that.

use assay_evidence::request::{Challenge, Evidence, Quote};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::public_key::SignatureScheme;
use assay_evidence::{HashAlgorithm, PcrIndex};
use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AgentId, KeylimeError, answer, base64, document};

/// What an agent can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The key that it quotes with, as it describes it.
    pub key: CertificationKey,
    /// Whether it has a boot log.
    pub boot_log: bool,
    /// Whether it has an IMA list.
    pub ima_list: bool,
}

/// A key as an agent describes it. It is told again which one is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificationKey {
    key_class: String,
    key_algorithm: String,
    key_size: u32,
    server_identifier: String,
    local_identifier: String,
    /// TPMT_PUBLIC.
    public: String,
}

#[derive(Deserialize)]
struct Supported {
    evidence_class: String,
    evidence_type: String,
    capabilities: Value,
}

impl Capabilities {
    /// Reads what an agent says.
    pub fn read(body: &[u8]) -> Result<Capabilities, KeylimeError> {
        #[derive(Deserialize)]
        struct Sent {
            evidence_supported: Vec<Supported>,
        }
        #[derive(Deserialize)]
        struct OfQuote {
            certification_keys: Vec<CertificationKey>,
        }
        #[derive(Deserialize)]
        struct OfLog {
            entry_count: u64,
        }
        let Sent { evidence_supported } = document(KIND, body)?;
        let find = |class, kind| {
            let is_it =
                |one: &&Supported| (one.evidence_class.as_str(), one.evidence_type.as_str()) == (class, kind);
            evidence_supported.iter().find(is_it).map(|one| &one.capabilities)
        };
        let quote =
            find(CERTIFICATION, QUOTE).ok_or(KeylimeError::Missing("evidence_supported: tpm_quote"))?;
        let keys = OfQuote::deserialize(quote)?.certification_keys;
        // An agent that has no such log, or may not read it, says that it has nothing of it.
        let has_entries = |log: Option<&Value>| match log.map(OfLog::deserialize).transpose() {
            Ok(log) => Ok(log.is_some_and(|log| log.entry_count > 0)),
            Err(error) => Err(KeylimeError::from(error)),
        };
        Ok(Capabilities {
            key: keys.into_iter().next().ok_or(KeylimeError::Missing("certification_keys"))?,
            boot_log: has_entries(find(LOG, BOOT_LOG))?,
            ima_list: has_entries(find(LOG, IMA_LIST))?,
        })
    }

    /// Whether the key that it means to quote with is this AK.
    pub fn is_of(&self, ak: &PublicArea) -> bool {
        BASE64.decode(self.key.public.as_bytes()).is_ok_and(|public| public == ak.raw())
    }
}

/// What an agent is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it can show.
    pub capabilities: Capabilities,
    /// What has to be answered.
    nonce: Bytes,
    bank: HashAlgorithm,
    scheme: &'static str,
    pcrs: Vec<u8>,
    boot_log: bool,
    ima_list: bool,
    ima_from_entry: u64,
}

impl Request {
    /// As much of a challenge as such an agent can answer: it quotes one bank, that of its AK's signatures, and says nothing of
    /// its banks. `None`: its AK is bound to no scheme that it quotes with.
    pub fn of(challenge: &Challenge, capabilities: Capabilities, ak: &PublicArea) -> Option<Request> {
        let algorithm = ak.scheme()?;
        let scheme = match algorithm.scheme {
            SignatureScheme::RsaSsa => "rsassa",
            SignatureScheme::RsaPss => "rsapss",
            SignatureScheme::EcDsa => "ecdsa",
        };
        let bank = algorithm.hash;
        let of_bank = |(of, pcrs): &(HashAlgorithm, Vec<PcrIndex>)| (*of == bank).then(|| pcrs.clone());
        let selected = challenge.selection.iter().chain(&challenge.watched).filter_map(of_bank).flatten();
        let mut pcrs: Vec<u8> = selected.map(PcrIndex::get).chain([ALWAYS_QUOTED]).collect();
        pcrs.sort_unstable();
        pcrs.dedup();
        Some(Request {
            nonce: Bytes::copy_from_slice(&challenge.nonce),
            bank,
            scheme,
            pcrs,
            boot_log: challenge.boot_log_wanted && capabilities.boot_log,
            ima_list: capabilities.ima_list,
            ima_from_entry: challenge.ima_from_entry,
            capabilities,
        })
    }

    /// What it is told.
    pub fn told(&self, received_at: UnixTime, until: UnixTime) -> Value {
        let mut requested = vec![json!({
            "evidence_class": CERTIFICATION, "evidence_type": QUOTE,
            // No member here may be called "format": it would be taken for the parameters of a log.
            "chosen_parameters": {
                "challenge": BASE64.encode(&self.nonce),
                "signature_scheme": self.scheme,
                "hash_algorithm": self.bank.name(),
                "selected_subjects": { self.bank.name(): self.pcrs },
                "certification_key": self.capabilities.key,
            },
        })];
        if self.boot_log {
            let parameters = json!({ "format": "application/octet-stream" });
            requested.push(json!({
                "evidence_class": LOG, "evidence_type": BOOT_LOG, "chosen_parameters": parameters,
            }));
        }
        if self.ima_list {
            let parameters = json!({ "format": "text/plain", "starting_offset": self.ima_from_entry });
            requested.push(json!({
                "evidence_class": LOG, "evidence_type": IMA_LIST, "chosen_parameters": parameters,
            }));
        }
        let attributes = json!({
            "stage": "awaiting_evidence",
            "evidence_requested": requested,
            "capabilities_received_at": received_at.to_string(),
            "challenges_expire_at": until.to_string(),
        });
        answer(KIND, None, attributes)
    }

    /// Reads what it shows; what was not asked for is passed over.
    pub fn read(&self, body: &[u8]) -> Result<Evidence, KeylimeError> {
        #[derive(Deserialize)]
        struct Sent<'b> {
            #[serde(borrow)]
            evidence_collected: Vec<Collected<'b>>,
        }
        #[derive(Deserialize)]
        struct Collected<'b> {
            evidence_type: String,
            #[serde(borrow)]
            data: &'b serde_json::value::RawValue,
        }
        let Sent { evidence_collected } = document(KIND, body)?;
        let find =
            |kind| evidence_collected.iter().find(|one| one.evidence_type == kind).map(|one| one.data.get());
        let quote = find(QUOTE).ok_or(KeylimeError::Missing("evidence_collected: tpm_quote"))?;
        let boot_log = find(BOOT_LOG).filter(|_| self.boot_log).map(boot_log).transpose()?;
        let ima_log = find(IMA_LIST).filter(|_| self.ima_list).map(ima_list).transpose()?;
        Ok(Evidence {
            nonce: self.nonce.clone(),
            quote: read_quote(quote)?,
            boot_log: boot_log.filter(|log| !log.is_empty()),
            ima_log: ima_log.unwrap_or_default(),
            ima_from_entry: if self.ima_list { self.ima_from_entry } else { 0 },
            ima_ascii: true,
            measure_log: None,
            banks: None,
        })
    }
}

fn read_quote(data: &str) -> Result<Quote, KeylimeError> {
    #[derive(Deserialize)]
    struct Sent {
        message: String,
        signature: String,
        subject_data: String,
    }
    let sent: Sent = serde_json::from_str(data)?;
    Ok(Quote {
        message: base64("tpm_quote.message", &sent.message)?,
        signature: base64("tpm_quote.signature", &sent.signature)?,
        pcrs: pcr_values("tpm_quote.subject_data", &sent.subject_data)?,
    })
}

/// PCR values as tpm2-tools write them, in base64.
fn pcr_values(member: &'static str, text: &str) -> Result<PcrValues, KeylimeError> {
    let (_, values) = PcrValues::from_tpm2_tools(&base64(member, text)?)
        .map_err(|_| KeylimeError::Encoding { member, form: "PCR values as tpm2-tools write them" })?;
    Ok(values)
}

#[derive(Deserialize)]
struct Entries {
    entries: Option<String>,
}

fn boot_log(data: &str) -> Result<Bytes, KeylimeError> {
    let Entries { entries } = serde_json::from_str(data)?;
    base64("uefi_log.entries", entries.as_deref().unwrap_or_default())
}

/// Lines as the kernel has them, with what a line may end in.
fn ima_list(data: &str) -> Result<Bytes, KeylimeError> {
    let Entries { entries } = serde_json::from_str(data)?;
    Ok(entries.unwrap_or_default().into())
}

/// That evidence was taken, and when to come again.
pub fn taken(seconds_to_next: u64) -> Value {
    let mut taken = answer(KIND, None, json!({ "stage": "evaluating_evidence", "evidence": [] }));
    if let Some(taken) = taken.as_object_mut() {
        taken.insert("meta".to_owned(), json!({ "seconds_to_next_attestation": seconds_to_next }));
    }
    taken
}

/// Where the evidence of an attestation goes.
pub fn location(agent_id: &AgentId, number: u64) -> String {
    format!("/v3.0/agents/{agent_id}/attestations/{number}")
}

const KIND: &str = "attestation";
const CERTIFICATION: &str = "certification";
const QUOTE: &str = "tpm_quote";
const LOG: &str = "log";
const BOOT_LOG: &str = "uefi_log";
const IMA_LIST: &str = "ima_log";
/// Agents reset it before each quote, extend it with a key and quote it whether it is asked for or not.
const ALWAYS_QUOTED: u8 = 16;
