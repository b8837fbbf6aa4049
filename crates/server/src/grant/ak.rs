//! The certificate of a device's attestation key, for others that enrol devices by what their TPM says: the AK that credential
//! activation bound to it, with what the verified EK certificate says of the TPM.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::public_area::PublicArea;
use assay_identity::ak_certificate::TpmNames;
use assay_trust::grant::Denied;
use assay_trust::grant::ak::decide;
use thiserror::Error;

use super::svid::Granting;
use crate::device::{Device, DeviceError};
use crate::keys::KeysError;
use crate::outcome::Outcome as _;
use crate::store::{KeepCertificate, NodeCertificate, Profile, StoreError};

/// What a device is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantedAk {
    /// The certificate and its root's, DER.
    pub chain: Vec<Vec<u8>>,
    /// From then on there is a new one.
    pub renew_at: UnixTime,
}

/// Why a device has none.
#[derive(Debug, Error)]
pub(crate) enum AkError {
    /// The trust state says no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nobody says what TPM it is.
    #[error(
        "no certificate of its EK holds that names the TPM's manufacturer, model and version: the maker's belongs into ek_anchors"
    )]
    NoNames,
    /// The device's record.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl AkError {
    /// What the device is told: the reason of a denial, no more than the family of a fault.
    pub(crate) fn sentence(&self) -> String {
        match self {
            AkError::Denied(denied) => format!("{}: {denied}", denied.code()),
            AkError::NoNames => format!("no-ek-certificate: {self}"),
            AkError::Device(error) => format!("{}: try again", error.told().0.family()),
            AkError::Store(error) | AkError::Keys(KeysError::Record(error)) => match error {
                StoreError::Full { .. } | StoreError::TooOften { .. } => format!("exhausted: {error}"),
                error => format!("{}: try again", error.told().0.family()),
            },
            AkError::Keys(error) => format!("{}: try again", error.told().0.family()),
        }
    }
}

impl Granting {
    /// The certificate of a device's AK, where the server signs such: the one that it has, until half of its life is over, or a new one.
    pub(crate) async fn ak_certificate(
        &self,
        device: &Device,
        endorsement: &Endorsement,
        now: UnixTime,
    ) -> Result<Option<GrantedAk>, AkError> {
        let Some((authority, life_seconds)) = &self.ak else { return Ok(None) };
        let ak = PublicArea::parse_tpm2b(&device.record.ak_public)
            .map_err(|_| StoreError::Corrupt { column: "devices.ak_public" })?;
        let grant = decide(&device.state, &ak.spki_der(), *life_seconds, now)?;
        let names = names(endorsement).ok_or(AkError::NoNames)?;
        let given = |der: Vec<u8>, renew_at| GrantedAk {
            chain: vec![der, authority.certificate().to_vec()],
            renew_at,
        };
        let kept = self.store.node_certificate(device.id.as_str(), Profile::Ak).await?;
        if let Some(kept) = kept {
            let renew_at = half(kept.issued_at, kept.not_after);
            if still_says_it(&kept, &names, grant.public_key_spki()) && kept.stands_at(now) && renew_at > now
            {
                return Ok(Some(given(kept.certificate, renew_at)));
            }
        }
        let issued = authority.sign(&self.store, grant, names, now).await?;
        let keep = KeepCertificate {
            profile: Profile::Ak,
            device_id: device.id.to_string(),
            serial: issued.serial.to_string(),
            issued_at: now,
            not_after: issued.not_after,
            certificate: issued.der.clone(),
        };
        self.store.commit(keep).await?;
        Ok(Some(given(issued.der, half(now, issued.not_after))))
    }
}

fn half(from: UnixTime, until: UnixTime) -> UnixTime {
    from.plus(until.0.saturating_sub(from.0) / 2)
}

/// The device may have enrolled with another AK, or its TPM been certified anew.
fn still_says_it(kept: &NodeCertificate, names: &TpmNames, spki: &[u8]) -> bool {
    assay_identity::bundle::certifies(&kept.certificate, spki)
        && assay_identity::ak_certificate::names(&kept.certificate).as_ref() == Some(names)
}

/// What the EK certificate says of the TPM, where one holds.
fn names(endorsement: &Endorsement) -> Option<TpmNames> {
    let certificate = endorsement.certificate()?;
    let name = |name: Option<&str>| name.filter(|name| !name.is_empty()).map(str::to_owned);
    Some(TpmNames {
        manufacturer: name(certificate.manufacturer())?,
        model: name(certificate.model())?,
        version: name(certificate.version())?,
        identifier: endorsement.ek_sha256().to_hex(),
    })
}
