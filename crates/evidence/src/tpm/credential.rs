//! Credential making: a secret that only the TPM with this EK and this AK can read.
//!
//! TPM2_MakeCredential done outside a TPM (TPM 2.0 Part 1, 24). Randomness is an argument elsewhere in this
//! crate; here the seed, the OAEP padding and the ephemeral ECDH key come from the cryptographic library, which
//! offers no other way and whose output nobody has to reproduce.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{self, OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::{agreement, hmac, rand};
use thiserror::Error;

use super::name::Name;
use super::public_area::PublicArea;
use super::public_key::PublicKey;
use crate::digest::HashAlgorithm;

/// The two arguments of TPM2_ActivateCredential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPM2B_ID_OBJECT.
    pub blob: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
}

/// Wraps `secret` for the TPM that holds both `ek` and an object named `ak_name`.
pub fn make_credential(
    ek: &PublicArea,
    ak_name: &Name,
    secret: &[u8],
) -> Result<Credential, CredentialError> {
    let hash = ek.name_algorithm();
    // Part 3, TPM2_MakeCredential: the secret may be as long as the EK's Name digest.
    if secret.is_empty() || secret.len() > hash.len() {
        return Err(CredentialError::SecretSize { found: secret.len(), max: hash.len() });
    }
    let cipher_bits = ek.aes_cfb_bits().ok_or(CredentialError::Cipher)?;
    let seed = match ek.key() {
        PublicKey::Rsa { .. } => rsa_seed(ek.key(), hash)?,
        PublicKey::EcP256 { x, .. } => ecc_seed(ek.key(), &agreement::ECDH_P256, x, hash)?,
        PublicKey::EcP384 { x, .. } => ecc_seed(ek.key(), &agreement::ECDH_P384, x, hash)?,
    };

    let cipher_key = kdf_a(hash, &seed.secret, b"STORAGE", ak_name.as_bytes(), usize::from(cipher_bits));
    let mut identity = tpm2b(secret);
    encrypt_aes_cfb(&cipher_key, &mut identity)?;
    let mac_key = kdf_a(hash, &seed.secret, b"INTEGRITY", &[], hash.len().saturating_mul(8));
    let mac = hmac_of(hash, &mac_key, &[&identity, ak_name.as_bytes()]);
    let blob = tpm2b(&[tpm2b(mac.as_ref()), identity].concat());
    Ok(Credential { blob, encrypted_secret: tpm2b(&seed.encrypted) })
}

/// Why no credential can be made for an EK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// The secret does not fit.
    #[error("a secret of {found} bytes, 1 to {max} fit")]
    SecretSize {
        /// Bytes given.
        found: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// The EK protects with something other than AES in CFB mode.
    #[error("the EK's symmetric cipher is not AES-CFB")]
    Cipher,
    /// The EK hashes its Name with SHA-1.
    #[error("the EK's name algorithm is too weak")]
    NameAlgorithm,
    /// The EK's numbers are no key.
    #[error("the EK is not a usable public key")]
    Key,
}

impl From<Unspecified> for CredentialError {
    fn from(_: Unspecified) -> Self {
        CredentialError::Key
    }
}

/// A seed and the form in which only the EK's holder can read it.
struct Seed {
    secret: Vec<u8>,
    encrypted: Vec<u8>,
}

/// Part 1, B.10.3: a random seed, OAEP with the EK's Name hash and a label with its final NUL.
fn rsa_seed(ek: &PublicKey, hash: HashAlgorithm) -> Result<Seed, CredentialError> {
    let oaep: &'static OaepAlgorithm = match hash {
        HashAlgorithm::Sha1 => return Err(CredentialError::NameAlgorithm),
        HashAlgorithm::Sha256 => &rsa::OAEP_SHA256_MGF1SHA256,
        HashAlgorithm::Sha384 => &rsa::OAEP_SHA384_MGF1SHA384,
        HashAlgorithm::Sha512 => &rsa::OAEP_SHA512_MGF1SHA512,
    };
    let key = PublicEncryptingKey::from_der(&ek.spki_der()).map_err(|_| CredentialError::Key)?;
    let key = OaepPublicEncryptingKey::new(key)?;
    let mut secret = vec![0; hash.len()];
    rand::fill(&mut secret)?;
    let mut encrypted = vec![0; key.ciphertext_size()];
    let length = key.encrypt(oaep, &secret, &mut encrypted, Some(b"IDENTITY\0"))?.len();
    encrypted.truncate(length);
    Ok(Seed { secret, encrypted })
}

/// Part 1, C.6.4: a seed agreed between an ephemeral key and the EK.
fn ecc_seed(
    ek: &PublicKey,
    curve: &'static agreement::Algorithm,
    ek_x: &[u8],
    hash: HashAlgorithm,
) -> Result<Seed, CredentialError> {
    if hash == HashAlgorithm::Sha1 {
        return Err(CredentialError::NameAlgorithm);
    }
    let ephemeral = agreement::PrivateKey::generate(curve)?;
    let public = ephemeral.compute_public_key()?;
    let (x, y) = public
        .as_ref()
        .split_first()
        .and_then(|(_, point)| point.split_at_checked(ek_x.len()))
        .ok_or(CredentialError::Key)?;
    let peer = agreement::UnparsedPublicKey::new(curve, ek.subject_public_key());
    let secret = agreement::agree(&ephemeral, peer, CredentialError::Key, |shared| {
        Ok(kdf_e(hash, shared, b"IDENTITY", x, ek_x))
    })?;
    Ok(Seed { secret, encrypted: [tpm2b(x), tpm2b(y)].concat() })
}

/// Part 1, 11.4.10.2: SP 800-108 in counter mode over HMAC, with one context and `bits` out.
fn kdf_a(hash: HashAlgorithm, key: &[u8], label: &[u8], context: &[u8], bits: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let bits_field = u32::try_from(bits).unwrap_or(u32::MAX).to_be_bytes();
    for counter in 1..=KDF_BLOCKS_MAX {
        if out.len() >= bits / 8 {
            break;
        }
        let parts: [&[u8]; 5] = [&counter.to_be_bytes(), label, &[0], context, &bits_field];
        out.extend_from_slice(hmac_of(hash, key, &parts).as_ref());
    }
    out.truncate(bits / 8);
    out
}

/// Part 1, 11.4.10.3: SP 800-56A, one block, as the seed is as long as the hash.
fn kdf_e(hash: HashAlgorithm, shared: &[u8], label: &[u8], ephemeral_x: &[u8], ek_x: &[u8]) -> Vec<u8> {
    let counter = 1u32.to_be_bytes();
    hash.hash(&[&counter, shared, label, &[0], ephemeral_x, ek_x]).as_bytes().to_vec()
}

fn hmac_of(hash: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let algorithm = match hash {
        HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HashAlgorithm::Sha384 => hmac::HMAC_SHA384,
        HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// AES-CFB with a zero IV: the key is used once.
fn encrypt_aes_cfb(key: &[u8], in_out: &mut [u8]) -> Result<(), CredentialError> {
    let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    let key = EncryptingKey::cfb128(UnboundCipherKey::new(algorithm, key)?)?;
    let zero = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    key.less_safe_encrypt(in_out, zero)?;
    Ok(())
}

/// A TPM2B; everything wrapped here is far below 64 KiB.
fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

/// Two blocks of SHA-256 are enough for any key derived here; a few more do no harm.
const KDF_BLOCKS_MAX: u32 = 4;
