//! Labels and selectors: what parses is bounded, and reads the same when it is written.
#![no_main]

use assay_trust::labels::{LABELS_MAX, Labels, Selector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Ok(labels) = data.parse::<Labels>() {
        assert!(labels.iter().count() <= LABELS_MAX);
        let text = labels.to_string();
        assert_eq!(text.parse::<Labels>().as_ref(), Ok(&labels), "one set, one spelling");
        assert!(text.parse::<Selector>().is_ok_and(|selector| selector.matches(&labels)));
    }
});
