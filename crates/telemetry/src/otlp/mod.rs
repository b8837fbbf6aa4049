//! OpenTelemetry data in a batch: requests as programs on the device sent them, byte for byte, and what was lost before it could
//! be sent.
//!
//! A request is read as far as it takes to know that it is one, and to count what is in it: what a span or a data point says is its
//! receiver's to read.

mod count;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

/// What a batch of requests is.
pub const OTLP_BATCH: &str = "application/vnd.assay.otlp-batch.v1";

/// The payload of a batch.
#[derive(Clone, PartialEq, Message)]
pub struct OtlpBatch {
    /// What came, in the order in which it came.
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<Part>,
}

/// A request, or a gap.
#[derive(Clone, PartialEq, Message)]
pub struct Part {
    /// What it is about; see [`Signal`].
    #[prost(enumeration = "Signal", tag = "1")]
    pub signal: i32,
    /// How it is encoded; see [`Encoding`].
    #[prost(enumeration = "Encoding", tag = "2")]
    pub encoding: i32,
    /// Spans, data points or log records in it; of a gap, those that are missing.
    #[prost(uint64, tag = "3")]
    pub items: u64,
    /// When the agent took it, nanoseconds since 1970.
    #[prost(fixed64, tag = "4")]
    pub received_unix_nano: u64,
    /// The exact bytes of the request; of a gap, a [`Gap`].
    #[prost(bytes = "bytes", tag = "5")]
    pub body: Bytes,
}

/// What a part is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Signal {
    /// Nothing; never sent.
    Unspecified = 0,
    /// An ExportMetricsServiceRequest.
    Metrics = 1,
    /// An ExportTraceServiceRequest.
    Traces = 2,
    /// An ExportLogsServiceRequest.
    Logs = 3,
    /// What is missing here.
    Gap = 4,
}

impl Signal {
    /// The last part of the path that OTLP over HTTP has for it; `None`: OTLP does not know it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Signal::Metrics => Some("metrics"),
            Signal::Traces => Some("traces"),
            Signal::Logs => Some("logs"),
            Signal::Unspecified | Signal::Gap => None,
        }
    }
}

/// How a request is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Encoding {
    /// Nothing; never sent.
    Unspecified = 0,
    /// Protobuf.
    Protobuf = 1,
    /// OTLP's JSON.
    Json = 2,
}

impl Encoding {
    /// The media type, in a request and in its answer.
    pub fn media_type(self) -> Option<&'static str> {
        match self {
            Encoding::Protobuf => Some("application/x-protobuf"),
            Encoding::Json => Some("application/json"),
            Encoding::Unspecified => None,
        }
    }
}

/// What the device took and could not keep, said in the place where it is missing.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Gap {
    /// Requests.
    #[prost(uint64, tag = "1")]
    pub requests: u64,
    /// Spans, data points and log records in them, as far as they could be read.
    #[prost(uint64, tag = "2")]
    pub items: u64,
    /// Bytes.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// When the first was taken, nanoseconds since 1970; 0: nobody knows.
    #[prost(fixed64, tag = "4")]
    pub first_unix_nano: u64,
    /// When the last was taken, nanoseconds since 1970; 0: nobody knows.
    #[prost(fixed64, tag = "5")]
    pub last_unix_nano: u64,
    /// Why: `full` or `damaged`.
    #[prost(string, tag = "6")]
    pub reason: String,
}

/// Why bytes are no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OtlpError {
    /// No request of this kind.
    #[error("not an OTLP request for this signal in this encoding")]
    Request,
    /// No batch of requests.
    #[error("not a batch of OTLP requests")]
    Batch,
    /// More parts than a batch has.
    #[error("a batch has at most {PARTS_MAX} requests and gaps")]
    TooMany,
    /// A part of a kind that there is not.
    #[error("a part is neither a request nor a gap")]
    Part,
    /// A part counts otherwise than its bytes.
    #[error("a part of {found} items says that it has {stated}")]
    Items {
        /// What it says.
        stated: u64,
        /// What is in it.
        found: u64,
    },
}

impl Part {
    /// A request, if it is one.
    pub fn request(
        signal: Signal,
        encoding: Encoding,
        body: Bytes,
        received_unix_nano: u64,
    ) -> Result<Part, OtlpError> {
        let items = count(signal, encoding, &body)?;
        Ok(Part { signal: signal.into(), encoding: encoding.into(), items, received_unix_nano, body })
    }

    /// A gap.
    pub fn gap(gap: &Gap, received_unix_nano: u64) -> Part {
        Part {
            signal: Signal::Gap.into(),
            encoding: Encoding::Protobuf.into(),
            items: gap.items,
            received_unix_nano,
            body: gap.encode_to_vec().into(),
        }
    }

    /// The gap, if it is one.
    pub fn as_gap(&self) -> Option<Gap> {
        (self.signal() == Signal::Gap).then(|| Gap::decode(self.body.clone()).ok()).flatten()
    }
}

impl OtlpBatch {
    /// Reads a payload: every part is what it says it is.
    pub fn read(payload: Bytes) -> Result<OtlpBatch, OtlpError> {
        let mut parts = 0_usize;
        let counted = count::fields(&payload, &[1], &mut |_| {
            parts += 1;
            if parts > PARTS_MAX { Err(OtlpError::TooMany) } else { Ok(()) }
        });
        // Before it is read: a part that takes two bytes here takes many more there.
        counted.map_err(|error| if error == OtlpError::TooMany { error } else { OtlpError::Batch })?;
        let batch = OtlpBatch::decode(payload).map_err(|_| OtlpError::Batch)?;
        for part in &batch.parts {
            let found = match part.signal() {
                Signal::Gap => part.as_gap().ok_or(OtlpError::Part)?.items,
                signal => count(signal, part.encoding(), &part.body)?,
            };
            if found != part.items {
                return Err(OtlpError::Items { stated: part.items, found });
            }
        }
        Ok(batch)
    }

    /// Spans, data points and log records that are there.
    pub fn items(&self) -> u64 {
        let there = self.parts.iter().filter(|part| part.signal() != Signal::Gap);
        there.map(|part| part.items).fold(0, u64::saturating_add)
    }
}

/// How many spans, data points or log records are in a request.
pub fn count(signal: Signal, encoding: Encoding, body: &Bytes) -> Result<u64, OtlpError> {
    if matches!(signal, Signal::Unspecified | Signal::Gap) {
        return Err(OtlpError::Part);
    }
    match encoding {
        Encoding::Protobuf => count::protobuf(signal, body),
        Encoding::Json => count::json(signal, body),
        Encoding::Unspecified => Err(OtlpError::Part),
    }
}

/// Requests and gaps in a batch: what of them is held in memory is some hundred bytes each, however short they are.
pub const PARTS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_is_counted_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = Bytes::from(bytes);
            for signal in [Signal::Metrics, Signal::Traces, Signal::Logs] {
                for encoding in [Encoding::Protobuf, Encoding::Json] {
                    // Each item takes a byte at least.
                    prop_assert!(count(signal, encoding, &body).unwrap_or(0) <= body.len() as u64);
                }
            }
            if let Ok(batch) = OtlpBatch::read(body) {
                prop_assert!(batch.items() <= 200);
            }
        }
    }

    fn check(signal: Signal, encoding: Encoding, body: &[u8], found: Result<u64, OtlpError>) {
        assert_eq!(count(signal, encoding, &Bytes::copy_from_slice(body)), found, "{signal:?} {body:?}");
    }

    #[test]
    fn protobuf_is_counted_and_what_is_none_is_refused() {
        let traces = |body: &[u8], found| check(Signal::Traces, Encoding::Protobuf, body, found);
        traces(b"", Ok(0));
        // A resource with a scope with two spans, and a field that nobody knows.
        traces(&[0x0a, 8, 0x12, 6, 0x12, 0, 0x12, 2, 0x78, 1], Ok(2));
        traces(&[0x0a, 8, 0x12, 6, 0x12, 0, 0x12, 2, 0x78], Err(OtlpError::Request));
        traces(&[0x0a, 200, 1], Err(OtlpError::Request));
        traces(b"garbage", Err(OtlpError::Request));
        // A gauge with two points and a sum with one.
        let metrics = [0x0a, 16, 0x12, 14, 0x12, 6, 0x2a, 4, 0x0a, 0, 0x0a, 0, 0x12, 4, 0x3a, 2, 0x0a, 0];
        check(Signal::Metrics, Encoding::Protobuf, &metrics, Ok(3));
    }

    #[test]
    fn json_is_counted_and_what_is_none_is_refused() {
        let logs = |body: &str, found| check(Signal::Logs, Encoding::Json, body.as_bytes(), found);
        logs("{}", Ok(0));
        logs(r#"{"resourceLogs": null, "unknown": [1]}"#, Ok(0));
        logs(
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"doubleValue":"NaN"}},{}]}]}]}"#,
            Ok(2),
        );
        logs(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[NaN]}]}]}"#, Err(OtlpError::Request));
        logs(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[7]}]}]}"#, Err(OtlpError::Request));
        logs(r#"{"resourceLogs":7}"#, Err(OtlpError::Request));
        logs("[]", Err(OtlpError::Request));
        logs("", Err(OtlpError::Request));
        logs(&"[".repeat(100_000), Err(OtlpError::Request));
        // Of two, readers differ in which one counts.
        logs(r#"{"resourceLogs":[],"resourceLogs":[]}"#, Err(OtlpError::Request));
        logs(r#"{"resourceLogs":{}}"#, Err(OtlpError::Request));
        logs("{} {}", Err(OtlpError::Request));
        let metrics = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
            {"name":"a","gauge":{"dataPoints":[{"asInt":18446744073709551616},{}]}},{"sum":{"dataPoints":null}}]}]}]}"#;
        check(Signal::Metrics, Encoding::Json, metrics.as_bytes(), Ok(2));
    }

    #[test]
    fn a_batch_of_very_many_parts_is_refused_before_it_is_read() {
        let parts = |count: usize| Bytes::from([0x0a, 0].repeat(count));
        assert_eq!(OtlpBatch::read(parts(PARTS_MAX)), Err(OtlpError::Part));
        assert_eq!(OtlpBatch::read(parts(PARTS_MAX + 1)), Err(OtlpError::TooMany));
    }

    #[test]
    fn a_batch_is_read_back_and_every_part_is_what_it_says() {
        let span = Bytes::from_static(&[0x0a, 4, 0x12, 2, 0x12, 0]);
        let gap = Gap { requests: 3, items: 40, reason: "full".into(), ..Gap::default() };
        let request = Part::request(Signal::Traces, Encoding::Protobuf, span, 7).unwrap();
        let batch = OtlpBatch { parts: vec![Part::gap(&gap, 8), request] };
        let read = OtlpBatch::read(batch.encode_to_vec().into()).unwrap();
        assert_eq!((read.items(), read.parts[0].as_gap()), (1, Some(gap)));
        let mut lies = batch.clone();
        lies.parts[1].items = 2;
        let stated = OtlpBatch::read(lies.encode_to_vec().into());
        assert_eq!(stated, Err(OtlpError::Items { stated: 2, found: 1 }));
        let mut unknown = batch;
        unknown.parts[1].signal = 9;
        assert_eq!(OtlpBatch::read(unknown.encode_to_vec().into()), Err(OtlpError::Part));
    }
}
