//! The ASCII form: `ascii_runtime_measurements`, read by writing the binary form it stands for.
//!
//! The kernel prints a path as it is but for spaces, which it has made underscores. A newline in a
//! path therefore goes on in the next line, and a path may not contain what looks like the start of an
//! entry, which has spaces. Where a path lied all the same, the template digest would not hold.

use data_encoding::HEXLOWER_PERMISSIVE;

use super::binary::read_entries;
use super::template::Field;
use super::{
    ENTRIES_MAX, ImaError, ImaErrorKind, LIST_BYTES_MAX, List, TEMPLATE_DATA_BYTES_MAX,
    TEMPLATE_NAME_BYTES_MAX, Template,
};
use crate::HashAlgorithm;

/// Parses a list, or a suffix of one, in the kernel's ASCII form.
///
/// Kernels that list template digests of another algorithm than SHA-1 are told by the digest's length.
pub fn parse_ascii(text: &[u8]) -> Result<List, ImaError> {
    let fail = |entry, offset, kind| Err(ImaError { entry, offset, kind });
    if text.len() > LIST_BYTES_MAX {
        return fail(0, 0, ImaErrorKind::ListTooLong);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut template_hash = None;
    let (mut entry, mut offset, mut rest) = (0, 0, text);
    while !rest.is_empty() {
        if entry >= ENTRIES_MAX {
            return fail(entry, offset, ImaErrorKind::TooManyEntries);
        }
        let Some(line) = Line::start(rest) else {
            return fail(entry, offset, ImaErrorKind::LineMalformed);
        };
        if *template_hash.get_or_insert(line.template_hash) != line.template_hash {
            return fail(entry, offset, ImaErrorKind::MixedTemplateHash);
        }
        let (fields, next) = split_entry(line.rest);
        if let Err(kind) = line.write_binary(fields, &mut bytes) {
            return fail(entry, offset, kind);
        }
        if bytes.len() > LIST_BYTES_MAX {
            return fail(entry, offset, ImaErrorKind::ListTooLong);
        }
        entry += 1;
        offset += rest.len() - next.len();
        rest = next;
    }
    let template_hash = template_hash.unwrap_or(HashAlgorithm::Sha1);
    // The offset of this error is in the binary form; the entry's number is the same.
    let (entries, pcrs) = read_entries(&bytes, template_hash)?;
    Ok(List { bytes: bytes.into(), entries, template_hash, pcrs })
}

/// Bytes that the first `entries` entries of a list in the ASCII form take; `None` if it has fewer.
pub fn ascii_offset(text: &[u8], entries: u64) -> Option<usize> {
    let mut rest = text;
    for _ in 0..entries {
        (_, rest) = split_entry(Line::start(rest)?.rest);
    }
    Some(text.len().saturating_sub(rest.len()))
}

/// The head of an entry: `10 <template digest> <template name> `, and what follows it.
pub(super) struct Line<'a> {
    pcr: u32,
    template_digest: &'a [u8],
    pub(super) template_hash: HashAlgorithm,
    pub(super) template: &'a [u8],
    pub(super) rest: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads the head, if the text has one at its very start.
    pub(super) fn start(text: &'a [u8]) -> Option<Self> {
        let (pcr, rest) = word(text, PCR_DIGITS_MAX)?;
        let (template_digest, rest) = word(rest, TEMPLATE_DIGEST_DIGITS_MAX)?;
        let (template, rest) = word(rest, TEMPLATE_NAME_BYTES_MAX)?;
        let pcr = std::str::from_utf8(pcr).ok().filter(|p| p.bytes().all(|b| b.is_ascii_digit()));
        if !template_digest.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let template_hash =
            HashAlgorithm::ALL.into_iter().find(|hash| hash.len() * 2 == template_digest.len())?;
        Some(Line { pcr: pcr?.parse().ok()?, template_digest, template_hash, template, rest })
    }

    /// Appends the binary entry that the kernel would have written.
    pub(super) fn write_binary(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), ImaErrorKind> {
        let template = Template::from_name(self.template)?;
        out.extend(self.pcr.to_le_bytes());
        out.extend(hex(self.template_digest)?);
        with_length(out, self.template)?;
        if template == Template::Ima {
            let (digest, name) = word(text, TEMPLATE_DATA_BYTES_MAX).ok_or(ImaErrorKind::TooFewFields)?;
            let digest = hex(digest)?;
            if digest.len() != HashAlgorithm::Sha1.len() {
                return Err(ImaErrorKind::DigestMalformed);
            }
            out.extend(digest);
            return with_length(out, name);
        }
        let mut data = Vec::new();
        for (field, text) in split_fields(&template, text)? {
            with_length(&mut data, &field_value(field, text)?)?;
        }
        if data.len() > TEMPLATE_DATA_BYTES_MAX {
            return Err(ImaErrorKind::TemplateDataTooLong(data.len()));
        }
        with_length(out, &data)
    }
}

/// The text of one entry, which ends at the last newline before the next entry's head.
pub(super) fn split_entry(text: &[u8]) -> (&[u8], &[u8]) {
    let mut from = 0;
    while let Some(newline) = text.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
        let (line, next) = text.split_at(from + newline);
        let next = next.get(1..).unwrap_or_default();
        if next.is_empty() || Line::start(next).is_some() {
            return (line, next);
        }
        from += newline + 1;
    }
    (text, &[])
}

/// Fields are parted by one space each. Those before the name are taken from the front and those
/// after it from the back, so that a space in a name, if a kernel ever left one, stays in the name.
fn split_fields<'a>(template: &Template<'_>, text: &'a [u8]) -> Result<Vec<(Field, &'a [u8])>, ImaErrorKind> {
    let fields: Vec<Field> = template.fields().iter().collect();
    let is_name = |field: &Field| matches!(field, Field::Name | Field::NameNg);
    let before = fields.iter().take_while(|field| !is_name(field)).count();
    let after = fields.len().saturating_sub(before + 1);
    let mut values = Vec::with_capacity(fields.len());
    let mut rest = text;
    for _ in 0..before {
        let (value, next) = word(rest, rest.len()).ok_or(ImaErrorKind::TooFewFields)?;
        values.push(value);
        rest = next;
    }
    let mut last = Vec::with_capacity(after);
    for _ in 0..after {
        let space = rest.iter().rposition(|byte| *byte == b' ').ok_or(ImaErrorKind::TooFewFields)?;
        let (head, value) = rest.split_at(space);
        last.push(value.get(1..).unwrap_or_default());
        rest = head;
    }
    values.push(rest);
    values.extend(last.into_iter().rev());
    Ok(fields.into_iter().zip(values).collect())
}

/// The bytes that the kernel hashed for what it printed.
fn field_value(field: Field, text: &[u8]) -> Result<Vec<u8>, ImaErrorKind> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    match field {
        Field::DigestNg | Field::DigestNgV2 | Field::DigestModsig => {
            let colon = text.iter().rposition(|byte| *byte == b':').ok_or(ImaErrorKind::DigestMalformed)?;
            let (label, digest) = text.split_at(colon + 1);
            Ok([label, &[0], &hex(digest)?].concat())
        }
        Field::Name | Field::NameNg | Field::XattrNames => Ok([text, &[0]].concat()),
        Field::Owner => Ok(decimal::<u32>(text)?.to_le_bytes().to_vec()),
        Field::Mode => Ok(decimal::<u16>(text)?.to_le_bytes().to_vec()),
        Field::Digest | Field::Signature | Field::Modsig | Field::Buffer => hex(text),
        Field::EvmSignature | Field::Xattrs => hex(text),
    }
}

/// What stands before the next space, and what stands after it.
fn word(text: &[u8], bytes_max: usize) -> Option<(&[u8], &[u8])> {
    let space = text.iter().take(bytes_max.saturating_add(1)).position(|byte| *byte == b' ')?;
    let (word, rest) = text.split_at_checked(space)?;
    Some((word, rest.get(1..)?))
}

fn hex(text: &[u8]) -> Result<Vec<u8>, ImaErrorKind> {
    HEXLOWER_PERMISSIVE.decode(text).map_err(|_| ImaErrorKind::FieldMalformed)
}

fn decimal<N: std::str::FromStr>(text: &[u8]) -> Result<N, ImaErrorKind> {
    let text = std::str::from_utf8(text).map_err(|_| ImaErrorKind::FieldMalformed)?;
    text.parse().map_err(|_| ImaErrorKind::FieldMalformed)
}

fn with_length(out: &mut Vec<u8>, value: &[u8]) -> Result<(), ImaErrorKind> {
    let length = u32::try_from(value.len()).map_err(|_| ImaErrorKind::ListTooLong)?;
    out.extend(length.to_le_bytes());
    out.extend(value);
    Ok(())
}

/// Digits of a PCR index; two are all there can be.
const PCR_DIGITS_MAX: usize = 2;
/// Digits of a SHA-512 template digest.
const TEMPLATE_DIGEST_DIGITS_MAX: usize = 128;
/// Bytes of an entry's head at most: PCR, template digest, template name, and a space after each.
pub(super) const HEAD_BYTES_MAX: usize =
    PCR_DIGITS_MAX + TEMPLATE_DIGEST_DIGITS_MAX + TEMPLATE_NAME_BYTES_MAX + 3;
