//! TPM2_Certify: one key's word that another lives in the same TPM.

use super::attest::{Attest, Body};
use super::public_area::PublicArea;
use super::public_key::PublicKey;
use super::signature::Signature;
use crate::check::{Check, Failure};

/// A key that the AK certified as resident in its TPM. Made by [`verify_certify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedKey {
    public_area: PublicArea,
    spki_der: Vec<u8>,
}

impl CertifiedKey {
    /// The certified public area.
    pub fn public_area(&self) -> &PublicArea {
        &self.public_area
    }

    /// The key as DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }
}

/// Checks that `message` is `ak`'s certification of `device_key`, made for `nonce`.
///
/// Every check is made and reported on its own. That the AK itself is in a TPM is for credential activation to
/// show.
pub fn verify_certify(
    ak: &PublicArea,
    message: &[u8],
    signature: &[u8],
    nonce: &[u8],
    device_key: &PublicArea,
) -> Result<CertifiedKey, Vec<Failure>> {
    let mut failures = device_key.check_device_key();
    failures.extend(check_certification(Check::DeviceKeyCertify, ak, message, signature, nonce, device_key));
    if failures.is_empty() {
        Ok(CertifiedKey { public_area: device_key.clone(), spki_der: device_key.spki_der() })
    } else {
        Err(failures)
    }
}

/// What is wrong with `message` as a key's certification of itself, made for `nonce`: whoever made it has the key now, in
/// the TPM that it was made in.
pub fn verify_possession(key: &PublicArea, message: &[u8], signature: &[u8], nonce: &[u8]) -> Vec<Failure> {
    check_certification(Check::AkName, key, message, signature, nonce, key)
}

/// A key that secrets are sealed to, which the AK certified as resident in its TPM. Made by [`verify_exchange`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeKey {
    point: Vec<u8>,
}

impl ExchangeKey {
    /// The uncompressed point, SEC 1, 2.3.3.
    pub fn point(&self) -> &[u8] {
        &self.point
    }
}

/// The same as [`verify_certify`] of a key for exchanges.
pub fn verify_exchange(
    ak: &PublicArea,
    message: &[u8],
    signature: &[u8],
    nonce: &[u8],
    key: &PublicArea,
) -> Result<ExchangeKey, Vec<Failure>> {
    let mut failures = key.check_exchange_key();
    failures.extend(check_certification(Check::DeviceKeyCertify, ak, message, signature, nonce, key));
    match key.key() {
        PublicKey::EcP256 { x, y } if failures.is_empty() => {
            Ok(ExchangeKey { point: [[4].as_slice(), x.as_slice(), y.as_slice()].concat() })
        }
        _ => Err(failures),
    }
}

/// What is wrong with `message` as `signer`'s certification of `object`, made for `nonce`.
pub(super) fn check_certification(
    check: Check,
    signer: &PublicArea,
    message: &[u8],
    signature: &[u8],
    nonce: &[u8],
    object: &PublicArea,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut fail = |claim: &str, expected: String, found: String| {
        failures.push(Failure::new(check, claim, expected, found));
    };
    match Signature::parse(signature) {
        Ok(signature) => {
            if let Err(error) = signer.verify(&signature, message) {
                fail("signature", format!("a signature by the key {}", signer.name()), error.to_string());
            }
        }
        Err(error) => fail("signature", "a TPMT_SIGNATURE".to_owned(), error.to_string()),
    }
    match Attest::parse(message) {
        Ok(attest) => check_attest(&attest, nonce, object, &mut fail),
        Err(error) => fail("certify info", "a TPMS_ATTEST".to_owned(), error.to_string()),
    }
    failures
}

fn check_attest(
    attest: &Attest,
    nonce: &[u8],
    object: &PublicArea,
    fail: &mut impl FnMut(&str, String, String),
) {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    if attest.magic != Attest::MAGIC {
        fail("magic", format!("{:#010x}", Attest::MAGIC), format!("{:#010x}", attest.magic));
    }
    // A nonce of our own keeps a certification of an earlier enrollment from being played again.
    if attest.extra_data != nonce {
        fail("nonce", hex(nonce), hex(&attest.extra_data));
    }
    match &attest.body {
        Body::Certify { name, .. } if name == object.name().as_bytes() => {}
        Body::Certify { name, .. } => fail("name", object.name().to_hex(), hex(name)),
        Body::Quote { .. }
        | Body::SessionAudit { .. }
        | Body::NvCertify { .. }
        | Body::Creation { .. }
        | Body::Other => {
            fail("type", format!("{:#06x}", Attest::TYPE_CERTIFY), format!("{:#06x}", attest.attest_type));
        }
    }
}
