//! The binary form: `binary_runtime_measurements`, little endian.

use bytes::Bytes;

use super::layout::Layout;
use super::template::Field;
use super::{
    Algorithm, ENTRIES_MAX, Entry, FieldDigest, ImaError, ImaErrorKind, LIST_BYTES_MAX, List, PATH_BYTES_MAX,
    SHORT_NAME_BYTES_MAX, TEMPLATE_DATA_BYTES_MAX, TEMPLATE_NAME_BYTES_MAX, Template,
};
use crate::read::Reader;
use crate::tpm::pcr::PcrSet;
use crate::{HashAlgorithm, PcrIndex};

/// Parses a list, or a suffix of one, in the kernel's binary form with its SHA-1 template digests.
pub fn parse_binary(bytes: &[u8]) -> Result<List, ImaError> {
    // One byte too many is as good as all of them.
    parse_shared(Bytes::copy_from_slice(bytes.get(..=LIST_BYTES_MAX).unwrap_or(bytes)))
}

/// The same of bytes that are shared, which takes no copy of them.
pub fn parse_shared(bytes: Bytes) -> Result<List, ImaError> {
    if bytes.len() > LIST_BYTES_MAX {
        return Err(ImaError { entry: 0, offset: 0, kind: ImaErrorKind::ListTooLong });
    }
    let (entries, pcrs) = read_entries(&bytes, HashAlgorithm::Sha1)?;
    Ok(List { bytes, entries, template_hash: HashAlgorithm::Sha1, pcrs })
}

/// Reads every entry, once and for all, and says into which PCRs they were measured.
pub(super) fn read_entries(
    bytes: &[u8],
    template_hash: HashAlgorithm,
) -> Result<(Vec<Layout>, PcrSet), ImaError> {
    let mut entries = Vec::with_capacity((bytes.len() / ENTRY_BYTES_COMMON).min(ENTRIES_MAX));
    let mut pcrs = PcrSet::default();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let offset = reader.offset();
        let at = |kind| ImaError { entry: entries.len(), offset, kind };
        if entries.len() >= ENTRIES_MAX {
            return Err(at(ImaErrorKind::TooManyEntries));
        }
        let entry = Entry::read(&mut reader, template_hash).map_err(at)?;
        let layout = Layout::of(&entry, bytes).ok_or(ImaErrorKind::ListTooLong).map_err(at)?;
        pcrs.insert(entry.pcr);
        entries.push(layout);
    }
    Ok((entries, pcrs))
}

/// Bytes that the first `entries` entries of a list in the binary form take; `None` if it has fewer.
pub fn binary_offset(bytes: &[u8], entries: u64) -> Option<usize> {
    let mut reader = Reader::new(bytes);
    for _ in 0..entries {
        Entry::read(&mut reader, HashAlgorithm::Sha1).ok()?;
    }
    Some(reader.offset())
}

impl<'a> Entry<'a> {
    /// Reads one entry: PCR, template digest, template name, template data.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        template_hash: HashAlgorithm,
    ) -> Result<Entry<'a>, ImaErrorKind> {
        let pcr = reader.u32_le()?;
        let pcr = PcrIndex::new(pcr).ok_or(ImaErrorKind::NoSuchPcr(pcr))?;
        let template_digest = reader.bytes(template_hash.len())?;
        let name = bounded(reader, TEMPLATE_NAME_BYTES_MAX, ImaErrorKind::TemplateNameTooLong)?;
        let template = Template::from_name(name)?;
        let mut entry = Entry {
            pcr,
            template_digest,
            template_hash,
            template,
            data: &[],
            digest: FieldDigest::default(),
            path: &[],
            signature: &[],
            buffer: &[],
        };
        if template == Template::Ima {
            // This template's data has no length of its own, nor has its digest.
            let before = reader.rest();
            entry.digest = FieldDigest {
                algorithm: Algorithm::Known(HashAlgorithm::Sha1),
                bytes: reader.bytes(HashAlgorithm::Sha1.len())?,
                is_verity: false,
            };
            let long = |_| ImaErrorKind::NameMalformed;
            entry.path = name_without_nul(bounded(reader, SHORT_NAME_BYTES_MAX, long)?)?;
            let used = before.len().saturating_sub(reader.rest().len());
            entry.data = before.get(..used).unwrap_or_default();
            return Ok(entry);
        }
        entry.data = bounded(reader, TEMPLATE_DATA_BYTES_MAX, ImaErrorKind::TemplateDataTooLong)?;
        let mut fields = Reader::new(entry.data);
        for field in template.fields().iter() {
            let value = bounded(&mut fields, TEMPLATE_DATA_BYTES_MAX, ImaErrorKind::TemplateDataTooLong)?;
            entry.set(field, value)?;
        }
        match fields.rest().len() {
            0 => Ok(entry),
            more => Err(ImaErrorKind::TrailingData(more)),
        }
    }

    fn set(&mut self, field: Field, value: &'a [u8]) -> Result<(), ImaErrorKind> {
        match field {
            Field::Digest => {
                let algorithm = Algorithm::Known(HashAlgorithm::Sha1);
                self.digest = FieldDigest { algorithm, bytes: value, is_verity: false };
            }
            Field::DigestNg | Field::DigestNgV2 => {
                self.digest = FieldDigest::parse(value, field == Field::DigestNgV2)?;
            }
            Field::Name | Field::NameNg => {
                let name = value.strip_suffix(&[0]).ok_or(ImaErrorKind::NameMalformed)?;
                self.path = name_without_nul(name)?;
            }
            Field::Signature => self.signature = value,
            Field::Buffer => self.buffer = value,
            Field::DigestModsig
            | Field::Modsig
            | Field::EvmSignature
            | Field::XattrNames
            | Field::Xattrs
            | Field::Owner
            | Field::Mode => {}
        }
        Ok(())
    }
}

impl<'a> FieldDigest<'a> {
    /// `algorithm:` NUL digest, with a type before it (`ima:` or `verity:`) in the second version.
    fn parse(value: &'a [u8], is_typed: bool) -> Result<Self, ImaErrorKind> {
        let malformed = ImaErrorKind::DigestMalformed;
        let end = value.iter().position(|byte| *byte == 0).ok_or(malformed.clone())?;
        let (label, bytes) = value.split_at_checked(end).ok_or(malformed.clone())?;
        let label = std::str::from_utf8(label).ok().and_then(|label| label.strip_suffix(':'));
        let label = label.ok_or(malformed.clone())?;
        let (kind, algorithm) = match (is_typed, label.split_once(':')) {
            (true, Some(pair)) => pair,
            (false, None) => ("ima", label),
            _ => return Err(malformed),
        };
        let is_verity = match kind {
            "ima" => false,
            "verity" => true,
            _ => return Err(malformed),
        };
        let algorithm = Algorithm::from_name(algorithm);
        Ok(FieldDigest { algorithm, bytes: bytes.get(1..).unwrap_or_default(), is_verity })
    }
}

/// A length and that many bytes, the length compared with its bound before anything is read.
fn bounded<'a>(
    reader: &mut Reader<'a>,
    bytes_max: usize,
    too_long: impl Fn(usize) -> ImaErrorKind,
) -> Result<&'a [u8], ImaErrorKind> {
    let count = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
    if count > bytes_max {
        return Err(too_long(count));
    }
    Ok(reader.bytes(count)?)
}

/// A NUL inside would let two readers see two different names.
fn name_without_nul(name: &[u8]) -> Result<&[u8], ImaErrorKind> {
    if name.is_empty() || name.len() > PATH_BYTES_MAX || name.contains(&0) {
        return Err(ImaErrorKind::NameMalformed);
    }
    Ok(name)
}

/// What to expect of an entry when reserving memory for a list: a digest and a short path.
const ENTRY_BYTES_COMMON: usize = 100;
