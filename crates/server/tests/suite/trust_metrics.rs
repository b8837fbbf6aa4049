//! What programs of old look at: names, numbers, who may see them, and that alerts and dashboards ask for what there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use assay_server::TrustApi;
use assay_testkit::SoftwareDevice;
use hyper::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, attest_again};
use crate::trust_api::{SAY, Say, send};

async fn fixture() -> Fixture {
    let api = TrustApi { metrics_listen: Some(([127, 0, 0, 1], 0).into()), ..TrustApi::default() };
    Fixture::with(|config| config.trust_api = Some(api)).await
}

/// Asks the exporter, without TLS.
async fn exported(fixture: &Fixture, path: &str) -> String {
    let mut stream = TcpStream::connect(fixture.running().addresses().metrics.unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: assay\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

async fn public(fixture: &Fixture, headers: &[(&'static str, &str)]) -> String {
    let answer = fixture.call(Method::GET, "/metrics", headers, String::new()).await;
    String::from_utf8(answer.body().to_vec()).unwrap()
}

async fn say(fixture: &Fixture, say: Say<'_>, device: &SoftwareDevice, certificate: &[u8]) -> u16 {
    send(fixture, (say, &say.bytes()), device, Some(certificate)).await.0
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series}\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn what_the_server_did_is_counted_under_the_names_of_old() {
    let fixture = fixture().await;
    let edge = fixture.edge().await;
    let (mut device, mut stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    let leaf = &grants.device_svid[0];
    // Heard, said again, for another, by another's key, and by nobody's certificate.
    let once = SAY.bytes();
    assert_eq!(send(&fixture, (SAY, &once), &device, Some(leaf)).await.0, 200);
    assert_eq!(send(&fixture, (SAY, &once), &device, Some(leaf)).await.0, 401);
    assert_eq!(say(&fixture, Say { audience: "x", ..SAY }, &device, leaf).await, 401);
    assert_eq!(say(&fixture, SAY, &other, leaf).await, 401);
    assert_eq!(say(&fixture, Say { node: 1, ..SAY }, &device, &[0x30, 0]).await, 401);

    let text = exported(&fixture, "/metrics").await;
    for line in [
        "# TYPE tpm_certificates_total gauge",
        "tpm_certificates_total 1",
        "tpm_certificates_verified_total 1",
        "tpm_certificates_revoked_total 0",
        "sovereignmap_verified_nodes_count 1",
        "tpm_ca_certificate_valid 1",
        "tpm_node_trust_score{node_id=\"0\"} 100",
        "tpm_node_trust_score{node_id=\"1\"} 50",
        "tpm_trust_chain_valid{node_id=\"0\"} 1",
        "tpm_node_certificate_valid{node_id=\"0\"} 1",
        "tpm_node_certificate_revoked{node_id=\"0\"} 0",
        "tpm_messages_signed_total{node_id=\"0\"} 3",
        "tpm_messages_verified_total{node_id=\"0\",from_node_id=\"0\"} 1",
        "tpm_signature_verification_failures_total{from_node_id=\"0\"} 1",
        "tpm_message_events_total{from_node_id=\"0\",to_node_id=\"0\",result=\"success\"} 1",
        "tpm_message_events_total{from_node_id=\"0\",to_node_id=\"0\",result=\"failure\"} 3",
        "tpm_message_events_total{from_node_id=\"unknown\",to_node_id=\"0\",result=\"failure\"} 1",
        "tpm_node_attestation_events_total{node_id=\"0\",result=\"success\"} 1",
        "tpm_trust_verification_failures_total 1",
        "mohawk_tpm_nonce_replay_rejections_total 1",
        "assay_node_series_omitted 0",
    ] {
        has(&text, line);
    }
    assert_eq!(value(&text, "tpm_message_verification_duration_seconds_count"), 5.0);
    assert_eq!(value(&text, "tpm_trust_verification_duration_seconds_count"), 5.0);
    assert_eq!(value(&text, "tpm_trust_cache_hits_total"), 3.0);
    assert_eq!(value(&text, "tpm_trust_cache_misses_total"), 2.0);
    assert!(value(&text, "tpm_node_attestation_latency_ms{node_id=\"0\"}") > 0.0);
    assert!(value(&text, "tpm_node_last_attestation_timestamp_seconds{node_id=\"0\"}") > 1.7e9);
    let over = value(&text, "assay_certificate_life_ratio{node_id=\"0\"}");
    assert!((0.0..0.2).contains(&over), "{over}");
    // Buckets in which a promise of a millisecond can be seen.
    has(&text, "# TYPE tpm_trust_verification_duration_seconds histogram");
    assert!(text.contains("tpm_trust_verification_duration_seconds_bucket{le=\"0.00005\"}"), "{text}");
    assert!(exported(&fixture, "/health").await.contains("\"certificates_loaded\":1"));

    device.run_program("/tmp/implant", b"evil");
    assert_eq!(attest_again(&mut stream, &mut device).await.state, "suspect");
    stream.grants().await.unwrap();
    let fallen = exported(&fixture, "/metrics").await;
    for line in [
        "tpm_node_trust_score{node_id=\"0\"} 0",
        "tpm_node_certificate_revoked{node_id=\"0\"} 1",
        "tpm_node_certificate_valid{node_id=\"0\"} 0",
        "tpm_trust_chain_valid{node_id=\"0\"} 1",
        "tpm_certificates_revoked_total 1",
        "tpm_node_attestation_events_total{node_id=\"0\",result=\"failure\"} 1",
    ] {
        has(&fallen, line);
    }
}

#[tokio::test]
async fn what_is_of_one_node_is_for_whoever_may_see_details() {
    let fixture = fixture().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let open = public(&fixture, &[]).await;
    assert!(open.contains("tpm_certificates_total 1") && !open.contains("node_id="), "{open}");
    let bearer = format!("Bearer {}", fixture.token());
    let shown = public(&fixture, &[("authorization", bearer.as_str())]).await;
    assert!(shown.contains("tpm_node_trust_score{node_id=\"0\"} 100"), "{shown}");
    let accept = "application/openmetrics-text";
    let open_metrics = public(&fixture, &[("authorization", bearer.as_str()), ("accept", accept)]).await;
    assert_eq!(open_metrics.matches("# EOF").count(), 1);
    let without = Fixture::start().await;
    assert!(!public(&without, &[]).await.contains("tpm_"));
    assert_eq!(without.running().addresses().metrics, None);
}

#[tokio::test]
async fn alerts_and_dashboards_ask_for_series_that_there_are() {
    let fixture = fixture().await;
    let edge = fixture.edge().await;
    let (device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    assert_eq!(say(&fixture, SAY, &device, &grants.device_svid[0]).await, 200);
    let mut other = fixture.device("press-2");
    edge.enroll(&mut other).await.unwrap();
    assert_eq!(say(&fixture, SAY, &other, &grants.device_svid[0]).await, 401);
    let text = exported(&fixture, "/metrics").await;
    let series: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split(['{', ' ']).next())
        .collect();
    let mut asked = 0;
    for (file, queries) in queries() {
        for name in queries.iter().flat_map(|query| names(query)) {
            asked += 1;
            // Of certificates that live for a year, where there are any; of what is configured.
            let is_configured = ABSENT.iter().any(|absent| name.starts_with(absent));
            assert!(series.contains(name) || is_configured, "{file}: {name}");
        }
    }
    assert!(asked > 80, "{asked}");
}

/// What there is only where it is configured: certificates of a year, destinations, makers' lists.
const ABSENT: [&str; 4] = [
    "tpm_certificate_expiry_seconds",
    "tpm_certificate_age_seconds",
    "assay_telemetry_forward_waiting",
    "assay_makers_revocation_list_end_seconds",
];

#[test]
fn dashboards_have_their_panels_and_load_from_files() {
    for (name, panels) in
        [("tpm-trust", 18), ("certificate-lifecycle", 8), ("security-events", 6), ("assay", 16)]
    {
        let dashboard = dashboard(&monitoring().join("grafana/dashboards").join(format!("{name}.json")));
        assert_eq!(dashboard["panels"].as_array().unwrap().len(), panels, "{name}");
        assert!(dashboard.get("dashboard").is_none() && dashboard["title"].is_string(), "{name}");
        let text = dashboard.to_string();
        assert!(!text.contains("$labels"), "{name}: legends are {{{{node_id}}}}");
        assert_eq!((&dashboard["refresh"], &dashboard["time"]["from"]), (&"30s".into(), &"now-1h".into()));
    }
}

#[test]
fn each_alert_has_a_case_in_which_it_fires() {
    let mut count = 0;
    for name in ["tpm_trust", "assay"] {
        let read = |folder: &str| {
            std::fs::read_to_string(monitoring().join(folder).join(format!("{name}.yml"))).unwrap()
        };
        let (rules, tests) = (read("rules"), read("tests"));
        let of = |text: &str, key: &str| -> Vec<String> {
            let value = |line: &str| Some(line.trim().strip_prefix(key)?.trim().to_owned());
            text.lines().filter_map(value).collect()
        };
        let alerts = of(&rules, "- alert:");
        assert_eq!(alerts, of(&tests, "- alertname:"), "{name}");
        assert_eq!(alerts.len(), of(&tests, "- exp_labels:").len(), "{name}");
        count += alerts.len();
    }
    assert!(count >= 24 + 7, "{count}");
}

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/monitoring")
}

fn dashboard(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What each file asks Prometheus for.
fn queries() -> Vec<(String, Vec<String>)> {
    let files =
        |folder: &str| std::fs::read_dir(monitoring().join(folder)).unwrap().map(|file| file.unwrap().path());
    let mut queries = Vec::new();
    for path in files("grafana/dashboards") {
        let panels = dashboard(&path)["panels"].as_array().unwrap().clone();
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap().clone());
        let asked = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
        queries.push((path.display().to_string(), asked));
    }
    for path in files("rules") {
        let text = std::fs::read_to_string(&path).unwrap();
        let asked = text.lines().filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned));
        queries.push((path.display().to_string(), asked.collect()));
    }
    queries
}

/// The names of series in a query: words with one of our prefixes.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| ["assay_", "tpm_", "mohawk_"].iter().any(|prefix| word.starts_with(prefix)))
}
