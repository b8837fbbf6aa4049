//! A server: its configuration, keys, certificates, database and lists, and whether it answers.

use std::path::{Path, PathBuf};

use anyhow::Result;
use assay_identity::Crl;
use assay_server::{Config, ledger};
use assay_wire::console::device::Devices;
use assay_wire::console::pending::Pending;
use assay_wire::console::policy::Plan;
use assay_wire::doctor::{Report, Severity};
use serde_json::Value;

use super::{files, report};
use crate::console::{Client, Console};
use crate::output;

pub(super) fn examine(file: Option<&Path>, data: Option<&Path>) -> Result<Report> {
    let mut report = report("assay server");
    let Some(config) = configuration(&mut report, file, data) else { return Ok(report) };
    if !files::folder(&mut report, &config.data) {
        return Ok(report);
    }
    for key in ["keys/root.key", "keys/issuing.key", "keys/ledger.key", "operator.token"] {
        files::private(&mut report, &config.data.join(key), false);
    }
    let restore = "put the keys folder back from a backup: docs/howto/backup-and-restore.md";
    files::certificate(&mut report, "root", &config.data.join("keys/root.pem"), restore);
    let renew = "restart the server: it renews its issuing authority when it starts";
    files::certificate(&mut report, "issuing authority", &config.data.join("keys/issuing.pem"), renew);
    files::disk(&mut report, &config.data);
    database(&mut report, &config)?;
    revocation_list(&mut report, &config.data);
    running(&mut report, &config.data);
    Ok(report)
}

/// The configuration, or what is wrong with it; without a file what a server without one would take.
fn configuration(report: &mut Report, file: Option<&Path>, data: Option<&Path>) -> Option<Config> {
    let mut config = match file.map(|file| (file, Config::load(file))) {
        None => Config::default(),
        Some((file, Ok(config))) => {
            report.good("configuration", file.display().to_string());
            config
        }
        Some((file, Err(error))) => {
            let found = format!("{}: {:#}", file.display(), anyhow::Error::from(error));
            report.find(
                Severity::Problem,
                "configuration",
                found,
                "docs/reference/configuration.md has every key",
            );
            return None;
        }
    };
    if let Some(data) = data.filter(|_| file.is_none()) {
        config.data = data.to_owned();
    }
    if file.is_some() {
        makers(report, &config);
    }
    Some(config)
}

/// Whom the server is to believe about TPMs.
fn makers(report: &mut Report, config: &Config) {
    let Config { ek_anchors, ek_crls, idevid_anchors, policy_signers, enrollment_manifest, .. } = config;
    let named = ek_anchors.iter().chain(ek_crls).chain(idevid_anchors).chain(policy_signers);
    let missing: Vec<&PathBuf> = named.chain(enrollment_manifest).filter(|path| !path.exists()).collect();
    for path in &missing {
        let found = format!("{}: is not there", path.display());
        report.find(
            Severity::Problem,
            "configuration",
            found,
            "the server does not start without what it names",
        );
    }
    if ek_anchors.is_empty() {
        let action =
            "set ek_anchors to the makers' certificates, unless every device is in a policy's [endorsement]";
        report.find(Severity::Warning, "makers", "ek_anchors names nobody who vouches for TPMs", action);
    } else if missing.is_empty() {
        report.good("makers", format!("{} files or folders of ek_anchors", ek_anchors.len()));
    }
}

/// The ledger is whole, and is that of which a head was signed last.
fn database(report: &mut Report, config: &Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ledger::verify(config, None, None)) {
        Ok(verified) => report.good("database", format!("{} leaves, chained and signed", verified.leaves)),
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::from(error));
            report.find(
                Severity::Problem,
                "database",
                found,
                "docs/howto/backup-and-restore.md says what to put back",
            );
        }
    }
    Ok(())
}

fn revocation_list(report: &mut Report, data: &Path) {
    let file = data.join("revocations.crl");
    let shown = file.display().to_string();
    let read = std::fs::read(&file).map_err(|error| error.to_string());
    match read.and_then(|der| Crl::parse(&der).map_err(|error| error.to_string())) {
        Err(why) => report.find(
            Severity::Warning,
            "revocation list",
            format!("{shown}: {why}"),
            "the server writes it within seconds of its start: look at its log",
        ),
        Ok(list) => {
            let (until, listed) = (list.next_update().as_secs(), list.revoked().count());
            let found = format!("number {}, {listed} certificates", list.number());
            match until > report.at {
                true => report.good("revocation list", found),
                false => report.find(
                    Severity::Problem,
                    "revocation list",
                    format!("{found}: out of date, so that nobody is believed"),
                    "start the server: it signs another at once",
                ),
            }
        }
    }
}

/// Whether it answers, and what it lacks to trust anybody.
fn running(report: &mut Report, data: &Path) {
    let console =
        Console { data: data.to_owned(), console: None, bundle: None, token_file: None, trust_domain: None };
    let health = console.client().and_then(|client| Ok((client.get::<Value>("/health")?, client)));
    let (health, client) = match health {
        Ok(answered) => answered,
        Err(error) => {
            let action = "start it; where it does run, run doctor as its user on its machine";
            report.find(Severity::Problem, "running", format!("it does not answer: {error:#}"), action);
            return;
        }
    };
    let (status, version) = (output::text(&health, "status"), output::text(&health, "version"));
    match status.as_str() {
        "ok" => report.good("running", format!("version {version} answers")),
        _ => {
            let sentences = output::list(&health, "sentences").iter().filter_map(Value::as_str);
            let said = sentences.map(|sentence| format!(": {sentence}")).collect::<String>();
            report.find(
                Severity::Problem,
                "running",
                format!("version {version} says it is {status}{said}"),
                "its log has more, in lines of WARN and ERROR",
            );
        }
    }
    clocks(report, &client);
    policies(report, &client);
    waiting(report, &client);
}

fn policies(report: &mut Report, client: &Client) {
    let action = "assay policy set FILE: without one no device is trusted (docs/howto/first-device.md)";
    match client.get::<Plan>("/v1/policies") {
        Err(error) => {
            report.find(Severity::Problem, "policies", format!("{error:#}"), "look at the server's log")
        }
        Ok(plan) => match plan.assignments.len() {
            0 => report.find(Severity::Warning, "policies", "none is in force", action),
            count => report.good("policies", format!("{count} in force")),
        },
    }
}

/// Devices on which certificates do not hold, for all that is right here.
fn clocks(report: &mut Report, client: &Client) {
    let answer: Devices = client.get("/v1/devices?attached=true&limit=1000").unwrap_or_default();
    let off = answer.devices.iter().filter(|device| device.clock.is_some());
    let off: Vec<String> = off.map(|device| output::shown(&device.name)).collect();
    if let [first, others @ ..] = off.as_slice() {
        let found = match others.len() {
            0 => format!("the clock of {first} is off"),
            count => format!("the clocks of {first} and {count} more devices are off"),
        };
        let action = "set them by NTP; assay device list says by how much, and what comes of it";
        report.find(Severity::Warning, "device clocks", found, action);
    }
}

fn waiting(report: &mut Report, client: &Client) {
    let Pending { pending } = client.get("/v1/pending").unwrap_or_default();
    match pending.iter().filter(|one| one.word == "waiting").count() {
        0 => {}
        count => report.find(
            Severity::Note,
            "admission",
            format!("{count} devices wait to be admitted"),
            "assay device pending shows them",
        ),
    }
}
