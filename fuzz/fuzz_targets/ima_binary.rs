//! An IMA list in binary form: parse, every field of every entry, replay.
#![no_main]

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::{Replay, binary_offset, parse_binary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(list) = parse_binary(data) {
        let mut replay = Replay::new(&HashAlgorithm::ALL);
        for entry in list.iter() {
            let _ = replay.extend(&entry);
            let _ = (entry.path_text(), entry.file_digest(), entry.verity_digest(), entry.signature());
            let _ = (entry.measured_key(), entry.device_mapper());
        }
        assert_eq!(replay.entries(), list.len() as u64, "every parsed entry can be read again");
        let half = list.len() / 2;
        let offset = binary_offset(data, half as u64).expect("it has as many entries");
        let lengths =
            [&data[..offset], &data[offset..]].map(|part| parse_binary(part).map_or(0, |list| list.len()));
        assert_eq!(lengths, [half, list.len() - half], "a list kept in parts says the same");
    }
});
