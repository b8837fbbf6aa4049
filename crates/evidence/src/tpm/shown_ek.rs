//! An EK as programs show it that know keys and not TPMs: PEM, with its certificate or without.
//!
//! What such a program leaves out, the template of the EK, is the TCG's default one for its kind of key: no other EK would
//! open what is made for it.

use thiserror::Error;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::{Certificate, CertificateError, subject_key};
use super::public_key::PublicKey;

/// An EK, and its certificate if there is one. Nothing of it is verified but that they are of the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEk {
    key: PublicKey,
    certificate: Vec<u8>,
}

/// Why it is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShownEkError {
    /// Not PEM, or more of it than an EK has.
    #[error("an EK is shown as PEM: a CERTIFICATE, a PUBLIC KEY, or one after the other")]
    Pem,
    /// Longer than both together may be.
    #[error("{0} bytes, at most {PEM_BYTES_MAX} make sense")]
    TooLong(usize),
    /// The certificate.
    #[error("the EK certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// A key that no default template is for.
    #[error("the EK is no RSA-2048 or P-256 key, which are those of the default templates")]
    Key,
    /// The certificate is for another key.
    #[error("the EK certificate is not the EK's")]
    OtherKey,
}

impl ShownEk {
    /// Reads the blocks.
    pub fn from_pem(bytes: &[u8]) -> Result<ShownEk, ShownEkError> {
        if bytes.len() > PEM_BYTES_MAX {
            return Err(ShownEkError::TooLong(bytes.len()));
        }
        let (mut certificate, mut key) = (None, None);
        for block in Pem::iter_from_buffer(bytes) {
            let block = block.map_err(|_| ShownEkError::Pem)?;
            match block.label.as_str() {
                "CERTIFICATE" if certificate.is_none() && key.is_none() => certificate = Some(block.contents),
                "PUBLIC KEY" if key.is_none() => key = Some(public_key(&block.contents)?),
                _ => return Err(ShownEkError::Pem),
            }
        }
        let certified = match &certificate {
            Some(der) => Some(Certificate::parse(der)?.key.ok_or(ShownEkError::Key)?),
            None => None,
        };
        let key = match (key, certified) {
            (Some(key), Some(certified)) if key != certified => return Err(ShownEkError::OtherKey),
            (Some(key), _) | (None, Some(key)) => key,
            (None, None) => return Err(ShownEkError::Pem),
        };
        let shown = ShownEk { key, certificate: certificate.unwrap_or_default() };
        if shown.has_template() { Ok(shown) } else { Err(ShownEkError::Key) }
    }

    /// The certificate, DER; empty: there is none.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The key as DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        self.key.spki_der()
    }

    /// The TPM2B_PUBLIC of the EK, by templates L-1 and L-2 of the TCG EK Credential Profile 2.5, B.3.3 and B.3.4.
    pub fn public_area(&self) -> Vec<u8> {
        let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes(), bytes].concat();
        let (kind, parameters) = match &self.key {
            // No scheme, 2048 bits, the default exponent.
            PublicKey::Rsa { modulus, .. } => {
                (ALG_RSA, [&[0, 0x10, 8, 0, 0, 0, 0, 0][..], &sized(modulus)].concat())
            }
            // No scheme, NIST P-256, no key derivation.
            PublicKey::EcP256 { x, y } => {
                (ALG_ECC, [&[0, 0x10, 0, 3, 0, 0x10][..], &sized(x), &sized(y)].concat())
            }
            PublicKey::EcP384 { .. } => (ALG_ECC, Vec::new()),
        };
        let head = [&kind.to_be_bytes()[..], &ALG_SHA256.to_be_bytes(), &ATTRIBUTES.to_be_bytes()].concat();
        sized(&[head, sized(&POLICY_A), AES_128_CFB.to_vec(), parameters].concat())
    }

    fn has_template(&self) -> bool {
        match &self.key {
            PublicKey::Rsa { exponent, .. } => self.key.bits() == 2048 && *exponent == 65537,
            PublicKey::EcP256 { .. } => true,
            PublicKey::EcP384 { .. } => false,
        }
    }
}

fn public_key(der: &[u8]) -> Result<PublicKey, ShownEkError> {
    match SubjectPublicKeyInfo::from_der(der) {
        Ok(([], info)) => subject_key(&info).ok_or(ShownEkError::Key),
        _ => Err(ShownEkError::Key),
    }
}

/// A certificate of the largest size that is read, in base64, and a key.
const PEM_BYTES_MAX: usize = 16 << 10;
const ALG_RSA: u16 = 0x0001;
const ALG_ECC: u16 = 0x0023;
const ALG_SHA256: u16 = 0x000b;
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const ATTRIBUTES: u32 = 0x0003_00b2;
/// TPMT_SYM_DEF_OBJECT.
const AES_128_CFB: [u8; 6] = [0, 6, 0, 0x80, 0, 0x43];
/// B.6.2: TPM2_PolicySecret(TPM_RH_ENDORSEMENT).
const POLICY_A: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

#[cfg(test)]
mod tests {
    use assay_testkit::EkMaker;
    use assay_testkit::software_device::{EkKind, EndorsementKey};
    use proptest::prelude::*;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let body = data_encoding::BASE64.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn an_ek_is_the_same_with_its_certificate_without_it_and_by_it_alone() {
        let maker = EkMaker::new().unwrap();
        for kind in [EkKind::Rsa2048, EkKind::P256] {
            let ek = EndorsementKey::generate(kind).unwrap();
            let certificate = maker.certify(&ek).unwrap();
            let (certificate, key) = (pem("CERTIFICATE", &certificate), pem("PUBLIC KEY", ek.spki()));
            for text in [certificate.clone() + &key, certificate.clone(), key.clone()] {
                let shown = ShownEk::from_pem(text.as_bytes()).unwrap();
                assert_eq!(shown.public_area(), ek.public_area());
                assert_eq!(shown.certificate().is_empty(), text == key);
            }
            let other = pem("PUBLIC KEY", EndorsementKey::generate(kind).unwrap().spki());
            let said = |text: String| ShownEk::from_pem(text.as_bytes()).unwrap_err();
            assert_eq!(said(certificate.clone() + &other), ShownEkError::OtherKey);
            assert_eq!(said(key.clone() + &certificate), ShownEkError::Pem);
            assert_eq!(said(key.clone() + &key), ShownEkError::Pem);
            assert_eq!(said(String::new()), ShownEkError::Pem);
            assert_eq!(said(pem("RSA PUBLIC KEY", ek.spki())), ShownEkError::Pem);
            assert_eq!(said(pem("PUBLIC KEY", b"key")), ShownEkError::Key);
            assert!(matches!(said(pem("CERTIFICATE", b"none")), ShownEkError::Certificate(_)));
            assert!(matches!(said("-".repeat(PEM_BYTES_MAX + 1)), ShownEkError::TooLong(_)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ShownEk::from_pem(&bytes);
            let _ = ShownEk::from_pem(pem("PUBLIC KEY", &bytes).as_bytes());
            let _ = ShownEk::from_pem(pem("CERTIFICATE", &bytes).as_bytes());
        }
    }
}
