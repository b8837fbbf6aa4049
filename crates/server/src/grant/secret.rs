//! Secrets: opened for a moment, and sealed again to a key that the device's AK certified on this stream.

use std::sync::Arc;

use assay_evidence::check::Failure;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::certify::verify_exchange;
use assay_evidence::tpm::public_area::{PublicArea, PublicAreaError};
use assay_identity::hpke::{self, HpkeError, Sealed};
use assay_identity::secret::SecretName;
use assay_trust::grant::Denied;
use assay_trust::grant::secret::{SecretRequest, decide};
use assay_wire::binding::{secret_info, secret_nonce};
use bytes::Bytes;
use thiserror::Error;

use crate::device::Device;
use crate::in_force::secrets::Secrets;
use crate::keys::{KeysError, SecretKey};
use crate::outcome::{Kind, Outcome};
use crate::store::{KeepSecrets, ReleaseSecret, Store, StoreError};

/// What releasing secrets needs.
#[derive(Clone, Debug)]
pub(crate) struct Releasing {
    pub store: Store,
    pub secrets: Arc<Secrets>,
    pub key: Arc<SecretKey>,
}

/// A device's request.
#[derive(Clone, Debug)]
pub(crate) struct ReleaseRequest {
    /// Higher than that of every request before it on its stream.
    pub number: u64,
    pub name: String,
    pub version: u64,
    /// TPM2B_PUBLIC of the key.
    pub public: Bytes,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Certify by the AK, over [`secret_nonce`].
    pub certified: (Bytes, Bytes),
}

/// A secret for one device.
#[derive(Debug)]
pub(crate) struct Released {
    pub sealed: Sealed,
    pub autorun: bool,
}

impl Releasing {
    /// Releases one version of a secret, on record.
    pub(crate) async fn release(
        &self,
        device: &Device,
        request: &ReleaseRequest,
        stream: &[u8],
        now: UnixTime,
    ) -> Result<Released, ReleaseError> {
        let ReleaseRequest { number, name, version, public, certified } = request;
        let nonce = secret_nonce(stream, *number, name, public);
        let area = |tpm2b: &[u8]| PublicArea::parse_tpm2b(tpm2b);
        let key = area(public)?;
        let ak = area(&device.record.ak_public)
            .map_err(|_| StoreError::Corrupt { column: "devices.ak_public" })?;
        let key = verify_exchange(&ak, &certified.0, &certified.1, &nonce, &key)
            .map_err(ReleaseError::NotCertified)?;
        // Of a secret that is for others it is not told that there is one.
        let name: SecretName = name.parse().map_err(|_| ReleaseError::NoSecret)?;
        let assigned = self.secrets.get(&name).filter(|one| one.version == *version);
        let assigned = assigned.ok_or(ReleaseError::NoSecret)?;
        let (condition, labels) = (&assigned.condition, &device.labels);
        let request = SecretRequest { name: &name, version: *version, condition, labels, key: &key };
        let grant = decide(&device.state, &request, now)?;
        let sealed =
            self.store.sealed_secret(name.as_str(), *version).await?.ok_or(ReleaseError::NoSecret)?;
        let release = ReleaseSecret {
            device_id: grant.device().to_string(),
            state_version: grant.state_version(),
            name: name.to_string(),
            version: grant.version(),
            at: now,
        };
        self.store.commit(release).await?;
        let plain = self.key.unseal(name.as_str(), *version, &sealed)?;
        let info = secret_info(grant.device().as_str(), stream, name.as_str(), *version);
        let sealed = hpke::seal(grant.recipient().point(), &info, plain.bytes())?;
        tracing::info!(device = %device.id, secret = %name, version, "secret released");
        Ok(Released { sealed, autorun: assigned.autorun })
    }

    /// Takes note that a device may have these and no others.
    pub(crate) async fn keep(
        &self,
        device: &Device,
        secrets: &[(SecretName, u64)],
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let names: Vec<String> = secrets.iter().map(|(name, _)| name.to_string()).collect();
        let has = self.store.secrets_of_device(device.id.as_str()).await?;
        if has.iter().all(|held| names.contains(&held.name)) {
            return Ok(());
        }
        let keep = KeepSecrets { device_id: device.id.to_string(), names, at: now };
        let lost = self.store.commit(keep).await?;
        if lost > 0 {
            tracing::info!(device = %device.id, lost, "secrets withdrawn");
        }
        Ok(())
    }
}

/// Why a secret is not released.
#[derive(Debug, Error)]
pub(crate) enum ReleaseError {
    /// The trust state, or the secret, does not entitle to it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is none of this name and version for this device.
    #[error("there is no such secret for this device")]
    NoSecret,
    /// The request was made before, on this stream.
    #[error("the request is not newer than the one before it")]
    Replayed,
    /// The key is none.
    #[error("the key does not read")]
    PublicArea(#[from] PublicAreaError),
    /// The AK does not say that the key is in its TPM, and for this.
    #[error("the key is not certified: {}", .0.iter().map(ToString::to_string).next().unwrap_or_default())]
    NotCertified(Vec<Failure>),
    /// Nothing can be sealed to the key.
    #[error(transparent)]
    Key(#[from] HpkeError),
    /// The secret could not be read, or the trust state moved on before its release was on record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be opened here.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for ReleaseError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            ReleaseError::Denied(denied) => (Kind::Forbidden, denied.code()),
            ReleaseError::NoSecret => (Kind::NotFound, "no-secret"),
            ReleaseError::Replayed => (Kind::OutOfTurn, "replayed"),
            ReleaseError::PublicArea(_) => (Kind::Malformed, "public-area"),
            ReleaseError::NotCertified(_) => (Kind::Unauthenticated, "not-certified"),
            ReleaseError::Key(_) => (Kind::Malformed, "key"),
            ReleaseError::Store(error) => error.told(),
            ReleaseError::Keys(error) => error.told(),
        }
    }
}

impl ReleaseError {
    /// What the device is told: the reason of a denial, no more than the family of a fault.
    pub(crate) fn sentence(&self) -> String {
        match self {
            ReleaseError::Denied(denied) => format!("{}: {denied}", denied.code()),
            ReleaseError::Store(StoreError::Conflict) => "not-trusted: the state has moved on".to_owned(),
            ReleaseError::Store(full @ (StoreError::Full { .. } | StoreError::TooOften { .. })) => {
                format!("exhausted: {full}")
            }
            ReleaseError::Store(_) | ReleaseError::Keys(_) => "unavailable: try again".to_owned(),
            error => format!("refused: {error}"),
        }
    }
}
