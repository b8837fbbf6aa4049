//! The report of `tpm detect`, for people and as JSON.

use std::fmt;

use serde::Serialize;

use super::ima_policy::Active;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Which TPM was asked for.
    pub tpm: String,
    /// What kind of device that is, and who may open it.
    pub device: String,
    /// Whether the agent can work with it.
    pub usable: bool,
    /// TPM_PT_MANUFACTURER.
    pub manufacturer: Option<String>,
    /// The vendor strings.
    pub vendor: Option<String>,
    /// Revision of the TPM 2.0 library specification.
    pub specification: Option<String>,
    /// Firmware version.
    pub firmware: Option<String>,
    /// Boots the TPM has counted.
    pub reset_count: Option<u32>,
    /// Algorithms by name.
    pub algorithms: Vec<String>,
    /// Elliptic curves by name.
    pub curves: Vec<String>,
    /// PCR banks, the inactive ones with no PCRs.
    pub pcr_banks: Vec<Bank>,
    /// EK certificates in the TPM.
    pub ek_certificates: Vec<Certificate>,
    /// CA certificates in the TPM.
    pub intermediates: usize,
    /// The kind of EK that enrollment would use.
    pub endorsement_key: Option<String>,
    /// The boot log.
    pub boot_log: LogState,
    /// The IMA list.
    pub ima_log: LogState,
    /// The policy that IMA follows; `None` where there is no list that can be read.
    pub ima_policy: Option<Active>,
    /// What is missing, and what to do.
    pub advice: Vec<Advice>,
}

/// A PCR bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bank {
    /// Its hash algorithm.
    pub algorithm: String,
    /// How many PCRs it has.
    pub pcrs: u32,
}

/// An EK certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The kind of its key.
    pub kind: String,
    /// Its NV index.
    pub index: String,
    /// Its length.
    pub bytes: usize,
}

/// Whether a log can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogState {
    /// It is not there.
    #[default]
    Missing,
    /// It is there, and nothing is in it.
    Empty,
    /// It may not be read.
    Denied,
    /// It can be read.
    Readable,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Attestation will not work.
    Problem,
    /// Attestation works, with less to say.
    Note,
}

/// Something missing and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What it is about: `tpm`, or `ima policy`.
    pub about: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter.
    pub what: String,
    /// What to do.
    pub action: String,
}

impl Report {
    pub(super) fn new(tpm: String) -> Self {
        Report { tpm, ..Report::default() }
    }

    pub(super) fn advise(&mut self, severity: Severity, what: impl Into<String>, action: impl Into<String>) {
        self.advise_about("tpm", severity, what, action);
    }

    /// The same about something else than the TPM.
    pub(super) fn advise_about(
        &mut self,
        about: &'static str,
        severity: Severity,
        what: impl Into<String>,
        action: impl Into<String>,
    ) {
        self.advice.push(Advice { about, severity, what: what.into(), action: action.into() });
    }

    /// Whether nothing stands in the way of attestation.
    pub fn is_ready(&self) -> bool {
        self.usable && !self.advice.iter().any(|advice| advice.severity == Severity::Problem)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |label: &str, value: &str| writeln!(f, "{label:<18}{value}");
        let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
        line("TPM", &self.tpm)?;
        line("Device", &self.device)?;
        if self.usable {
            let vendor = self.vendor.as_ref().map(|vendor| format!(" ({vendor})")).unwrap_or_default();
            line("Manufacturer", &(or_unknown(&self.manufacturer) + &vendor))?;
            line("Specification", &or_unknown(&self.specification))?;
            line("Firmware", &or_unknown(&self.firmware))?;
            line("Algorithms", &self.algorithms.join(" "))?;
            line("Curves", &self.curves.join(" "))?;
            let banks: Vec<String> = self.pcr_banks.iter().map(Bank::to_string).collect();
            line("PCR banks", &banks.join(", "))?;
            let certificates: Vec<String> = self.ek_certificates.iter().map(Certificate::to_string).collect();
            line(
                "EK certificates",
                &if certificates.is_empty() { "none".into() } else { certificates.join(", ") },
            )?;
            line("CA certificates", &self.intermediates.to_string())?;
            line("EK for enrollment", &or_unknown(&self.endorsement_key))?;
            line("Boots counted", &self.reset_count.map_or("unknown".into(), |count| count.to_string()))?;
        }
        line("Boot log", self.boot_log.text())?;
        line("IMA list", self.ima_log.text())?;
        if let Some(policy) = &self.ima_policy {
            line("IMA policy", &policy.to_string())?;
        }
        writeln!(f)?;
        for Advice { severity, what, action, .. } in &self.advice {
            let mark = match severity {
                Severity::Problem => "PROBLEM",
                Severity::Note => "note",
            };
            writeln!(f, "{mark}: {what}\n    -> {action}")?;
        }
        if !self.advice.is_empty() {
            writeln!(f)?;
        }
        match self.is_ready() {
            true => write!(f, "This machine can be attested."),
            false => write!(f, "This machine cannot be attested yet."),
        }
    }
}

impl fmt::Display for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pcrs {
            0 => write!(f, "{} (off)", self.algorithm),
            pcrs => write!(f, "{} ({pcrs} PCRs)", self.algorithm),
        }
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (NV {}, {} bytes)", self.kind, self.index, self.bytes)
    }
}

impl LogState {
    fn text(self) -> &'static str {
        match self {
            LogState::Missing => "not there",
            LogState::Empty => "empty",
            LogState::Denied => "may not be read",
            LogState::Readable => "readable",
        }
    }
}
