//! `assay-agent tpm detect`: what this machine's TPM is, and what to do about what is missing.

mod ima_policy;
mod report;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use assay_evidence::digest::{HashAlgorithm, PcrIndex};
use assay_evidence::ima;
use assay_evidence::tpm::pcr::{PcrSelection, PcrSet, PcrValues};

pub use ima_policy::{Active, Found, Source};
pub use report::{Advice, Bank, Certificate, LogState, Report, Severity};

use crate::config::Sources;
use crate::logs::ImaSource;
use crate::tpm::ek::EndorsementKey;
use crate::tpm::{Property, Target, Tpm, TpmError, algorithm_name};

/// Looks at the TPM and the logs. What cannot be found out is in the report as advice, not as an error.
pub fn detect(sources: &Sources) -> Report {
    let mut report = Report::new(sources.tpm.to_string());
    report.device = device(&sources.tpm);
    match Tpm::open(&sources.tpm) {
        Ok(tpm) => {
            report.usable = true;
            if let Err(error) = describe(&tpm, &mut report) {
                report.usable = false;
                report.advise(
                    Severity::Problem,
                    format!("the TPM could not be questioned: {error}"),
                    "see above",
                );
            }
        }
        Err(error) => missing_tpm(&sources.tpm, &error, &mut report),
    }
    report.boot_log = log_state(&sources.boot_log);
    report.ima_log = log_state(&sources.ima_log);
    logs(sources, &mut report);
    if report.ima_log == LogState::Readable {
        let active = ima_policy::active(&found(sources));
        ima_policy::advise(&active, &mut report);
        report.ima_policy = Some(active);
    }
    if report.usable && report.ima_log == LogState::Readable {
        measured(&sources.tpm, &mut report);
    }
    report
}

/// What shows which policy IMA follows.
fn found(sources: &Sources) -> Found {
    let beside = sources.ima_log.with_file_name("policy");
    let list = ImaSource::new(&sources.ima_log).read_from(0).unwrap_or_default();
    let parsed = if list.ascii { ima::parse_ascii(&list.bytes) } else { ima::parse_binary(&list.bytes) };
    Found {
        command_line: fs::read_to_string("/proc/cmdline").unwrap_or_default(),
        rules: fs::read_to_string(&beside).ok().filter(|text| !text.trim().is_empty()),
        takes_policy: beside.exists(),
        measured: parsed.map(|list| ima::measured_kernel_policies(&list)).unwrap_or_default(),
    }
}

/// Whether anything that the kernel lists reached the TPM. IMA that starts before the TPM's driver lists everything and
/// extends nothing, and never tries again.
fn measured(target: &Target, report: &mut Report) {
    let Some(index) = PcrIndex::new(assay_evidence::ima::PCR.into()) else { return };
    let banks = HashAlgorithm::ALL.into_iter().filter(|bank| {
        report.pcr_banks.iter().any(|active| active.algorithm == bank.name() && active.pcrs > 0)
    });
    let selection: PcrSelection = banks.map(|bank| (bank, PcrSet::from_iter([index]))).collect();
    let read = Tpm::open(target).and_then(|tpm| tpm.read_pcrs(&selection));
    let untouched =
        |values: PcrValues| !values.is_empty() && values.iter().all(|(_, _, value)| value.is_zero());
    if read.is_ok_and(untouched) {
        report.advise(
            Severity::Problem,
            format!("the kernel lists measured files, and PCR {index} was never extended: IMA started before the TPM's driver"),
            "build the TPM's driver into the kernel, not as a module (CONFIG_TCG_TIS=y, CONFIG_TCG_CRB=y, or that of the bus it \
             is on, with the bus's own driver), and reboot; `dmesg | grep -i ima` says `No TPM chip found` until then",
        );
    }
}

fn describe(tpm: &Tpm, report: &mut Report) -> Result<(), TpmError> {
    report.manufacturer = tpm.property(Property::Manufacturer)?.map(|id| text(&[id]));
    let strings = tpm.properties(Property::VendorString, 4)?;
    report.vendor = Some(text(&strings)).filter(|vendor| !vendor.is_empty());
    report.specification = tpm
        .property(Property::Revision)?
        .map(|revision| format!("TPM 2.0 revision {}.{:02}", revision / 100, revision % 100));
    let (high, low) = (tpm.property(Property::FirmwareHigh)?, tpm.property(Property::FirmwareLow)?);
    report.firmware = high
        .zip(low)
        .map(|(high, low)| format!("{}.{}.{}.{}", high >> 16, high & 0xffff, low >> 16, low & 0xffff));
    report.algorithms = tpm.algorithms()?.into_iter().map(algorithm_name).collect();
    report.curves = tpm.curves()?.into_iter().map(curve_name).collect();
    report.pcr_banks = tpm
        .pcr_banks()?
        .into_iter()
        .map(|bank| Bank { algorithm: algorithm_name(bank.algorithm), pcrs: bank.pcrs })
        .collect();
    let clock = tpm.read_clock()?;
    report.reset_count = Some(clock.reset_count);
    banks(report);
    if !report.curves.iter().any(|curve| curve == "nist_p256") {
        report.advise(
            Severity::Problem,
            "the TPM has no NIST P-256 curve",
            "Assay's device keys are P-256: this TPM cannot be used",
        );
    }
    if tpm.property(Property::LockoutCounter)?.is_some_and(|count| count > 0) {
        report.advise(
            Severity::Note,
            "passwords were guessed wrongly: the dictionary-attack counter is not zero",
            "reset it with tpm2_dictionarylockout -c if that was you",
        );
    }
    if !clock.safe {
        report.advise(
            Severity::Note,
            "the TPM's clock may have been ahead of what it shows",
            "the machine lost power without shutting down; this passes by itself",
        );
    }
    endorsement(tpm, report)
}

fn banks(report: &mut Report) {
    let active = |name: &str| report.pcr_banks.iter().any(|bank| bank.algorithm == name && bank.pcrs > 0);
    if active(HashAlgorithm::Sha256.name()) {
        return;
    }
    report.advise(
        Severity::Problem,
        "the SHA-256 PCR bank is not active",
        "switch it on in firmware setup, or with tpm2_pcrallocate sha256:all, and reboot",
    );
}

fn endorsement(tpm: &Tpm, report: &mut Report) -> Result<(), TpmError> {
    let certificates = tpm.ek_certificates()?;
    report.intermediates = certificates.intermediates.len();
    for (kind, der) in &certificates.leaves {
        report.ek_certificates.push(Certificate {
            kind: kind.to_string(),
            index: format!("{:#010x}", kind.certificate_index()),
            bytes: der.len(),
        });
    }
    let ek = EndorsementKey::load(tpm)?;
    report.endorsement_key = Some(ek.kind().to_string());
    for unread in ek.unread() {
        report.advise(
            Severity::Note,
            unread.to_string(),
            "the index is not as its maker wrote it, or is closed to this program: look at it with tpm2_nvreadpublic and \
             tpm2_nvread, and ask the maker for the certificate (tpm2_getekcertificate)",
        );
    }
    match ek.certificate() {
        None => report.advise(
            Severity::Problem,
            "the TPM holds no EK certificate",
            "some makers publish it instead: try tpm2_getekcertificate; a virtual TPM may have none at all",
        ),
        Some(_) if !ek.certificate_is_its_own() => report.advise(
            Severity::Problem,
            "the EK certificate is for another key",
            "the TPM was given new seeds (tpm2_changeeps), or its maker uses a template of its own",
        ),
        Some(_) => {}
    }
    Ok(())
}

fn missing_tpm(target: &Target, error: &TpmError, report: &mut Report) {
    let kind = match error {
        TpmError::Open { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    };
    let version = fs::read_to_string("/sys/class/tpm/tpm0/tpm_version_major").ok();
    match (target, kind) {
        (Target::Device(_), io::ErrorKind::NotFound) if version.as_deref().map(str::trim) == Some("1") => report
            .advise(Severity::Problem, "this machine has a TPM 1.2", "Assay needs TPM 2.0; see firmware setup"),
        (Target::Device(path), io::ErrorKind::NotFound) if path != Path::new("/dev/tpm0")
            && Path::new("/dev/tpm0").exists() =>
        {
            report.advise(
                Severity::Problem,
                format!("{target} is not there, and /dev/tpm0 is"),
                "the kernel was built without the TPM resource manager; use --tpm /dev/tpm0",
            );
        }
        (Target::Device(_), io::ErrorKind::NotFound) => report.advise(
            Severity::Problem,
            format!("{target} is not there"),
            "enable the TPM (Intel PTT, AMD fTPM) in firmware setup; check `dmesg | grep -i tpm`; for a software TPM \
             use --tpm unix:PATH",
        ),
        (Target::Device(path), io::ErrorKind::PermissionDenied) => report.advise(
            Severity::Problem,
            format!("{target} may not be opened ({})", permissions(path).unwrap_or_default()),
            "run as root, or add this user to group tss: usermod -aG tss USER, then log in again",
        ),
        (Target::Device(_), io::ErrorKind::ResourceBusy) => report.advise(
            Severity::Problem,
            format!("{target} is in use by another program"),
            "use the resource manager: --tpm /dev/tpmrm0",
        ),
        _ => report.advise(Severity::Problem, error.to_string(), "start the software TPM, or name another with --tpm"),
    }
}

fn logs(sources: &Sources, report: &mut Report) {
    if report.boot_log == LogState::Missing || report.boot_log == LogState::Empty {
        report.advise(
            Severity::Note,
            format!("no boot log at {}", sources.boot_log.display()),
            "mount securityfs (mount -t securityfs none /sys/kernel/security); where firmware or boot loader hand \
             none over, a policy can only look at PCR values",
        );
    }
    if report.ima_log == LogState::Missing || report.ima_log == LogState::Empty {
        report.advise(
            Severity::Note,
            format!("no IMA list at {}", sources.ima_log.display()),
            "programs are not measured: `assay-agent setup ima` says what to install",
        );
    }
    for (state, path) in [(report.boot_log, &sources.boot_log), (report.ima_log, &sources.ima_log)] {
        if state == LogState::Denied {
            report.advise(
                Severity::Problem,
                format!("{} may not be read", path.display()),
                "run as root: the kernel shows its logs to root alone",
            );
        }
    }
}

fn log_state(path: &Path) -> LogState {
    let read_some = || -> io::Result<usize> {
        let mut byte = [0];
        io::Read::read(&mut fs::File::open(path)?, &mut byte)
    };
    match read_some() {
        Ok(0) => LogState::Empty,
        Ok(_) => LogState::Readable,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => LogState::Denied,
        Err(_) => LogState::Missing,
    }
}

fn device(target: &Target) -> String {
    match target {
        Target::Device(path) => {
            let manager =
                if target.is_direct() { "without resource manager" } else { "with resource manager" };
            format!("kernel device, {manager}; {}", permissions(path).unwrap_or_else(|| "not there".into()))
        }
        Target::Tcp(_) => "software TPM over TCP".into(),
        Target::Unix(path) => {
            format!(
                "software TPM over a unix socket; {}",
                permissions(path).unwrap_or_else(|| "not there".into())
            )
        }
    }
}

fn permissions(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    Some(format!("mode {:o}, uid {}, gid {}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid()))
}

/// Properties hold four characters each, padded with zeros.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).filter(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn curve_name(id: u16) -> String {
    // TCG Algorithm Registry, TPM_ECC_CURVE.
    let name = match id {
        0x0001 => "nist_p192",
        0x0002 => "nist_p224",
        0x0003 => "nist_p256",
        0x0004 => "nist_p384",
        0x0005 => "nist_p521",
        0x0010 => "bn_p256",
        0x0011 => "bn_p638",
        0x0020 => "sm2_p256",
        0x0040 => "curve25519",
        0x0041 => "curve448",
        _ => return format!("{id:#06x}"),
    };
    name.to_owned()
}
