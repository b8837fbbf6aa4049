//! Attribute certificates (RFC 5755), as makers give out for platforms (TCG Platform Certificate Profile): what one says, for
//! people who look at it. Nothing of it is verified, and nothing is decided by it.

use thiserror::Error;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, X509Name};

use super::certificate::{signature_algorithm, unix_time};
use super::certificate_summary::{PlatformNames, one_line};
use crate::digest::{Digest, HashAlgorithm};
use crate::time::UnixTime;

/// What an attribute certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeCertificate {
    /// SHA-256 over the certificate.
    pub sha256: Digest,
    /// Issuer and serial number (hex) of the certificate that it belongs to: of a platform, its EK certificate.
    pub holder: Option<(String, String)>,
    /// Who issued it, for people.
    pub issuer: String,
    /// The serial number in hex.
    pub serial: String,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// Until when it is valid.
    pub not_after: UnixTime,
    /// How it is signed, such as `rsassa-sha256`.
    pub signature: String,
    /// Its attributes: names where the TCG gives them, else object identifiers.
    pub attributes: Vec<String>,
    /// What it says of a platform: manufacturer, model, version, serial number.
    pub platform: [Option<String>; 4],
    /// Every extension's object identifier, and whether it is critical.
    pub extensions: Vec<(String, bool)>,
}

/// Why bytes are no attribute certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AttributeCertificateError {
    /// A part is not the DER that RFC 5755 has there.
    #[error("its {0} is not what RFC 5755 has there")]
    Part(&'static str),
    /// Bytes follow it.
    #[error("{0} bytes follow it")]
    Surplus(usize),
}

type Error = AttributeCertificateError;

impl AttributeCertificate {
    /// Whether DER begins as one does: a sequence in a sequence, and then version 2 and a holder. An X.509 certificate has its
    /// version in a tag of its own there, and a revocation list an algorithm behind it.
    pub fn begins(head: &[u8]) -> bool {
        let inner = || header(head).filter(|of| of.tag == SEQUENCE).and_then(|of| head.get(of.length..));
        let body = || {
            let inner = inner()?;
            header(inner).filter(|of| of.tag == SEQUENCE).and_then(|of| inner.get(of.length..))
        };
        body().is_some_and(|body| {
            let holder = body.strip_prefix(&[2, 1, 1]).unwrap_or_default();
            let holder_is =
                |of: Header| of.tag == SEQUENCE && matches!(holder.get(of.length), Some(0xa0..=0xa2));
            header(holder).is_some_and(holder_is)
        })
    }

    /// Reads one in DER.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let (outer, rest) = element(bytes, SEQUENCE, "sequence")?;
        if !rest.is_empty() {
            return Err(Error::Surplus(rest.len()));
        }
        let (info, signed) = element(outer, SEQUENCE, "body")?;
        let (version, info) = element(info, INTEGER, "version")?;
        if version != [1] {
            return Err(Error::Part("version"));
        }
        let (holder, info) = element(info, SEQUENCE, "holder")?;
        let (issuer, info) = any(info, "issuer")?;
        let (_, info) = element(info, SEQUENCE, "algorithm")?;
        let (serial, info) = element(info, INTEGER, "serial number")?;
        let (validity, info) = element(info, SEQUENCE, "validity")?;
        let (attributes, info) = element(info, SEQUENCE, "attributes")?;
        let (rest, not_before) = ASN1Time::from_der(validity).map_err(|_| Error::Part("validity"))?;
        let (_, not_after) = ASN1Time::from_der(rest).map_err(|_| Error::Part("validity"))?;
        let (_, algorithm) = AlgorithmIdentifier::from_der(signed).map_err(|_| Error::Part("algorithm"))?;
        let mut certificate = AttributeCertificate {
            sha256: HashAlgorithm::Sha256.hash(&[bytes]),
            holder: holder_of(holder)?,
            issuer: names_of(issuer.content).unwrap_or_default(),
            serial: data_encoding::HEXLOWER.encode(serial),
            not_before: unix_time(not_before),
            not_after: unix_time(not_after),
            signature: signature_algorithm(&algorithm)
                .map_or_else(|| algorithm.algorithm.to_id_string(), |known| known.to_string()),
            attributes: attributes_of(attributes)?,
            platform: Default::default(),
            extensions: Vec::new(),
        };
        certificate.take_extensions(info)?;
        Ok(certificate)
    }

    /// What is left of the body: an optional unique identifier, and the extensions.
    fn take_extensions(&mut self, mut rest: &[u8]) -> Result<(), Error> {
        while !rest.is_empty() {
            let (part, after) = any(rest, "extensions")?;
            rest = after;
            let mut extensions = if part.tag == SEQUENCE { part.content } else { &[] };
            while !extensions.is_empty() {
                let (after, extension) =
                    X509Extension::from_der(extensions).map_err(|_| Error::Part("extensions"))?;
                extensions = after;
                if self.extensions.len() < PARTS_MAX {
                    self.extensions.push((extension.oid.to_id_string(), extension.critical));
                }
                if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                    for name in &names.general_names {
                        if let GeneralName::DirectoryName(name) = name {
                            self.platform.take(name);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether it is about a platform.
    pub fn is_of_platform(&self) -> bool {
        self.platform.iter().any(Option::is_some)
            || self.attributes.iter().any(|name| name.starts_with("tcg-"))
    }
}

/// The certificate that the holder has, if he is named by one.
fn holder_of(holder: &[u8]) -> Result<Option<(String, String)>, Error> {
    let (base, _) = any(holder, "holder")?;
    if base.tag != BASE_CERTIFICATE {
        return Ok(None);
    }
    let (names, rest) = any(base.content, "holder")?;
    let (serial, _) = element(rest, INTEGER, "holder")?;
    let issuer = directory_name(names.content).ok_or(Error::Part("holder"))?;
    Ok(Some((issuer, data_encoding::HEXLOWER.encode(serial))))
}

/// The first directory name of GeneralNames, as they are or below one more sequence.
fn names_of(content: &[u8]) -> Option<String> {
    directory_name(content).or_else(|| directory_name(any(content, "issuer").ok()?.0.content))
}

fn directory_name(names: &[u8]) -> Option<String> {
    let (name, _) = any(names, "name").ok().filter(|(name, _)| name.tag == DIRECTORY_NAME)?;
    X509Name::from_der(name.content).ok().map(|(_, name)| one_line(name.to_string()))
}

fn attributes_of(mut attributes: &[u8]) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    while !attributes.is_empty() && names.len() < PARTS_MAX {
        let (attribute, rest) = element(attributes, SEQUENCE, "attributes")?;
        attributes = rest;
        let (oid, _) = element(attribute, OBJECT_IDENTIFIER, "attributes")?;
        let oid = Oid::new(oid.into()).to_id_string();
        let known = TCG_ATTRIBUTES.iter().find(|(known, _)| *known == oid);
        names.push(known.map_or(oid.clone(), |(_, name)| (*name).to_owned()));
    }
    Ok(names)
}

/// Tag, and how many bytes tag and length take, with how many the content has.
struct Header {
    tag: u8,
    length: usize,
    content: usize,
}

/// One element.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

/// X.690, 8.1.3: tags of one byte, and lengths of at most four.
fn header(bytes: &[u8]) -> Option<Header> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *first < 0x80 {
        return Some(Header { tag: *tag, length: 2, content: usize::from(*first) });
    }
    let digits = usize::from(first & 0x7f);
    let digits = rest.get(..digits).filter(|digits| (1..=4).contains(&digits.len()))?;
    let content =
        digits.iter().try_fold(0usize, |sum, digit| sum.checked_mul(256)?.checked_add((*digit).into()))?;
    Some(Header { tag: *tag, length: 2 + digits.len(), content })
}

fn any<'a>(bytes: &'a [u8], part: &'static str) -> Result<(Element<'a>, &'a [u8]), Error> {
    let header = header(bytes).ok_or(Error::Part(part))?;
    let body = bytes.get(header.length..).ok_or(Error::Part(part))?;
    let (content, rest) = body.split_at_checked(header.content).ok_or(Error::Part(part))?;
    Ok((Element { tag: header.tag, content }, rest))
}

fn element<'a>(bytes: &'a [u8], tag: u8, part: &'static str) -> Result<(&'a [u8], &'a [u8]), Error> {
    let (found, rest) = any(bytes, part)?;
    if found.tag == tag { Ok((found.content, rest)) } else { Err(Error::Part(part)) }
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// Holder.baseCertificateID, \[0\].
const BASE_CERTIFICATE: u8 = 0xa0;
/// GeneralName.directoryName, \[4\].
const DIRECTORY_NAME: u8 = 0xa4;
/// Attributes and extensions that are shown.
const PARTS_MAX: usize = 64;
/// TCG Platform Certificate Profile 1.1, 3.1.
const TCG_ATTRIBUTES: [(&str, &str); 6] = [
    ("2.23.133.2.17", "tcg-at-tcgPlatformSpecification"),
    ("2.23.133.2.19", "tcg-at-tbbSecurityAssertions"),
    ("2.23.133.2.23", "tcg-at-tcgCredentialSpecification"),
    ("2.23.133.5.1.7.1", "tcg-at-platformConfiguration-v1"),
    ("2.23.133.5.1.7.2", "tcg-at-platformConfiguration-v2"),
    ("2.23.133.2.25", "tcg-at-tcgCredentialType"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::der::{bit_string, sequence};

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut element = sequence(&[content]);
        *element.first_mut().unwrap() = tag;
        element
    }

    fn name(oid: &[u8], text: &str) -> Vec<u8> {
        let value = sequence(&[&tagged(0x06, oid), &tagged(0x0c, text.as_bytes())]);
        tagged(0xa4, &sequence(&[&tagged(0x31, &value)]))
    }

    /// One as a maker of platforms gives out: its holder is an EK certificate.
    fn platform() -> Vec<u8> {
        let common_name = [0x55, 4, 3];
        let holder = tagged(
            0xa0,
            &[sequence(&[&name(&common_name, "TPM maker CA")]), vec![2, 2, 0x12, 0x34]].concat(),
        );
        let issuer = tagged(0xa0, &sequence(&[&name(&common_name, "Platform CA")]));
        // ecdsa-with-SHA256.
        let algorithm = sequence(&[&tagged(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
        let validity = sequence(&[&tagged(0x18, b"20250101000000Z"), &tagged(0x18, b"20350101000000Z")]);
        // tcg-at-tcgPlatformSpecification, and one that nobody knows.
        let attribute = |oid: &[u8]| sequence(&[&tagged(0x06, oid), &tagged(0x31, &[5, 0])]);
        let attributes = sequence(&[&attribute(&[0x67, 0x81, 5, 2, 17]), &attribute(&[0x2a, 3])]);
        // subjectAltName with platformManufacturerStr.
        let alternative = sequence(&[&name(&[0x67, 0x81, 5, 5, 1, 1], "Example Machines")]);
        let extension = sequence(&[&tagged(0x06, &[0x55, 0x1d, 0x11]), &tagged(0x04, &alternative)]);
        let info = sequence(&[
            &[2, 1, 1],
            &sequence(&[&holder]),
            &issuer,
            &algorithm,
            &[2, 1, 7],
            &validity,
            &attributes,
            &sequence(&[&extension]),
        ]);
        sequence(&[&info, &algorithm, &bit_string(&[1; 70])])
    }

    #[test]
    fn a_platforms_certificate_says_whose_it_is() {
        let der = platform();
        assert!(AttributeCertificate::begins(&der));
        let read = AttributeCertificate::read(&der).unwrap();
        assert_eq!(read.holder, Some(("CN=TPM maker CA".to_owned(), "1234".to_owned())));
        assert_eq!((read.issuer.as_str(), read.serial.as_str()), ("CN=Platform CA", "07"));
        assert_eq!(read.platform[0].as_deref(), Some("Example Machines"));
        assert_eq!(
            read.attributes,
            ["tcg-at-tcgPlatformSpecification", "1.2.3.3"].map(|a| a.replace("1.2.3.3", "1.2.3"))
        );
        assert_eq!(read.signature, "ecdsa-sha256");
        assert_eq!(read.not_after.0 - read.not_before.0, 3652 * 86_400);
        assert!(read.is_of_platform());
    }

    #[test]
    fn what_is_none_is_refused_with_its_part() {
        let der = platform();
        assert_eq!(AttributeCertificate::read(&[&der[..], &[0]].concat()), Err(Error::Surplus(1)));
        assert_eq!(
            AttributeCertificate::read(der.get(..der.len() - 1).unwrap()),
            Err(Error::Part("sequence"))
        );
        let ek = include_bytes!("../../../../vectors/tpm/sb-good-1/ek-cert.der");
        assert!(!AttributeCertificate::begins(ek));
        assert!(AttributeCertificate::read(ek).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..400, byte: u8, cut in 0usize..400, bytes: Vec<u8>) {
            let mut der = platform();
            let length = der.len();
            der[at % length] = byte;
            der.truncate(length - cut % length);
            for bytes in [&der, &bytes] {
                let _ = (AttributeCertificate::begins(bytes), AttributeCertificate::read(bytes));
            }
        }
    }
}
