//! Certificate signing requests. Only the key is taken from one: names are the authority's to give.

use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::key::PrivateKey;
use crate::signature;

/// A request whose self-signature holds: its sender has the private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    spki: Vec<u8>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CsrError {
    /// Larger than any request we expect.
    #[error("a CSR has at most {CSR_BYTES_MAX} bytes, this has {length}")]
    TooLong {
        /// Bytes of the request.
        length: usize,
    },
    /// Not PKCS#10.
    #[error("not a PKCS#10 certification request")]
    Malformed,
    /// The signature does not prove possession of the key.
    #[error("the CSR is not signed by the key it holds")]
    Signature,
    /// The key to sign with refused.
    #[error("the CSR could not be signed")]
    Unsigned,
}

impl Csr {
    /// Parses PKCS#10 DER and verifies its self-signature.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLong { length: der.len() });
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let spki = request.certification_request_info.subject_pki.raw;
        if !signature::verifies(spki, der) {
            return Err(CsrError::Signature);
        }
        Ok(Csr { spki: spki.to_vec() })
    }

    /// The requested key as SubjectPublicKeyInfo DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }
}

/// Makes a request for a key in memory.
pub fn request(key: &PrivateKey) -> Result<Vec<u8>, CsrError> {
    build(&key.0)
}

/// Makes a request for a P-256 key that lives elsewhere, in a TPM; `sign` returns a DER ECDSA-SHA-256 signature.
pub fn request_with<E>(spki: &[u8], sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, CsrError> {
    let public = rcgen::SubjectPublicKeyInfo::from_der(spki).map_err(|_| CsrError::Malformed)?;
    build(&RemoteKey { public, sign: |message: &[u8]| sign(message).ok() })
}

/// The same with these names: the contents of a subject alternative name extension.
pub(crate) fn request_naming<E>(
    spki: &[u8],
    names: Vec<u8>,
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, CsrError> {
    let public = rcgen::SubjectPublicKeyInfo::from_der(spki).map_err(|_| CsrError::Malformed)?;
    let key = RemoteKey { public, sign: |message: &[u8]| sign(message).ok() };
    let mut names = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
    names.set_criticality(true);
    build_with(&key, vec![names])
}

fn build(key: &impl rcgen::SigningKey) -> Result<Vec<u8>, CsrError> {
    build_with(key, Vec::new())
}

fn build_with(
    key: &impl rcgen::SigningKey,
    custom_extensions: Vec<rcgen::CustomExtension>,
) -> Result<Vec<u8>, CsrError> {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.custom_extensions = custom_extensions;
    let request = parameters.serialize_request(key).map_err(|_| CsrError::Unsigned)?;
    Ok(request.der().to_vec())
}

struct RemoteKey<F> {
    public: rcgen::SubjectPublicKeyInfo,
    sign: F,
}

impl<F> rcgen::PublicKeyData for RemoteKey<F> {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl<F: Fn(&[u8]) -> Option<Vec<u8>>> rcgen::SigningKey for RemoteKey<F> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        (self.sign)(message).ok_or(rcgen::Error::RemoteKeyError)
    }
}

// An RSA-4096 request with a few names is under 2 KiB.
const CSR_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_proves_its_key() {
        let key = PrivateKey::generate().unwrap();
        let der = request(&key).unwrap();
        assert_eq!(Csr::parse(&der).unwrap().spki_der(), key.spki());
    }

    #[test]
    fn a_remote_key_signs_its_request() {
        let key = PrivateKey::generate().unwrap();
        let signed = request_with(&key.spki(), |message| rcgen::SigningKey::sign(&key.0, message)).unwrap();
        assert_eq!(Csr::parse(&signed).unwrap().spki_der(), key.spki());
        assert_eq!(request_with(&key.spki(), |_| Err(())), Err(CsrError::Unsigned));
    }

    #[test]
    fn a_stolen_public_key_is_refused() {
        let (victim, thief) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let forged =
            request_with(&victim.spki(), |message| rcgen::SigningKey::sign(&thief.0, message)).unwrap();
        assert_eq!(Csr::parse(&forged), Err(CsrError::Signature));
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let der = request(&PrivateKey::generate().unwrap()).unwrap();
        for index in 0..der.len() {
            let mut changed = der.clone();
            changed[index] ^= 0x01;
            assert!(Csr::parse(&changed).is_err(), "byte {index}");
        }
        let longer = [der.as_slice(), &[0]].concat();
        assert_eq!(Csr::parse(&longer), Err(CsrError::Malformed));
        assert_eq!(
            Csr::parse(&[0x30; CSR_BYTES_MAX + 1]),
            Err(CsrError::TooLong { length: CSR_BYTES_MAX + 1 })
        );
    }
}
