//! `assay-agent doctor`: what is wrong on this device and what to do, beside a running agent or in the place of one that does
//! not start. The report's form is [`assay_wire::doctor`].

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::UNIX_EPOCH;

use assay_clock::Clock;
use assay_evidence::tpm::CertificateSummary;
use assay_identity::tls::{Trust, TrustSource};
use assay_identity::{Bundle, CrlSet};
use assay_wire::doctor::{Report, Severity};

use crate::config::{Config, ConfigError, ConfigFile, Options};
use crate::detect::{self, LogState};
use crate::state_dir::{StateDir, StateError};
use crate::tpm::Target;
use crate::upstream::Connection;

/// Looks at everything that an agent with these options needs.
pub async fn examine(options: Options) -> Report {
    let mut report = Report::new("assay-agent", env!("CARGO_PKG_VERSION"), Clock::system().seconds());
    let file = options.config.clone();
    let merged = match options.merge() {
        Ok(merged) => merged,
        Err(error) => {
            configuration_problem(&mut report, &error);
            return report;
        }
    };
    let shown = file.map_or_else(|| "flags and environment".to_owned(), |file| file.display().to_string());
    match merged.clone().complete() {
        Ok(config) => {
            report.good("configuration", shown);
            let runs = state(&mut report, &config.state);
            tpm(&mut report, &merged, runs);
            workload_api(&mut report, &config.workload_api, runs);
            gateway(&mut report, &config).await;
        }
        Err(error) => {
            configuration_problem(&mut report, &error);
            tpm(&mut report, &merged, false);
        }
    }
    report
}

fn configuration_problem(report: &mut Report, error: &ConfigError) {
    let mut found = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        found = format!("{found}: {source}");
        cause = source.source();
    }
    report.find(Severity::Problem, "configuration", found, "docs/reference/configuration.md has every key");
}

/// The folder of the agent's own files; whether an agent uses it now.
fn state(report: &mut Report, folder: &Path) -> bool {
    let shown = folder.display();
    let Ok(metadata) = fs::metadata(folder) else {
        let action = "assay-agent run makes it at its first start";
        report.find(Severity::Note, "state", format!("{shown}: is not there yet"), action);
        return false;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        report.find(Severity::Warning, "state", format!("{shown}: its mode is {mode:o}"), "chmod 700");
    }
    let runs = match StateDir::open(folder) {
        Err(StateError::InUse { .. }) => {
            report.good("running", format!("an agent uses {shown}"));
            true
        }
        Ok(_) => {
            let action = "start it: assay-agent run, or its systemd unit; its log says why it ended";
            report.find(Severity::Problem, "running", format!("no agent uses {shown}"), action);
            false
        }
        Err(error) => {
            report.find(Severity::Problem, "state", error.to_string(), "run doctor as the agent's user");
            false
        }
    };
    match folder.join("enrollment.json").exists() {
        true => report.good("enrollment", "enrolled"),
        false => report.find(
            if runs { Severity::Warning } else { Severity::Note },
            "enrollment",
            "not enrolled yet",
            "the agent enrolls by itself; its log says what is in the way",
        ),
    }
    if let Ok(said) = fs::read_to_string(folder.join("ledger.contradictions")) {
        let first = said.lines().next().unwrap_or_default().to_owned();
        let action =
            "ask the server's operator whether the database was set back: docs/howto/backup-and-restore.md";
        report.find(Severity::Warning, "ledger", first, action);
    }
    disk(report, folder);
    runs
}

fn disk(report: &mut Report, folder: &Path) {
    if let Ok(of) = rustix::fs::statvfs(folder) {
        let bytes = |blocks: u64| blocks.saturating_mul(of.f_frsize);
        report.space(&folder.display().to_string(), (bytes(of.f_bavail), bytes(of.f_blocks)));
    }
}

/// What `tpm detect` finds.
fn tpm(report: &mut Report, file: &ConfigFile, runs: bool) {
    let sources = match file.sources() {
        Ok(sources) => sources,
        Err(error) => return configuration_problem(report, &error),
    };
    // One without a resource manager is the running agent's alone.
    if runs && !matches!(&sources.tpm, Target::Device(_) if !sources.tpm.is_direct()) {
        let action = "stop the agent and run doctor again to have it looked at";
        return report.find(
            Severity::Note,
            "tpm",
            format!("{}: the running agent has it", sources.tpm),
            action,
        );
    }
    let detected = detect::detect(&sources);
    if detected.usable {
        let maker = detected.manufacturer.clone().unwrap_or_default();
        report
            .good("tpm", format!("{}, {maker} {}", sources.tpm, detected.vendor.clone().unwrap_or_default()));
        if !detected.ek_certificates.is_empty() {
            report.good("ek certificate", format!("{} in the TPM", detected.ek_certificates.len()));
        }
    }
    for (check, state, path) in
        [("boot log", detected.boot_log, &sources.boot_log), ("ima", detected.ima_log, &sources.ima_log)]
    {
        if state == LogState::Readable {
            report.good(check, path.display().to_string());
        }
    }
    for detect::Advice { about, severity, what, action } in detected.advice {
        let severity = match severity {
            detect::Severity::Problem => Severity::Problem,
            detect::Severity::Note => Severity::Note,
        };
        report.find(severity, about, what, action);
    }
}

/// Whether workloads find the agent.
fn workload_api(report: &mut Report, socket: &Path, runs: bool) {
    let shown = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => report.good("workload api", shown.to_string()),
        Err(error) if runs && error.kind() == io::ErrorKind::PermissionDenied => report.find(
            Severity::Warning,
            "workload api",
            format!("{shown}: {error}"),
            "whoever runs doctor may not reach it; look whether workloads may, at each folder above it",
        ),
        Err(error) if runs => report.find(
            Severity::Problem,
            "workload api",
            format!("{shown}: {error}"),
            "is workload_api the same as the running agent's? Restart it",
        ),
        Err(_) => {}
    }
}

/// Whether the gateway is reached, is the one that the bundle knows, and has the same time.
async fn gateway(report: &mut Report, config: &Config) {
    let shown = config.bundle.display();
    let bundle = fs::read(&config.bundle).map_err(|error| error.to_string());
    let bundle = bundle.and_then(|pem| {
        Bundle::from_pem(config.trust_domain.clone(), &pem).map_err(|error| error.to_string())
    });
    let bundle = match bundle {
        Ok(bundle) => bundle,
        Err(why) => {
            let action = "copy the server's bundle.pem there, from its data folder";
            return report.find(Severity::Problem, "bundle", format!("{shown}: {why}"), action);
        }
    };
    for der in bundle.authorities() {
        if let Ok(summary) = CertificateSummary::read(der) {
            let what = format!("{} in {shown}", summary.subject);
            let action = "copy the server's new bundle.pem there";
            report.life("bundle", &what, (summary.not_before.0, summary.not_after.0), action);
        }
    }
    let trust = TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() });
    let connection =
        Connection::new(config.gateway.clone(), config.trust_domain.clone(), trust, Clock::system());
    match connection.date().await {
        Err(error) => {
            let action = "look whether it runs (assay gateway doctor on its machine), at the address, and for a firewall or a clock \
                          that is wrong";
            report.find(Severity::Problem, "gateway", error.to_string(), action);
        }
        Ok(date) => {
            report.good(
                "gateway",
                format!("{}: answers, and is one of {}", config.gateway, config.trust_domain),
            );
            if let Some(date) = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) {
                report.clock("the gateway", date.as_secs());
            }
        }
    }
}
