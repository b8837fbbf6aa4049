//! Paths of tiles, checkpoints, and proofs that somebody shows.
#![no_main]

use assay_identity::tlog::{Checkpoint, Tile, includes, is_consistent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (&str, [u64; 2], Vec<[u8; 32]>)| {
    let (text, [index, size], proof) = data;
    if let Some(tile) = Tile::parse(text) {
        assert_eq!(tile.to_string(), format!("tile/{text}"));
        let _ = tile.is_in(size);
    }
    if let Some(checkpoint) = Checkpoint::from_text(text) {
        assert_eq!(checkpoint.to_text(), text);
    }
    // Nobody finds what leads to a root of zeros.
    assert!(!includes((index, [1; 32]), size, &proof, &[0; 32]));
    let _ = is_consistent((index, &[1; 32]), (size, &[0; 32]), &proof);
});
