//! An IMA list in ASCII form, which is read by way of the binary form.
#![no_main]

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::{Replay, ascii_offset, parse_ascii};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(list) = parse_ascii(data) {
        let mut replay = Replay::new(&[HashAlgorithm::Sha256]);
        for entry in list.iter() {
            let _ = replay.extend(&entry);
            let _ = (entry.path_text(), entry.file_digest(), entry.signature());
        }
        assert_eq!(replay.entries(), list.len() as u64, "every parsed entry can be read again");
        let half = list.len() / 2;
        let offset = ascii_offset(data, half as u64).expect("it has as many entries");
        let lengths =
            [&data[..offset], &data[offset..]].map(|part| parse_ascii(part).map_or(0, |list| list.len()));
        assert_eq!(lengths, [half, list.len() - half], "a list kept in parts says the same");
    }
});
