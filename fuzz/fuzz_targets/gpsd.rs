//! A line of gpsd's, as it is and as the hex of a binary message.
#![no_main]

use assay_telemetry::position::gpsd::{Report, read};
use data_encoding::HEXLOWER;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Report::Fix { point, accuracy, .. }) = read(data) {
        assert!(point.latitude().abs() <= 90.0 && point.longitude().abs() <= 180.0);
        assert!(accuracy.metres() > 0.0);
    }
    let _ = read(&[b"b562".as_slice(), HEXLOWER.encode(data).as_bytes()].concat());
});
