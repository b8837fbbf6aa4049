//! What a local client sends, before HTTP/2 reads it: passed on without a panic, never longer, however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The agent as a dependency would bring the TPM and the network; these modules of it are pure.
#[path = "../../crates/agent/src/door/local/authority/frames.rs"]
mod frames;
#[path = "../../crates/agent/src/door/local/authority/header_block.rs"]
mod header_block;

use frames::Frames;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let expected = Frames::default().pass(data, &mut whole);
    assert!(whole.len() <= data.len());
    let mut frames = Frames::default();
    let found = data.chunks(usize::from(cut).max(1)).try_for_each(|piece| frames.pass(piece, &mut pieces));
    assert_eq!(expected, found);
    assert_eq!(whole, pieces);
});
