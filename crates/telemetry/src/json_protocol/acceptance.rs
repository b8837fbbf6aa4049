//! What a collector keeps of a submission: a statement of its own about it, in the place that a device's statement has.
//!
//! The original's agents number nothing. So the collector does: each statement names the one before of the same device, and with that a
//! leaf that names the last of a run stands for all of it. The device's signature is over the body's two members and the nonce.

use assay_identity::SpiffeId;
use prost::Message;
use thiserror::Error;

use super::submission::{HashAlgorithm, Submission, SubmissionError, verify_signature};
use crate::dsse::BadSignature;
use crate::statement::{Sha256, sha256};

/// A collector's statement about a submission that it accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Whose it is.
    pub device_id: SpiffeId,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that signed it.
    pub key_id: Sha256,
    /// 1 for the device's first submission, then one more each.
    pub sequence: u64,
    /// SHA-256 of the statement before; zero for the first.
    pub previous: Sha256,
    /// SHA-256 of the body as it was received.
    pub payload_sha256: Sha256,
    /// By what was hashed that was signed.
    pub algorithm: HashAlgorithm,
    /// Numbers in it.
    pub items: u64,
    /// When it was received, seconds since 1970.
    pub received_at: u64,
}

/// Why what is kept of a submission does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AcceptanceError {
    /// The statement does not read.
    #[error("not a collector's statement about a submission")]
    Statement,
    /// It is about another body.
    #[error("the body is not the one that the statement is about")]
    Payload,
    /// It names another key.
    #[error("the statement names another key")]
    KeyId,
    /// The body does not read.
    #[error(transparent)]
    Submission(#[from] SubmissionError),
    /// The key did not sign the body.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

impl Acceptance {
    /// The statement's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            context: CONTEXT.to_owned(),
            device_id: self.device_id.to_string(),
            key_id: self.key_id.to_vec(),
            sequence: self.sequence,
            previous: self.previous.to_vec(),
            payload_sha256: self.payload_sha256.to_vec(),
            algorithm: self.algorithm.name().to_owned(),
            items: self.items,
            received_at: self.received_at,
        };
        wire.encode_to_vec()
    }

    /// Reads a statement.
    pub fn read(bytes: &[u8]) -> Result<Acceptance, AcceptanceError> {
        let wire = Wire::decode(bytes).map_err(|_| AcceptanceError::Statement)?;
        if wire.context != CONTEXT {
            return Err(AcceptanceError::Statement);
        }
        let digest = |bytes: &[u8]| Sha256::try_from(bytes).map_err(|_| AcceptanceError::Statement);
        Ok(Acceptance {
            device_id: SpiffeId::parse(&wire.device_id).map_err(|_| AcceptanceError::Statement)?,
            key_id: digest(&wire.key_id)?,
            sequence: wire.sequence,
            previous: digest(&wire.previous)?,
            payload_sha256: digest(&wire.payload_sha256)?,
            algorithm: HashAlgorithm::named(&wire.algorithm).ok_or(AcceptanceError::Statement)?,
            items: wire.items,
            received_at: wire.received_at,
        })
    }

    /// Verifies what is kept: the statement is about this body, and the key that it names signed that.
    pub fn open(
        statement: &[u8],
        signature: &[u8],
        body: &[u8],
        spki: &[u8],
    ) -> Result<(Acceptance, Submission), AcceptanceError> {
        let acceptance = Acceptance::read(statement)?;
        if acceptance.payload_sha256 != sha256(body) {
            return Err(AcceptanceError::Payload);
        }
        if acceptance.key_id != sha256(spki) {
            return Err(AcceptanceError::KeyId);
        }
        let submission = Submission::read(body)?;
        verify_signature(spki, acceptance.algorithm, &submission.signed_bytes(), signature)?;
        Ok((acceptance, submission))
    }
}

/// Whether statement bytes are a collector's about a submission, and not a device's.
pub fn is_acceptance(statement: &[u8]) -> bool {
    Acceptance::read(statement).is_ok()
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(string, tag = "1")]
    context: String,
    #[prost(string, tag = "2")]
    device_id: String,
    #[prost(bytes = "vec", tag = "3")]
    key_id: Vec<u8>,
    #[prost(uint64, tag = "4")]
    sequence: u64,
    #[prost(bytes = "vec", tag = "5")]
    previous: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    payload_sha256: Vec<u8>,
    #[prost(string, tag = "7")]
    algorithm: String,
    #[prost(uint64, tag = "8")]
    items: u64,
    #[prost(uint64, tag = "9")]
    received_at: u64,
}

const CONTEXT: &str = "assay-json-telemetry-v1";
/// What the payload of such a batch is.
pub const JSON_METRICS: &str = "application/json; protocol=metrics";
