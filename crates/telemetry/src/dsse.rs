//! Signatures by a device's key, over typed bytes.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use thiserror::Error;

/// The signature is not the device's over these bytes as this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the signature is not the device key's")]
pub struct BadSignature;

/// DSSE's pre-authentication encoding: what is signed says what it is, so no signature serves for another type.
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut encoded = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    encoded.extend_from_slice(body);
    encoded
}

/// Verifies a DER ECDSA signature by a P-256 key, given as SubjectPublicKeyInfo, over `pae(payload_type, body)`.
pub fn verify_device_signature(
    spki: &[u8],
    payload_type: &str,
    body: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let point = spki.strip_prefix(P256_SPKI_HEADER).ok_or(BadSignature)?;
    if signature.len() > SIGNATURE_BYTES_MAX {
        return Err(BadSignature);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(&pae(payload_type, body), signature)
        .map_err(|_| BadSignature)
}

// RFC 5480: SEQUENCE { SEQUENCE { id-ecPublicKey, secp256r1 }, BIT STRING of the 65-byte point that follows }.
const P256_SPKI_HEADER: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
// Two 33-byte integers with their headers.
const SIGNATURE_BYTES_MAX: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_dsse() {
        // The example of the DSSE specification.
        let encoded = pae("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn anything_but_a_p256_key_is_refused() {
        assert_eq!(verify_device_signature(b"", "t", b"b", b""), Err(BadSignature));
        assert_eq!(verify_device_signature(P256_SPKI_HEADER, "t", b"b", &[0x30; 8]), Err(BadSignature));
    }
}
