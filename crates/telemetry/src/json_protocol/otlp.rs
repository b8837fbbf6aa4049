//! A submission as OpenTelemetry has it, for endpoints that know nothing else: each number in it is a point of a gauge.
//!
//! The bytes are written here, of the few messages that it takes; the names are those of opentelemetry-proto.

use prost::Message;

use super::submission::Submission;
use super::value::Value;

impl Submission {
    /// An ExportMetricsServiceRequest with every number of `metrics`, named by where it is (`network_io.bytes_sent`), taken at a time
    /// in seconds since 1970.
    pub fn to_otlp(&self, received_at: u64) -> Vec<u8> {
        let time_unix_nano = received_at.saturating_mul(1_000_000_000);
        let mut metrics = Vec::new();
        let members = self.metrics().as_object();
        for (name, value) in members.into_iter().flatten() {
            match name.as_str() {
                // What was measured, and what a program adds; the other members say who and when.
                Some("metrics") => gauges("", value, time_unix_nano, &mut metrics),
                Some(name @ "custom_data") => gauges(name, value, time_unix_nano, &mut metrics),
                _ => {}
            }
        }
        let scope = ScopeMetrics { metrics };
        let resource = Resource { attributes: self.resource() };
        let resource_metrics = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope] };
        Request { resource_metrics: vec![resource_metrics] }.encode_to_vec()
    }

    fn resource(&self) -> Vec<KeyValue> {
        let service =
            self.metrics().as_object().and_then(|members| members.get(&"service".into())?.as_object());
        let text = |name: &str| service.and_then(|service| service.get(&name.into())?.as_str());
        let of_service = [
            ("service.name", text("name")),
            ("service.version", text("version")),
            ("service.instance.id", text("instance_id")),
        ];
        let region = self.region();
        let of_region = [
            ("geo.country.iso_code", region.region.as_str()),
            ("geo.region.name", region.state.as_str()),
            ("geo.locality.name", region.city.as_str()),
        ];
        let of_region = of_region.into_iter().map(|(key, value)| (key, Some(value)));
        let said = of_service.into_iter().chain(of_region);
        said.filter_map(|(key, value)| Some(attribute(key, value.filter(|value| !value.is_empty())?)))
            .collect()
    }
}

fn gauges(prefix: &str, value: &Value, time_unix_nano: u64, metrics: &mut Vec<Metric>) {
    let number = match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.as_str().unwrap_or("\u{fffd}");
                let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
                gauges(&path, value, time_unix_nano, metrics);
            }
            return;
        }
        Value::Integer(digits) => match digits.parse() {
            Ok(number) => Number::Int(number),
            // Longer than OpenTelemetry has whole numbers.
            Err(_) => Number::Double(digits.parse().unwrap_or(f64::NAN)),
        },
        Value::Float(number) => Number::Double(*number),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) => return,
    };
    let points = vec![Point { time_unix_nano, number: Some(number) }];
    metrics.push(Metric { name: prefix.to_owned(), gauge: Some(Gauge { points }) });
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { text: value.to_owned() }) }
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Gauge>,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Point>,
}

#[derive(Clone, PartialEq, Message)]
struct Point {
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(oneof = "Number", tags = "4, 6")]
    number: Option<Number>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Number {
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(sfixed64, tag = "6")]
    Int(i64),
}

#[cfg(test)]
mod tests {
    use crate::otlp::{Encoding, Signal, count};

    use super::*;

    #[test]
    fn each_number_is_a_point_under_its_name() {
        let body = r#"{"nonce": "", "signature": "", "algorithm": 0, "timestamp": 0,
            "geographic_region": {"region": "US", "city": ""},
            "metrics": {"timestamp": "t", "service": {"name": "s", "instance_id": 7},
                "metrics": {"cpu_percent": 1.5, "network_io": {"bytes_sent": 18446744073709551616, "bytes_recv": -2}},
                "custom_data": {"n": 3, "words": ["x"], "is": true}}}"#;
        let request = Submission::read(body.as_bytes()).unwrap().to_otlp(5);
        assert_eq!(count(Signal::Metrics, Encoding::Protobuf, &request.clone().into()), Ok(4));
        let request = Request::decode(request.as_slice()).unwrap();
        let [of_service] = request.resource_metrics.as_slice() else { panic!("{request:?}") };
        let attributes = &of_service.resource.as_ref().unwrap().attributes;
        assert_eq!(*attributes, [attribute("service.name", "s"), attribute("geo.country.iso_code", "US")]);
        let metrics = &of_service.scope_metrics[0].metrics;
        let found: Vec<_> = metrics
            .iter()
            .map(|metric| {
                (metric.name.as_str(), metric.gauge.as_ref().unwrap().points[0].number.clone().unwrap())
            })
            .collect();
        let expected = [
            ("custom_data.n", Number::Int(3)),
            ("cpu_percent", Number::Double(1.5)),
            ("network_io.bytes_recv", Number::Int(-2)),
            ("network_io.bytes_sent", Number::Double(18_446_744_073_709_551_616.0)),
        ];
        assert_eq!(found, expected);
    }
}
