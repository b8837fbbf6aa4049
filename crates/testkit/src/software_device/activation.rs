//! TPM2_ActivateCredential in software: TPM 2.0 Part 1, credential protection.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey};
use aws_lc_rs::{hmac, iv::FixedLength};

use super::DeviceError;
use super::tpm_bytes::take_sized;
use crate::Bank;

/// The seed inside a TPM2B_ENCRYPTED_SECRET for an RSA key.
pub(super) fn rsa_seed(key: &OaepPrivateDecryptingKey, mut encrypted: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let ciphertext = take_sized(&mut encrypted).ok_or(DeviceError::Activation("encrypted secret"))?;
    let mut seed = vec![0; key.min_output_size()];
    let seed = key.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut seed, Some(b"IDENTITY\0"))?;
    Ok(seed.to_vec())
}

/// The seed agreed on through a TPM2B_ENCRYPTED_SECRET for an ECC key.
pub(super) fn ecc_seed(key: &PrivateKey, mut encrypted: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let malformed = || DeviceError::Activation("encrypted secret");
    let mut point = take_sized(&mut encrypted).ok_or_else(malformed)?;
    let (x, y) = take_sized(&mut point).zip(take_sized(&mut point)).ok_or_else(malformed)?;
    let on_the_curve = coordinate(x).zip(coordinate(y)).ok_or_else(malformed)?;
    let ephemeral = UnparsedPublicKey::new(&ECDH_P256, [&[4], &on_the_curve.0[..], &on_the_curve.1].concat());
    let own = key.compute_public_key()?;
    // Both ends derive from the x that was sent, with the leading zeros it came with or without.
    let own_x = own.as_ref().get(1..33).unwrap_or_default();
    agree(key, ephemeral, malformed(), |shared| Ok(kdf_e(shared, x, own_x)))
}

/// A coordinate of P-256, whose leading zeros some programs do not send.
fn coordinate(bytes: &[u8]) -> Option<[u8; 32]> {
    let mut coordinate = [0; 32];
    coordinate.get_mut(32_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(coordinate)
}

/// Opens a TPM2B_ID_OBJECT made for the object called `name`.
pub(super) fn open(seed: &[u8], name: &[u8], mut blob: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let malformed = || DeviceError::Activation("credential blob");
    let mut object = take_sized(&mut blob).ok_or_else(malformed)?;
    let integrity = take_sized(&mut object).ok_or_else(malformed)?;
    let mac_key = hmac::Key::new(hmac::HMAC_SHA256, &kdf_a(seed, "INTEGRITY", &[], 256));
    hmac::verify(&mac_key, &[object, name].concat(), integrity)
        .map_err(|_| DeviceError::Activation("integrity: not for this EK and AK"))?;
    let key = UnboundCipherKey::new(&AES_128, &kdf_a(seed, "STORAGE", name, 128))?;
    let mut plain = object.to_vec();
    let iv = DecryptionContext::Iv128(FixedLength::from([0; 16]));
    DecryptingKey::cfb128(key)?.decrypt(&mut plain, iv)?;
    take_sized(&mut plain.as_slice()).map(<[u8]>::to_vec).ok_or_else(malformed)
}

/// KDFa of TPM 2.0 Part 1, one block of SHA-256.
fn kdf_a(seed: &[u8], label: &str, context: &[u8], bits: u32) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let parts = [&1u32.to_be_bytes(), label.as_bytes(), &[0], context, &bits.to_be_bytes()];
    let mut derived = hmac::sign(&key, &parts.concat()).as_ref().to_vec();
    derived.truncate((bits / 8) as usize);
    derived
}

/// KDFe of TPM 2.0 Part 1, one block of SHA-256.
fn kdf_e(shared: &[u8], ephemeral_x: &[u8], own_x: &[u8]) -> Vec<u8> {
    Bank::Sha256.hash(&[&1u32.to_be_bytes(), shared, b"IDENTITY\0", ephemeral_x, own_x].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One point in 128 has a coordinate that begins with a zero.
    #[test]
    fn a_point_without_its_leading_zeros_opens() {
        let generate = || PrivateKey::generate(&ECDH_P256).unwrap();
        let (own, mut other) = (generate(), generate());
        while other.compute_public_key().unwrap().as_ref()[1] != 0 {
            other = generate();
        }
        let (public, own_public) = (other.compute_public_key().unwrap(), own.compute_public_key().unwrap());
        let (x, y) = (&public.as_ref()[2..33], &public.as_ref()[33..]);
        let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let encrypted = sized(&[sized(x), sized(y)].concat());
        let seed = agree(&other, UnparsedPublicKey::new(&ECDH_P256, own_public.as_ref()), (), |shared| {
            Ok(kdf_e(shared, x, &own_public.as_ref()[1..33]))
        });
        assert_eq!(ecc_seed(&own, &encrypted).unwrap(), seed.unwrap());
    }
}
