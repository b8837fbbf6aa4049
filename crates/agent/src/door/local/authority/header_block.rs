//! HPACK (RFC 7541), read just far enough to find the values of `:authority`.
//!
//! Nothing is decompressed. A value is replaced by one that no value is shorter than; so the table that the reader builds
//! from what we pass on never has less room than the one that the client has in mind, and every index means the same in
//! both. An entry that the client dropped may still be there for the reader, and is never asked for.

use std::collections::VecDeque;

use thiserror::Error;

/// What has to be known of the header blocks before: which of the entries that they put into the dynamic table are
/// named `:authority`, the newest first.
#[derive(Debug, Default)]
pub struct Names(VecDeque<bool>);

/// A header block that ends where something should follow, or counts too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("HPACK: an integer or a string that does not end")]
pub struct Malformed;

impl Names {
    /// Appends a header block with our value behind every `:authority`; it is never longer than it was.
    pub fn readdress(&mut self, block: &[u8], output: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut reader = Reader { left: block };
        while let Some(&first) = reader.left.first() {
            let field = reader.left;
            let (prefix, is_kept) = match first {
                0x80.. => (7, None),
                0x40.. => (6, Some(true)),
                0x20.. => (5, None),
                _ => (4, Some(false)),
            };
            let index = reader.integer(prefix)?;
            // An index alone, or another size of the table: no value that could be replaced.
            let Some(is_kept) = is_kept else {
                output.extend_from_slice(reader.since(field));
                continue;
            };
            let is_authority = match index {
                0 => [AUTHORITY, AUTHORITY_HUFFMAN].contains(&reader.string()?),
                _ => self.is_authority(index),
            };
            output.extend_from_slice(reader.since(field));
            let value = reader.string()?;
            let is_empty = value.len() <= 1;
            output.extend_from_slice(if is_authority && !is_empty { OURS } else { value });
            if is_kept {
                self.0.truncate(ENTRIES_MAX - 1);
                self.0.push_front(is_authority);
            }
        }
        Ok(())
    }

    fn is_authority(&self, index: usize) -> bool {
        let dynamic = index.checked_sub(STATIC_ENTRIES + 1);
        index == AUTHORITY_INDEX || dynamic.and_then(|at| self.0.get(at)).copied().unwrap_or_default()
    }
}

/// Reads a block from its start; `left` is what has not been read.
struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// An integer behind a prefix of so many bits (RFC 7541 §5.1); 28 bits more are enough for any.
    fn integer(&mut self, prefix: u32) -> Result<usize, Malformed> {
        let full = (1 << prefix) - 1;
        let mut value = usize::from(self.byte()?) & full;
        if value < full {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A string with its length in front (RFC 7541 §5.2), as it stands there.
    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.left;
        let length = self.integer(7)?;
        self.left = self.left.get(length..).ok_or(Malformed)?;
        Ok(self.since(start))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.left.split_first().ok_or(Malformed)?;
        self.left = rest;
        Ok(byte)
    }

    /// What was read since `start` was left.
    fn since(&self, start: &'a [u8]) -> &'a [u8] {
        start.get(..start.len() - self.left.len()).unwrap_or_default()
    }
}

/// Of the static table (RFC 7541 appendix A).
const STATIC_ENTRIES: usize = 61;
const AUTHORITY_INDEX: usize = 1;
/// An entry counts 32 bytes and more (RFC 7541 §4.1) of the 4,096 that the table has, as nobody here says otherwise.
const ENTRIES_MAX: usize = 4096 / 32;
/// The name as a string, plain and with the Huffman code of RFC 7541 appendix B.
const AUTHORITY: &[u8] = b"\x0a:authority";
const AUTHORITY_HUFFMAN: &[u8] = b"\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f";
/// The shortest authority there is, as a string.
const OURS: &[u8] = b"\x01a";

#[cfg(test)]
mod tests {
    use super::*;

    /// A string as HPACK has it.
    fn string(text: &str) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    fn readdressed(names: &mut Names, block: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut output = Vec::new();
        names.readdress(block, &mut output)?;
        assert!(output.len() <= block.len());
        Ok(output)
    }

    #[test]
    fn every_way_to_name_the_authority_is_found_and_nothing_else_changes() {
        let socket = string("run%2Fassay%2Fworkload.sock");
        for name in [
            vec![0x41],
            vec![0x01],
            vec![0x11],
            [vec![0x40], string(":authority")].concat(),
            [&[0x00], AUTHORITY_HUFFMAN].concat(),
        ] {
            let around = [vec![0x83, 0x86, 0x04], string("/a")].concat();
            let block = [around.clone(), name.clone(), socket.clone(), around.clone()].concat();
            let expected = [around.clone(), name, OURS.to_vec(), around].concat();
            assert_eq!(readdressed(&mut Names::default(), &block), Ok(expected));
        }
        let others =
            [vec![0x44], string("/b"), vec![0x00], string("x-authority"), string("c"), vec![0x3f, 0x01]];
        assert_eq!(readdressed(&mut Names::default(), &others.concat()), Ok(others.concat()));
        // An empty one is as short as any.
        assert_eq!(readdressed(&mut Names::default(), &[0x41, 0x00]), Ok(vec![0x41, 0x00]));
    }

    #[test]
    fn entries_are_told_apart_by_their_place_in_the_dynamic_table() {
        let mut names = Names::default();
        let value = string("value");
        let kept = |name: &str| [vec![0x40], string(name), value.clone()].concat();
        let first = [kept(":authority"), kept("x"), kept("y")].concat();
        readdressed(&mut names, &first).unwrap();
        // Now x is 63 and :authority 64; a literal may take its name from either.
        let by_name = |index: u8| [vec![0x0f, index - 15], value.clone()].concat();
        assert_eq!(readdressed(&mut names, &by_name(63)), Ok(by_name(63)));
        assert_eq!(readdressed(&mut names, &by_name(64)), Ok([vec![0x0f, 64 - 15], OURS.to_vec()].concat()));
        // A whole field by its index needs nothing: the reader has ours there.
        assert_eq!(readdressed(&mut names, &[0xc0]), Ok(vec![0xc0]));
        readdressed(&mut names, &kept("z")).unwrap();
        assert_eq!(readdressed(&mut names, &by_name(64)), Ok(by_name(64)));
        assert_eq!(readdressed(&mut names, &by_name(140)), Ok(by_name(140)));
    }

    #[test]
    fn what_does_not_end_is_refused() {
        let whole = [vec![0x40], string(":authority"), string("a value of some length")].concat();
        for end in 1..whole.len() {
            assert_eq!(readdressed(&mut Names::default(), &whole[..end]), Err(Malformed), "{end}");
        }
        for endless in [&[0x7f_u8, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0x41, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert_eq!(readdressed(&mut Names::default(), endless), Err(Malformed));
        }
        let mut names = Names::default();
        for _ in 0..1000 {
            readdressed(&mut names, &[0x41, 0x00]).unwrap();
        }
        assert_eq!(names.0.len(), ENTRIES_MAX);
    }
}
