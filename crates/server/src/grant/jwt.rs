//! JWT-SVIDs of workloads that an operator entitled on a device.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_telemetry::verify_device_signature;
use assay_trust::TrustState;
use assay_trust::grant::jwt::{JwtRequest, decide};
use assay_wire::binding::{JWT_SVID_TYPE, jwt_svid_body};
use bytes::Bytes;

use super::svid::{Granting, SvidError, entitled};
use crate::device::Device;
use crate::keys::Token;
use crate::store::EntryRecord;

/// A device's request for a workload's token.
#[derive(Clone, Debug)]
pub(crate) struct TokenRequest {
    /// Higher than that of every request before it on its stream.
    pub number: u64,
    pub entry_id: String,
    /// For whom the token is to be.
    pub audience: Vec<String>,
    /// The device key's, over [`jwt_svid_body`].
    pub device_signature: Bytes,
}

impl TokenRequest {
    /// Whether the device's agent asked, on the stream that the server calls so, and nobody on the way.
    pub(crate) fn authentic(&self, device: &Device, stream: &[u8]) -> Result<(), SvidError> {
        let body = jwt_svid_body(stream, self.number, &self.entry_id, &self.audience);
        let spki = &device.record.device_key_spki;
        Ok(verify_device_signature(spki, JWT_SVID_TYPE, &body, &self.device_signature)?)
    }
}

impl Granting {
    /// A workload's token, for an [`authentic`](TokenRequest::authentic) request.
    pub(crate) async fn token(
        &self,
        device: &Device,
        request: &TokenRequest,
        now: UnixTime,
    ) -> Result<String, SvidError> {
        let TokenRequest { entry_id, audience, .. } = request;
        let entries = self.entries.of(&device.id);
        Ok(self.token_by(&device.state, (&entries, entry_id), audience, now).await?.token)
    }

    /// A workload's token by one of the entries that whom a state is about may hand out.
    pub(crate) async fn token_by(
        &self,
        state: &TrustState,
        (entries, entry_id): (&[Arc<EntryRecord>], &str),
        audience: &[String],
        now: UnixTime,
    ) -> Result<Token, SvidError> {
        let (entry, entitlement) = entitled(state, entries, entry_id, now)?;
        let grant = decide(state, JwtRequest { entitlement: &entitlement, audience }, now)?;
        Ok(self.jwt_key.sign(&self.store, grant, (state.device(), &entry), now).await?)
    }
}
