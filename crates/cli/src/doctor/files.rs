//! What files tell: who may read them, how long certificates stand, what a disk has left.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use assay_evidence::tpm::CertificateSummary;
use assay_wire::doctor::{Report, Severity};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::date;

/// A file that none but its owner may read, and with `group` its group.
pub(super) fn private(report: &mut Report, file: &Path, group: bool) {
    let shown = file.display().to_string();
    let allowed = if group { 0o740 } else { 0o700 };
    match fs::metadata(file) {
        Err(error) => report.find(
            Severity::Problem,
            "key",
            format!("{shown}: {error}"),
            "put it back from a backup, or run as the user that it belongs to",
        ),
        Ok(metadata) if metadata.permissions().mode() & 0o777 & !allowed != 0 => {
            let mode = metadata.permissions().mode() & 0o777;
            report.find(
                Severity::Problem,
                "key",
                format!("{shown}: its mode is {mode:o}, so others may have read or changed it"),
                "if nobody did: chmod 600; else begin anew with another",
            );
        }
        Ok(_) => report.good("key", format!("{shown}: its owner's alone")),
    }
}

/// A folder that none but its owner may look into, and whose owner asks.
pub(super) fn folder(report: &mut Report, folder: &Path) -> bool {
    let shown = folder.display().to_string();
    match fs::metadata(folder) {
        Err(error) => {
            report.find(
                Severity::Problem,
                "folder",
                format!("{shown}: {error}"),
                "name the right folder, or start the program once, which makes it",
            );
            false
        }
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let mode = metadata.permissions().mode() & 0o777;
            let found = format!("{shown}: its mode is {mode:o}");
            report.find(Severity::Warning, "folder", found, "chmod 700, as the program does when it starts");
            true
        }
        Ok(metadata) if metadata.uid() != rustix::process::geteuid().as_raw() => {
            let found = format!("{shown}: belongs to user {}", metadata.uid());
            report.find(
                Severity::Note,
                "folder",
                found,
                "run doctor as that user, or not all of it can be read",
            );
            true
        }
        Ok(_) => {
            report.good("folder", format!("{shown}: its owner's alone"));
            true
        }
    }
}

/// The first certificate of a PEM file, which has to be there.
pub(super) fn certificate(report: &mut Report, what: &str, file: &Path, action: &str) {
    match life(file) {
        Ok((from, until)) => {
            let what =
                format!("{what} ({}), until {}", file.display(), date(assay_evidence::time::UnixTime(until)));
            report.life("certificate", &what, (from, until), action);
        }
        Err(why) => report.find(Severity::Problem, "certificate", format!("{what}: {why}"), action),
    }
}

/// From when until when the first certificate of a file stands.
pub(super) fn life(file: &Path) -> Result<(u64, u64), String> {
    let shown = file.display();
    let pem = fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
    let der = CertificateDer::pem_slice_iter(&pem).next().and_then(Result::ok);
    let der = der.ok_or_else(|| format!("{shown}: no PEM certificate"))?;
    let summary = CertificateSummary::read(&der).map_err(|error| format!("{shown}: {error}"))?;
    Ok((summary.not_before.0, summary.not_after.0))
}

/// What the file system of a folder has left.
pub(super) fn disk(report: &mut Report, folder: &Path) {
    match rustix::fs::statvfs(folder) {
        Ok(of) => report.space(
            &folder.display().to_string(),
            (of.f_bavail.saturating_mul(of.f_frsize), of.f_blocks.saturating_mul(of.f_frsize)),
        ),
        Err(error) => report.find(
            Severity::Warning,
            "disk",
            format!("{}: {error}", folder.display()),
            "look with df what is left",
        ),
    }
}
