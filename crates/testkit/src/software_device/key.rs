//! Signing keys with the public areas a TPM would give them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

use super::DeviceError;
use super::endorsement::certificate_serial;
use super::tpm_bytes::{ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_SHA256, ECC_NIST_P256, TpmBytes};
use crate::Bank;

/// A P-256 signing key that claims to live in a TPM.
#[derive(Debug)]
pub struct TpmKey {
    attributes: u32,
    fixed: EcdsaKeyPair,
    der: KeyPair,
}

/// TPMA_OBJECT of an attestation key: fixed, made inside, restricted to signing what the TPM says.
pub const ATTESTATION_KEY: u32 = FIXED | RESTRICTED | SIGN;
/// TPMA_OBJECT of a device key: fixed, made inside, signs anything.
pub const DEVICE_KEY: u32 = FIXED | SIGN;

impl TpmKey {
    /// Makes a key with these attributes.
    pub fn generate(attributes: u32) -> Result<TpmKey, DeviceError> {
        let der = KeyPair::generate()?;
        let fixed = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.serialized_der())?;
        Ok(TpmKey { attributes, fixed, der })
    }

    /// TPM2B_PUBLIC.
    pub fn public_area(&self) -> Vec<u8> {
        TpmBytes::default().sized(&self.template()).finish()
    }

    /// The Name: hash algorithm, then the hash of the public area.
    pub fn name(&self) -> Vec<u8> {
        TpmBytes::default().u16(ALG_SHA256).raw(&Bank::Sha256.hash(&self.template())).finish()
    }

    /// SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        self.der.subject_public_key_info()
    }

    /// The serial number of every certificate for it.
    pub fn certificate_serial(&self) -> Vec<u8> {
        certificate_serial(&self.spki())
    }

    /// TPMT_SIGNATURE over `message`.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let signature = self.fixed.sign(&SystemRandom::new(), message)?;
        let (r, s) = signature.as_ref().split_at(32);
        Ok(TpmBytes::default().u16(ALG_ECDSA).u16(ALG_SHA256).sized(r).sized(s).finish())
    }

    /// An ECDSA signature in DER over `message`.
    pub fn sign_der(&self, message: &[u8]) -> Result<Vec<u8>, DeviceError> {
        Ok(self.der.sign(message)?)
    }

    /// The key as a certificate request needs it.
    pub fn pkcs10_key(&self) -> &KeyPair {
        &self.der
    }

    /// TPMT_PUBLIC.
    fn template(&self) -> Vec<u8> {
        let point = self.fixed.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        TpmBytes::default()
            .u16(ALG_ECC)
            .u16(ALG_SHA256)
            .u32(self.attributes)
            .sized(&[])
            .u16(ALG_NULL)
            .u16(ALG_ECDSA)
            .u16(ALG_SHA256)
            .u16(ECC_NIST_P256)
            .u16(ALG_NULL)
            .sized(x)
            .sized(y)
            .finish()
    }
}

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth.
const FIXED: u32 = 0x0000_0072;
const RESTRICTED: u32 = 0x0001_0000;
const SIGN: u32 = 0x0004_0000;
