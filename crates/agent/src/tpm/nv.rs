//! The TPM's non-volatile indexes, as far as endorsement goes: EK certificates and the CA certificates beside them.
//!
//! Handles: TCG EK Credential Profile 2.5, §2.2.1.4 and §2.2.1.5.2.

use assay_evidence::read::Reader;
use assay_evidence::tpm::NvCertificate;
use assay_evidence::tpm::ek_certificate::CertificateError;
use thiserror::Error;
use tpm2_protocol::basic::{TpmHandle, TpmUint16};
use tpm2_protocol::data::{TpmRcBase, TpmRh, TpmaNv};
use tpm2_protocol::frame::{TpmNvReadCommand, TpmNvReadPublicCommand};

use super::command::empty_password;
use super::ek::EkKind;
use super::{Property, Tpm, TpmError};

/// The certificates that came with the TPM.
#[derive(Debug, Default)]
pub struct EkCertificates {
    /// EK certificates by the kind of their key, DER.
    pub leaves: Vec<(EkKind, Vec<u8>)>,
    /// CA certificates kept in the TPM, DER.
    pub intermediates: Vec<Vec<u8>>,
    /// Indexes that are there for certificates, and gave none.
    pub unread: Vec<UnreadIndex>,
}

/// An index of which no certificate could be read.
#[derive(Debug, Error)]
#[error("no certificate could be read from NV index {index:#010x}: {fault}")]
pub struct UnreadIndex {
    /// The index.
    pub index: u32,
    /// Why.
    pub fault: NvFault,
}

/// Why an index gives no certificate. It makes no key useless, so that it is told and nothing ends by it.
#[derive(Debug, Error)]
pub enum NvFault {
    /// The TPM does not give its content out.
    #[error("{0}")]
    Refused(TpmError),
    /// It was made, and nothing was written into it.
    #[error("its {0} bytes are filling alone")]
    Blank(usize),
    /// What is in it is no certificate, or not all of one.
    #[error("it holds {0}")]
    Content(CertificateError),
}

impl Tpm {
    /// Reads every certificate that is there. One index that cannot be read keeps nobody from the others.
    pub fn ek_certificates(&self) -> Result<EkCertificates, TpmError> {
        let mut found = EkCertificates::default();
        let indexes = self.handles(NV_FIRST)?;
        for kind in EkKind::ALL.into_iter().filter(|kind| indexes.contains(&kind.certificate_index())) {
            match self.certificate_at(kind.certificate_index())? {
                Ok(leaf) => found.leaves.push((kind, leaf)),
                Err(unread) => found.unread.push(unread),
            }
        }
        let mut chain = Chain::default();
        for index in indexes.into_iter().filter(|index| CA_INDEXES.contains(index)).take(CA_INDEXES_MAX) {
            match self.nv_content(index)? {
                Ok(bytes) => chain.take(index, &bytes),
                Err(fault) => chain.unread.push(UnreadIndex { index, fault }),
            }
        }
        chain.finish();
        found.intermediates = chain.certificates;
        found.unread.append(&mut chain.unread);
        Ok(found)
    }

    /// The certificate at an index, DER; `None` where there is no such index.
    pub(crate) fn nv_certificate(
        &self,
        index: u32,
    ) -> Result<Option<Result<Vec<u8>, UnreadIndex>>, TpmError> {
        match self.handles(NV_FIRST)?.contains(&index) {
            true => self.certificate_at(index).map(Some),
            false => Ok(None),
        }
    }

    fn certificate_at(&self, index: u32) -> Result<Result<Vec<u8>, UnreadIndex>, TpmError> {
        let certificate =
            self.nv_content(index)?.and_then(|bytes| certificate_in(&bytes).map(<[u8]>::to_vec));
        Ok(certificate.map_err(|fault| UnreadIndex { index, fault }))
    }

    /// The content of an index, or that the TPM does not give it out; the error is that of a TPM that does not answer.
    fn nv_content(&self, index: u32) -> Result<Result<Vec<u8>, NvFault>, TpmError> {
        match self.nv_read(index) {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(refused @ TpmError::Refused { .. }) => Ok(Err(NvFault::Refused(refused))),
            Err(error) => Err(error),
        }
    }

    /// The whole content of an index.
    pub fn nv_read(&self, index: u32) -> Result<Vec<u8>, TpmError> {
        let (attributes, size) = self.nv_public(index)?;
        // TPM 2.0 Part 3 §31.13: who may read depends on the index; neither way needs a password here.
        let authority = match attributes & TpmaNv::AUTHREAD.bits() {
            0 => TpmRh::Owner.value(),
            _ => index,
        };
        let at_once = self.property(Property::NvBufferMax)?.and_then(|max| u16::try_from(max).ok());
        let at_once = at_once.unwrap_or(NV_READ_BYTES).clamp(1, NV_READ_BYTES);
        let mut content = Vec::with_capacity(usize::from(size));
        let mut offset = 0;
        while offset < size {
            let count = at_once.min(size - offset);
            let command = TpmNvReadCommand {
                handles: [TpmHandle::new(authority), TpmHandle::new(index)],
                size: TpmUint16::new(count),
                offset: TpmUint16::new(offset),
            };
            let part = self.run("NV_Read", &command, &[empty_password()], 0)?;
            part.read(|reader| {
                content.extend_from_slice(reader.tpm2b()?);
                Ok(())
            })?;
            offset += count;
        }
        Ok(content)
    }

    /// Attributes and size of an index.
    fn nv_public(&self, index: u32) -> Result<(u32, u16), TpmError> {
        let command = TpmNvReadPublicCommand { handles: [TpmHandle::new(index)] };
        self.run("NV_ReadPublic", &command, &[], 0)?.read(|reader| {
            let mut public = Reader::new(reader.tpm2b()?);
            public.u32_be()?;
            public.u16_be()?;
            let attributes = public.u32_be()?;
            public.tpm2b()?;
            Ok((attributes, public.u16_be()?))
        })
    }

    /// The persistent object's TPM2B_PUBLIC, or `None` if the handle is free.
    pub(crate) fn read_public(&self, handle: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let command = tpm2_protocol::frame::TpmReadPublicCommand { handles: [TpmHandle::new(handle)] };
        match self.run("ReadPublic", &command, &[], 0) {
            Err(TpmError::Refused { code, .. })
                if code.is(TpmRcBase::Handle) || code.is(TpmRcBase::Value) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(response) => response.read(|reader| Ok(Some(super::template::tpm2b(reader.tpm2b()?)))),
        }
    }
}

/// The certificate in an index: makers fill up the index after it, and some put a header before it.
fn certificate_in(bytes: &[u8]) -> Result<&[u8], NvFault> {
    if let Some(found) = NvCertificate::find(bytes) {
        return Ok(found.certificate);
    }
    if is_filling(bytes) {
        return Err(NvFault::Blank(bytes.len()));
    }
    match NvCertificate::fault(bytes) {
        cut @ CertificateError::CutShort { .. } => Err(NvFault::Content(cut)),
        other => split_der(bytes).into_iter().next().ok_or(NvFault::Content(other)),
    }
}

/// The CA certificates of a maker, one after the other: where an index is too small for them, the next goes on within a
/// certificate (TCG EK Credential Profile 2.5, 2.2.1.5.2).
#[derive(Default)]
struct Chain {
    certificates: Vec<Vec<u8>>,
    unread: Vec<UnreadIndex>,
    /// The beginning of a certificate, and the index that it begins in.
    begun: Option<(u32, Vec<u8>)>,
}

impl Chain {
    fn take(&mut self, index: u32, bytes: &[u8]) {
        // An index that is whole by itself is no continuation, so that one before it that was cut short costs no other.
        if is_whole(bytes) {
            self.finish();
        }
        let (first, mut whole) = self.begun.take().unwrap_or((index, Vec::new()));
        whole.extend_from_slice(bytes);
        let certificates = split_der(&whole);
        let length: usize = certificates.iter().map(|certificate| certificate.len()).sum();
        let rest = whole.get(length..).unwrap_or_default().to_vec();
        let begins_in = if certificates.is_empty() { first } else { index };
        self.certificates.extend(certificates.into_iter().map(<[u8]>::to_vec));
        self.begun = (!is_filling(&rest)).then_some((begins_in, rest));
    }

    /// What was begun is not continued.
    fn finish(&mut self) {
        if let Some((index, bytes)) = self.begun.take() {
            self.unread.push(UnreadIndex { index, fault: NvFault::Content(NvCertificate::fault(&bytes)) });
        }
    }
}

/// Whether certificates and filling are all that is there.
fn is_whole(bytes: &[u8]) -> bool {
    let certificates = split_der(bytes);
    let length: usize = certificates.iter().map(|certificate| certificate.len()).sum();
    !certificates.is_empty() && is_filling(bytes.get(length..).unwrap_or_default())
}

/// Whether nothing was written there.
fn is_filling(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, 0 | 0xff))
}

/// The DER values `bytes` starts with; what follows the last whole one is padding.
fn split_der(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    while let Some((value, rest)) = der_length(bytes).and_then(|length| bytes.split_at_checked(length)) {
        values.push(value);
        bytes = rest;
    }
    values
}

/// Bytes of the DER SEQUENCE that `bytes` starts with: certificates are between 128 and 65,535 bytes long.
fn der_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0x30, 0x81, length, ..] => Some(3 + usize::from(*length)),
        [0x30, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

/// First NV handle.
const NV_FIRST: u32 = 0x0100_0000;
/// Where TPM makers keep CA certificates.
const CA_INDEXES: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;
/// A chain is at most five long, and may be cut in pieces.
const CA_INDEXES_MAX: usize = 16;
/// Bytes per NV_Read that every TPM of the PC Client profile allows.
const NV_READ_BYTES: u16 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenated_certificates_are_split_and_padding_dropped() {
        let mut first = vec![0x30, 0x81, 0x80];
        first.resize(3 + 0x80, 1);
        let mut second = vec![0x30, 0x82, 0x01, 0x00];
        second.resize(4 + 0x100, 2);
        let mut both = [first.clone(), second.clone()].concat();
        assert_eq!(split_der(&both), [first.as_slice(), second.as_slice()]);
        both.extend_from_slice(&[0xff; 64]);
        assert_eq!(split_der(&both).len(), 2);
        let stored = [&[0x10, 1, 0, 1, 6, 0x10, 2], second.as_slice(), &[0; 9]].concat();
        assert_eq!(certificate_in(&stored).ok(), Some(second.as_slice()));
        assert_eq!(certificate_in(&both).ok(), Some(first.as_slice()));
        assert!(split_der(&[0xff; 600]).is_empty());
        assert!(split_der(&[0x30, 0x82, 0xff, 0xff, 0]).is_empty());
        assert!(split_der(&[]).is_empty());
    }

    /// As makers of firmware TPMs keep their chain: one index after the other, each as large as it may be.
    #[test]
    fn a_chain_goes_on_from_index_to_index() {
        let certificate = |byte: u8, length: u16| {
            let head = [&[0x30, 0x82], length.to_be_bytes().as_slice()].concat();
            [head, vec![byte; usize::from(length)]].concat()
        };
        let all = [certificate(1, 700), certificate(2, 900), certificate(3, 600)];
        let chain = all.concat();
        let read = |indexes: &[&[u8]]| {
            let mut chain = Chain::default();
            indexes.iter().zip(FIRST..).for_each(|(bytes, index)| chain.take(index, bytes));
            chain.finish();
            let unread: Vec<u32> = chain.unread.iter().map(|unread| unread.index).collect();
            (chain.certificates, unread)
        };
        for size in [2, 300, 512, 704, 1024, 2048, 4096] {
            let mut indexes: Vec<Vec<u8>> = chain.chunks(size).map(<[u8]>::to_vec).collect();
            let last = indexes.last_mut().unwrap();
            last.resize(last.len() + 40, 0xff);
            let indexes: Vec<&[u8]> = indexes.iter().map(Vec::as_slice).collect();
            assert_eq!(read(&indexes), (all.to_vec(), vec![]), "{size}");
        }
        // Each by itself and filled up; one that is cut short; one that was never written.
        let filled = all.each_ref().map(|one| [one.as_slice(), &[0; 100]].concat());
        assert_eq!(read(&filled.each_ref().map(Vec::as_slice)), (all.to_vec(), vec![]));
        let cut = &filled[0][..500];
        assert_eq!(read(&[cut, &filled[1], &[0xff; 80]]), (vec![all[1].clone()], vec![FIRST]));
        assert_eq!(read(&[&filled[1], cut]), (vec![all[1].clone()], vec![FIRST + 1]));
    }

    const FIRST: u32 = 0x01c0_0100;

    #[test]
    fn an_index_without_a_whole_certificate_says_why() {
        let certificate = [&[0x30, 0x82, 0x02, 0x58, 0x30, 0x82, 0x01, 0x40], [7; 596].as_slice()].concat();
        let header = [0x10, 1, 0, 2, 0x5d, 0x10, 2];
        for (bytes, words) in [
            (certificate[..300].to_vec(), "300 of the 604 bytes"),
            ([header.as_slice(), &certificate[..400]].concat(), "400 of the 604 bytes"),
            (vec![0x1f, 0x8b, 8, 0, 1], "gzip"),
            (vec![0xff; 1600], "its 1600 bytes are filling alone"),
            (vec![0; 8], "filling alone"),
            (Vec::new(), "its 0 bytes"),
            (vec![7; 400], "not an X.509 certificate"),
        ] {
            let fault = certificate_in(&bytes).unwrap_err().to_string();
            assert!(fault.contains(words), "{fault}, not {words}");
        }
    }
}
