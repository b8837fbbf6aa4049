//! Private keys held in memory: P-256, PKCS#8; RSA for the classic root alone.

use std::fmt;

use rcgen::PublicKeyData as _;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;

/// An ECDSA P-256 key pair, or the RSA one of a classic root. Its `Debug` shows nothing of the key.
pub struct PrivateKey(pub(crate) rcgen::KeyPair);

/// A private key that could not be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The random source failed.
    #[error("no key could be generated")]
    Generation,
    /// No signature came of it.
    #[error("the key did not sign")]
    Signing,
    /// Not PEM, not PKCS#8, or not P-256.
    #[error("not an unencrypted PKCS#8 P-256 private key")]
    Unreadable,
}

impl PrivateKey {
    /// Makes a new key from the system's random source.
    pub fn generate() -> Result<Self, KeyError> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(PrivateKey)
            .map_err(|_| KeyError::Generation)
    }

    /// Makes a new RSA key of 4096 bits, which takes seconds.
    pub fn generate_rsa() -> Result<Self, KeyError> {
        rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096)
            .map(PrivateKey)
            .map_err(|_| KeyError::Generation)
    }

    /// Reads a `PRIVATE KEY` PEM section of RSA.
    pub fn from_rsa_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::Unreadable)?;
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_RSA_SHA256)
            .map(PrivateKey)
            .map_err(|_| KeyError::Unreadable)
    }

    /// Reads PKCS#8 DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from(der);
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map(PrivateKey)
            .map_err(|_| KeyError::Unreadable)
    }

    /// Reads a `PRIVATE KEY` PEM section.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::Unreadable)?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    /// The key in PKCS#8 DER: secret.
    pub fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The key as a `PRIVATE KEY` PEM section: secret.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// ECDSA P-256 with SHA-256 over `message`, DER.
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        rcgen::SigningKey::sign(&self.0, message).map_err(|_| KeyError::Signing)
    }

    /// The public key as SubjectPublicKeyInfo DER.
    pub fn spki(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}
