//! A SPIFFE ID: what parses is written as it was.
#![no_main]

use assay_identity::SpiffeId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Ok(id) = SpiffeId::parse(data) {
        assert_eq!(SpiffeId::parse(&id.to_string()).as_ref(), Ok(&id), "one name, one spelling");
    }
});
