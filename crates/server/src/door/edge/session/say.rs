//! What the server says to one device on one stream: signed, numbered, and good nowhere else.

use std::sync::Arc;

use assay_identity::SpiffeId;
use assay_wire::edge::{self, device_statement, server_message};
use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;

use super::super::answers::{Answer, framed};
use super::SessionEnd;
use crate::device::Device;
use crate::keys::{KeysError, SignedTogether, StatementKey, Urgency};
use crate::parts::Server;

/// The voice towards one stream.
#[derive(Debug)]
pub(super) struct Voice {
    device_id: String,
    /// The device's own name of the stream.
    stream: Bytes,
    said: u64,
    key: Arc<StatementKey>,
}

impl Voice {
    pub(super) fn new(server: &Server, id: &SpiffeId, stream: Bytes) -> Voice {
        Voice { device_id: id.to_string(), stream, said: 0, key: server.announcer.key() }
    }

    /// Speaks with the key of an announcement that the device has got.
    pub(super) fn take_key(&mut self, key: Arc<StatementKey>) {
        self.key = key;
    }

    /// The next statement.
    pub(super) async fn say(
        &mut self,
        state_version: u64,
        body: device_statement::Body,
        ledger_head: String,
    ) -> Result<edge::Signed, KeysError> {
        self.said += 1;
        let statement = edge::DeviceStatement {
            device_id: self.device_id.clone(),
            stream: self.stream.clone(),
            number: self.said,
            state_version,
            body: Some(body),
            ledger_head,
        };
        let urgency = urgency(statement.body.as_ref());
        let signed = self.key.sign(statement.encode_to_vec(), urgency).await?;
        let SignedTogether { statement, signature, place: (index, size), path } = signed;
        let (statement, path) = (statement.into(), path.into());
        Ok(edge::Signed { statement, signature, signer: Vec::new(), index, size, path })
    }
}

/// A verdict says what comes of it by itself where that is anything: in grants, or their withdrawal.
fn urgency(body: Option<&device_statement::Body>) -> Urgency {
    match body {
        Some(device_statement::Body::Verdict(_)) => Urgency::WithOthers,
        Some(
            device_statement::Body::Grants(_)
            | device_statement::Body::WorkloadSvid(_)
            | device_statement::Body::JwtSvid(_)
            | device_statement::Body::Classic(_)
            | device_statement::Body::Secret(_)
            | device_statement::Body::TaskAnswer(_),
        )
        | None => Urgency::AtOnce,
    }
}

/// Takes everything from a revoked device that comes again: a status would not be signed, and so not be heeded.
pub(super) async fn refuse_revoked(
    server: &Server,
    id: &SpiffeId,
    mut voice: Voice,
    outbound: &mpsc::Sender<Answer>,
) -> Result<(), SessionEnd> {
    let Ok(Some(device)) = Device::load(&server.store, id).await else { return Ok(()) };
    let grants = edge::Grants {
        withdrawn: true,
        reason: "the device is revoked".to_owned(),
        ..edge::Grants::default()
    };
    let mut signed =
        voice.say(device.state.version(), device_statement::Body::Grants(grants), String::new()).await?;
    // Nothing was announced on this stream.
    signed.signer = voice.key.chain().iter().cloned().map(Into::into).collect();
    let message = framed(server_message::Message::Statement(signed));
    outbound.send(Box::new(Ok(message))).await.map_err(|_| SessionEnd::Gone)
}
