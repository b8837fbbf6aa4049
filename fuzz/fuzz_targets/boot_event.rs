//! The data of one event that its digest covers: past the digest nothing else stops hostile data.
#![no_main]

use assay_evidence::HashAlgorithm;
use assay_evidence::boot_log::{Variable, facts, parse, signature_lists};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((head, event)) = data.split_at_checked(5) else { return };
    let [pcr, kind @ ..] = head else { return };
    let _ = Variable::parse(event);
    let _ = signature_lists(event);
    // The legacy form: PCR, type, one SHA-1 digest, size, data; a separator closes PCR 7.
    let mut log = Vec::new();
    let separator = ([7, 0, 0, 0], [4, 0, 0, 0], [0u8; 4].as_slice());
    let hostile = ([*pcr % 24, 0, 0, 0], [0, 1, 2, 3].map(|at| kind.get(at).copied().unwrap_or(0)), event);
    for (pcr, kind, data) in [hostile, separator] {
        log.extend(pcr);
        log.extend(kind);
        log.extend(HashAlgorithm::Sha1.hash(&[data]).as_bytes());
        log.extend((data.len() as u32).to_le_bytes());
        log.extend(data);
    }
    if let Ok(log) = parse(&log) {
        let _ = facts(&log, HashAlgorithm::Sha1);
    }
});
