//! Metrics as they are asked for: Prometheus's text format 0.0.4 or OpenMetrics 1.0, by `Accept`.
//!
//! Both have the same families and numbers. OpenMetrics comes from the library; the older text is made of it: it knows
//! neither units nor an end, and names a counter's family as its sample is named.

use std::fmt::Write as _;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

/// A format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Text,
}

impl Format {
    /// What `Accept` prefers (RFC 9110 §12.5.1), the plain text where it does not care.
    pub fn accepted(accept: Option<&str>) -> Format {
        let mut best = (0.0, Format::Text);
        for range in accept.unwrap_or("*/*").split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let quality =
                parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
            let format = match media {
                "application/openmetrics-text" => Format::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Format::Text,
                _ => continue,
            };
            if let Some(quality) = quality.filter(|quality: &f64| *quality > best.0) {
                best = (quality, format);
            }
        }
        best.1
    }

    /// For the answer's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Everything that is registered.
    pub fn encode(self, registry: &Registry) -> String {
        self.encode_all(&[registry])
    }

    /// Everything that is registered in any of these, whose names differ.
    pub fn encode_all(self, registries: &[&Registry]) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        for registry in registries {
            let _ = encode_registry(&mut text, registry);
        }
        let _ = encode_eof(&mut text);
        match self {
            Format::OpenMetrics => text,
            Format::Text => plain(&text),
        }
    }
}

/// OpenMetrics as the older text.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Unit;

    use super::*;

    fn check(accept: Option<&str>, expected: Format) {
        assert_eq!(Format::accepted(accept), expected, "{accept:?}");
    }

    #[test]
    fn year_12_the_format_is_what_was_asked_for() {
        check(None, Format::Text);
        check(Some("*/*"), Format::Text);
        check(Some("text/plain"), Format::Text);
        check(Some("text/plain; version=0.0.4"), Format::Text);
        check(Some("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
        // As Prometheus 2 and 3 ask.
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        check(Some(prometheus), Format::OpenMetrics);
        check(Some("text/plain;q=0.9,application/openmetrics-text;q=0.2"), Format::Text);
        check(Some("application/json, application/openmetrics-text;q=nonsense"), Format::Text);
        check(Some("text/html,application/openmetrics-text;q=0"), Format::Text);
    }

    #[test]
    fn year_12_both_formats_have_the_same_numbers_under_the_names_they_know() {
        let mut registry = Registry::with_prefix("a");
        let counter = Counter::<u64>::default();
        registry.register("done", "What was done", counter.clone());
        registry.register_with_unit("size", "How large", Unit::Bytes, Gauge::<i64>::default());
        registry.register("took", "How long", Histogram::new([0.1, 1.0]));
        counter.inc_by(3);
        let text = Format::Text.encode(&registry);
        for line in [
            "# HELP a_done_total What was done.",
            "# TYPE a_done_total counter",
            "a_done_total 3",
            "# TYPE a_size_bytes gauge",
            "a_size_bytes 0",
            "# TYPE a_took histogram",
            "a_took_bucket{le=\"+Inf\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
        let open = Format::OpenMetrics.encode(&registry);
        assert!(open.contains("# TYPE a_done counter") && open.ends_with("# EOF\n"), "{open}");
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&text), samples(&open));
    }
}
