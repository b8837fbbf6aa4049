//! A cpio archive: every entry and its content, within the bytes there are.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;

// The program has no library to link, and the parser nothing but the standard library.
#[path = "../../crates/cli/src/archive/cpio.rs"]
mod cpio;

fuzz_target!(|data: &[u8]| {
    let mut archive = cpio::Archive::new(data);
    let mut read = 0;
    while let Ok(Some(entry)) = archive.next_entry() {
        let mut content = Vec::new();
        if archive.content().read_to_end(&mut content).is_err() {
            break;
        }
        read += content.len() + entry.path.len();
        assert_eq!(content.len() as u64, entry.bytes, "the content is as long as the header says");
        let _ = (entry.is_file(), entry.is_executable(), entry.links, entry.file);
    }
    assert!(read <= data.len(), "nothing comes from nowhere");
});
