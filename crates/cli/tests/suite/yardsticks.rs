//! `assay inspect` beside other readers: every shared file, and the PCRs that each log leads to by other people's tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use crate::inspect::inspect;
use crate::{assay, shared_cases};

/// Every file below a folder.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// The project's own vectors, and what is shared where it is.
fn all_files() -> Vec<PathBuf> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    let shared = shared_cases().and_then(|cases| Some(cases.parent()?.to_owned()));
    [Some(vectors), shared].iter().flatten().flat_map(|root| files_below(root)).collect()
}

/// PCRs of a log that `tpm2_eventlog` reads, by the program as it is installed here.
fn tpm2_eventlog(log: &Path) -> Option<Value> {
    match Command::new("tpm2_eventlog").arg(log).output() {
        Ok(output) => {
            printed_pcrs(&String::from_utf8_lossy(&output.stdout)).filter(|_| output.status.success())
        }
        Err(error) => panic!("tpm2_eventlog: {error}: scripts/setup installs tpm2-tools"),
    }
}

/// Every log that tpm2-tools read leads to the same PCRs by them.
///
/// Until their version 5.6 they differ in PCR 0 of logs with a StartupLocality event: a TPM begins that PCR with the locality
/// of TPM2_Startup (TPM 2.0 Part 3, TPM2_Startup; Platform Firmware Profile, 10.4.5.3) and an event of type EV_NO_ACTION
/// extends nothing, while they began it with zero and extended it with that event's digest, which is all zeros. That it is
/// this and nothing else is seen by the same log with an event in its place that does extend: there they agree. What the
/// TPM had is in the quotes beside the logs of `vectors/field`, and is what is said here.
#[test]
fn logs_lead_to_what_tpm2_tools_say() {
    let folder = tempdir().unwrap();
    let extending = folder.path().join("log");
    let (mut equal, mut explained) = (0, 0);
    // A log begins with the number of a PCR.
    let may_be_log =
        |path: &PathBuf| std::fs::read(path).is_ok_and(|b| matches!(b[..], [0..24, 0, 0, 0, ..]));
    for path in all_files().into_iter().filter(may_be_log) {
        let (_, json) = inspect(&path, &[]);
        if json["kind"] != "boot-log" {
            continue;
        }
        let Some(theirs) = tpm2_eventlog(&path) else { continue };
        let ours = &json["says"]["pcrs"];
        if *ours == theirs {
            equal += 1;
            continue;
        }
        let log = std::fs::read(&path).unwrap();
        let at = log.windows(STARTUP_LOCALITY.len()).position(|bytes| bytes == STARTUP_LOCALITY);
        let at = at.unwrap_or_else(|| panic!("{}: {ours} and {theirs}", path.display()));
        // Before its data: its type, the number of its digests, each with its algorithm, the size of the data.
        let digests: usize = ours.as_object().unwrap().keys().map(|bank| 2 + digest_bytes(bank)).sum();
        let of_type = at - 4 - digests - 4 - 4;
        let changed = [&log[..of_type], &EV_POST_CODE.to_le_bytes(), &log[of_type + 4..]].concat();
        std::fs::write(&extending, changed).unwrap();
        assert_eq!(inspect(&extending, &[]).1["says"]["pcrs"], theirs, "{}", path.display());
        for (bank, pcrs) in ours.as_object().unwrap() {
            let differs =
                |(pcr, value): (&String, &Value)| (*value != theirs[bank][pcr]).then(|| pcr.clone());
            assert_eq!(pcrs.as_object().unwrap().iter().filter_map(differs).collect::<Vec<_>>(), ["0"]);
        }
        let quoted = path.with_file_name("quote.pcrs");
        if quoted.exists() {
            assert_eq!(inspect(&path, &["--against", quoted.to_str().unwrap()]).0, 0, "{}", path.display());
            explained += 1;
        }
    }
    assert!(equal > 20, "{equal} equal");
    println!("{equal} equal, {explained} differ in PCR 0, where the TPM bears this program out");
}

fn digest_bytes(bank: &str) -> usize {
    match bank {
        "sha1" => 20,
        "sha256" => 32,
        "sha384" => 48,
        _ => 64,
    }
}

const EV_POST_CODE: u32 = 1;
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";

/// The PCRs that `tpm2_eventlog` printed of a log.
fn printed_pcrs(text: &str) -> Option<Value> {
    let (_, pcrs) = text.split_once("\npcrs:\n")?;
    let mut banks = serde_json::Map::new();
    let mut bank = String::new();
    for line in pcrs.lines() {
        match line.trim().split_once(':')? {
            (name, "") => name.clone_into(&mut bank),
            (index, value) => {
                let values = banks.entry(bank.clone()).or_insert_with(|| Value::Object(Default::default()));
                let value = value.trim().trim_start_matches("0x").to_lowercase();
                values.as_object_mut()?.insert(index.trim().to_owned(), value.into());
            }
        }
    }
    Some(Value::Object(banks))
}

/// Every file of the shared evidence: none ends the program, for people and as JSON, and each log leads where other readers
/// say it does.
#[test]
fn every_shared_file_is_read() {
    let Some(cases) = shared_cases() else { return };
    let (mut files, mut compared, mut printed) = (0, 0, 0);
    for path in files_below(cases.parent().unwrap_or(&cases)) {
        let (exit, json) = inspect(&path, &[]);
        files += 1;
        assert_eq!(exit, i32::from(json["error"].is_string()), "{}: {json}", path.display());
        let for_people = assay(["inspect".as_ref(), path.as_os_str()]);
        assert_eq!(for_people.status.code(), Some(exit), "{}", path.display());
        assert!(for_people.stdout.is_empty() == (exit == 1), "{}", path.display());
        let beside = match path.file_name() {
            Some(name) if name == "binary_bios_measurements" => path.with_file_name("eventlog.yaml"),
            _ => PathBuf::from(format!("{}.yaml", path.display())),
        };
        if let Ok(text) = std::fs::read(&beside)
            && let Some(expected) = printed_pcrs(&String::from_utf8_lossy(&text))
        {
            assert_eq!(json["says"]["pcrs"], expected, "{}", path.display());
            printed += 1;
        }
        let yardstick = PathBuf::from(format!("{}.replayed-pcrs.json", path.display()));
        if let Ok(expected) = std::fs::read(yardstick) {
            let mut expected: Value = serde_json::from_slice(&expected).unwrap();
            expected.as_object_mut().unwrap().retain(|_, bank| !bank.as_object().unwrap().is_empty());
            assert_eq!(json["says"]["pcrs"], expected, "{}", path.display());
            compared += 1;
        }
    }
    assert!(files > 500 && compared > 10 && printed > 15, "{files} files, {compared} and {printed} compared");
}

/// Reports of confidential machines, as makers and clouds gave them out.
#[test]
fn reports_of_confidential_machines_say_their_main_fields() {
    let Some(cases) = shared_cases() else { return };
    let tee = cases.join("../tee");
    let says = |path: &str, expected: &str| {
        let (exit, json) = inspect(&tee.join(path), &[]);
        assert_eq!((exit, json["kind"].as_str()), (0, Some(expected)), "{path}: {json}");
        json
    };
    for (folder, version) in
        [("milan-v2", 2), ("milan-v3", 3), ("milan-v3-vlek", 3), ("genoa-v5", 5), ("turin-v5", 5)]
    {
        let report = says(&format!("snp/{folder}/report.bin"), "snp-report");
        assert_eq!(report["says"]["version"], version, "{folder}");
        let key = report["says"]["signed_by"].as_str().unwrap();
        assert_eq!(key.starts_with("VLEK"), folder.ends_with("vlek"), "{folder}");
    }
    for (folder, kind, is_debug) in [
        ("tdx-v4-uptodate", "tdx-quote", false),
        ("tdx-v4-gcp-ccel", "tdx-quote", false),
        ("tdx-v4-debug", "tdx-quote", true),
        ("tdx-v5-td15ex", "tdx-quote", false),
        ("tdx-v5-nolevel", "tdx-quote", false),
        ("sgx-v3-swhardening", "sgx-quote", false),
        ("sgx-v3-debug", "sgx-quote", true),
    ] {
        let quote = says(&format!("dcap/{folder}/quote.bin"), kind);
        let remarks = quote["remarks"].to_string();
        assert_eq!(remarks.contains("keeps nothing from the host"), is_debug, "{folder}: {remarks}");
    }
    // What the machine extended is what its log of events leads to.
    let quote = says("dcap/tdx-v4-gcp-ccel/quote.bin", "tdx-quote");
    let log = says("dcap/tdx-v4-gcp-ccel/ccel_data.bin", "cc-log");
    for register in ["rtmr0", "rtmr1", "rtmr2"] {
        assert_eq!(quote["says"]["registers"][register], log["says"]["registers"][register]);
    }
    let against = |log: &str, quote: &str| {
        let quote = tee.join(format!("dcap/{quote}/quote.bin"));
        inspect(&tee.join(log), &["--against", quote.to_str().unwrap()]).0
    };
    assert_eq!(against("dcap/tdx-v4-gcp-ccel/ccel_data.bin", "tdx-v4-gcp-ccel"), 0);
    assert_eq!(against("dcap/tdx-v4-gcp-ccel/ccel_data.bin", "tdx-v4-uptodate"), 1);
    // Each says what judges it.
    for (path, kind) in [
        ("cca/token-tfrmm.cbor", "cca-token"),
        ("nvidia/h100-report.hex", "spdm-measurements"),
        ("azure/snp-milan-v1.json", "azure-evidence"),
        ("azure/tdx-v1.json", "azure-evidence"),
        ("azure/snp-genoa-v0.json", "azure-evidence"),
        ("snp/genoa-v5/report.bin", "snp-report"),
    ] {
        let remarks = says(path, kind)["remarks"].to_string();
        assert!(remarks.contains("assay tee verify"), "{path}: {remarks}");
    }
}
