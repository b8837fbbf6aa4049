//! The program from outside: run as an operator runs it, over evidence of real boots.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod bench;
mod boot_rules;
mod cases;
mod changes;
mod doctor;
mod ear;
mod entries;
mod init;
mod initrd;
mod inspect;
mod message;
mod names;
mod one_reason;
mod policy;
mod recorded;
mod rego;
mod rollout;
mod stored;
mod tampered;
mod task;
mod tee;
mod telemetry;
mod usage;
mod verbs;
mod yardsticks;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the program.
fn assay<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assay")).args(arguments).output().unwrap()
}

/// What `assay appraise --json` says.
struct Appraisal {
    exit: i32,
    json: Value,
}

impl Appraisal {
    /// With the authority of the recorded machines as the trust anchor where a policy may ask for one, unless others are
    /// given.
    fn of(folder: &Path, arguments: &[&str]) -> Self {
        let anchor = vector("sb-good-1").join("ek-issuing-ca.pem");
        let anchors: &[&OsStr] = match arguments {
            given if given.contains(&"--policy") && !given.contains(&"--trust-anchor") => {
                &["--trust-anchor".as_ref(), anchor.as_os_str()]
            }
            _ => &[],
        };
        let mut appraisal = Self::as_given(folder, arguments, anchors);
        // That nobody chose the nonce is said of every folder, and has a test of its own.
        let is_of_nonce = |finding: &Value| finding["check"] == "quote-nonce" && finding["tier"] == "none";
        if let Some(findings) = appraisal.json["findings"].as_array_mut() {
            findings.retain(|finding| !is_of_nonce(finding));
        }
        appraisal
    }

    /// With these arguments and no others.
    fn as_given(folder: &Path, arguments: &[&str], more: &[&OsStr]) -> Self {
        let fixed: [&OsStr; 3] = ["appraise".as_ref(), folder.as_os_str(), "--json".as_ref()];
        let arguments = arguments.iter().map(AsRef::as_ref).chain(more.iter().copied());
        let output = assay(fixed.into_iter().chain(arguments));
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr)));
        Appraisal { exit: output.status.code().unwrap(), json }
    }

    fn integrity(&self) -> &str {
        self.json["integrity"].as_str().unwrap()
    }

    fn tier(&self) -> &str {
        self.json["tier"].as_str().unwrap()
    }

    fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().unwrap()
    }

    /// The claims of the findings of one check.
    fn claims(&self, check: &str) -> Vec<&str> {
        let of_check = self.findings().iter().filter(|finding| finding["check"] == check);
        of_check.map(|finding| finding["claim"].as_str().unwrap()).collect()
    }

    /// The messages of all findings, for looking into.
    fn messages(&self) -> String {
        self.findings()
            .iter()
            .map(|finding| finding["message"].as_str().unwrap())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// A case of this repository.
fn vector(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/tpm").join(case)
}

/// The folder of shared cases, or `None` and a line that says so.
fn shared_cases() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/evidence/tpm");
    if !folder.is_dir() {
        // Not `eprintln!`, which the test harness keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "skipped: ../shared/evidence/tpm is absent");
        return None;
    }
    Some(folder)
}

/// Learns a policy from one case into a folder, and answers its path.
fn learn(case: &Path, into: &Path, arguments: &[&str]) -> PathBuf {
    let policy = into.join("policy.toml");
    let output = assay(
        ["policy", "learn"]
            .into_iter()
            .map(AsRef::as_ref)
            .chain([case.as_os_str(), "-o".as_ref(), policy.as_os_str()])
            .chain(arguments.iter().map(AsRef::as_ref)),
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    policy
}
