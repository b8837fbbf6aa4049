//! An X.509 certificate reduced to what a path checker asks of it.
//!
//! `x509-parser` reads the DER; this module decides what of it is understood. What is critical and not
//! understood is remembered, so that the path checker can refuse it.

use std::collections::BTreeSet;

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::asn1_rs::{Any, Class, OctetString, Oid, Sequence, Tag};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as SubjectKey;
use x509_parser::signature_algorithm::SignatureAlgorithm as X509SignatureAlgorithm;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Name, X509Version};

use super::nv_certificate::{NvCertificate, unreadable};
use super::public_key::{PublicKey, SignatureAlgorithm, SignatureError, SignatureScheme};
use crate::der::{self, strip_zeros};
use crate::digest::{Digest, HashAlgorithm};
use crate::time::UnixTime;

/// A parsed certificate; nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) sha256: Digest,
    /// Without leading zeros.
    pub(crate) serial: Vec<u8>,
    /// The DER of the name, which is compared byte by byte.
    pub(crate) subject: Vec<u8>,
    pub(crate) subject_text: String,
    pub(crate) issuer: Vec<u8>,
    pub(crate) issuer_text: String,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    /// `None` for a kind of key we do not use.
    pub(crate) key: Option<PublicKey>,
    pub(crate) extensions: Extensions,
    /// What the signature is over, as received.
    tbs: Vec<u8>,
    signature_algorithm: Option<SignatureAlgorithm>,
    signature: Vec<u8>,
}

/// The extensions that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) is_ca: bool,
    pub(crate) path_length: Option<u32>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended_key_usage: Vec<String>,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    pub(crate) authority_key_id: Option<Vec<u8>>,
    pub(crate) tpm: TpmAttributes,
    pub(crate) hardware_module: Option<HardwareModule>,
    /// Critical extensions that we do not understand, by OID.
    pub(crate) not_understood: Vec<String>,
}

/// The uses of a key that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyUsage {
    pub(crate) cert_sign: bool,
    pub(crate) crl_sign: bool,
    pub(crate) key_encipherment: bool,
    pub(crate) key_agreement: bool,
    pub(crate) digital_signature: bool,
}

/// TCG EK Credential Profile, 3.1.2: what the subjectAltName says of the TPM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TpmAttributes {
    pub(crate) manufacturer: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) version: Option<String>,
}

/// RFC 4108, section 5, HardwareModuleName: which piece of hardware a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HardwareModule {
    /// hwType, an object identifier.
    pub(crate) kind: String,
    /// hwSerialNum.
    pub(crate) serial: Vec<u8>,
}

impl Certificate {
    /// Reads one certificate in DER.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLong(bytes.len()));
        }
        // An NV index is often larger than its certificate, and some makers put a header before it.
        let der = NvCertificate::find(bytes).map_or(bytes, |nv| nv.certificate);
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| unreadable(bytes))?;
        if !rest.is_empty() {
            return Err(CertificateError::Surplus(rest.len()));
        }
        let tbs = &parsed.tbs_certificate;
        if tbs.version() != X509Version::V3 {
            return Err(CertificateError::Version);
        }
        // RFC 5280, 4.1.1.2: the signed and the unsigned statement of the algorithm are the same.
        if tbs.signature != parsed.signature_algorithm {
            return Err(CertificateError::Algorithms);
        }
        let signature = &parsed.signature_value.data;
        if frame(tbs.as_ref(), &parsed.signature_algorithm, signature).as_deref() != Some(parsed.as_raw()) {
            return Err(CertificateError::Der);
        }
        Ok(Certificate {
            sha256: HashAlgorithm::Sha256.hash(&[parsed.as_raw()]),
            serial: strip_zeros(tbs.raw_serial()).to_vec(),
            subject: tbs.subject().as_raw().to_vec(),
            subject_text: tbs.subject().to_string(),
            issuer: tbs.issuer().as_raw().to_vec(),
            issuer_text: tbs.issuer().to_string(),
            not_before: unix_time(tbs.validity().not_before),
            not_after: unix_time(tbs.validity().not_after),
            key: subject_key(tbs.public_key()),
            extensions: Extensions::read(tbs.extensions())?,
            tbs: tbs.as_ref().to_vec(),
            signature_algorithm: signature_algorithm(&parsed.signature_algorithm),
            signature: parsed.signature_value.data.to_vec(),
        })
    }

    /// Checks that `issuer`'s key signed it.
    pub(crate) fn verify_signed_by(&self, issuer: &PublicKey) -> Result<(), SignatureRefused> {
        let algorithm = self.signature_algorithm.ok_or(SignatureRefused::Algorithm)?;
        Ok(issuer.verify(algorithm, &self.tbs, &self.signature)?)
    }

    /// The subject, or the fingerprint where it is empty, as EK certificates' often is.
    pub(crate) fn title(&self) -> String {
        match self.subject_text.as_str() {
            "" => self.sha256.to_string(),
            subject => subject.to_owned(),
        }
    }
}

impl Extensions {
    pub(crate) fn read(list: &[X509Extension<'_>]) -> Result<Self, CertificateError> {
        if list.len() > EXTENSIONS_MAX {
            return Err(CertificateError::Extensions(list.len()));
        }
        let mut extensions = Extensions::default();
        let mut seen = BTreeSet::new();
        for extension in list {
            let oid = extension.oid.to_id_string();
            if !seen.insert(oid.clone()) {
                return Err(CertificateError::Repeated(oid));
            }
            if !extensions.take(extension, &oid)? && extension.critical {
                extensions.not_understood.push(oid);
            }
        }
        Ok(extensions)
    }

    /// Takes in one extension; whether it is understood.
    fn take(&mut self, extension: &X509Extension<'_>, oid: &str) -> Result<bool, CertificateError> {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => {
                self.is_ca = constraints.ca;
                self.path_length = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage {
                    cert_sign: usage.key_cert_sign(),
                    crl_sign: usage.crl_sign(),
                    key_encipherment: usage.key_encipherment(),
                    key_agreement: usage.key_agreement(),
                    digital_signature: usage.digital_signature(),
                });
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.extended_key_usage = usage.other.iter().map(Oid::to_id_string).collect();
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                // A directoryName says something of a TPM, a HardwareModuleName which one it is.
                let mut understood = false;
                for name in &names.general_names {
                    match name {
                        GeneralName::DirectoryName(name) => {
                            understood = true;
                            self.tpm.read(name);
                        }
                        GeneralName::OtherName(kind, value) if kind.to_id_string() == OID_HARDWARE_MODULE => {
                            let module = HardwareModule::read(value);
                            understood = true;
                            self.hardware_module =
                                Some(module.ok_or_else(|| CertificateError::Extension(oid.to_owned()))?);
                        }
                        _ => {}
                    }
                }
                return Ok(understood);
            }
            // Any policy will do, so that there is nothing to process.
            ParsedExtension::CertificatePolicies(_) => {}
            ParsedExtension::ParseError { .. } if extension.critical || USED.contains(&oid) => {
                return Err(CertificateError::Extension(oid.to_owned()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl TpmAttributes {
    fn read(&mut self, name: &X509Name<'_>) {
        for attribute in name.iter_attributes() {
            let value = attribute.as_str().ok().map(|text| text.chars().take(ATTRIBUTE_CHARS_MAX).collect());
            match attribute.attr_type().to_id_string().as_str() {
                OID_TPM_MANUFACTURER => self.manufacturer = value,
                OID_TPM_MODEL => self.model = value,
                OID_TPM_VERSION => self.version = value,
                _ => {}
            }
        }
    }
}

impl HardwareModule {
    /// What follows the kind in an otherName: the value, explicitly tagged.
    fn read(value: &[u8]) -> Option<Self> {
        let ([], tagged) = Any::from_der(value).ok()? else { return None };
        let is_value = tagged.class() == Class::ContextSpecific && tagged.tag() == Tag(0);
        let ([], module) = Sequence::from_der(Some(tagged.data).filter(|_| is_value)?).ok()? else {
            return None;
        };
        let (rest, kind) = Oid::from_der(&module.content).ok()?;
        let ([], serial) = OctetString::from_der(rest).ok()? else { return None };
        Some(HardwareModule { kind: kind.to_id_string(), serial: serial.as_ref().to_vec() })
    }
}

/// Bytes that are not a certificate we accept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Longer than any certificate of the kind.
    #[error("{0} bytes, at most {CERTIFICATE_BYTES_MAX} make sense")]
    TooLong(usize),
    /// Not X.509 in DER.
    #[error("not an X.509 certificate in DER")]
    Der,
    /// It states more bytes than there are.
    #[error("{found} of the {stated} bytes that it says it has")]
    CutShort {
        /// Bytes by its own word.
        stated: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// Compressed.
    #[error("something packed with gzip")]
    Packed,
    /// PEM armour around something else.
    #[error("not a certificate in PEM")]
    Pem,
    /// Bytes follow that are not filling.
    #[error("{0} bytes after the certificate")]
    Surplus(usize),
    /// Version 1 or 2.
    #[error("not an X.509 version 3 certificate")]
    Version,
    /// Two different statements of the signature algorithm.
    #[error("signed and unsigned signature algorithm differ")]
    Algorithms,
    /// Too many extensions.
    #[error("{0} extensions, at most {EXTENSIONS_MAX} are read")]
    Extensions(usize),
    /// The same extension twice.
    #[error("extension {0} occurs twice")]
    Repeated(String),
    /// An extension that has to be understood cannot be read.
    #[error("extension {0} is malformed")]
    Extension(String),
}

/// Why one certificate is not signed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SignatureRefused {
    #[error("unsupported signature algorithm")]
    Algorithm,
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl SignatureRefused {
    /// Whether it may well be the issuer's, and is of a kind that others could make.
    pub(crate) fn is_weak(self) -> bool {
        self == SignatureRefused::Signature(SignatureError::WeakHash)
    }
}

/// The DER of something signed made anew around its signed part. What is around it is not signed, and the parser takes
/// it in many forms; held to the only right one, a certificate has one fingerprint.
pub(super) fn frame(tbs: &[u8], algorithm: &AlgorithmIdentifier<'_>, signature: &[u8]) -> Option<Vec<u8>> {
    let AlgorithmIdentifier { algorithm, parameters } = algorithm;
    let parameters = match parameters {
        None => Vec::new(),
        Some(any) if any.tag() == Tag::Null => der::NULL.to_vec(),
        Some(any) if any.tag() == Tag::Sequence => der::sequence(&[any.data]),
        Some(_) => return None,
    };
    let algorithm = der::sequence(&[&der::object_identifier(algorithm.as_bytes()), &parameters]);
    Some(der::sequence(&[tbs, &algorithm, &der::bit_string(signature)]))
}

/// Times before 1970 count as 1970.
pub(super) fn unix_time(time: ASN1Time) -> UnixTime {
    UnixTime(u64::try_from(time.timestamp()).unwrap_or(0))
}

pub(super) fn subject_key(info: &SubjectPublicKeyInfo<'_>) -> Option<PublicKey> {
    match info.algorithm.algorithm.to_id_string().as_str() {
        // Some makers mark an RSA EK as RSAES-OAEP: the same key for the same use.
        OID_RSA | OID_RSAES_OAEP => {
            let plain = SubjectPublicKeyInfo {
                algorithm: AlgorithmIdentifier::new(x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION, None),
                ..info.clone()
            };
            let Ok(SubjectKey::RSA(key)) = plain.parsed() else { return None };
            let exponent = u32::try_from(key.try_exponent().ok()?).ok()?;
            Some(PublicKey::Rsa { modulus: strip_zeros(key.modulus).to_vec(), exponent })
        }
        OID_EC => {
            let curve = info.algorithm.parameters()?.as_oid().ok()?.to_id_string();
            let (_, point) = info.subject_public_key.data.split_first().filter(|(form, _)| **form == 4)?;
            let (x, y) = point.split_at_checked(point.len() / 2)?;
            match curve.as_str() {
                OID_P256 => Some(PublicKey::EcP256 { x: x.try_into().ok()?, y: y.try_into().ok()? }),
                OID_P384 => Some(PublicKey::EcP384 { x: x.try_into().ok()?, y: y.try_into().ok()? }),
                _ => None,
            }
        }
        _ => None,
    }
}

pub(super) fn signature_algorithm(identifier: &AlgorithmIdentifier<'_>) -> Option<SignatureAlgorithm> {
    use HashAlgorithm::{Sha1, Sha256, Sha384, Sha512};
    use SignatureScheme::{EcDsa, RsaPss, RsaSsa};
    let (scheme, hash) = match identifier.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.5" => (RsaSsa, Sha1),
        "1.2.840.113549.1.1.11" => (RsaSsa, Sha256),
        "1.2.840.113549.1.1.12" => (RsaSsa, Sha384),
        "1.2.840.113549.1.1.13" => (RsaSsa, Sha512),
        "1.2.840.113549.1.1.10" => (RsaPss, pss_hash(identifier)?),
        "1.2.840.10045.4.1" => (EcDsa, Sha1),
        "1.2.840.10045.4.3.2" => (EcDsa, Sha256),
        "1.2.840.10045.4.3.3" => (EcDsa, Sha384),
        "1.2.840.10045.4.3.4" => (EcDsa, Sha512),
        _ => return None,
    };
    Some(SignatureAlgorithm { scheme, hash })
}

fn pss_hash(identifier: &AlgorithmIdentifier<'_>) -> Option<HashAlgorithm> {
    let Ok(X509SignatureAlgorithm::RSASSA_PSS(parameters)) = X509SignatureAlgorithm::try_from(identifier)
    else {
        return None;
    };
    match parameters.hash_algorithm_oid().to_id_string().as_str() {
        "2.16.840.1.101.3.4.2.1" => Some(HashAlgorithm::Sha256),
        "2.16.840.1.101.3.4.2.2" => Some(HashAlgorithm::Sha384),
        "2.16.840.1.101.3.4.2.3" => Some(HashAlgorithm::Sha512),
        _ => None,
    }
}

/// Four times the largest EK certificate seen.
const CERTIFICATE_BYTES_MAX: usize = 16 << 10;
/// Certificates of TPMs and their makers have about ten.
const EXTENSIONS_MAX: usize = 32;
/// The TCG's own attributes are a dozen characters.
const ATTRIBUTE_CHARS_MAX: usize = 64;

/// Extensions whose content decides something: key identifiers, key usages, names, constraints.
const USED: [&str; 6] = ["2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.35", "2.5.29.37"];

const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_RSAES_OAEP: &str = "1.2.840.113549.1.1.7";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_HARDWARE_MODULE: &str = "1.3.6.1.5.5.7.8.4";
const OID_TPM_MANUFACTURER: &str = "2.23.133.2.1";
const OID_TPM_MODEL: &str = "2.23.133.2.2";
const OID_TPM_VERSION: &str = "2.23.133.2.3";
