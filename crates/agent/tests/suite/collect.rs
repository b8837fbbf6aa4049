//! `tpm detect` and `collect` on a booted machine, with tpm2-tools as the second opinion.

use assay_agent::config::Sources;
use assay_agent::detect::{LogState, Severity, detect};
use assay_evidence::tpm::pcr::PcrValues;
use assay_testkit::{Bank, Machine};

use crate::bench::{Bench, tool};

fn sources(bench: &Bench) -> Sources {
    let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
    Sources {
        tpm: bench.target(),
        boot_log: machine.boot_log_path(),
        ima_log: machine.ima_log_path(),
        measure_log: "/none".into(),
    }
}

#[test]
fn swtpm_is_detected_and_described() {
    let bench = Bench::new();
    let report = detect(&sources(&bench));
    assert!(report.is_ready(), "{report}");
    assert_eq!(report.manufacturer.as_deref(), Some("IBM"));
    assert_eq!(report.endorsement_key.as_deref(), Some("RSA-2048"));
    assert_eq!(report.ek_certificates.len(), 2);
    assert_eq!((report.boot_log, report.ima_log), (LogState::Readable, LogState::Readable));
    assert!(report.algorithms.iter().any(|name| name == "sha256"));
    let text = report.to_string();
    for line in ["Firmware", "sha256 (24 PCRs)", "ECC P-384 (NV 0x01c00016", "can be attested"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["pcr_banks"][1]["algorithm"], "sha256");
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let bench = Bench::with_banks(&[Bank::Sha1]);
    let mut sources = Sources {
        tpm: bench.target(),
        boot_log: bench.path("no boot log"),
        ima_log: bench.path("no list"),
        measure_log: "/none".into(),
    };
    let advised = |sources: &Sources, severity, what: &str, action: &str| {
        let report = detect(sources);
        let found = report.advice.iter().any(|advice| {
            advice.severity == severity && advice.what.contains(what) && advice.action.contains(action)
        });
        assert!(found && report.is_ready() == (severity == Severity::Note), "{report}");
    };
    advised(&sources, Severity::Problem, "SHA-256 PCR bank", "tpm2_pcrallocate");
    sources.tpm = bench.path("tpmrm0").display().to_string().parse().unwrap();
    advised(&sources, Severity::Problem, "is not there", "firmware setup");
    let bench = Bench::new();
    sources.tpm = bench.target();
    advised(&sources, Severity::Note, "no IMA list", "assay-agent setup ima");
    advised(&sources, Severity::Note, "no boot log", "securityfs");
}

/// On boards whose TPM hangs on SPI, IMA is often ready before the driver of the bus.
#[test]
fn a_list_that_never_reached_the_tpm_is_told() {
    let bench = Bench::new();
    let list = bench.path("list");
    let entry = assay_testkit::machine::ImaEntry::file("/usr/bin/true", b"content");
    std::fs::write(&list, entry.binary()).unwrap();
    let sources = Sources {
        tpm: bench.target(),
        boot_log: bench.path("no boot log"),
        ima_log: list,
        measure_log: "/none".into(),
    };
    let report = detect(&sources);
    let told = |advice: &assay_agent::detect::Advice| {
        advice.severity == Severity::Problem
            && advice.what.contains("PCR 10 was never extended")
            && advice.action.contains("CONFIG_TCG_TIS=y")
    };
    assert!(report.advice.iter().any(told) && !report.is_ready(), "{report}");
}

#[test]
fn swtpm_case_is_what_tpm2_tools_would_have_written() {
    let bench = Bench::new();
    let out = bench.path("case");
    let files = assay_agent::collect::collect(&sources(&bench), &out).unwrap().files;
    for name in [
        "quote.msg",
        "pcr-banks.bin",
        "pcr-banks.msg",
        "pcr-banks.sig",
        "ek-cert.der",
        "binary_bios_measurements",
        "binary_runtime_measurements",
    ] {
        assert!(files.contains(&name), "{name}");
    }
    let pcrs = std::fs::read(out.join("quote.pcrs")).unwrap();
    assert_eq!(PcrValues::from_tpm2_tools(&pcrs).unwrap().1.len(), 16);

    let nonce = std::fs::read_to_string(out.join("quote.nonce")).unwrap();
    let checkquote = ["-u", "ak.pem", "-m", "quote.msg", "-s", "quote.sig", "-f", "quote.pcrs", "-q", &nonce];
    tool(&out, "tpm2_checkquote", &checkquote);
    for (kind, file) in [
        ("TPM2B_PUBLIC", "ak.tpm2b_public"),
        ("TPM2B_PUBLIC", "ek.tpm2b_public"),
        ("TPMS_ATTEST", "quote.msg"),
    ] {
        tool(&out, "tpm2_print", &["-t", kind, file]);
    }
    let chain = [bench.maker.root_ca(), bench.maker.issuing_ca()].map(|path| path.display().to_string());
    let [root, issuing] = &chain;
    tool(&out, "openssl", &["x509", "-inform", "DER", "-in", "ek-cert.der", "-out", "ek-cert.pem"]);
    tool(
        &out,
        "openssl",
        &["verify", "-ignore_critical", "-CAfile", root, "-untrusted", issuing, "ek-cert.pem"],
    );
}

#[test]
fn year_12_a_reader_that_has_seen_enough_does_not_break_the_program() {
    for verb in [&["doctor"][..], &["tpm", "detect"]] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_assay-agent"));
        program.args(verb).args(["--tpm", "unix:/nowhere/tpm.sock"]);
        program.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut running = program.spawn().unwrap();
        drop(running.stdout.take());
        let output = running.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains("panicked")), (Some(1), false), "{verb:?}: {said}");
    }
}

/// Indexes that were written in part, never written, or are closed: each is told, and the machine is attested all the same.
#[test]
fn an_index_without_a_whole_certificate_is_told_and_ends_nothing() {
    let bench = Bench::new();
    let sources = sources(&bench);
    let whole = bench.open().ek_certificates().unwrap().leaves.remove(0).1;
    let mut tpm = bench.soft.connect().unwrap();
    tpm.define_nv(ECC_P256_CERTIFICATE, 1600, true, &whole[..700]).unwrap();
    tpm.define_nv(FIRST_CA_CERTIFICATE, 800, true, &[]).unwrap();
    tpm.define_nv(FIRST_CA_CERTIFICATE + 1, 800, false, &whole[..700]).unwrap();
    drop(tpm);
    let report = detect(&sources);
    let told = |words: &[&str]| {
        let says = |advice: &assay_agent::detect::Advice| {
            advice.severity == Severity::Note && words.iter().all(|word| advice.what.contains(word))
        };
        assert!(report.advice.iter().any(says), "{words:?}: {report}");
    };
    told(&["NV index 0x01c0000a", &format!("of the {} bytes that it says it has", whole.len())]);
    told(&["NV index 0x01c00100", "the TPM answered"]);
    told(&["NV index 0x01c00101", "the TPM answered"]);
    assert!(report.is_ready() && report.ek_certificates.len() == 2, "{report}");

    let collected = assay_agent::collect::collect(&sources, &bench.path("case")).unwrap();
    assert_eq!(collected.missing.len(), 3, "{:?}", collected.missing);
    assert!(collected.files.contains(&"ek-cert.der"), "{:?}", collected.files);
}

/// TCG EK Credential Profile 2.5, 2.2.1.4 and 2.2.1.5.2.
const ECC_P256_CERTIFICATE: u32 = 0x01c0_000a;
const FIRST_CA_CERTIFICATE: u32 = 0x01c0_0100;
