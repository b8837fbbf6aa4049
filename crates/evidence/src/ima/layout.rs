//! Where the parts of an entry are in its list. Each entry is read once, when the list is parsed; a list is looked at
//! several times (replayed, appraised, kept), and then an entry is put together from these places.

use super::{Algorithm, Entry, FieldDigest, Template};
use crate::{HashAlgorithm, PcrIndex};

/// The places of one entry's parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pcr: PcrIndex,
    template_digest: Place,
    template: TemplateAt,
    data: Place,
    algorithm: AlgorithmAt,
    digest: Place,
    is_verity: bool,
    path: Place,
    signature: Place,
    buffer: Place,
}

/// So many bytes of a list from there on. A list has less than [`LIST_BYTES_MAX`](super::LIST_BYTES_MAX) bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: u32,
    bytes: u32,
}

#[derive(Clone, Copy, Debug)]
enum TemplateAt {
    Known(Template<'static>),
    Format(Place),
}

#[derive(Clone, Copy, Debug)]
enum AlgorithmAt {
    Known(HashAlgorithm),
    Other(Place),
}

impl Layout {
    /// The places of an entry that was read from `list`; `None` if it was not.
    pub(super) fn of(entry: &Entry<'_>, list: &[u8]) -> Option<Self> {
        let place = |part: &[u8]| Place::of(part, list);
        Some(Layout {
            pcr: entry.pcr,
            template_digest: place(entry.template_digest)?,
            template: match entry.template.known() {
                Some(known) => TemplateAt::Known(known),
                None => TemplateAt::Format(place(entry.template.name().as_bytes())?),
            },
            data: place(entry.data)?,
            algorithm: match entry.digest.algorithm {
                Algorithm::Known(known) => AlgorithmAt::Known(known),
                Algorithm::Other(name) => AlgorithmAt::Other(place(name.as_bytes())?),
            },
            digest: place(entry.digest.bytes)?,
            is_verity: entry.digest.is_verity,
            path: place(entry.path)?,
            signature: place(entry.signature)?,
            buffer: place(entry.buffer)?,
        })
    }

    /// The entry, as it was read from `list`.
    pub(super) fn entry<'a>(&self, list: &'a [u8], template_hash: HashAlgorithm) -> Option<Entry<'a>> {
        Some(Entry {
            pcr: self.pcr,
            template_digest: self.template_digest.of_list(list)?,
            template_hash,
            template: match self.template {
                TemplateAt::Known(known) => known,
                TemplateAt::Format(place) => Template::Format(place.text(list)?),
            },
            data: self.data.of_list(list)?,
            digest: FieldDigest {
                algorithm: match self.algorithm {
                    AlgorithmAt::Known(known) => Algorithm::Known(known),
                    AlgorithmAt::Other(place) => Algorithm::Other(place.text(list)?),
                },
                bytes: self.digest.of_list(list)?,
                is_verity: self.is_verity,
            },
            path: self.path.of_list(list)?,
            signature: self.signature.of_list(list)?,
            buffer: self.buffer.of_list(list)?,
        })
    }
}

impl Place {
    fn of(part: &[u8], list: &[u8]) -> Option<Self> {
        // What an entry lacks is no part of the list.
        if part.is_empty() {
            return Some(Place::default());
        }
        let start = part.as_ptr().addr().checked_sub(list.as_ptr().addr())?;
        Some(Place { start: start.try_into().ok()?, bytes: part.len().try_into().ok()? })
    }

    fn of_list(self, list: &[u8]) -> Option<&[u8]> {
        let start = usize::try_from(self.start).ok()?;
        list.get(start..)?.get(..usize::try_from(self.bytes).ok()?)
    }

    fn text(self, list: &[u8]) -> Option<&str> {
        std::str::from_utf8(self.of_list(list)?).ok()
    }
}
