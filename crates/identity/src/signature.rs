//! Signatures inside DER objects: certificate, CSR, CRL. Always over the bytes received.

use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::aws_lc_rs as algorithms;
use x509_parser::asn1_rs::BitString;
use x509_parser::x509::AlgorithmIdentifier;

/// What a certificate, CSR or CRL may be signed with: no SHA-1, no RSA below 2048 bits.
pub(crate) static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

/// Whether `signature` over `message` verifies under the key of `spki` with the algorithm stated.
pub(crate) fn verifies(
    spki: &[u8],
    algorithm: &AlgorithmIdentifier<'_>,
    message: &[u8],
    signature: &BitString<'_>,
) -> bool {
    if signature.unused_bits != 0 {
        return false;
    }
    let spki = SubjectPublicKeyInfoDer::from(spki);
    let Ok(key) = webpki::RawPublicKeyEntity::try_from(&spki) else {
        return false;
    };
    // Several algorithms share an OID and differ in the curve; the wrong ones refuse the key.
    ALGORITHMS
        .iter()
        .filter(|candidate| starts_with_oid(candidate.signature_alg_id().as_ref(), algorithm))
        .any(|candidate| key.verify_signature(*candidate, message, &signature.data).is_ok())
}

/// Whether the content of a DER AlgorithmIdentifier begins with the OID of `algorithm`.
fn starts_with_oid(identifier: &[u8], algorithm: &AlgorithmIdentifier<'_>) -> bool {
    let oid = algorithm.algorithm.as_bytes();
    match identifier {
        [OBJECT_IDENTIFIER, length, rest @ ..] => usize::from(*length) == oid.len() && rest.starts_with(oid),
        _ => false,
    }
}

const OBJECT_IDENTIFIER: u8 = 0x06;
