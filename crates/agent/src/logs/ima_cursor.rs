//! Finding an entry in a binary IMA list without reading what is in it.

use assay_evidence::read::{Reader, Truncated};

/// Where entry `index` starts; the end of the list's whole entries if `index` is their number, `None` past that.
pub fn entry_offset(list: &[u8], index: u64) -> Option<usize> {
    let mut reader = Reader::new(list);
    // Every entry takes bytes, so the list's length bounds this loop.
    for _ in 0..index {
        skip_entry(&mut reader).ok()?;
    }
    Some(reader.offset())
}

/// Passes over the first entries of a list that comes in pieces, and holds no more of it than one piece and one entry.
pub(super) struct EntrySkipper {
    left: u64,
    is_text: bool,
    /// The beginning of an entry whose end has not come yet.
    begun: Vec<u8>,
}

impl EntrySkipper {
    /// Past so many entries of the binary form.
    pub(super) fn binary(left: u64) -> Self {
        EntrySkipper { left, is_text: false, begun: Vec::new() }
    }

    /// Past so many lines.
    pub(super) fn lines(left: u64) -> Self {
        EntrySkipper { left, is_text: true, begun: Vec::new() }
    }

    /// Whether all that comes now is wanted.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// What of the next piece is wanted.
    pub(super) fn past<'a>(&'a mut self, piece: &[u8]) -> &'a [u8] {
        self.begun.extend_from_slice(piece);
        let mut used = 0;
        while self.left > 0 {
            let rest = self.begun.get(used..).unwrap_or_default();
            let Some(bytes) = self.entry_bytes(rest) else { break };
            used += bytes;
            self.left -= 1;
        }
        self.begun.drain(..used.min(self.begun.len()));
        // The last piece that is asked for: what is held then is wanted.
        if self.left == 0 { &self.begun } else { &[] }
    }

    fn entry_bytes(&self, list: &[u8]) -> Option<usize> {
        match self.is_text {
            true => list.iter().position(|byte| *byte == b'\n').map(|end| end + 1),
            false => entry_offset(list, 1),
        }
    }
}

/// Linux ima_fs.c, ima_measurements_show: PCR, template digest, template name, then the template data with its
/// length, which the old `ima` template leaves out.
fn skip_entry(reader: &mut Reader<'_>) -> Result<(), Truncated> {
    reader.u32_le()?;
    reader.bytes(TEMPLATE_DIGEST_BYTES)?;
    let name = prefixed(reader)?;
    if name == LEGACY_TEMPLATE {
        reader.bytes(LEGACY_FILE_DIGEST_BYTES)?;
    }
    prefixed(reader)?;
    Ok(())
}

fn prefixed<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Truncated> {
    let length = reader.u32_le()?;
    reader.bytes(usize::try_from(length).unwrap_or(usize::MAX))
}

/// SHA-1, whatever the template.
const TEMPLATE_DIGEST_BYTES: usize = 20;
const LEGACY_TEMPLATE: &[u8] = b"ima";
/// The old template has a bare digest before the path.
const LEGACY_FILE_DIGEST_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, body: &[u8]) -> Vec<u8> {
        let mut entry = 10u32.to_le_bytes().to_vec();
        entry.extend_from_slice(&[1; 20]);
        entry.extend_from_slice(&(name.len() as u32).to_le_bytes());
        entry.extend_from_slice(name.as_bytes());
        if name == "ima" {
            entry.extend_from_slice(&[2; 20]);
        }
        entry.extend_from_slice(&(body.len() as u32).to_le_bytes());
        entry.extend_from_slice(body);
        entry
    }

    #[test]
    fn entries_of_every_template_are_stepped_over() {
        let (first, second) = (entry("ima-sig", &[7; 90]), entry("ima", b"/usr/bin/true"));
        let list = [first.clone(), second.clone()].concat();
        assert_eq!(entry_offset(&list, 0), Some(0));
        assert_eq!(entry_offset(&list, 1), Some(first.len()));
        assert_eq!(entry_offset(&list, 2), Some(list.len()));
        assert_eq!(entry_offset(&list, 3), None);
    }

    #[test]
    fn a_list_in_pieces_is_passed_over_as_the_whole_is() {
        let entries: Vec<Vec<u8>> = (0..20).map(|size| entry("ima-ng", &vec![7; 10 * size])).collect();
        let list = entries.concat();
        for (first, piece) in [(0, 5), (1, 1), (7, 64), (19, 300), (20, 10_000), (25, 17)] {
            let mut skipper = EntrySkipper::binary(first);
            let mut rest = Vec::new();
            for piece in list.chunks(piece) {
                match skipper.is_done() {
                    true => rest.extend_from_slice(piece),
                    false => rest.extend_from_slice(skipper.past(piece)),
                }
            }
            let expected = entry_offset(&list, first).unwrap_or(list.len());
            assert_eq!(rest, list.get(expected..).unwrap(), "from {first} by {piece}");
        }
        let mut lines = EntrySkipper::lines(2);
        assert_eq!(lines.past(b"10 a\n10"), b"");
        assert_eq!(lines.past(b" b\n10 c\n"), b"10 c\n");
    }

    #[test]
    fn no_list_makes_it_panic_or_run_on() {
        let list = [entry("ima-ng", &[7; 40]), vec![10, 0, 0, 0], vec![0xff; 60]].concat();
        for length in 0..=list.len() {
            entry_offset(list.get(..length).unwrap(), u64::MAX);
        }
        assert_eq!(entry_offset(&list, 2), None);
    }
}
