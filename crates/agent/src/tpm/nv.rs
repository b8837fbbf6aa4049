//! The TPM's non-volatile indexes, as far as endorsement goes: EK certificates and the CA certificates beside them.
//!
//! Handles: TCG EK Credential Profile 2.5, §2.2.1.4 and §2.2.1.5.2.

use assay_evidence::read::Reader;
use assay_evidence::tpm::NvCertificate;
use tpm2_protocol::basic::{TpmHandle, TpmUint16};
use tpm2_protocol::data::{TpmRcBase, TpmRh, TpmaNv};
use tpm2_protocol::frame::{TpmNvReadCommand, TpmNvReadPublicCommand};

use super::command::empty_password;
use super::ek::EkKind;
use super::{Property, Tpm, TpmError};

/// The certificates that came with the TPM.
#[derive(Clone, Debug, Default)]
pub struct EkCertificates {
    /// EK certificates by the kind of their key, DER.
    pub leaves: Vec<(EkKind, Vec<u8>)>,
    /// CA certificates kept in the TPM, DER.
    pub intermediates: Vec<Vec<u8>>,
}

impl Tpm {
    /// Reads every certificate that is there.
    pub fn ek_certificates(&self) -> Result<EkCertificates, TpmError> {
        let mut found = EkCertificates::default();
        let indexes = self.handles(NV_FIRST)?;
        for kind in EkKind::ALL {
            if !indexes.contains(&kind.certificate_index()) {
                continue;
            }
            let bytes = self.nv_read(kind.certificate_index())?;
            found.leaves.extend(certificate_in(&bytes).map(|leaf| (kind, leaf.to_vec())));
        }
        for index in indexes.into_iter().filter(|index| CA_INDEXES.contains(index)).take(CA_INDEXES_MAX) {
            let bytes = self.nv_read(index)?;
            found.intermediates.extend(split_der(&bytes).into_iter().map(<[u8]>::to_vec));
        }
        Ok(found)
    }

    /// The certificate at an index, DER; `None` where there is no such index or no certificate in it.
    pub(crate) fn nv_certificate(&self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        if !self.handles(NV_FIRST)?.contains(&index) {
            return Ok(None);
        }
        Ok(certificate_in(&self.nv_read(index)?).map(<[u8]>::to_vec))
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
fn certificate_in(bytes: &[u8]) -> Option<&[u8]> {
    let found = NvCertificate::find(bytes).map(|nv| nv.certificate);
    found.or_else(|| split_der(bytes).into_iter().next())
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
        assert_eq!(certificate_in(&stored), Some(second.as_slice()));
        assert_eq!(certificate_in(&both), Some(first.as_slice()));
        assert!(split_der(&[0xff; 600]).is_empty());
        assert!(split_der(&[0x30, 0x82, 0xff, 0xff, 0]).is_empty());
        assert!(split_der(&[]).is_empty());
    }
}
