//! LZ4's legacy frames, as `lz4 -l` writes them and the kernel unpacks them: a magic number, then blocks with their sizes.

use std::io::{self, ErrorKind, Read};

/// Unpacks frames until the input or its blocks end.
#[derive(Debug)]
pub struct Lz4Decoder<R> {
    input: R,
    block: Vec<u8>,
    /// How much of the block was handed out.
    given: usize,
    is_over: bool,
}

impl<R: Read> Lz4Decoder<R> {
    /// Begins at the magic number.
    pub fn new(input: R) -> Self {
        Lz4Decoder { input, block: Vec::new(), given: 0, is_over: false }
    }

    /// Unpacks the next block. A magic number in a size's place begins another frame; zeros are padding after the last.
    fn next_block(&mut self) -> io::Result<()> {
        let broken = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("lz4: {what}"));
        self.block.clear();
        self.given = 0;
        let Some(size) = self.word()?.filter(|size| *size != 0) else {
            self.is_over = true;
            return Ok(());
        };
        if size == MAGIC {
            return Ok(());
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= PACKED_BYTES_MAX);
        let mut packed = vec![0; size.ok_or_else(|| broken("a block is too long"))?];
        self.input.read_exact(&mut packed)?;
        self.block =
            lz4_flex::block::decompress(&packed, BLOCK_BYTES_MAX).map_err(|_| broken("a block is broken"))?;
        Ok(())
    }

    /// The next four bytes, little endian; `None` at the end.
    fn word(&mut self) -> io::Result<Option<u32>> {
        let mut bytes = [0; 4];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(u32::from_le_bytes(bytes))),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<R: Read> Read for Lz4Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given >= self.block.len() && !self.is_over {
            self.next_block()?;
        }
        let left = self.block.get(self.given..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), left.get(..count)) {
            into.copy_from_slice(from);
        }
        self.given += count;
        Ok(count)
    }
}

const MAGIC: u32 = 0x184c_2102;
/// LZ4's frame format, "Legacy frame": a block unpacks to 8 MiB at most.
const BLOCK_BYTES_MAX: usize = 8 << 20;
/// What 8 MiB that cannot be packed take, by LZ4_compressBound.
const PACKED_BYTES_MAX: usize = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 255 + 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(blocks: &[&[u8]]) -> Vec<u8> {
        let blocks = blocks.iter().flat_map(|block| {
            let packed = lz4_flex::block::compress(block);
            [(packed.len() as u32).to_le_bytes().to_vec(), packed].concat()
        });
        MAGIC.to_le_bytes().into_iter().chain(blocks).collect()
    }

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        Lz4Decoder::new(bytes).read_to_end(&mut unpacked)?;
        Ok(unpacked)
    }

    #[test]
    fn frames_follow_each_other_until_padding_or_the_end() {
        let two = [frame(&[b"one ", b"two "]), frame(&[b"three"]), vec![0; 8]].concat();
        assert_eq!(unpack(&two).unwrap(), b"one two three");
        assert_eq!(unpack(&frame(&[])).unwrap(), b"");
    }

    #[test]
    fn broken_blocks_are_refused() {
        let good = frame(&[b"a block of some bytes, some bytes, some bytes"]);
        assert_eq!(unpack(good.get(..good.len() - 1).unwrap()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let huge = [MAGIC.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
        assert!(unpack(&huge).unwrap_err().to_string().contains("too long"));
        let broken = [MAGIC.to_le_bytes().as_slice(), &2_u32.to_le_bytes(), &[0xff, 0xff]].concat();
        assert!(unpack(&broken).unwrap_err().to_string().contains("broken"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_unpacked_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = unpack(&[MAGIC.to_le_bytes().as_slice(), &bytes].concat());
        }
    }
}
