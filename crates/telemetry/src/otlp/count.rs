//! How many spans, data points or log records are in a request. Read as it comes and kept nowhere, so that counting takes no memory
//! whatever is in it: a few bytes of a request would otherwise be many of a list.

use std::fmt;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{OtlpError, Signal};

/// Of a request in protobuf.
// opentelemetry-proto: in all three requests resources are field 1, scopes field 2 of these, what counts field 2 of those.
pub(super) fn protobuf(signal: Signal, request: &[u8]) -> Result<u64, OtlpError> {
    let mut count = 0_u64;
    fields(request, &[1], &mut |resource| {
        fields(resource, &[2], &mut |scope| {
            fields(scope, &[2], &mut |item| {
                let items = match signal {
                    Signal::Metrics => points(item)?,
                    _ => well_formed(item).map(|()| 1)?,
                };
                count = count.saturating_add(items);
                Ok(())
            })
        })
    })?;
    Ok(count)
}

/// The points of a metric: field 1 of its gauge, sum, histogram, exponential histogram and summary.
fn points(metric: &[u8]) -> Result<u64, OtlpError> {
    let mut count = 0_u64;
    fields(metric, &[5, 7, 9, 10, 11], &mut |data| {
        fields(data, &[1], &mut |point| {
            count = count.saturating_add(1);
            well_formed(point)
        })
    })?;
    Ok(count)
}

/// A message whose fields are well formed, whatever they are.
fn well_formed(message: &[u8]) -> Result<(), OtlpError> {
    fields(message, &[], &mut |_| Ok(()))
}

/// Hands over the content of these fields of a message, each of which is a message or bytes.
pub(super) fn fields(
    mut message: &[u8],
    wanted: &[u32],
    take: &mut dyn FnMut(&[u8]) -> Result<(), OtlpError>,
) -> Result<(), OtlpError> {
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message).map_err(|_| OtlpError::Request)?;
        if !wanted.contains(&tag) {
            skip_field(wire_type, tag, &mut message, DecodeContext::default())
                .map_err(|_| OtlpError::Request)?;
            continue;
        }
        let length = decode_varint(&mut message).map_err(|_| OtlpError::Request)?;
        let content = usize::try_from(length).ok().and_then(|length| message.split_at_checked(length));
        let (content, rest) =
            content.filter(|_| wire_type == WireType::LengthDelimited).ok_or(OtlpError::Request)?;
        take(content)?;
        message = rest;
    }
    Ok(())
}

/// Of a request in OTLP's JSON.
pub(super) fn json(signal: Signal, request: &[u8]) -> Result<u64, OtlpError> {
    let path: &[Step] = match signal {
        Signal::Metrics => &METRICS,
        Signal::Traces => &SPANS,
        _ => &LOG_RECORDS,
    };
    let mut reader = serde_json::Deserializer::from_slice(request);
    let count = Object(path).deserialize(&mut reader).map_err(|_| OtlpError::Request)?;
    reader.end().map(|()| count).map_err(|_| OtlpError::Request)
}

/// A member on the way to what counts.
enum Step {
    /// The list of this name.
    List(&'static str),
    /// The objects of these names.
    Objects(&'static [&'static str]),
}

const METRICS: [Step; 5] = [
    Step::List("resourceMetrics"),
    Step::List("scopeMetrics"),
    Step::List("metrics"),
    Step::Objects(&["gauge", "sum", "histogram", "exponentialHistogram", "summary"]),
    Step::List("dataPoints"),
];
const SPANS: [Step; 3] = [Step::List("resourceSpans"), Step::List("scopeSpans"), Step::List("spans")];
const LOG_RECORDS: [Step; 3] =
    [Step::List("resourceLogs"), Step::List("scopeLogs"), Step::List("logRecords")];

/// An object: with no steps left it counts, else what is in it does.
struct Object<'p>(&'p [Step]);

/// What a member holds, which may be null, as protobuf's JSON allows.
struct Member<'p> {
    is_list: bool,
    path: &'p [Step],
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u64, A::Error> {
        let Some((step, path)) = self.0.split_first() else {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(1);
        };
        let (names, is_list) = match step {
            Step::List(name) => (std::slice::from_ref(name), true),
            Step::Objects(names) => (*names, false),
        };
        let (mut count, mut seen) = (0_u64, 0_u32);
        while let Some(name) = members.next_key::<String>()? {
            let Some(index) = names.iter().position(|known| *known == name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            // Of two, readers differ in which one counts.
            if seen & (1 << index) != 0 {
                return Err(A::Error::duplicate_field(names.get(index).copied().unwrap_or_default()));
            }
            seen |= 1 << index;
            count = count.saturating_add(members.next_value_seed(Member { is_list, path })?);
        }
        Ok(count)
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_list { "a list" } else { "an object" })
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<u64, A::Error> {
        if self.is_list {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self));
        }
        Object(self.path).visit_map(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        if !self.is_list {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        let mut count = 0_u64;
        while let Some(item) = items.next_element_seed(Object(self.path))? {
            count = count.saturating_add(item);
        }
        Ok(count)
    }
}
