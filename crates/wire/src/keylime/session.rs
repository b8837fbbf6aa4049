//! Sessions of agents that push: an agent shows that it has its AK now, and gets a token to speak with for a while.

use assay_evidence::time::UnixTime;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AgentId, KeylimeError, answer, base64, document};

/// How an agent can show who it is.
#[derive(Deserialize)]
struct Method {
    authentication_class: String,
    authentication_type: String,
}

impl Method {
    fn is_possession(&self) -> bool {
        (self.authentication_class.as_str(), self.authentication_type.as_str()) == (CLASS, TYPE)
    }
}

/// An agent asks for a session: which, if it can show that it has a TPM's key.
pub fn read_beginning(body: &[u8]) -> Result<AgentId, KeylimeError> {
    #[derive(Deserialize)]
    struct Sent {
        agent_id: String,
        authentication_supported: Vec<Method>,
    }
    let sent: Sent = document(KIND, body)?;
    match sent.authentication_supported.iter().any(Method::is_possession) {
        true => AgentId::parse(&sent.agent_id),
        false => Err(KeylimeError::Missing("authentication_supported: pop, tpm_pop")),
    }
}

/// What an agent shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which agent it says to be.
    pub agent_id: AgentId,
    /// TPMS_ATTEST of TPM2_Certify(AK) by the AK itself.
    pub message: Bytes,
    /// TPMT_SIGNATURE.
    pub signature: Bytes,
}

impl Proof {
    /// Reads it.
    pub fn read(body: &[u8]) -> Result<Proof, KeylimeError> {
        #[derive(Deserialize)]
        struct Sent {
            agent_id: String,
            authentication_provided: Vec<Provided>,
        }
        #[derive(Deserialize)]
        struct Provided {
            #[serde(flatten)]
            method: Method,
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            message: String,
            signature: String,
        }
        let sent: Sent = document(KIND, body)?;
        let provided = sent.authentication_provided.into_iter().find(|one| one.method.is_possession());
        let Data { message, signature } =
            provided.ok_or(KeylimeError::Missing("authentication_provided: pop, tpm_pop"))?.data;
        Ok(Proof {
            agent_id: AgentId::parse(&sent.agent_id)?,
            message: base64("authentication_provided.data.message", &message)?,
            signature: base64("authentication_provided.data.signature", &signature)?,
        })
    }
}

/// A session as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its number.
    pub id: &'a str,
    /// Whose it is to be.
    pub agent_id: &'a AgentId,
    /// What has to be answered.
    pub challenge: &'a [u8],
    /// When it began.
    pub created_at: UnixTime,
    /// Until when it has to be answered.
    pub challenge_until: UnixTime,
}

impl Told<'_> {
    /// What the agent is asked.
    pub fn challenge(&self) -> Value {
        let requested = json!([{
            "authentication_class": CLASS, "authentication_type": TYPE,
            "chosen_parameters": { "challenge": BASE64.encode(self.challenge) },
        }]);
        let mut attributes = self.attributes();
        insert(&mut attributes, "authentication_requested", requested);
        answer(KIND, Some(self.id), attributes)
    }

    /// What came of what it showed: a token and until when it counts, or nothing.
    pub fn outcome(&self, proof: &Proof, at: UnixTime, token: Option<(&str, UnixTime)>) -> Value {
        let shown = json!([{
            "authentication_class": CLASS, "authentication_type": TYPE,
            "chosen_parameters": { "challenge": BASE64.encode(self.challenge) },
            "data": { "message": BASE64.encode(&proof.message), "signature": BASE64.encode(&proof.signature) },
        }]);
        let mut attributes = self.attributes();
        insert(&mut attributes, "authentication", shown);
        insert(&mut attributes, "response_received_at", at.to_string().into());
        insert(&mut attributes, "evaluation", if token.is_some() { "pass" } else { "fail" }.into());
        if let Some((token, until)) = token {
            insert(&mut attributes, "token", token.into());
            insert(&mut attributes, "token_expires_at", until.to_string().into());
        }
        answer(KIND, Some(self.id), attributes)
    }

    fn attributes(&self) -> Value {
        json!({
            "agent_id": self.agent_id.as_str(),
            "created_at": self.created_at.to_string(),
            "challenges_expire_at": self.challenge_until.to_string(),
        })
    }
}

fn insert(attributes: &mut Value, member: &str, value: Value) {
    if let Some(attributes) = attributes.as_object_mut() {
        attributes.insert(member.to_owned(), value);
    }
}

const KIND: &str = "session";
/// Proof of possession, by a TPM.
const CLASS: &str = "pop";
const TYPE: &str = "tpm_pop";
