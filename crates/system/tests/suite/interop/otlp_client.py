"""Traces, metrics and logs by the OpenTelemetry SDK, over gRPC and HTTP, as an application sends them; says what came of it."""

import logging
import sys

from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression, _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
import grpc

grpc_address, http_address = sys.argv[1:]


def told(exporter):
    """Says what each export came to."""
    export = exporter.export

    def telling(*arguments, **named):
        result = export(*arguments, **named)
        print(type(exporter).__module__.split(".")[4], type(exporter).__name__, result.name, flush=True)
        return result

    exporter.export = telling
    return exporter


for protocol in ["grpc", "http"]:
    resource = Resource.create({"service.name": f"interop-{protocol}"})
    if protocol == "grpc":
        at = {"endpoint": grpc_address, "insecure": True, "compression": grpc.Compression.Gzip}
        spans, points, records = grpc_traces.OTLPSpanExporter(**at), grpc_metrics.OTLPMetricExporter(**at), grpc_logs.OTLPLogExporter(**at)
    else:
        of = lambda signal: {"endpoint": f"http://{http_address}/v1/{signal}", "compression": Compression.Gzip}
        spans, points, records = (http_traces.OTLPSpanExporter(**of("traces")), http_metrics.OTLPMetricExporter(**of("metrics")),
                                  http_logs.OTLPLogExporter(**of("logs")))

    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(SimpleSpanProcessor(told(spans)))
    with tracing.get_tracer("interop").start_as_current_span(f"work-{protocol}") as span:
        span.set_attribute("press", 7)
    tracing.shutdown()

    metering = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(told(points), 3600_000)])
    metering.get_meter("interop").create_counter(f"parts-{protocol}").add(3)
    metering.shutdown()

    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(SimpleLogRecordProcessor(told(records)))
    logging.getLogger(f"interop-{protocol}").addHandler(LoggingHandler(logger_provider=logs))
    logging.getLogger(f"interop-{protocol}").warning("hello over %s", protocol)
    logs.shutdown()
