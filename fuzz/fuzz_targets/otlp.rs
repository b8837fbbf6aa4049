//! A batch of OTLP requests, and requests as programs send them.
#![no_main]

use assay_telemetry::otlp::{Encoding, OtlpBatch, Signal, count};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(batch) = OtlpBatch::read(data.to_vec().into()) {
        let items: u64 =
            batch.parts.iter().filter(|part| part.signal() != Signal::Gap).map(|part| part.items).sum();
        assert_eq!(batch.items(), items);
    }
    for signal in [Signal::Metrics, Signal::Traces, Signal::Logs] {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            if let Ok(items) = count(signal, encoding, &data.to_vec().into()) {
                // Each takes a byte at least.
                assert!(items <= data.len() as u64);
            }
        }
    }
});
