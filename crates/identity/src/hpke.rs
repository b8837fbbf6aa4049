//! Secrets sealed to one key: HPKE in base mode (RFC 9180), DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
//!
//! Sealing is the TLS library's. Opening is ours, since the private key is in a TPM, which gives the point of the exchange
//! (TPM2_ECDH_ZGen) and nothing else; everything after that point is computed here.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{Hpke, HpkePublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of an uncompressed point of P-256 (SEC 1, 2.3.3): what a recipient is, and what is sent beside the ciphertext.
pub const POINT_BYTES: usize = 65;

/// Bytes that the ciphertext has more than what is sealed.
pub const TAG_BYTES: usize = 16;

/// Something sealed to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The sender's point, `enc` of RFC 9180; [`POINT_BYTES`].
    pub encapsulated: Vec<u8>,
    /// As long as what was sealed and [`TAG_BYTES`].
    pub ciphertext: Vec<u8>,
}

/// What was sealed: wiped from memory when it is dropped, and shown to nobody.
pub struct Plain(Zeroizing<Vec<u8>>);

impl Plain {
    /// Takes it over.
    pub fn new(bytes: Vec<u8>) -> Plain {
        Plain(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Why something could not be sealed or opened. It says no more: what is wrong with a ciphertext is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HpkeError {
    /// The recipient is no point of P-256.
    #[error("the key is not a point of P-256")]
    Recipient,
    /// It was sealed to another key, for something else, or changed on the way.
    #[error("what was sealed does not open with this key for this purpose")]
    Opening,
}

/// Seals to a recipient's point. Whoever opens must know the same `info`; nothing else is authenticated beside the secret.
pub fn seal(recipient: &[u8], info: &[u8], secret: &[u8]) -> Result<Sealed, HpkeError> {
    let recipient = HpkePublicKey(recipient.to_vec());
    let sealed = DH_KEM_P256_HKDF_SHA256_AES_256.seal(info, &[], secret, &recipient);
    let (encapsulated, ciphertext) = sealed.map_err(|_| HpkeError::Recipient)?;
    Ok(Sealed { encapsulated: encapsulated.0, ciphertext })
}

/// Opens what was sealed to `recipient`, of which the exchange with [`Sealed::encapsulated`] gave the point with this x
/// coordinate (32 bytes; shorter ones are filled up on the left).
pub fn open(exchanged_x: &[u8], recipient: &[u8], info: &[u8], sealed: &Sealed) -> Result<Plain, HpkeError> {
    if exchanged_x.len() > 32 || recipient.len() != POINT_BYTES {
        return Err(HpkeError::Recipient);
    }
    let mut x = Zeroizing::new([0; 32]);
    if let Some(place) = x.get_mut(32 - exchanged_x.len()..) {
        place.copy_from_slice(exchanged_x);
    }
    // RFC 9180, 4.1: ExtractAndExpand.
    let exchanged = labeled_extract(&KEM_SUITE, &[], b"eae_prk", x.as_slice());
    let context = [sealed.encapsulated.as_slice(), recipient].concat();
    let shared: Zeroizing<[u8; 32]> = labeled_expand(&KEM_SUITE, &exchanged, b"shared_secret", &context)?;
    // RFC 9180, 5.1: KeySchedule in base mode.
    let psk_id_hash = labeled_extract(&SUITE, &[], b"psk_id_hash", &[]);
    let info_hash = labeled_extract(&SUITE, &[], b"info_hash", info);
    let context = [&[MODE_BASE], psk_id_hash.as_ref(), info_hash.as_ref()].concat();
    let secret = labeled_extract(&SUITE, shared.as_slice(), b"secret", &[]);
    let key: Zeroizing<[u8; 32]> = labeled_expand(&SUITE, &secret, b"key", &context)?;
    let nonce: Zeroizing<[u8; NONCE_LEN]> = labeled_expand(&SUITE, &secret, b"base_nonce", &context)?;
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| HpkeError::Opening)?;
    let mut bytes = Zeroizing::new(sealed.ciphertext.clone());
    let opened = LessSafeKey::new(key).open_in_place(
        Nonce::assume_unique_for_key(*nonce),
        Aad::empty(),
        bytes.as_mut_slice(),
    );
    let length = opened.map_err(|_| HpkeError::Opening)?.len();
    bytes.truncate(length);
    Ok(Plain(bytes))
}

fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], material: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, salt));
    [VERSION, suite, label, material].into_iter().for_each(|part| context.update(part));
    context.sign()
}

fn labeled_expand<const N: usize>(
    suite: &[u8],
    secret: &hmac::Tag,
    label: &[u8],
    info: &[u8],
) -> Result<Zeroizing<[u8; N]>, HpkeError> {
    let length = u16::try_from(N).unwrap_or(u16::MAX).to_be_bytes();
    let parts = [length.as_slice(), VERSION, suite, label, info];
    let mut bytes = Zeroizing::new([0; N]);
    let secret = Prk::new_less_safe(HKDF_SHA256, secret.as_ref());
    let expanded = secret.expand(&parts, Length(N)).and_then(|expanded| expanded.fill(bytes.as_mut_slice()));
    expanded.map_err(|_| HpkeError::Opening)?;
    Ok(bytes)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

const VERSION: &[u8] = b"HPKE-v1";
const MODE_BASE: u8 = 0;
/// "KEM" and DHKEM(P-256, HKDF-SHA256).
const KEM_SUITE: [u8; 5] = [b'K', b'E', b'M', 0x00, 0x10];
/// "HPKE", that KEM, HKDF-SHA256 and AES-256-GCM.
const SUITE: [u8; 10] = [b'H', b'P', b'K', b'E', 0x00, 0x10, 0x00, 0x01, 0x00, 0x02];

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
    use proptest::prelude::*;

    use super::*;

    fn exchange(key: &PrivateKey, sealed: &Sealed) -> Vec<u8> {
        let peer = UnparsedPublicKey::new(&ECDH_P256, sealed.encapsulated.as_slice());
        agree(key, peer, HpkeError::Opening, |x| Ok(x.to_vec())).unwrap()
    }

    fn key() -> (PrivateKey, Vec<u8>) {
        let key = PrivateKey::generate(&ECDH_P256).unwrap();
        let point = key.compute_public_key().unwrap().as_ref().to_vec();
        (key, point)
    }

    proptest! {
        /// The TLS library's sealing is the oracle.
        #[test]
        fn what_was_sealed_opens_for_its_key_and_purpose(
            secret in proptest::collection::vec(any::<u8>(), 0..300),
            info in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let (key, point) = key();
            let sealed = seal(&point, &info, &secret).unwrap();
            let opened = open(&exchange(&key, &sealed), &point, &info, &sealed).unwrap();
            prop_assert_eq!(opened.bytes(), secret.as_slice());
            prop_assert_eq!(sealed.ciphertext.len(), secret.len() + TAG_BYTES);
        }
    }

    #[test]
    fn what_was_changed_on_the_way_or_is_for_others_does_not_open() {
        let ((key, point), (other, other_point)) = (key(), key());
        let sealed = seal(&point, b"for this", b"secret").unwrap();
        let x = exchange(&key, &sealed);
        let refused = |x: &[u8], point: &[u8], info: &[u8], sealed: &Sealed| {
            assert_eq!(open(x, point, info, sealed).unwrap_err(), HpkeError::Opening);
        };
        refused(&x, &point, b"for that", &sealed);
        refused(&x, &other_point, b"for this", &sealed);
        refused(&exchange(&other, &sealed), &point, b"for this", &sealed);
        for bit in 0..sealed.ciphertext.len() * 8 {
            let mut changed = sealed.clone();
            *changed.ciphertext.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
            refused(&x, &point, b"for this", &changed);
        }
        for length in 0..sealed.ciphertext.len() {
            let ciphertext = sealed.ciphertext.get(..length).unwrap().to_vec();
            refused(&x, &point, b"for this", &Sealed { ciphertext, ..sealed.clone() });
        }
        assert_eq!(open(&[1; 33], &point, b"", &sealed).unwrap_err(), HpkeError::Recipient);
        assert_eq!(seal(&[4; 65], b"", b"").unwrap_err(), HpkeError::Recipient);
        assert_eq!(seal(&[], b"", b"").unwrap_err(), HpkeError::Recipient);
    }

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        assert_eq!(format!("{:?}", Plain::new(b"secret".to_vec())), "6 bytes");
    }
}
