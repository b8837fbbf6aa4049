//! A list of any length, entry by entry: bytes are pushed in as they come, and never more than one entry is held.
//!
//! For whoever looks at a list. What is appraised is a [`List`](super::List), which has its bounds.

use super::ascii::Line;
use super::{
    Entry, ImaError, ImaErrorKind, TEMPLATE_DATA_BYTES_MAX, TEMPLATE_NAME_BYTES_MAX, Template, ascii,
};
use crate::HashAlgorithm;
use crate::read::Reader;

/// In which form the kernel gave a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListForm {
    /// `binary_runtime_measurements`, with template digests of this algorithm.
    Binary(HashAlgorithm),
    /// `ascii_runtime_measurements`.
    Ascii,
}

impl ListForm {
    /// The form of a list that begins like this; `None` if no list does. Looks at some 400 bytes.
    pub fn of(head: &[u8]) -> Option<Self> {
        if let Some(line) = Line::start(head) {
            return Template::from_name(line.template).is_ok().then_some(ListForm::Ascii);
        }
        HashAlgorithm::ALL.into_iter().find(|hash| begins_binary(head, *hash)).map(ListForm::Binary)
    }
}

fn begins_binary(head: &[u8], hash: HashAlgorithm) -> bool {
    let mut reader = Reader::new(head);
    let mut name = || {
        let pcr = reader.u32_le().ok()?;
        reader.bytes(hash.len()).ok()?;
        let length = usize::try_from(reader.u32_le().ok()?).ok()?;
        let fits = crate::PcrIndex::new(pcr).is_some() && length <= TEMPLATE_NAME_BYTES_MAX;
        reader.bytes(length).ok().filter(|_| fits)
    };
    name().is_some_and(|name| Template::from_name(name).is_ok())
}

/// Reads entries out of bytes that are pushed in.
#[derive(Debug)]
pub struct EntryStream {
    form: ListForm,
    bytes: Vec<u8>,
    /// How much of `bytes` was read.
    read: usize,
    /// Where `bytes` begin in the whole input.
    offset: usize,
    entries: usize,
    is_over: bool,
    /// The binary form of an entry that came in ASCII.
    converted: Vec<u8>,
    template_hash: Option<HashAlgorithm>,
}

impl EntryStream {
    /// At the beginning of a list.
    pub fn new(form: ListForm) -> Self {
        EntryStream {
            form,
            bytes: Vec::new(),
            read: 0,
            offset: 0,
            entries: 0,
            is_over: false,
            converted: Vec::new(),
            template_hash: match form {
                ListForm::Binary(hash) => Some(hash),
                ListForm::Ascii => None,
            },
        }
    }

    /// Takes in what comes next. Call [`EntryStream::next_entry`] until it has nothing more, and then this again.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read.min(self.bytes.len()));
        self.offset = self.offset.saturating_add(self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Nothing comes any more: an entry that is not complete now never will be.
    pub fn finish(&mut self) {
        self.is_over = true;
    }

    /// The hash of the template digests, as far as it is known yet.
    pub fn template_hash(&self) -> Option<HashAlgorithm> {
        self.template_hash
    }

    /// The next entry; `None` where more has to be pushed, or after the last.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, ImaError> {
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let (entry, offset) = (self.entries, self.offset.saturating_add(self.read));
        let at = |kind| ImaError { entry, offset, kind };
        let (source, used) = match self.form {
            ListForm::Binary(_) => (rest, None),
            ListForm::Ascii => {
                let Some((line, text, used)) = ascii_entry(rest, self.is_over).map_err(at)? else {
                    return Ok(None);
                };
                if *self.template_hash.get_or_insert(line.template_hash) != line.template_hash {
                    return Err(at(ImaErrorKind::MixedTemplateHash));
                }
                self.converted.clear();
                line.write_binary(text, &mut self.converted).map_err(at)?;
                (self.converted.as_slice(), Some(used))
            }
        };
        let mut reader = Reader::new(source);
        let hash = self.template_hash.unwrap_or(HashAlgorithm::Sha1);
        match Entry::read(&mut reader, hash) {
            Ok(entry) => {
                self.read += used.unwrap_or(reader.offset());
                self.entries += 1;
                Ok(Some(entry))
            }
            // No entry is longer than that, so that its own lengths do not fit into each other.
            Err(ImaErrorKind::Truncated(_))
                if used.is_none() && !self.is_over && source.len() < ENTRY_BYTES_MAX =>
            {
                Ok(None)
            }
            Err(kind) => Err(at(kind)),
        }
    }
}

type AsciiEntry<'a> = (Line<'a>, &'a [u8], usize);

/// The first entry of a text; `None` where it may go on.
fn ascii_entry(text: &[u8], is_over: bool) -> Result<Option<AsciiEntry<'_>>, ImaErrorKind> {
    let may_go_on = !is_over && text.len() < ASCII_ENTRY_BYTES_MAX;
    let Some(line) = Line::start(text) else {
        let is_short = text.len() < ascii::HEAD_BYTES_MAX && !text.contains(&b'\n');
        return if may_go_on && is_short { Ok(None) } else { Err(ImaErrorKind::LineMalformed) };
    };
    let (fields, next) = ascii::split_entry(line.rest);
    // Whether the next line begins an entry shows only once its head is there.
    if may_go_on && next.len() < ascii::HEAD_BYTES_MAX {
        return Ok(None);
    }
    if !is_over && text.len() - next.len() > ASCII_ENTRY_BYTES_MAX {
        return Err(ImaErrorKind::TemplateDataTooLong(fields.len()));
    }
    Ok(Some((line, fields, text.len() - next.len())))
}

/// PCR, template digest, name and data, each with its length.
const ENTRY_BYTES_MAX: usize = 4 + 64 + 4 + TEMPLATE_NAME_BYTES_MAX + 4 + TEMPLATE_DATA_BYTES_MAX;
/// The same in hex, and text of the head.
const ASCII_ENTRY_BYTES_MAX: usize = 2 * TEMPLATE_DATA_BYTES_MAX + 2 * ascii::HEAD_BYTES_MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ima::{binary_offset, parse_ascii, parse_binary};

    /// Every entry's path and digest, pushed in pieces of `piece` bytes.
    fn read(form: ListForm, bytes: &[u8], piece: usize) -> Result<Vec<[Vec<u8>; 2]>, ImaError> {
        let mut stream = EntryStream::new(form);
        let mut found = Vec::new();
        for chunk in bytes.chunks(piece.max(1)) {
            stream.push(chunk);
            while let Some(entry) = stream.next_entry()? {
                found.push([entry.path().to_vec(), entry.template_digest().to_vec()]);
            }
        }
        stream.finish();
        while let Some(entry) = stream.next_entry()? {
            found.push([entry.path().to_vec(), entry.template_digest().to_vec()]);
        }
        Ok(found)
    }

    fn ascii_list() -> Vec<u8> {
        let digest = "ab".repeat(32);
        let mut text = String::new();
        for name in ["boot_aggregate", "/usr/bin/a", "/opt/line\nbreak", "/opt/10 aa", "/last"] {
            text.push_str(&format!("10 {} ima-ng sha256:{digest} {name}\n", "cd".repeat(20)));
        }
        text.into_bytes()
    }

    #[test]
    fn a_list_in_pieces_is_the_list() {
        let text = ascii_list();
        let whole = parse_ascii(&text).unwrap();
        let expected: Vec<_> =
            whole.iter().map(|entry| [entry.path().to_vec(), entry.template_digest().to_vec()]).collect();
        assert_eq!(ListForm::of(&text), Some(ListForm::Ascii));
        for piece in [1, 7, 100, 10_000] {
            assert_eq!(read(ListForm::Ascii, &text, piece).unwrap(), expected, "pieces of {piece}");
        }
        let binary = ListForm::Binary(HashAlgorithm::Sha1);
        assert_eq!(ListForm::of(&whole.bytes), Some(binary));
        for piece in [1, 7, 100, 10_000] {
            assert_eq!(read(binary, &whole.bytes, piece).unwrap(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_list_that_breaks_off_says_where() {
        let whole = parse_ascii(&ascii_list()).unwrap();
        let cut = whole.bytes.get(..whole.bytes.len() - 3).unwrap();
        let error = read(ListForm::Binary(HashAlgorithm::Sha1), cut, 50).unwrap_err();
        assert_eq!((error.entry, error.offset), (4, binary_offset(&whole.bytes, 4).unwrap()));
        assert!(matches!(error.kind, ImaErrorKind::Truncated(_)));
    }

    proptest! {
        #[test]
        fn any_pieces_say_what_the_whole_says(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            keep in 0usize..400,
            piece in 1usize..64,
        ) {
            let text = ascii_list();
            let mixed = [text.get(..keep.min(text.len())).unwrap_or_default(), &bytes].concat();
            prop_assert_eq!(read(ListForm::Ascii, &mixed, piece).is_ok(), parse_ascii(&mixed).is_ok());
            let binary = parse_ascii(&text).unwrap().bytes;
            let mixed = [binary.get(..keep.min(binary.len())).unwrap_or_default(), &bytes].concat();
            let form = ListForm::Binary(HashAlgorithm::Sha1);
            prop_assert_eq!(read(form, &mixed, piece).is_ok(), parse_binary(&mixed).is_ok());
            let _ = ListForm::of(&bytes);
        }
    }
}
