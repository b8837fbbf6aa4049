//! Opening a batch: signature first, then content.

use thiserror::Error;

use crate::dsse::{BadSignature, verify_device_signature};
use crate::statement::{
    STATEMENT_BYTES_MAX, STATEMENT_TYPE, Sha256, Statement, StatementError, parse, sha256,
};

/// A statement that its device signed, about exactly the payload that came with it. Only [`open`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    statement: Statement,
    statement_sha256: Sha256,
}

impl Opened {
    /// What the device states.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// SHA-256 of the statement bytes: what the next statement names as its previous.
    pub fn statement_sha256(&self) -> Sha256 {
        self.statement_sha256
    }
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The signature is not the device's.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// The bytes signed are not a statement.
    #[error("the statement is malformed")]
    Statement(#[from] StatementError),
    /// The payload is too long.
    #[error("a payload has at most {PAYLOAD_BYTES_MAX} bytes, this has {length}")]
    PayloadTooLong {
        /// Bytes of the payload.
        length: usize,
    },
    /// The statement names another key than the one that signed it.
    #[error("the statement names another key")]
    KeyId,
    /// The statement is about another payload.
    #[error("the payload is not the one the statement is about")]
    Payload,
}

/// Verifies a batch over the bytes received, by the key the device enrolled.
pub fn open(
    statement: &[u8],
    signature: &[u8],
    payload: &[u8],
    device_spki: &[u8],
) -> Result<Opened, OpenError> {
    if statement.len() > STATEMENT_BYTES_MAX {
        return Err(StatementError::TooLong { length: statement.len() }.into());
    }
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(OpenError::PayloadTooLong { length: payload.len() });
    }
    // The decoder sees only what the device signed.
    verify_device_signature(device_spki, STATEMENT_TYPE, statement, signature)?;
    let parsed = parse(statement)?;
    if parsed.key_id != sha256(device_spki) {
        return Err(OpenError::KeyId);
    }
    if parsed.payload_sha256 != sha256(payload) {
        return Err(OpenError::Payload);
    }
    Ok(Opened { statement: parsed, statement_sha256: sha256(statement) })
}

/// The longest payload: a thousand hosts' metrics; also under gRPC's default message limit of 4 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 3 << 20;
