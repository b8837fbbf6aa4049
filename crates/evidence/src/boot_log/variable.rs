//! EFI variables in events (UEFI_VARIABLE_DATA), and the signature lists in some of them.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Guid;
use crate::read::{Reader, Truncated};
use crate::text::escaped;
use crate::{Digest, HashAlgorithm};

/// A variable: vendor, name, data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Whose namespace the name is in.
    pub vendor: Guid,
    /// The name.
    pub name: String,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> Variable<'a> {
    /// Reads UEFI_VARIABLE_DATA (Platform Firmware Profile, 10.4.5). Bytes past it are left alone:
    /// shim and older firmware log some.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Truncated> {
        let mut reader = Reader::new(bytes);
        let vendor = Guid::read(&mut reader)?;
        let (name_units, data_bytes) = (reader.u64_le()?, reader.u64_le()?);
        let name_bytes = usize::try_from(name_units).unwrap_or(usize::MAX).saturating_mul(2);
        let name = utf16(reader.bytes(name_bytes)?);
        let data = reader.bytes(usize::try_from(data_bytes).unwrap_or(usize::MAX))?;
        Ok(Variable { vendor, name, data })
    }

    /// Whether it is the variable of this vendor and name.
    pub fn is(&self, vendor: Guid, name: &str) -> bool {
        self.vendor == vendor && self.name == name
    }
}

/// One entry of a signature database: who put it there, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// SignatureOwner.
    pub owner: Guid,
    /// What images it is about.
    pub kind: SignatureKind,
}

/// What a signature database entry is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureKind {
    /// A certificate: the SHA-256 of its DER, and its subject for people to read.
    Certificate {
        /// SHA-256 of the DER.
        sha256: Digest,
        /// The subject's distinguished name; empty where the certificate does not parse.
        subject: String,
    },
    /// The Authenticode digest of an image.
    ImageDigest(Digest),
    /// Something else: its signature type, and the SHA-256 of its data.
    Other {
        /// SignatureType.
        signature_type: Guid,
        /// SHA-256 of SignatureData.
        sha256: Digest,
    },
}

impl SignatureKind {
    /// A certificate by its DER.
    pub(super) fn certificate(der: &[u8]) -> Self {
        let subject = X509Certificate::from_der(der)
            .map(|(_, found)| escaped(&found.subject().to_string()).into_owned());
        SignatureKind::Certificate {
            sha256: HashAlgorithm::Sha256.hash(&[der]),
            subject: subject.unwrap_or_default(),
        }
    }
}

/// Reads the EFI_SIGNATURE_LISTs of a database (UEFI, 32.4.1). Empty data is an empty database.
pub fn signature_lists(data: &[u8]) -> Result<Vec<Signature>, Truncated> {
    let mut reader = Reader::new(data);
    let mut signatures = Vec::new();
    while !reader.is_empty() {
        let offset = reader.offset();
        let signature_type = Guid::read(&mut reader)?;
        let [list_bytes, header_bytes, signature_bytes] =
            [reader.u32_le()?, reader.u32_le()?, reader.u32_le()?]
                .map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let body = list_bytes.checked_sub(SIGNATURE_LIST_HEADER_BYTES);
        let body = body.ok_or(Truncated { offset, wanted: SIGNATURE_LIST_HEADER_BYTES, left: list_bytes })?;
        let mut list = Reader::new(reader.bytes(body)?);
        list.bytes(header_bytes)?;
        while !list.is_empty() {
            // An entry is an owner and at least one byte, so that the loop is bounded by the data.
            let mut entry = Reader::new(list.bytes(signature_bytes.max(OWNER_BYTES + 1))?);
            let owner = Guid::read(&mut entry)?;
            signatures.push(Signature { owner, kind: kind(signature_type, entry.rest()) });
        }
    }
    Ok(signatures)
}

fn kind(signature_type: Guid, data: &[u8]) -> SignatureKind {
    let image = |algorithm| Digest::new(algorithm, data).map(SignatureKind::ImageDigest);
    let known = match signature_type {
        Guid::CERT_X509 => Some(SignatureKind::certificate(data)),
        EFI_CERT_SHA1 => image(HashAlgorithm::Sha1),
        EFI_CERT_SHA256 => image(HashAlgorithm::Sha256),
        EFI_CERT_SHA384 => image(HashAlgorithm::Sha384),
        EFI_CERT_SHA512 => image(HashAlgorithm::Sha512),
        _ => None,
    };
    known.unwrap_or_else(|| SignatureKind::Other {
        signature_type,
        sha256: HashAlgorithm::Sha256.hash(&[data]),
    })
}

/// UTF-16 little endian as text; what is no character becomes the replacement character.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).filter_map(|unit| unit.try_into().ok().map(u16::from_le_bytes));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

const EFI_CERT_SHA1: Guid = Guid::new(0x826c_a512, 0xcf10, 0x4ac9, 0xb187_be01_4966_31bd);
const EFI_CERT_SHA256: Guid = Guid::new(0xc1c4_1626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328);
const EFI_CERT_SHA384: Guid = Guid::new(0xff3e_5307, 0x9fd0, 0x48c9, 0x85f1_8ad5_6c70_1e01);
const EFI_CERT_SHA512: Guid = Guid::new(0x093e_0fae, 0xa6c4, 0x4f50, 0x9f1b_d41e_2b89_c19a);
/// Signature type and three sizes.
const SIGNATURE_LIST_HEADER_BYTES: usize = 16 + 3 * 4;
const OWNER_BYTES: usize = 16;
