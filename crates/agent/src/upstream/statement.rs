//! What of the server's words is to be believed: what is signed, for this device, on this stream, in its order.
//!
//! Whoever carries the words can leave the last ones out and nothing else: a word that is repeated, exchanged, changed,
//! of another stream or of an earlier state ends the stream and changes nothing.

use std::time::SystemTime;

use assay_wire::binding::STREAM_BYTES;
use assay_wire::edge::{self, device_statement};
use aws_lc_rs::rand;
use prost::Message;
use thiserror::Error;

use super::message;
use crate::holding::{Grants, TrustError};

/// Something was said that is not the server's word to this device now.
#[derive(Debug, Error)]
pub enum StatementError {
    /// It does not decode.
    #[error("a statement cannot be read")]
    Malformed,
    /// It is not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It was said to another.
    #[error("a statement for another device")]
    OtherDevice,
    /// It was said on another stream.
    #[error("a statement of another stream")]
    OtherStream,
    /// It is not the next one.
    #[error("statement {found} came where {expected} was due")]
    Order {
        /// What was due.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The system has no randomness for the stream's name.
    #[error("the random source failed")]
    Random,
}

/// Something that the server said.
#[derive(Debug)]
pub(super) struct Heard {
    /// What; `None`: something of a newer server.
    pub(super) body: Option<device_statement::Body>,
    /// The head of its ledger, as a signed note; empty: it said nothing of it.
    pub(super) ledger_head: String,
}

/// The hearing of one stream.
#[derive(Debug)]
pub(super) struct Hearing {
    device_id: String,
    /// The device's name of the stream.
    stream: [u8; STREAM_BYTES],
    heard: u64,
}

impl Hearing {
    /// Whom it is said to.
    pub(super) fn device_id(&self) -> &str {
        &self.device_id
    }

    pub(super) fn new(device_id: &str) -> Result<Self, StatementError> {
        let mut stream = [0; STREAM_BYTES];
        rand::fill(&mut stream).map_err(|_| StatementError::Random)?;
        Ok(Hearing { device_id: device_id.to_owned(), stream, heard: 0 })
    }

    /// The stream's name, for Hello.
    pub(super) fn stream(&self) -> &[u8] {
        &self.stream
    }

    /// What was said to this device.
    pub(super) fn statement(
        &mut self,
        signed: edge::Signed,
        grants: &mut Grants,
        now: SystemTime,
    ) -> Result<Heard, StatementError> {
        let signed = message::signed(signed);
        grants.hear(&signed, now)?;
        let statement = edge::DeviceStatement::decode(signed.statement.as_slice())
            .map_err(|_| StatementError::Malformed)?;
        if statement.device_id != self.device_id {
            return Err(StatementError::OtherDevice);
        }
        if statement.stream != self.stream.as_slice() {
            return Err(StatementError::OtherStream);
        }
        let expected = self.heard + 1;
        if statement.number != expected {
            return Err(StatementError::Order { expected, found: statement.number });
        }
        grants.note(statement.state_version)?;
        self.heard = expected;
        Ok(Heard { body: statement.body, ledger_head: statement.ledger_head })
    }
}

/// Whom everybody is to believe; gives what verifies the heads of the server's ledger.
pub(super) fn trust(
    signed: edge::Signed,
    grants: &mut Grants,
    now: SystemTime,
) -> Result<String, StatementError> {
    let signed = message::signed(signed);
    let statement =
        edge::TrustStatement::decode(signed.statement.as_slice()).map_err(|_| StatementError::Malformed)?;
    let ledger_key = statement.ledger_key.clone();
    grants.announced(&signed, message::announced(statement), now)?;
    Ok(ledger_key)
}
