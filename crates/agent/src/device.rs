//! The device as the agent uses it: its TPM with both keys loaded.

use std::sync::Arc;

use assay_evidence::tpm::public_key::PublicKey;
use assay_identity::hpke::{self, HpkeError, Plain, Sealed};
use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::state_dir::StateDir;
use crate::tpm::keys::{self, AkKind, Keys};
use crate::tpm::{DeviceSigningKey, Target, Tpm, TpmError};

/// The TPM and its keys; clones share them, and the last one gone flushes them.
#[derive(Clone)]
pub struct Device {
    /// The TPM.
    pub tpm: Tpm,
    /// The device key, and beside it the AK.
    pub key: DeviceSigningKey,
    /// Where keys are that are loaded when they are needed.
    state: StateDir,
}

/// Why a secret could not be opened.
#[derive(Debug, Error)]
pub enum OpenSecretError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// It is not for this device's key, or for something else.
    #[error(transparent)]
    Sealed(#[from] HpkeError),
}

/// A key and the AK's word on it.
pub struct Certified {
    /// TPM2B_PUBLIC.
    pub public: Vec<u8>,
    /// TPMS_ATTEST.
    pub info: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

impl Device {
    /// Opens the TPM and loads the keys, making them the first time.
    pub async fn open(target: Target, state: StateDir, kind: AkKind) -> Result<Self, TpmError> {
        blocking(move || {
            let tpm = Tpm::open(&target)?;
            let keys = Arc::new(Keys::open(&tpm, &state, kind)?);
            Ok(Device { key: DeviceSigningKey::new(keys)?, tpm, state: state.unheld() })
        })
        .await
    }

    /// The AK's word that the RSA key is in the same TPM, over what `nonce` makes of its public area.
    pub fn certify_classic(&self, nonce: impl FnOnce(&[u8]) -> [u8; 32]) -> Result<Certified, TpmError> {
        let ak = &self.key.keys().ak;
        let classic = self.tpm.with_room(ak, |tpm| keys::classic(tpm, &self.state))?;
        let (info, signature) = ak.certify(&classic, &nonce(classic.public()))?;
        Ok(Certified { public: classic.public().to_vec(), info, signature })
    }

    /// RSASSA-PSS with SHA-256 over `message`, by the RSA key.
    pub fn sign_classic(&self, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, message).as_ref());
        let ak = &self.key.keys().ak;
        self.tpm.with_room(ak, |tpm| keys::classic(tpm, &self.state)?.sign_rsa_pss(&hash))
    }

    /// The AK's word that the key which secrets are sealed to is in the same TPM, over what `nonce` makes of its public area.
    pub fn certify_exchange(&self, nonce: impl FnOnce(&[u8]) -> [u8; 32]) -> Result<Certified, TpmError> {
        let ak = &self.key.keys().ak;
        let key = self.tpm.with_room(ak, |tpm| keys::exchange(tpm, &self.state))?;
        let (info, signature) = ak.certify(&key, &nonce(key.public()))?;
        Ok(Certified { public: key.public().to_vec(), info, signature })
    }

    /// Opens what was sealed to that key for `info`.
    pub fn open_secret(&self, sealed: &Sealed, info: &[u8]) -> Result<Plain, OpenSecretError> {
        let ak = &self.key.keys().ak;
        let (point, x) = self.tpm.with_room(ak, |tpm| {
            let key = keys::exchange(tpm, &self.state)?;
            let PublicKey::EcP256 { x, y } = key.area().key() else { return Err(TpmError::KeyKind) };
            let point = [[4].as_slice(), x.as_slice(), y.as_slice()].concat();
            Ok((point, Zeroizing::new(key.exchange(&sealed.encapsulated)?)))
        })?;
        Ok(hpke::open(&x, &point, info, sealed)?)
    }

    /// Runs TPM commands off the async threads: the slowest take seconds.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Device) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let device = self.clone();
        blocking(move || work(&device)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TpmError> + Send + 'static,
) -> Result<T, TpmError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // The runtime is shutting down, or the work panicked.
        Err(_) => Err(TpmError::Interrupted),
    }
}
