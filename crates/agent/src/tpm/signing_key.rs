//! The device key as TLS and certificate requests see it: they ask for a signature, the TPM makes it.

use std::fmt;
use std::sync::Arc;

use assay_evidence::tpm::public_key::PublicKey;
use assay_identity::csr::{self, CsrError};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::TpmError;
use super::keys::{Key, Keys};

/// The device key; clones share it. Signing takes as long as the TPM does: some milliseconds to a quarter second.
#[derive(Clone)]
pub struct DeviceSigningKey {
    keys: Arc<Keys>,
    /// Uncompressed point, SEC 1 §2.3.3.
    point: Vec<u8>,
}

impl DeviceSigningKey {
    /// Wraps the device key, which is ECC P-256.
    pub fn new(keys: Arc<Keys>) -> Result<Self, TpmError> {
        match keys.device.area().key() {
            PublicKey::EcP256 { x, y } => {
                let point = [[4].as_slice(), x.as_slice(), y.as_slice()].concat();
                Ok(DeviceSigningKey { keys, point })
            }
            _ => Err(TpmError::KeyKind),
        }
    }

    /// The AK and the device key.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Its SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> Vec<u8> {
        self.key().area().spki_der()
    }

    /// ECDSA P-256 with SHA-256 over `message`, DER.
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, message).as_ref());
        self.key().sign(&hash)
    }

    /// A certificate request for it, PKCS#10 DER.
    pub fn certificate_request(&self) -> Result<Vec<u8>, CsrError> {
        csr::request_with(&self.spki(), |message| {
            self.sign_message(message)
                .inspect_err(|error| tracing::error!(%error, "request could not be signed"))
        })
    }

    fn key(&self) -> &Key {
        &self.keys.device
    }
}

impl fmt::Debug for DeviceSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceSigningKey")
    }
}

impl SigningKey for DeviceSigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P256, &self.point))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for DeviceSigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.sign_message(message).map_err(|error| rustls::Error::Other(rustls::OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
