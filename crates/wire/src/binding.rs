//! The exact bytes that proofs and device signatures are over: each part preceded by its u32 big-endian length, so
//! that no two different lists of parts give the same bytes.

use crate::together::sha256;

/// DSSE payload type of a workload's request for an SVID, signed by the device key.
pub const WORKLOAD_SVID_TYPE: &str = "application/vnd.assay.workload-svid.v2";

/// DSSE payload type of a request for a workload's token, signed by the device key.
pub const JWT_SVID_TYPE: &str = "application/vnd.assay.jwt-svid.v1";

/// DSSE payload type of what the server says to single devices: the root of the tree of what is signed [`together`].
///
/// [`together`]: crate::together
pub const DEVICE_STATEMENTS_TYPE: &str = "application/vnd.assay.device-statements.v2";

/// DSSE payload type of what the server says to everybody.
pub const TRUST_STATEMENT_TYPE: &str = "application/vnd.assay.trust-statement.v1";

/// Bytes of a stream's name, each end's.
pub const STREAM_BYTES: usize = 32;

/// What the enrollment proof (HMAC-SHA256 keyed with the activated credential) is over.
///
/// It ties everything the device says in the exchange to the secret that only its TPM could open: whoever carries
/// the messages cannot put a key of their own in, or call the device something else.
pub fn enroll_proof_body(
    nonce: &[u8],
    ak_public: &[u8],
    device_key_public: &[u8],
    csr: &[u8],
    name: &str,
) -> Vec<u8> {
    framed(&[ENROLL_CONTEXT, nonce, ak_public, device_key_public, csr, name.as_bytes()])
}

/// What the device key signs, as the body of a DSSE envelope of [`WORKLOAD_SVID_TYPE`], when it asks for a workload's
/// SVID. One signature is good for one stream, and there for one request: `stream` is the server's name of the stream,
/// `number` the request's.
pub fn workload_svid_body(stream: &[u8], number: u64, entry_id: &str, csr: &[u8]) -> Vec<u8> {
    framed(&[stream, &number.to_be_bytes(), entry_id.as_bytes(), csr])
}

/// What the device key signs, as the body of a DSSE envelope of [`JWT_SVID_TYPE`], when it asks for a workload's token;
/// as [`workload_svid_body`].
pub fn jwt_svid_body(stream: &[u8], number: u64, entry_id: &str, audience: &[String]) -> Vec<u8> {
    let number = number.to_be_bytes();
    let fixed = [stream, &number, entry_id.as_bytes()];
    framed(&fixed.into_iter().chain(audience.iter().map(String::as_bytes)).collect::<Vec<_>>())
}

/// Qualifying data of the certification that a device shows with an RSA key of its own: good for one request on one stream.
pub fn classic_nonce(stream: &[u8], number: u64, public: &[u8]) -> [u8; 32] {
    let bytes = framed(&[CLASSIC_CONTEXT, stream, &number.to_be_bytes(), public]);
    sha256(&[&bytes])
}

/// Qualifying data of the certification that a device shows with the key that a secret is to be sealed to: good for one request
/// on one stream.
pub fn secret_nonce(stream: &[u8], number: u64, name: &str, public: &[u8]) -> [u8; 32] {
    let bytes = framed(&[SECRET_KEY_CONTEXT, stream, &number.to_be_bytes(), name.as_bytes(), public]);
    sha256(&[&bytes])
}

/// What a secret is sealed for (`info` of RFC 9180): one device, one stream, one version.
pub fn secret_info(device_id: &str, stream: &[u8], name: &str, version: u64) -> Vec<u8> {
    framed(&[SECRET_CONTEXT, device_id.as_bytes(), stream, name.as_bytes(), &version.to_be_bytes()])
}

fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        // A part comes from one gRPC message, whose size is bounded far below u32.
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

const CLASSIC_CONTEXT: &[u8] = b"assay-classic-v1";
const SECRET_CONTEXT: &[u8] = b"assay-secret-v1";
const SECRET_KEY_CONTEXT: &[u8] = b"assay-secret-key-v1";
const ENROLL_CONTEXT: &[u8] = b"assay-enroll-v2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_cannot_move_from_one_part_to_the_next() {
        assert_ne!(
            enroll_proof_body(b"ab", b"c", b"", b"", ""),
            enroll_proof_body(b"a", b"bc", b"", b"", "")
        );
        assert_ne!(
            enroll_proof_body(b"a", b"b", b"c", b"d", "e"),
            enroll_proof_body(b"a", b"b", b"c", b"de", "")
        );
        assert_ne!(workload_svid_body(b"s", 1, "a", b"bc"), workload_svid_body(b"s", 1, "ab", b"c"));
        assert_ne!(workload_svid_body(b"s", 1, "a", b"b"), workload_svid_body(b"s", 2, "a", b"b"));
        let audience = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let token = |names: &[&str]| jwt_svid_body(b"s", 1, "a", &audience(names));
        assert_ne!(token(&["b", "c"]), token(&["bc"]));
        assert_ne!(token(&["b"]), token(&["b", ""]));
    }

    #[test]
    fn the_form_is_length_then_bytes() {
        let body = workload_svid_body(b"s", 258, "e", b"csr");
        assert_eq!(body, b"\0\0\0\x01s\0\0\0\x08\0\0\0\0\0\0\x01\x02\0\0\0\x01e\0\0\0\x03csr");
    }
}
