//! What Keylime's tenant asks of registrar and verifier, and is told.

use assay_evidence::time::UnixTime;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{KeylimeError, base64};

/// An agent as a registrar knows it.
#[derive(Clone, Copy, Debug)]
pub struct Registered<'a> {
    /// Its name.
    pub id: &'a str,
    /// TPM2B_PUBLIC of its EK.
    pub ek_public: &'a [u8],
    /// Its certificate, DER; empty: it has none.
    pub ek_certificate: &'a [u8],
    /// TPM2B_PUBLIC of its AK.
    pub ak_public: &'a [u8],
    /// What it shows where it listens.
    pub certificate: &'a str,
    /// Where that is.
    pub address: &'a str,
    /// On which port.
    pub port: u16,
    /// How often another identity was bound to the name.
    pub registrations: u64,
}

impl Registered<'_> {
    /// As it is told.
    pub fn told(&self) -> Value {
        let certificate =
            Some(self.ek_certificate).filter(|der| !der.is_empty()).map(|der| BASE64.encode(der));
        json!({
            "agent_id": self.id, "ek_tpm": BASE64.encode(self.ek_public), "ekcert": certificate,
            "aik_tpm": BASE64.encode(self.ak_public), "mtls_cert": self.certificate, "ip": self.address,
            "port": self.port, "regcount": self.registrations,
        })
    }
}

/// How evidence of an agent's stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is trusted.
    Pass,
    /// It is not, by what it showed or by an operator's word.
    Fail,
    /// It has shown nothing yet.
    Pending,
    /// It was not heard in time.
    Timeout,
}

/// An agent as a verifier knows it.
#[derive(Clone, Debug)]
pub struct Status<'a> {
    /// How it stands.
    pub standing: Standing,
    /// Where it listens, if it is polled.
    pub contact: Option<(&'a str, u16)>,
    /// Whether a policy judges its boot, and whether one judges its files.
    pub judged: (bool, bool),
    /// The algorithms of its AK: of hash, key and signature.
    pub algorithms: (&'a str, &'a str, &'a str),
    /// Where the tenant reaches this verifier.
    pub verifier: (&'a str, u16),
    /// What speaks most against it.
    pub event: Option<&'a str>,
    /// When its evidence was judged last.
    pub evidence_at: Option<UnixTime>,
    /// How often it is to come.
    pub interval_seconds: u64,
}

impl Status<'_> {
    /// As it is told: never with a share of a key.
    pub fn told(&self) -> Value {
        let at = self.evidence_at.map(|at| at.0);
        let is_good = self.standing == Standing::Pass;
        let (standing, state) = match self.standing {
            Standing::Pass => ("PASS", GET_QUOTE),
            Standing::Pending => ("PENDING", GET_QUOTE),
            Standing::Timeout => ("TIMEOUT", FAILED),
            Standing::Fail => ("FAIL", INVALID_QUOTE),
        };
        json!({
            "operational_state": state, "v": null,
            "ip": self.contact.map(|(address, _)| address), "port": self.contact.map(|(_, port)| port),
            "tpm_policy": "{}", "meta_data": "{}",
            "has_mb_refstate": u8::from(self.judged.0), "has_runtime_policy": u8::from(self.judged.1),
            "accept_tpm_hash_algs": ["sha512", "sha384", "sha256"], "accept_tpm_encryption_algs": ["ecc", "rsa"],
            "accept_tpm_signing_algs": ["rsassa", "rsapss", "ecdsa"],
            "hash_alg": self.algorithms.0, "enc_alg": self.algorithms.1, "sign_alg": self.algorithms.2,
            "verifier_id": "default", "verifier_ip": self.verifier.0, "verifier_port": self.verifier.1,
            "severity_level": null, "last_event_id": self.event, "attestation_count": u8::from(at.is_some()),
            "last_received_quote": at, "last_successful_attestation": at.filter(|_| is_good),
            "attestation_status": standing, "attestation_period": format!("{}s", self.interval_seconds),
            "maximum_attestation_interval": format!("{}s", self.interval_seconds.saturating_mul(5)),
        })
    }
}

/// An agent that a tenant adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// TPM2B_PUBLIC of its AK, as the tenant had it from a registrar.
    pub ak_public: Bytes,
    /// Whether it is to be given a payload's key.
    pub has_payload: bool,
    /// What its files are judged by, JSON.
    pub runtime_policy: Option<String>,
    /// The name of what they are judged by.
    pub runtime_policy_name: Option<String>,
    /// What its PCRs are judged by, JSON.
    pub tpm_policy: Option<String>,
    /// What its boot is judged by, JSON.
    pub mb_policy: Option<String>,
    /// The name of what that is.
    pub mb_policy_name: Option<String>,
}

impl Enrolment {
    /// Reads one. What is empty counts as not there.
    pub fn read(body: &[u8]) -> Result<Enrolment, KeylimeError> {
        #[derive(Deserialize)]
        struct Sent {
            v: Option<String>,
            ak_tpm: Option<String>,
            runtime_policy: Option<String>,
            runtime_policy_name: Option<String>,
            tpm_policy: Option<String>,
            mb_policy: Option<Value>,
            mb_policy_name: Option<String>,
        }
        let sent: Sent = serde_json::from_slice(body)?;
        let ak_public = base64("ak_tpm", sent.ak_tpm.as_deref().unwrap_or_default())?;
        if ak_public.is_empty() {
            return Err(KeylimeError::Missing("ak_tpm"));
        }
        let mb_policy = sent.mb_policy.map(|policy| match policy {
            Value::String(text) => text,
            policy => policy.to_string(),
        });
        Ok(Enrolment {
            ak_public,
            has_payload: sent.v.is_some_and(|share| !share.is_empty()),
            runtime_policy: encoded_policy("runtime_policy", sent.runtime_policy)?,
            runtime_policy_name: named(sent.runtime_policy_name),
            tpm_policy: sent.tpm_policy.filter(|policy| says_anything(policy)),
            mb_policy: mb_policy.filter(|policy| says_anything(policy)),
            mb_policy_name: named(sent.mb_policy_name),
        })
    }
}

/// Reads a runtime policy that is to have a name.
pub fn read_runtime_policy(body: &[u8]) -> Result<String, KeylimeError> {
    #[derive(Deserialize)]
    struct Sent {
        runtime_policy: Option<String>,
    }
    let Sent { runtime_policy } = serde_json::from_slice(body)?;
    encoded_policy("runtime_policy", runtime_policy)?.ok_or(KeylimeError::Missing("runtime_policy"))
}

fn encoded_policy(member: &'static str, text: Option<String>) -> Result<Option<String>, KeylimeError> {
    let bytes = base64(member, text.as_deref().unwrap_or_default())?;
    let malformed = |_| KeylimeError::Encoding { member, form: "text in base64" };
    let policy = String::from_utf8(bytes.into()).map_err(malformed)?;
    Ok(Some(policy).filter(|policy| says_anything(policy)))
}

fn named(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.is_empty())
}

/// A tenant that was given no policy sends one that says nothing: an empty object, a mask of no PCRs, no digests.
fn says_anything(policy: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(policy) else { return !policy.trim().is_empty() };
    let Some(object) = value.as_object() else { return !value.is_null() };
    let is_empty_list = value.pointer("/meta/generator") == Some(&json!(EMPTY_ALLOWLIST));
    object.keys().any(|key| key != "mask") && !is_empty_list
}

/// Of the states that an agent can be in.
const GET_QUOTE: u8 = 3;
const FAILED: u8 = 7;
const INVALID_QUOTE: u8 = 9;
/// `meta.generator` of the runtime policy that a tenant sends where it was given none.
const EMPTY_ALLOWLIST: u8 = 1;
