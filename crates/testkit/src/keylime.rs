//! What a software device says to Keylime's registrar and verifier: bodies as an agent that pushes sends them, in JSON.

use aws_lc_rs::hmac;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use crate::edge::protocol::{Challenge, PcrSelection, Quote};
use crate::software_device::quote::Certifying;
use crate::{Bank, DeviceError, SoftwareDevice};

impl SoftwareDevice {
    /// What it shows when it registers.
    pub fn keylime_registration(&self) -> Value {
        let chain = [&self.ek_certificate].into_iter().chain(&self.ek_intermediates);
        json!({
            "ek_tpm": BASE64.encode(self.ek.public_area()),
            "ekcert": chain.map(|der| pem(der)).collect::<String>(),
            "aik_tpm": BASE64.encode(&self.ak.public_area()),
            "iak_tpm": "", "iak_cert": null, "iak_attest": "", "iak_sign": "", "idevid_tpm": "", "idevid_cert": null,
            "mtls_cert": "disabled", "ip": "127.0.0.1", "port": 9002,
        })
    }

    /// What it answers once it opened what it was given: a file of tpm2-tools' in base64.
    pub fn keylime_activation(&self, id: &str, blob: &str) -> Result<Value, DeviceError> {
        let malformed = || DeviceError::Activation("blob");
        let file = BASE64.decode(blob.as_bytes()).map_err(|_| malformed())?;
        let object = file.strip_prefix(&[0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1]).ok_or_else(malformed)?;
        let length = object.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)));
        let (object, secret) =
            length.and_then(|length| object.split_at_checked(2 + length)).ok_or_else(malformed)?;
        let opened = self.ek.activate(&self.ak.name(), object, secret)?;
        let key = hmac::Key::new(hmac::HMAC_SHA384, BASE64.encode(&opened).as_bytes());
        Ok(json!({ "auth_tag": HEXLOWER.encode(hmac::sign(&key, id.as_bytes()).as_ref()) }))
    }

    /// How it shows that it has its AK, by a challenge in base64.
    pub fn keylime_possession(&self, id: &str, challenge: &str) -> Result<Value, DeviceError> {
        let challenge =
            BASE64.decode(challenge.as_bytes()).map_err(|_| DeviceError::Activation("challenge"))?;
        let shown = Certifying::of_ak(self, &challenge).sign(&self.ak)?;
        let data =
            json!({ "message": BASE64.encode(&shown.message), "signature": BASE64.encode(&shown.signature) });
        let provided =
            json!([{ "authentication_class": "pop", "authentication_type": "tpm_pop", "data": data }]);
        let attributes = json!({ "agent_id": id, "authentication_provided": provided });
        Ok(json!({ "data": { "type": "session", "attributes": attributes } }))
    }

    /// What it says that it can show.
    pub fn keylime_capabilities(&self) -> Value {
        let key = json!({
            "key_class": "asymmetric", "key_algorithm": "ecc", "key_size": 256, "server_identifier": "ak",
            "local_identifier": HEXLOWER.encode(&self.ak.name()),
            // Without the length that it has elsewhere.
            "public": BASE64.encode(self.ak.public_area().get(2..).unwrap_or_default()),
            "allowable_hash_algorithms": ["sha256"], "allowable_signature_schemes": ["ecdsa"],
        });
        let quote = json!({
            "component_version": "2.0", "hash_algorithms": ["sha256"], "signature_schemes": ["ecdsa"],
            "available_subjects": { "sha256": (0..24).collect::<Vec<u32>>() }, "certification_keys": [key],
        });
        let log = |entry_count: usize, is_list: bool| {
            json!({
                "entry_count": entry_count, "supports_partial_access": is_list, "appendable": is_list,
                "formats": [if is_list { "text/plain" } else { "application/octet-stream" }],
            })
        };
        let supported = json!([
            { "evidence_class": "certification", "evidence_type": "tpm_quote", "capabilities": quote },
            { "evidence_class": "log", "evidence_type": "uefi_log", "capabilities": log(usize::from(!self.boot_log.is_empty()), false) },
            { "evidence_class": "log", "evidence_type": "ima_log", "capabilities": log(self.ima.entries().len(), true) },
        ]);
        let attributes = json!({
            "evidence_supported": supported, "system_info": { "boot_time": "2026-01-01T00:00:00Z" },
        });
        json!({ "data": { "type": "attestation", "attributes": attributes } })
    }

    /// What it honestly shows of what it is asked for: the whole answer to its capabilities.
    pub fn keylime_evidence(&mut self, asked: &Value) -> Result<Value, DeviceError> {
        let malformed = || DeviceError::Activation("evidence_requested");
        let requested = asked.pointer("/data/attributes/evidence_requested").and_then(Value::as_array);
        let mut collected = Vec::new();
        for one in requested.ok_or_else(malformed)? {
            let parameters = one.get("chosen_parameters").cloned().unwrap_or_default();
            let (class, data) = match one.get("evidence_type").and_then(Value::as_str) {
                Some("tpm_quote") => ("certification", self.keylime_quote(&parameters)?),
                Some("uefi_log") => ("log", json!({ "entries": BASE64.encode(&self.boot_log) })),
                Some("ima_log") => {
                    let first = parameters.get("starting_offset").and_then(Value::as_u64).unwrap_or(0);
                    let entries = self.ima.ascii_from(usize::try_from(first).unwrap_or(usize::MAX));
                    ("log", json!({ "entry_count": entries.lines().count(), "entries": entries }))
                }
                _ => continue,
            };
            collected.push(json!({
                "evidence_class": class, "evidence_type": one.get("evidence_type"), "data": data,
            }));
        }
        let attributes = json!({ "evidence_collected": collected });
        Ok(json!({ "data": { "type": "attestation", "attributes": attributes } }))
    }

    fn keylime_quote(&mut self, parameters: &Value) -> Result<Value, DeviceError> {
        let malformed = || DeviceError::Activation("chosen_parameters");
        let nonce = parameters.get("challenge").and_then(Value::as_str).unwrap_or_default();
        let selected = parameters.pointer("/selected_subjects/sha256").and_then(Value::as_array);
        let selected = selected.ok_or_else(malformed)?.iter().filter_map(Value::as_u64);
        let mut pcrs: Vec<u32> =
            selected.filter_map(|pcr| u32::try_from(pcr).ok()).chain([ALWAYS_QUOTED]).collect();
        pcrs.sort_unstable();
        pcrs.dedup();
        let challenge = Challenge {
            nonce: BASE64.decode(nonce.as_bytes()).map_err(|_| malformed())?,
            selection: vec![PcrSelection { bank: "sha256".to_owned(), pcrs }],
            ..Challenge::default()
        };
        let quote = self.evidence(&challenge)?.quote.ok_or_else(malformed)?;
        Ok(json!({
            "subject_data": BASE64.encode(&pcr_file(&quote)), "message": BASE64.encode(&quote.message),
            "signature": BASE64.encode(&quote.signature),
        }))
    }
}

/// What asks for a session.
pub fn session(id: &str) -> Value {
    let supported = json!([{ "authentication_class": "pop", "authentication_type": "tpm_pop" }]);
    let attributes = json!({ "agent_id": id, "authentication_supported": supported });
    json!({ "data": { "type": "session", "attributes": attributes } })
}

/// PCR values of one bank as tpm2-tools write them: little-endian, all slots, of which few are used.
fn pcr_file(quote: &Quote) -> Vec<u8> {
    let mut select = [0_u8; 3];
    for pcr in &quote.pcrs {
        if let Some(byte) = select.get_mut((pcr.index / 8) as usize) {
            *byte |= 1 << (pcr.index % 8);
        }
    }
    let mut file = 1_u32.to_le_bytes().to_vec();
    file.extend(Bank::Sha256.id().to_le_bytes());
    file.push(3);
    file.extend(select);
    file.resize(4 + 16 * 8, 0);
    let lists: Vec<_> = quote.pcrs.chunks(8).collect();
    file.extend((lists.len() as u32).to_le_bytes());
    for list in lists {
        let start = file.len();
        file.extend((list.len() as u32).to_le_bytes());
        for pcr in list {
            let slot = file.len();
            file.extend((pcr.digest.len() as u16).to_le_bytes());
            file.extend(&pcr.digest);
            file.resize(slot + 66, 0);
        }
        file.resize(start + 532, 0);
    }
    file
}

fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: String =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

/// Agents quote it whether they are asked to or not.
const ALWAYS_QUOTED: u32 = 16;
