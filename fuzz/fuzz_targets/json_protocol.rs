//! Bodies of the JSON telemetry protocol: what is read is written so that it reads the same, and writes the same again.
#![no_main]

use assay_telemetry::json_protocol::{Acceptance, Submission, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = Value::read(data) {
        let written = value.to_python();
        assert!(written.is_ascii());
        let again = Value::read(written.as_bytes()).expect("what was written reads");
        assert_eq!(again.to_python(), written);
    }
    if let Ok(submission) = Submission::read(data) {
        assert!(submission.signed_bytes().ends_with(submission.nonce().as_bytes()));
        submission.to_otlp(1);
    }
    if let Ok(acceptance) = Acceptance::read(data) {
        assert_eq!(Acceptance::read(&acceptance.encode()), Ok(acceptance));
    }
});
