//! What device mapper measures, inside an entry of an IMA list: part 0 is a table that is loaded, the others are the
//! shorter events.
#![no_main]

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::parse_binary;
use assay_fuzz::part;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, buffer) = part(data, EVENTS.len() as u8);
    let event = EVENTS.get(usize::from(number)).copied().unwrap_or_default();
    let list = parse_binary(&entry(event, buffer)).expect("the entry around the buffer is well formed");
    let entry = list.entry(0).expect("the list has one entry");
    if let Some(Ok(event)) = entry.device_mapper() {
        let _ = format!("{event:?}");
    }
});

/// An `ima-buf` entry: PCR, template digest, template name, template data of three fields.
fn entry(event: &str, buffer: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let digest = [b"sha256:\0".as_slice(), HashAlgorithm::Sha256.hash(&[buffer]).as_bytes()].concat();
    let name = [event.as_bytes(), b"\0"].concat();
    let fields = [sized(&digest), sized(&name), sized(buffer)].concat();
    [10_u32.to_le_bytes().as_slice(), &[1; 20], &sized(b"ima-buf"), &sized(&fields)].concat()
}

const EVENTS: [&str; 5] =
    ["dm_table_load", "dm_device_resume", "dm_device_remove", "dm_table_clear", "dm_device_rename"];
