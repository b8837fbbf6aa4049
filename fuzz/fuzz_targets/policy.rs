//! A policy in either form: what is read can be written, read again, and compiled.
#![no_main]

use assay_trust::{CompiledPolicy, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Ok(policy) = Policy::from_text(data) {
        assert_eq!(Policy::from_text(&policy.to_toml()).as_ref(), Ok(&policy));
        assert_eq!(Policy::from_text(&policy.to_json()).as_ref(), Ok(&policy));
        let _ = CompiledPolicy::new(policy);
    }
});
