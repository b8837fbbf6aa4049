//! `assay tee verify`: every recorded sample through the program, and the rules that refuse what verifies.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The recorded samples; says in one line when they are absent.
fn samples() -> Option<PathBuf> {
    crate::shared_cases().map(|cases| cases.join("../tee")).filter(|folder| folder.exists())
}

fn verify(arguments: &[&str]) -> (Option<i32>, Value) {
    let Some(folder) = samples() else { return (None, Value::Null) };
    let program = env!("CARGO_BIN_EXE_assay");
    let output: Output = Command::new(program)
        .args(["tee", "verify", "--json"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::String(told));
    (output.status.code(), said)
}

fn checks(said: &Value) -> Vec<&str> {
    let findings = said["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    findings
        .iter()
        .filter(|finding| finding["tier"] != "affirming")
        .filter_map(|finding| finding["check"].as_str())
        .collect()
}

/// What the samples' index says of each: the arguments, then integrity, TCB status, and the checks that refuse.
type Sample = (&'static [&'static str], &'static str, Option<&'static str>, &'static [&'static str]);

const NOW: &str = "2026-11-29T00:00:00Z";
const SNP_ROOTS: &str = "snp/roots";

#[test]
fn every_sample_comes_out_as_its_index_says() {
    let samples: &[Sample] = &[
        (
            &["snp/milan-v2/report.bin", "snp/milan-v2/vek.der", "--roots", SNP_ROOTS, "--at", NOW],
            "accept",
            None,
            &[],
        ),
        (
            &[
                "snp/milan-v2-azure/vek.der",
                "snp/milan-v2-azure/report.bin",
                "--roots",
                SNP_ROOTS,
                "--at",
                NOW,
            ],
            "accept",
            None,
            &[],
        ),
        (
            &["snp/milan-v3/report.bin", "snp/milan-v3/vek.der", "--roots", SNP_ROOTS, "--at", NOW],
            "accept",
            None,
            &[],
        ),
        (
            &["snp/genoa-v5/report.bin", "snp/genoa-v5/vek.der", "--roots", SNP_ROOTS, "--at", NOW],
            "accept",
            None,
            &[],
        ),
        (
            &["snp/turin-v5/report.bin", "snp/turin-v5/vek.der", "--roots", SNP_ROOTS, "--at", NOW],
            "accept",
            None,
            &[],
        ),
        (
            &[
                "snp/milan-v3-vlek/report.bin",
                "--endorsement",
                "snp/milan-v3-vlek/vek.der",
                "--roots",
                "snp/roots/milan_ask_ark_asvk.pem",
                "--at",
                "2025-06-01T00:00:00Z",
            ],
            "accept",
            None,
            &[],
        ),
        (
            &["snp/milan-v3-vlek/report.bin", "snp/milan-v3-vlek/vek.der", "--roots", SNP_ROOTS, "--at", NOW],
            "reject",
            None,
            &["tee-validity"],
        ),
        (
            &[
                "dcap/tdx-v4-uptodate/quote.bin",
                "dcap/tdx-v4-uptodate/collateral.json",
                "--at",
                "2025-07-01T00:00:00Z",
            ],
            "accept",
            Some("UpToDate"),
            &[],
        ),
        (
            &["dcap/tdx-v4-uptodate/quote.bin", "dcap/tdx-v4-uptodate/collateral.json", "--at", NOW],
            "reject",
            None,
            &["tee-collateral"],
        ),
        (
            &[
                "dcap/tdx-v5-td15ex/quote.bin",
                "dcap/tdx-v5-td15ex/collateral.json",
                "--at",
                "2026-10-20T00:00:00Z",
            ],
            "accept",
            Some("UpToDate"),
            &[],
        ),
        (
            &[
                "dcap/tdx-v5-nolevel/quote.bin",
                "dcap/tdx-v5-nolevel/collateral.json",
                "--at",
                "2026-03-01T00:00:00Z",
            ],
            "reject",
            None,
            &["tee-tcb"],
        ),
        (
            &[
                "dcap/tdx-v4-gcp-ccel/quote.bin",
                "dcap/tdx-v4-gcp-ccel/collateral.json",
                "--at",
                "2025-07-20T00:00:00Z",
            ],
            "accept",
            Some("UpToDate"),
            &[],
        ),
        (
            &[
                "dcap/tdx-v4-outofdate/quote.bin",
                "--collateral",
                "dcap/tdx-v4-gcp-ccel/collateral.json",
                "--at",
                "2025-07-20T00:00:00Z",
            ],
            "reject",
            Some("OutOfDate"),
            &["tee-tcb"],
        ),
        (
            &[
                "dcap/tdx-v4-debug/quote.bin",
                "dcap/tdx-v4-debug/collateral.json",
                "--at",
                "2023-07-01T00:00:00Z",
            ],
            "reject",
            Some("UpToDate"),
            &["tee-policy"],
        ),
        (
            &[
                "dcap/sgx-v3-swhardening/quote.bin",
                "dcap/sgx-v3-swhardening/collateral.json",
                "--at",
                "2025-09-01T00:00:00Z",
            ],
            "accept",
            Some("SWHardeningNeeded"),
            &[],
        ),
        (
            &[
                "dcap/sgx-v3-confighardening/quote.bin",
                "dcap/sgx-v3-confighardening/collateral.json",
                "--at",
                "2025-07-01T00:00:00Z",
            ],
            "accept",
            Some("ConfigurationAndSWHardeningNeeded"),
            &[],
        ),
        (
            &[
                "dcap/sgx-v3-debug/quote.bin",
                "--collateral",
                "dcap/sgx-v3-swhardening/collateral.json",
                "--at",
                "2025-09-01T00:00:00Z",
            ],
            "reject",
            Some("OutOfDate"),
            &["tee-tcb", "tee-policy"],
        ),
        (
            &[
                "dcap/tdx-v4-gcp-ccel/ccel_data.bin",
                "dcap/tdx-v4-gcp-ccel/quote.bin",
                "dcap/tdx-v4-gcp-ccel/collateral.json",
                "--at",
                "2025-07-20T00:00:00Z",
            ],
            "accept",
            Some("UpToDate"),
            &[],
        ),
        (
            &["azure/snp-milan-v1.json", "--roots", SNP_ROOTS, "--nonce", "6368616c6c656e6765", "--at", NOW],
            "accept",
            None,
            &[],
        ),
        (&["azure/snp-genoa-v0.json", "--roots", SNP_ROOTS, "--at", NOW], "accept", None, &[]),
        (
            &[
                "azure/tdx-v1.json",
                "--collateral",
                "dcap/tdx-v4-gcp-ccel/collateral.json",
                "--nonce",
                "6368616c6c656e6765",
                "--at",
                "2025-07-20T00:00:00Z",
            ],
            "reject",
            Some("OutOfDate"),
            &["tee-tcb"],
        ),
        (&["cca/token-tfrmm.cbor", "--trust-anchor", "cca/cpak.json"], "accept", None, &[]),
        (&["cca/token-tfrmm.cbor", "--trust-anchor", "cca/ta-tfa.json"], "accept", None, &[]),
        (&["cca/token-draft-ffm-00.cbor", "--trust-anchor", "cca/cpak.json"], "accept", None, &[]),
        (&["cca/token-es256-sha512.cbor", "--trust-anchor", "cca/ta-02-ok.json"], "accept", None, &[]),
        (
            &["cca/token-es256-sha512.cbor", "--trust-anchor", "cca/ta-02-bad.json"],
            "reject",
            None,
            &["tee-report-signature"],
        ),
        (&["cca/token-tfrmm.cbor"], "reject", None, &["tee-chain"]),
        (
            &[
                "nvidia/h100-report.hex",
                "nvidia/h100-chain.pem",
                "--nonce",
                "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb",
                "--at",
                NOW,
            ],
            "accept",
            None,
            &[],
        ),
        (
            &[
                "snp/milan-v2/report.bin",
                "snp/bad-certs/vcek-not-amd-legacy.der",
                "--roots",
                SNP_ROOTS,
                "--at",
                NOW,
            ],
            "reject",
            None,
            &["tee-chain", "tee-report-signature", "tee-tcb", "tee-chip"],
        ),
    ];
    for (arguments, integrity, status, refused) in samples {
        let (exit, said) = verify(arguments);
        let Some(exit) = exit else { return };
        assert_eq!(said["integrity"], *integrity, "{arguments:?}: {said}");
        assert_eq!(exit, i32::from(*integrity == "reject"), "{arguments:?}: {said}");
        assert_eq!(said["tcb_status"].as_str(), *status, "{arguments:?}: {said}");
        let mut found = checks(&said);
        found.dedup();
        assert_eq!(found, *refused, "{arguments:?}: {said}");
    }
}

#[test]
fn a_policy_says_what_is_good() {
    let folder = TempDir::new().unwrap();
    let policy = folder.path().join("guests.toml");
    let judged = |section: &str| {
        std::fs::write(&policy, format!("name = \"guests\"\nversion = 3\n[tee]\n{section}")).unwrap();
        let file = policy.to_str().unwrap();
        verify(&[
            "snp/genoa-v5/report.bin",
            "snp/genoa-v5/vek.der",
            "--roots",
            SNP_ROOTS,
            "--at",
            NOW,
            "--policy",
            file,
        ])
    };
    let (Some(_), said) =
        verify(&["snp/genoa-v5/report.bin", "snp/genoa-v5/vek.der", "--roots", SNP_ROOTS, "--at", NOW])
    else {
        return;
    };
    let measurement = said["claims"]["measurement"].as_str().unwrap().to_owned();
    let good = format!(
        "kinds = [\"sev-snp\"]\nstale_crl = \"report\"\nmeasurements = [\"{measurement}\"]\n\
         [tee.snp_minimum.genoa]\nsnp = 25\nmicrocode = 84\n"
    );
    let (exit, said) = judged(&good);
    assert_eq!((exit, said["tier"].as_str()), (Some(0), Some("affirming")), "{said}");
    assert_eq!(said["trust_vector"]["executables"], 2);
    for (from, to) in [
        ("sev-snp", "tdx"),
        ("\"report\"", "\"refuse\""),
        (&measurement[..8], "00000000"),
        ("snp = 25", "snp = 26"),
        ("genoa", "milan"),
    ] {
        let (exit, said) = judged(&good.replace(from, to));
        assert_eq!(exit, Some(1), "{from} → {to}: {said}");
        let expected = match to {
            "\"refuse\"" => "tee-revoked",
            "snp = 26" => "tee-tcb",
            _ => "tee-policy",
        };
        assert_eq!(checks(&said).first(), Some(&expected), "{from} → {to}: {said}");
    }
    for wrong in [
        "kinds = []\n",
        "kinds = [\"sev\"]\n",
        "kinds = [\"tdx\"]\nmeasurements = [\"12\"]\n",
        "kinds = [\"tdx\"]\nvmpl_max = 4\n",
    ] {
        let (exit, said) = judged(wrong);
        assert_eq!(exit, Some(2), "{wrong}: {said}");
    }
}

#[test]
fn a_nonce_is_the_head_of_report_data() {
    let arguments = [
        "dcap/sgx-v3-confighardening/quote.bin",
        "dcap/sgx-v3-confighardening/collateral.json",
        "--at",
        "2025-07-01T00:00:00Z",
    ];
    let (Some(_), said) = verify(&arguments) else { return };
    let data = said["claims"]["report_data"].as_str().unwrap().trim_end_matches('0').to_owned();
    let asked = |nonce: &str| verify(&[arguments.as_slice(), &["--nonce", nonce]].concat());
    assert_eq!(asked(&data).0, Some(0));
    let (exit, said) = asked("00112233");
    assert_eq!((exit, checks(&said)), (Some(1), vec!["tee-report-data"]));
    assert_eq!(asked("zz").0, Some(2));
    assert_eq!(asked(&"00".repeat(65)).0, Some(2));
}

#[test]
fn what_is_no_evidence_is_of_no_use() {
    for arguments in [
        &["snp/roots/milan_ask_ark_asvk.pem"][..],
        &["INDEX.md"],
        &["nothing.bin"],
        &["snp/milan-v3/report.bin"],
        &["snp/milan-v3/report.bin", "snp/milan-v2/report.bin", "snp/milan-v3/vek.der"],
        &["snp/milan-v3/report.bin", "snp/milan-v3/vek.der", "snp/milan-v2/vek.der"],
        &["dcap/tdx-v4-debug/quote.bin", "nvidia/device_root.pem", "--at", "yesterday"],
    ] {
        let (exit, said) = verify(arguments);
        let Some(exit) = exit else { return };
        assert_eq!(exit, 2, "{arguments:?}: {said}");
    }
}
