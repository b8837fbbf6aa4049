//! Builds an OTLP ExportMetricsServiceRequest, one data point at a time.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// A request about the host, as it is signed and sent.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) payload: Vec<u8>,
    /// When it was measured.
    pub(super) time_unix_nano: u64,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, since the machine was booted.
    Counter,
    /// Goes up and down, and adds up.
    Level,
    /// Goes up and down, and does not.
    Gauge,
}

/// A request in the making.
pub(super) struct Request {
    host: String,
    start_unix_nano: u64,
    time_unix_nano: u64,
    metrics: Vec<Metric>,
}

/// A metric to which points are added.
pub(super) struct Points<'a> {
    request: &'a mut Request,
}

impl Request {
    pub(super) fn new(host: String, start_unix_nano: u64, time_unix_nano: u64) -> Self {
        Request { host, start_unix_nano, time_unix_nano, metrics: Vec::new() }
    }

    /// Starts a metric.
    pub(super) fn metric(&mut self, name: &str, unit: &str, kind: Kind) -> Points<'_> {
        let data = match kind {
            Kind::Gauge => Data::Gauge(Gauge::default()),
            Kind::Counter | Kind::Level => Data::Sum(Sum {
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: kind == Kind::Counter,
                ..Sum::default()
            }),
        };
        let metric = Metric { name: name.into(), unit: unit.into(), data: Some(data), ..Metric::default() };
        self.metrics.push(metric);
        Points { request: self }
    }

    /// Encodes it; metrics without points are left out.
    pub(super) fn finish(mut self) -> Batch {
        self.metrics.retain_mut(|metric| points(metric).is_some_and(|points| !points.is_empty()));
        let attributes = [("service.name", "assay-agent"), ("host.name", &self.host), ("os.type", "linux")];
        let resource = Resource { attributes: attributes.map(attribute).into(), ..Resource::default() };
        let scope = InstrumentationScope {
            name: "assay-agent".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let scope_metrics =
            ScopeMetrics { scope: Some(scope), metrics: self.metrics, ..ScopeMetrics::default() };
        let resource_metrics = ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] };
        Batch { payload: request.encode_to_vec(), time_unix_nano: self.time_unix_nano }
    }
}

impl Points<'_> {
    pub(super) fn int(&mut self, attributes: &[(&str, &str)], value: u64) {
        self.add(attributes, Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    pub(super) fn float(&mut self, attributes: &[(&str, &str)], value: f64) {
        self.add(attributes, Number::AsDouble(value));
    }

    fn add(&mut self, attributes: &[(&str, &str)], value: Number) {
        let point = NumberDataPoint {
            attributes: attributes.iter().copied().map(attribute).collect(),
            start_time_unix_nano: self.request.start_unix_nano,
            time_unix_nano: self.request.time_unix_nano,
            value: Some(value),
            ..NumberDataPoint::default()
        };
        if let Some(points) = self.request.metrics.last_mut().and_then(points) {
            points.push(point);
        }
    }
}

fn points(metric: &mut Metric) -> Option<&mut Vec<NumberDataPoint>> {
    match metric.data.as_mut()? {
        Data::Gauge(gauge) => Some(&mut gauge.data_points),
        Data::Sum(sum) => Some(&mut sum.data_points),
        _ => None,
    }
}

fn attribute((key, value): (&str, &str)) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}
