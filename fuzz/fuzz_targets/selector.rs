//! A selector: what parses is written so that it reads back, and what is refused says why in a bounded sentence.
#![no_main]

use assay_identity::Selector;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    match data.parse::<Selector>() {
        Ok(selector) => {
            let text = selector.to_string();
            assert_eq!(text.parse::<Selector>().as_ref(), Ok(&selector), "one selector, one spelling");
        }
        Err(refused) => assert!(refused.selector.chars().count() <= 256),
    }
});
