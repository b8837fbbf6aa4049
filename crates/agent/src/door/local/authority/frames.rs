//! The frames of an HTTP/2 client, passed on as they come, but for header blocks, which go through [`header_block`].
//!
//! RFC 9113: §4.1 frames, §6.2 HEADERS, §6.10 CONTINUATION. Only what has to be known to find the blocks is looked at;
//! whatever else is wrong with a frame, the HTTP/2 library says.

use thiserror::Error;

use super::header_block::{Malformed, Names};

/// What a client sends, from its preface on.
#[derive(Debug)]
pub struct Frames {
    state: State,
    /// The header block that has begun and not ended.
    block: Option<Block>,
    names: Names,
}

#[derive(Debug)]
enum State {
    /// What came so far is the beginning of the preface.
    Preface(usize),
    /// It is another protocol, and no concern of this one.
    Other,
    /// So many bytes go on as they are.
    Through(usize),
    /// The header of the next frame, as far as it is there.
    Header(Vec<u8>),
    /// The payload of a frame that belongs to a header block.
    Payload { header: Header, bytes: Vec<u8> },
}

/// A frame's header (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug)]
struct Header {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

/// A header block of one or more frames.
#[derive(Debug)]
struct Block {
    first: Header,
    /// The deprecated priority, as it came.
    priority: Vec<u8>,
    fragments: Vec<u8>,
    /// What its frames took, with their headers, so that empty ones are not free.
    took: usize,
}

/// A connection that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramesError {
    /// Headers are small here.
    #[error("a header block of more than {BLOCK_BYTES_MAX} bytes")]
    TooLong,
    /// RFC 9113 §4.3: nothing may come between the frames of a block.
    #[error("a frame between those of a header block")]
    Interleaved,
    /// RFC 9113 §6.2.
    #[error("a HEADERS frame shorter than its padding or priority")]
    Short,
    /// RFC 7541.
    #[error("a header block cannot be read")]
    Block(#[from] Malformed),
}

impl Default for Frames {
    fn default() -> Self {
        Frames { state: State::Preface(0), block: None, names: Names::default() }
    }
}

impl Frames {
    /// Takes what came and appends what is to be read instead.
    pub fn pass(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> Result<(), FramesError> {
        while !input.is_empty() {
            let wanted = match &self.state {
                State::Preface(there) => PREFACE.len() - there,
                State::Other => input.len(),
                State::Through(left) => *left,
                State::Header(bytes) => HEADER_BYTES - bytes.len(),
                State::Payload { header, bytes } => header.length - bytes.len(),
            };
            let (taken, rest) = input.split_at(wanted.min(input.len()));
            input = rest;
            match &mut self.state {
                State::Preface(there) => {
                    output.extend_from_slice(taken);
                    let is_it = PREFACE.get(*there..).is_some_and(|rest| rest.starts_with(taken));
                    self.state = if is_it { State::Preface(*there + taken.len()) } else { State::Other };
                }
                State::Other => output.extend_from_slice(taken),
                State::Through(left) => {
                    output.extend_from_slice(taken);
                    *left -= taken.len();
                }
                State::Header(bytes) | State::Payload { bytes, .. } => bytes.extend_from_slice(taken),
            }
            if taken.len() == wanted {
                self.advance(output)?;
            }
        }
        Ok(())
    }

    /// What was waited for is there.
    fn advance(&mut self, output: &mut Vec<u8>) -> Result<(), FramesError> {
        match std::mem::replace(&mut self.state, State::Header(Vec::with_capacity(HEADER_BYTES))) {
            State::Other => {
                self.state = State::Other;
                Ok(())
            }
            State::Preface(_) | State::Through(_) => Ok(()),
            State::Header(bytes) => self.begin(Header::parse(&bytes), &bytes, output),
            State::Payload { header, bytes } => self.end(header, &bytes, output),
        }
    }

    fn begin(&mut self, header: Header, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), FramesError> {
        let took = match &self.block {
            None if header.kind == HEADERS => 0,
            None => {
                output.extend_from_slice(bytes);
                if header.length > 0 {
                    self.state = State::Through(header.length);
                }
                return Ok(());
            }
            Some(block) if header.kind == CONTINUATION && header.stream == block.first.stream => block.took,
            Some(_) => return Err(FramesError::Interleaved),
        };
        if took + HEADER_BYTES + header.length > BLOCK_BYTES_MAX {
            return Err(FramesError::TooLong);
        }
        if header.length == 0 {
            return self.end(header, &[], output);
        }
        self.state = State::Payload { header, bytes: Vec::with_capacity(header.length) };
        Ok(())
    }

    /// A frame of a header block is there whole.
    fn end(&mut self, header: Header, payload: &[u8], output: &mut Vec<u8>) -> Result<(), FramesError> {
        let mut block = match self.block.take() {
            None => Block::begin(header, payload)?,
            Some(mut block) => {
                block.fragments.extend_from_slice(payload);
                block
            }
        };
        block.took += HEADER_BYTES + header.length;
        if header.flags & END_HEADERS == 0 {
            self.block = Some(block);
            return Ok(());
        }
        block.write(&mut self.names, output)
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Self {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        Header {
            length: usize::from(byte(0)) << 16 | usize::from(byte(1)) << 8 | usize::from(byte(2)),
            kind: byte(3),
            flags: byte(4),
            // The first bit is reserved, and ignored on receipt.
            stream: [byte(5) & 0x7f, byte(6), byte(7), byte(8)],
        }
    }
}

impl Block {
    /// Takes a HEADERS frame apart: padding is dropped, what is left of it is kept.
    fn begin(first: Header, mut payload: &[u8]) -> Result<Self, FramesError> {
        if first.flags & PADDED != 0 {
            let (&padding, rest) = payload.split_first().ok_or(FramesError::Short)?;
            let end = rest.len().checked_sub(usize::from(padding)).ok_or(FramesError::Short)?;
            payload = rest.get(..end).unwrap_or_default();
        }
        let priority = if first.flags & PRIORITY == 0 { 0 } else { PRIORITY_BYTES };
        let (priority, fragment) = payload.split_at_checked(priority).ok_or(FramesError::Short)?;
        Ok(Block { first, priority: priority.to_vec(), fragments: fragment.to_vec(), took: 0 })
    }

    /// The block as one frame, which it fits as it never grows.
    fn write(self, names: &mut Names, output: &mut Vec<u8>) -> Result<(), FramesError> {
        let start = output.len();
        let flags = self.first.flags & (END_STREAM | PRIORITY) | END_HEADERS;
        output.extend_from_slice(&[0, 0, 0, HEADERS, flags]);
        output.extend_from_slice(&self.first.stream);
        output.extend_from_slice(&self.priority);
        names.readdress(&self.fragments, output)?;
        let [.., high, middle, low] = (output.len() - start - HEADER_BYTES).to_be_bytes();
        if let Some(length) = output.get_mut(start..start + 3) {
            length.copy_from_slice(&[high, middle, low]);
        }
        Ok(())
    }
}

/// RFC 9113, 3.4: what a client of HTTP/2 begins with, and of no other.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
const PRIORITY_BYTES: usize = 5;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// A frame's length as everybody takes it (RFC 9113 §6.5.2), and twice what a header list may have here.
const BLOCK_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let [.., high, middle, low] = payload.len().to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    fn passed(frames: &[Vec<u8>]) -> Result<Vec<u8>, FramesError> {
        let mut output = Vec::new();
        let all = [PREFACE.to_vec(), frames.concat()].concat();
        Frames::default().pass(&all, &mut output)?;
        Ok(output.split_off(PREFACE.len()))
    }

    /// An authority behind a path.
    fn block() -> Vec<u8> {
        [&[0x84, 0x41, 13], &b"tmp%2Fa%2Eb.c"[..]].concat()
    }

    #[test]
    fn a_block_is_found_in_whatever_frames_it_comes() {
        let ours = [0x84, 0x41, 1, b'a'];
        let settings = frame(4, 0, 0, &[0; 6]);
        let data = frame(0, 1, 1, &[1, 2, 3]);
        let whole = [settings.clone(), frame(HEADERS, 5, 1, &block()), data.clone()];
        let expected = [settings, frame(HEADERS, 5, 1, &ours), data].concat();
        assert_eq!(passed(&whole), Ok(expected));

        // Padded, with a priority, cut within the value, and with nothing in between.
        let block = block();
        let (begin, end) = block.split_at(5);
        let first = [&[2], &[9; 5][..], begin, &[0; 2]].concat();
        let cut = [
            frame(HEADERS, PADDED | PRIORITY | END_STREAM, 3, &first),
            frame(CONTINUATION, 0, 3, &[]),
            frame(CONTINUATION, END_HEADERS, 3, end),
        ];
        let expected = frame(HEADERS, PRIORITY | END_STREAM | END_HEADERS, 3, &[&[9; 5], &ours[..]].concat());
        assert_eq!(passed(&cut), Ok(expected));
    }

    #[test]
    fn what_is_not_http_2_goes_on_as_it_is() {
        let long = [b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".to_vec(), frame(HEADERS, 0, 1, &[0xff; 60])].concat();
        for other in [&b"POST /sign-message HTTP/1.1\r\nhost: agent\r\n\r\n{}"[..], b"P", b"", &long] {
            for cut in [1, 3, 100] {
                let (mut frames, mut output) = (Frames::default(), Vec::new());
                for piece in other.chunks(cut) {
                    frames.pass(piece, &mut output).unwrap();
                }
                assert_eq!(output, other);
            }
        }
    }

    #[test]
    fn what_no_client_sends_ends_the_connection() {
        let begun = frame(HEADERS, 0, 1, &block());
        for between in [frame(0, 0, 1, &[1]), frame(CONTINUATION, 4, 3, &[]), frame(HEADERS, 4, 1, &block())]
        {
            assert_eq!(passed(&[begun.clone(), between]), Err(FramesError::Interleaved));
        }
        for short in [
            frame(HEADERS, PADDED, 1, &[]),
            frame(HEADERS, PADDED, 1, &[2, 0]),
            frame(HEADERS, 0x24, 1, &[0; 4]),
        ] {
            assert_eq!(passed(&[short]), Err(FramesError::Short));
        }
        assert_eq!(passed(&[frame(HEADERS, 4, 1, &[0x41])]), Err(FramesError::Block(Malformed)));
        // Neither long blocks nor endless ones are kept.
        assert_eq!(passed(&[frame(HEADERS, 4, 1, &vec![0x84; BLOCK_BYTES_MAX])]), Err(FramesError::TooLong));
        let mut endless = vec![begun];
        endless.resize(2000, frame(CONTINUATION, 0, 1, &[]));
        assert_eq!(passed(&endless), Err(FramesError::TooLong));
    }

    proptest! {
        #[test]
        fn nothing_depends_on_where_the_bytes_are_cut(
            sent in proptest::collection::vec(frames(), 0..6),
            cut in 1_usize..40,
        ) {
            let all = [PREFACE.to_vec(), sent.concat()].concat();
            let mut whole = Vec::new();
            let expected = Frames::default().pass(&all, &mut whole);
            let (mut pieces, mut output) = (Frames::default(), Vec::new());
            let found = all.chunks(cut).try_for_each(|piece| pieces.pass(piece, &mut output));
            prop_assert_eq!(expected, found);
            prop_assert_eq!(&whole, &output);
            prop_assert!(output.len() <= all.len());
        }
    }

    /// Frames of every kind, likely ones and others.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![proptest::collection::vec(any::<u8>(), 0..60), Just(block())];
        (prop_oneof![Just(HEADERS), Just(CONTINUATION), 0_u8..12], any::<u8>(), 0_u8..3, payload)
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
    }
}
