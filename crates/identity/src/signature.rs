//! Signatures inside DER objects: certificate, CSR, CRL. Always over the bytes received.

use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::aws_lc_rs as algorithms;
use x509_parser::asn1_rs::{Any, BitString, FromDer, Tag};

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

/// Whether the signature of a signed object, given whole, verifies under the key of `spki`.
pub(crate) fn verifies(spki: &[u8], signed: &[u8]) -> bool {
    let spki = SubjectPublicKeyInfoDer::from(spki);
    let Ok(key) = webpki::RawPublicKeyEntity::try_from(&spki) else {
        return false;
    };
    let Some(Signed { content, algorithm, signature }) = Signed::parse(signed) else {
        return false;
    };
    // Several algorithms share an identifier and differ in the curve; the wrong ones refuse the key.
    ALGORITHMS
        .iter()
        .filter(|candidate| candidate.signature_alg_id().as_ref() == algorithm)
        .any(|candidate| key.verify_signature(*candidate, content, &signature).is_ok())
}

/// The three parts all signed objects of X.509 have (RFC 5280 §4.1.1, §5.1.1; RFC 2986 §4.2).
struct Signed<'a> {
    content: &'a [u8],
    /// The content of the AlgorithmIdentifier.
    algorithm: &'a [u8],
    signature: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Signed<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let (rest, outer) = Any::from_der(der).ok().filter(|(_, any)| any.tag() == Tag::Sequence)?;
        let parts = outer.data;
        let (after_content, _) = Any::from_der(parts).ok()?;
        let content = parts.get(..parts.len() - after_content.len())?;
        let (after_algorithm, algorithm) =
            Any::from_der(after_content).ok().filter(|(_, any)| any.tag() == Tag::Sequence)?;
        let (after_signature, signature) = BitString::from_der(after_algorithm).ok()?;
        let whole = rest.is_empty() && after_signature.is_empty() && signature.unused_bits == 0;
        whole.then_some(Signed { content, algorithm: algorithm.data, signature: signature.data })
    }
}
