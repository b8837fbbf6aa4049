//! The benches measure something, and say it as JSON. How much is for `BENCHMARKS.md`.

use std::ffi::OsString;

use serde_json::Value;

use crate::{assay, vector};

fn measured(arguments: &[OsString]) -> Value {
    let output = assay(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_positive(figure: &Value) -> bool {
    figure.as_f64().is_some_and(|figure| figure > 0.0)
}

#[test]
fn bench_appraise_times_every_part_of_a_case() {
    let case = vector("sb-good-1");
    let report = measured(&["bench".into(), "appraise".into(), case.into(), "--json".into()]);
    assert_eq!((&report["boot_events"], &report["ima_entries"]), (&51.into(), &109.into()));
    let parts = report["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 5);
    let has_cost = |part: &Value| ["ms", "sig"].iter().all(|unit| is_positive(&part["cost"][unit]));
    assert!(parts.iter().all(has_cost), "{report}");
    assert!(is_positive(&report["limit_per_second_and_core"]["p256"]));
}

#[test]
fn bench_attest_drives_a_real_server() {
    let arguments = "bench attest --devices 3 --seconds 1 --ima-entries 50 --policy-files 20 --idle-devices 4 \
                     --policy-mib 1 --policies 2 --json";
    let report = measured(&arguments.split(' ').map(OsString::from).collect::<Vec<_>>());
    let rows = report["attestations"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    assert!(
        rows.iter().all(|row| is_positive(&row["attestations"]) && is_positive(&row["p50_ms"])),
        "{report}"
    );
    assert_eq!(report["withdrawal"]["devices"], 3);
    assert_eq!(
        (report["memory"]["devices"].as_u64(), report["aims"].as_array().unwrap().len()),
        (Some(4), 8)
    );
    let policy = &report["memory"]["policy"];
    assert!(policy["times"] == 2 && is_positive(&policy["peak_added_mib"]), "{policy}");
    assert!(is_positive(&report["resident_idle_mib"]) && is_positive(&report["first_answer_ms"]));
}

#[test]
fn bench_trust_hears_messages_and_withdraws() {
    let arguments = "bench trust --nodes 20 --seconds 2 --revoked 500 --json";
    let report = measured(&arguments.split(' ').map(OsString::from).collect::<Vec<_>>());
    assert_eq!((&report["openssl_reads_it"], &report["revoked"]), (&true.into(), &500.into()));
    assert!(is_positive(&report["cache"]["hit_rate"]) && is_positive(&report["cache"]["refused_within_ms"]));
    let aims = report["aims"].as_array().unwrap();
    assert!(aims.len() == 7 && aims.iter().take(3).all(|aim| is_positive(&aim["reached"])), "{report}");
}

#[test]
fn bench_identity_asks_a_real_server() {
    let arguments = "bench identity --devices 2 --workloads 3 --entries 40 --changes 2 --json";
    let report = measured(&arguments.split(' ').map(OsString::from).collect::<Vec<_>>());
    for grant in ["x509", "jwt"] {
        assert_eq!(report[grant]["asked"], 6, "{report}");
        assert!(
            is_positive(&report[grant]["server"]["sig"]) && is_positive(&report[grant]["p99_ms"]),
            "{report}"
        );
    }
    assert!(is_positive(&report["made"]["p50_ms"]) && is_positive(&report["deleted"]["p50_ms"]), "{report}");
    assert_eq!(report["aims"].as_array().unwrap().len(), 5);
}

#[test]
fn bench_try_judges_what_a_real_server_keeps() {
    let arguments = "bench try --devices 3 --results 4 --json";
    let report = measured(&arguments.split(' ').map(OsString::from).collect::<Vec<_>>());
    assert_eq!(report["results"], 12);
    assert!(
        is_positive(&report["per_second"]) && is_positive(&report["stored_bytes_per_result"]),
        "{report}"
    );
}
