//! Classic certificates: for an RSA key that the device's AK certified on this stream.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::certify::verify_certify;
use assay_evidence::tpm::public_area::PublicArea;
use assay_trust::grant::classic::decide;
use assay_wire::binding::classic_nonce;
use bytes::Bytes;

use super::svid::{Granting, SvidError};
use crate::device::Device;
use crate::store::{KeepCertificate, Profile, StoreError};

/// A device's request.
#[derive(Clone, Debug)]
pub(crate) struct ClassicRequest {
    /// Higher than that of every request before it on its stream.
    pub number: u64,
    /// TPM2B_PUBLIC of the key.
    pub public: Bytes,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Certify by the AK, over [`classic_nonce`].
    pub certified: (Bytes, Bytes),
}

impl Granting {
    /// A node's certificate: the one that it has, until two thirds of its life are over, or a new one.
    pub(crate) async fn classic(
        &self,
        device: &Device,
        request: &ClassicRequest,
        stream: &[u8],
        now: UnixTime,
    ) -> Result<Vec<u8>, SvidError> {
        let authority = self.classic.as_ref().ok_or(SvidError::NoClassic)?;
        let node = device.record.node.ok_or(SvidError::NoClassic)?;
        let ClassicRequest { number, public, certified } = request;
        let nonce = classic_nonce(stream, *number, public);
        let area = |tpm2b: &[u8]| PublicArea::parse_tpm2b(tpm2b);
        let key = area(public)?;
        let ak = area(&device.record.ak_public)
            .map_err(|_| StoreError::Corrupt { column: "devices.ak_public" })?;
        let key =
            verify_certify(&ak, &certified.0, &certified.1, &nonce, &key).map_err(SvidError::NotCertified)?;
        let grant = decide(&device.state, &key, now)?;
        let kept = self.store.node_certificate(device.id.as_str(), Profile::Classic).await?;
        if let Some(kept) = kept {
            let life = kept.not_after.0.saturating_sub(kept.issued_at.0);
            let is_young = kept.issued_at.plus(life / 3 * 2) > now;
            let is_its = assay_identity::bundle::certifies(&kept.certificate, grant.public_key_spki());
            if kept.stands_at(now) && is_young && is_its {
                return Ok(kept.certificate);
            }
        }
        let issued = authority.sign_node(&self.store, grant, node, now).await?;
        let keep = KeepCertificate {
            profile: Profile::Classic,
            device_id: device.id.to_string(),
            serial: issued.serial.to_string(),
            issued_at: now,
            not_after: issued.not_after,
            certificate: issued.der.clone(),
        };
        self.store.commit(keep).await?;
        Ok(issued.der)
    }
}
