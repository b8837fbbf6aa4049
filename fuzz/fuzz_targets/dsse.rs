//! A signed policy: part 0 is an envelope, part 1 a payload that is put into one and has to come out again.
#![no_main]

use assay_fuzz::part;
use assay_trust::policy::{Envelope, PolicySigners, payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 2);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if number == 1 {
        let mut envelope = Envelope::new(text);
        envelope.add_signature(&assay_evidence::HashAlgorithm::Sha256.zero(), vec![1; 64]);
        assert_eq!(Envelope::parse(&envelope.to_json()).as_ref(), Ok(&envelope));
        return;
    }
    let _ = payload(text);
    if let Ok(envelope) = Envelope::parse(text) {
        assert_eq!(Envelope::parse(&envelope.to_json()).as_ref(), Ok(&envelope));
    }
    assert!(PolicySigners::default().open(text).is_err(), "nobody is accepted");
});
