//! NVIDIA's confidential GPUs and switches: measurements over SPDM, signed by a key that the device's own boot code certified.
//!
//! SPDM 1.1 (DMTF DSP0274), GET_MEASUREMENTS and MEASUREMENTS, request and response one behind the other as the driver hands them
//! over. Measurements are claims here: reference values (RIMs) are files of NVIDIA's that a policy would list.

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::asn1_rs::{Any, Class, OctetString, Oid, Sequence, Tag};
use x509_parser::prelude::FromDer;

use super::{Verified, not_understood, pinned_root};
use crate::check::{Check, Failure};
use crate::der;
use crate::digest::HashAlgorithm;
use crate::read::{Reader, Truncated};
use crate::text::escaped;
use crate::time::UnixTime;
use crate::tpm::certificate::Certificate;
use crate::tpm::ek_certificate::{Endorsers, IssuerList};
use crate::tpm::path::{PathChecks, verify_path};
use crate::tpm::public_key::{SignatureAlgorithm, SignatureScheme};

/// What a device sent, believed by nobody yet.
#[derive(Clone, Copy, Debug)]
pub struct NvidiaEvidence<'a> {
    /// GET_MEASUREMENTS as it was asked, and the MEASUREMENTS that answered it.
    pub transcript: &'a [u8],
    /// The device's certificates in DER, that of the signing key first.
    pub chain: &'a [&'a [u8]],
}

/// What the verifier knows, and asked for.
#[derive(Clone, Debug, Default)]
pub struct NvidiaExpectation {
    /// The nonce of the request; `None` where nobody asked.
    pub nonce: Option<[u8; 32]>,
    /// Roots that count beside NVIDIA's, and revocation lists.
    pub endorsers: Endorsers,
}

/// What a genuine device says. Made by [`verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NvidiaClaims {
    /// Which device, as its certificate names it.
    pub device: String,
    /// What it was asked with.
    pub nonce: [u8; 32],
    /// Its measurements by index, from 1.
    pub measurements: Vec<(u8, Vec<u8>)>,
    /// The version of the driver that asked.
    pub driver: Option<String>,
    /// The version of its own firmware.
    pub vbios: Option<String>,
    /// The root at which the path ends, for people.
    pub anchor: String,
    /// When the first certificate of the path expires.
    pub valid_until: UnixTime,
    /// What is known of the revocation of that path.
    pub lists: Vec<IssuerList>,
}

/// Whether the bytes start as such a request and its answer do.
pub fn is_transcript(bytes: &[u8]) -> bool {
    bytes.starts_with(&[SPDM_1_1, GET_MEASUREMENTS])
        && bytes.get(REQUEST_BYTES..).is_some_and(|rest| rest.starts_with(&[SPDM_1_1, MEASUREMENTS]))
}

/// Makes every check of a device's measurements at a time, each reported on its own.
pub fn verify(
    evidence: &NvidiaEvidence<'_>,
    expectation: &NvidiaExpectation,
    at: UnixTime,
) -> Verified<NvidiaClaims> {
    let refused = |check, claim: &str, expected: &str, found: String| {
        Verified::refused(vec![Failure::new(check, claim, expected, found)])
    };
    let transcript = match Transcript::parse(evidence.transcript) {
        Ok(transcript) => transcript,
        Err(error) => {
            return refused(
                Check::TeeParse,
                "SPDM measurements",
                "a request and its answer",
                error.to_string(),
            );
        }
    };
    let leaf = evidence.chain.first().copied().unwrap_or_default();
    let certificate = match Certificate::parse(leaf) {
        Ok(certificate) => certificate,
        Err(error) => {
            return refused(
                Check::TeeEndorsement,
                "certificate of the device",
                "a certificate",
                error.to_string(),
            );
        }
    };
    let mut failures = Vec::new();
    failures.extend(check_signature(&transcript, &certificate));
    failures.extend(check_firmware(&transcript, leaf));
    failures.extend(not_understood(&certificate, "certificate of the device"));
    failures.extend(expectation.nonce.and_then(|nonce| check_nonce(&transcript, &nonce)));
    let mut anchors = expectation.endorsers.anchors.to_vec();
    let is_root = |spki: &str| spki == ROOT_SPKI_SHA256;
    anchors.extend(evidence.chain.iter().take(CHAIN_MAX).filter_map(|der| pinned_root(der, is_root)));
    let endorsers = expectation.endorsers.with_anchors(anchors);
    let above = evidence.chain.get(1..).unwrap_or_default();
    let path = match verify_path(&certificate, above, &endorsers, at, CHECKS) {
        Ok(path) => Some(path),
        Err(flaws) => {
            failures.extend(flaws);
            None
        }
    };
    let notes =
        path.iter().flat_map(|path| &path.lists).filter_map(|list| super::list_note(list, at)).collect();
    let claims = path.filter(|_| failures.is_empty()).map(|path| NvidiaClaims {
        device: certificate.subject_text.clone(),
        nonce: transcript.nonce,
        measurements: transcript.measurements.iter().map(|(index, value)| (*index, value.to_vec())).collect(),
        driver: transcript.opaque(DRIVER_VERSION).map(text),
        vbios: transcript.opaque(VBIOS_VERSION).and_then(vbios),
        anchor: path.anchor,
        valid_until: path.valid_until,
        lists: path.lists,
    });
    Verified { claims, failures, notes }
}

/// A request and its answer, taken apart.
struct Transcript<'a> {
    nonce: [u8; 32],
    measurements: Vec<(u8, &'a [u8])>,
    /// What the vendor adds, by type.
    opaque: Vec<(u16, &'a [u8])>,
    /// Everything before the signature.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Transcript<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, SpdmError> {
        let mut reader = Reader::new(bytes);
        header(&mut reader, GET_MEASUREMENTS)?;
        reader.bytes(2)?;
        let nonce = reader.array()?;
        // The slot of the certificate chain.
        reader.u8()?;
        header(&mut reader, MEASUREMENTS)?;
        reader.bytes(2)?;
        let blocks = reader.u8()?;
        let [low, middle, high] = reader.array()?;
        let length = usize::try_from(u32::from_le_bytes([low, middle, high, 0])).unwrap_or(usize::MAX);
        let measurements = measurements(reader.bytes(length)?, blocks)?;
        reader.bytes(32)?;
        let length = usize::from(reader.u16_le()?);
        let opaque = opaque(reader.bytes(length)?)?;
        let signed = Reader::new(bytes).bytes(reader.offset())?;
        let (r, s) = (reader.bytes(48)?, reader.bytes(48)?);
        // Some drivers hand over one byte more than there is.
        match reader.rest().len() {
            0 | 1 => {}
            surplus => return Err(SpdmError::Surplus(surplus)),
        }
        let signature = der::sequence(&[&der::unsigned(r), &der::unsigned(s)]);
        Ok(Transcript { nonce, measurements, opaque, signed, signature })
    }

    fn opaque(&self, kind: u16) -> Option<&'a [u8]> {
        self.opaque.iter().find(|(of, _)| *of == kind).map(|(_, value)| *value)
    }
}

fn header(reader: &mut Reader<'_>, code: u8) -> Result<(), SpdmError> {
    let found: [u8; 2] = reader.array()?;
    if found == [SPDM_1_1, code] {
        Ok(())
    } else {
        Err(SpdmError::Message { version: found[0], code: found[1] })
    }
}

/// DSP0274, measurement block: index, specification, length; a DMTF value has a type and a length of its own.
fn measurements(record: &[u8], blocks: u8) -> Result<Vec<(u8, &[u8])>, SpdmError> {
    let mut reader = Reader::new(record);
    let mut measurements = Vec::new();
    for _ in 0..blocks {
        let (index, specification) = (reader.u8()?, reader.u8()?);
        let length = usize::from(reader.u16_le()?);
        let mut block = Reader::new(reader.bytes(length)?);
        if specification != DMTF {
            return Err(SpdmError::Specification(specification));
        }
        let _kind = block.u8()?;
        let length = usize::from(block.u16_le()?);
        let value = block.bytes(length)?;
        if !block.is_empty() || measurements.iter().any(|(known, _)| *known == index) {
            return Err(SpdmError::Block(index));
        }
        measurements.push((index, value));
    }
    if reader.is_empty() { Ok(measurements) } else { Err(SpdmError::Surplus(reader.rest().len())) }
}

/// NVIDIA's fields: type, length, value.
fn opaque(bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, SpdmError> {
    let mut reader = Reader::new(bytes);
    let mut fields = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u16_le()?;
        let length = usize::from(reader.u16_le()?);
        fields.push((kind, reader.bytes(length)?));
    }
    Ok(fields)
}

fn check_signature(transcript: &Transcript<'_>, certificate: &Certificate) -> Option<Failure> {
    let wrong = |found: String| {
        Some(Failure::new(
            Check::TeeReportSignature,
            "SPDM measurements",
            "a signature by the certified key",
            found,
        ))
    };
    let Some(key) = &certificate.key else { return wrong("a key that is not on P-384".to_owned()) };
    let algorithm = SignatureAlgorithm { scheme: SignatureScheme::EcDsa, hash: HashAlgorithm::Sha384 };
    key.verify(algorithm, transcript.signed, &transcript.signature)
        .err()
        .and_then(|error| wrong(error.to_string()))
}

/// The firmware that is running is the one that the key was made for (DICE: the certificate's TcbInfo, its FWID).
fn check_firmware(transcript: &Transcript<'_>, leaf: &[u8]) -> Option<Failure> {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let said = transcript.opaque(FIRMWARE_ID)?;
    let certified = firmware_id(leaf);
    (certified.as_deref() != Some(said)).then(|| {
        let expected = certified.as_deref().map_or_else(|| "none".to_owned(), hex);
        Failure::new(Check::TeeBinding, "firmware of the device", expected, hex(said))
    })
}

fn check_nonce(transcript: &Transcript<'_>, nonce: &[u8; 32]) -> Option<Failure> {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    (transcript.nonce != *nonce).then(|| {
        Failure::new(Check::TeeReportData, "nonce of the SPDM request", hex(nonce), hex(&transcript.nonce))
    })
}

/// TCG DICE Attestation Architecture, 6.1.1: the digest of the one FWID in DiceTcbInfo.
fn firmware_id(leaf: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let mut extensions = certificate.extensions().iter();
    let info = extensions.find(|extension| extension.oid.to_id_string() == DICE_TCB_INFO)?.value;
    find_firmware_id(info, 0)
}

/// SEQUENCE { OID sha384, OCTET STRING }, wherever it stands; makers differ in what is around it.
fn find_firmware_id(der: &[u8], depth: usize) -> Option<Vec<u8>> {
    if let Ok((_, sequence)) = Sequence::from_der(der) {
        let oid = Oid::from_der(&sequence.content).ok();
        if let Some((rest, _)) = oid.filter(|(_, oid)| oid.to_id_string() == SHA384) {
            let ([], digest) = OctetString::from_der(rest).ok()? else { return None };
            return Some(digest.as_ref().to_vec());
        }
    }
    let (_, any) = Any::from_der(der).ok()?;
    let nests = any.tag() == Tag::Sequence || any.class() == Class::ContextSpecific;
    let mut rest: &[u8] = Some(any.data).filter(|_| nests && depth < DEPTH_MAX)?;
    while !rest.is_empty() {
        let (after, _) = Any::from_der(rest).ok()?;
        let element = rest.get(..rest.len().saturating_sub(after.len()))?;
        if let Some(found) = find_firmware_id(element, depth.saturating_add(1)) {
            return Some(found);
        }
        rest = after;
    }
    None
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    escaped(text.trim_end_matches('\0')).into_owned()
}

/// `96.00.9F.00.01`, as the vendor's tools write it.
fn vbios(bytes: &[u8]) -> Option<String> {
    let [d, c, b, a, e, ..] = bytes else { return None };
    Some(format!("{a:02X}.{b:02X}.{c:02X}.{d:02X}.{e:02X}"))
}

/// Bytes that are no such request with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum SpdmError {
    #[error(transparent)]
    Truncated(#[from] Truncated),
    #[error("a message of code {code:#04x}, version {version:#04x}; SPDM 1.1 is known")]
    Message { version: u8, code: u8 },
    #[error("a measurement of specification {0}; DMTF's, 1, is known")]
    Specification(u8),
    #[error("measurement {0} is there twice, or does not fill its block")]
    Block(u8),
    #[error("{0} bytes too many")]
    Surplus(usize),
}

const CHECKS: PathChecks = PathChecks {
    chain: Check::TeeChain,
    signature: Check::TeeChain,
    validity: Check::TeeValidity,
    revoked: Check::TeeRevoked,
};
/// SHA-256 over the SubjectPublicKeyInfo of the NVIDIA Device Identity CA.
const ROOT_SPKI_SHA256: &str = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4";
const SPDM_1_1: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xe0;
const MEASUREMENTS: u8 = 0x60;
const REQUEST_BYTES: usize = 37;
const DMTF: u8 = 1;
/// NVIDIA's types of opaque fields.
const DRIVER_VERSION: u16 = 3;
const VBIOS_VERSION: u16 = 6;
const FIRMWARE_ID: u16 = 20;
const DICE_TCB_INFO: &str = "2.23.133.5.4.1";
const SHA384: &str = "2.16.840.1.101.3.4.2.2";
/// Five are what there is.
const CHAIN_MAX: usize = 8;
/// Three are what there is.
const DEPTH_MAX: usize = 6;
