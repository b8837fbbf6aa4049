//! Remarks about a policy: what is said, how grave it is, and of which line.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::PolicyError;

/// One thing that is worth saying about a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// How grave it is.
    pub severity: Severity,
    /// What it is about.
    pub field: Field,
    /// The line of the text, from 1, where there is a text and the line is known.
    pub line: Option<usize>,
    /// What to know, and what to do.
    pub message: String,
}

/// How grave a remark is; the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The line cannot be used.
    Error,
    /// The line does something that its writer may not have meant.
    Warning,
    /// The line does what it says, and more is good to know.
    Note,
}

/// Where in a policy: `ima.allow."/usr/bin/env"`, `ima.exclude[2]`. Empty: the policy as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field(pub(super) Vec<Step>);

/// One step into a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Where remarks are collected.
pub(super) struct Notes<'a> {
    remarks: &'a mut Vec<Remark>,
    /// What every field is under.
    under: Field,
}

impl<'a> Notes<'a> {
    pub(super) fn new(remarks: &'a mut Vec<Remark>) -> Self {
        Notes { remarks, under: Field::default() }
    }

    /// The same place for remarks on what is under a field.
    pub(super) fn under(&mut self, under: Field) -> Notes<'_> {
        Notes { remarks: self.remarks, under }
    }

    pub(super) fn warn(&mut self, field: Field, message: impl Into<String>) {
        self.remarks.push(Remark::new(Severity::Warning, field.under(&self.under), message));
    }

    pub(super) fn error(&mut self, error: &PolicyError) {
        self.remarks.push(Remark::from(error));
    }

    /// Says which members of a list are there before.
    pub(super) fn repeated<'t, T: Ord + 't>(&mut self, field: Field, list: impl IntoIterator<Item = &'t T>) {
        let mut seen = BTreeMap::new();
        for (index, item) in list.into_iter().enumerate() {
            if let Some(first) = seen.get(item) {
                self.warn(
                    field.clone().at(index),
                    format!("the same as number {first} of the list: write it once"),
                );
            } else {
                seen.insert(item, index);
            }
        }
    }
}

impl Remark {
    /// Something that is good to know.
    pub fn note(field: Field, message: impl Into<String>) -> Self {
        Remark::new(Severity::Note, field, message)
    }

    pub(super) fn new(severity: Severity, field: Field, message: impl Into<String>) -> Self {
        Remark { severity, field, line: None, message: message.into() }
    }
}

impl Field {
    /// The place under these keys.
    pub fn of<const N: usize>(keys: [&str; N]) -> Self {
        Field(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    pub(super) fn starts_with(&self, section: &str) -> bool {
        matches!(self.0.first(), Some(Step::Key(key)) if key == section)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn under(self, above: &Field) -> Self {
        Field(above.0.iter().cloned().chain(self.0).collect())
    }

    pub(super) fn at(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }
}

impl From<&PolicyError> for Remark {
    fn from(error: &PolicyError) -> Self {
        let field = match error {
            PolicyError::TooLong { .. } | PolicyError::Text { .. } | PolicyError::MeasuresNothing => {
                Field::default()
            }
            PolicyError::Name { .. } => Field::of(["name"]),
            PolicyError::Version { .. } => Field::of(["version"]),
            PolicyError::WeakBankAlone => Field::of(["pcr", "sha1"]),
            PolicyError::EmptyList { field } => Field(dotted(field)),
            PolicyError::NotHex { field } => Field(dotted(field)),
            PolicyError::Vmpl { .. } => Field::of(["tee", "vmpl_max"]),
            PolicyError::KernelsAlone => Field::of(["boot", "kernels"]),
            PolicyError::SequencePcr { index } => Field::of(["boot", "sequence", &index.to_string()]),
            PolicyError::ImaPcrPinned { bank } => Field::of(["pcr", bank.name(), "10"]),
            PolicyError::BootAggregateListed => Field::of(["ima", "allow", "boot_aggregate"]),
            PolicyError::Path { path } => Field::of(["ima", "allow", path]),
            PolicyError::SigningKey { index } => Field::of(["ima", "signing_keys"]).at(*index),
            PolicyError::TooMany { field, .. } => Field(dotted(field)),
            PolicyError::NoVersion { .. } => Field::of(["boot", "kernel_version_min"]),
            PolicyError::TooManyBoots { .. } => Field::of(["alternative"]),
            PolicyError::Alternative { number, error } => {
                Remark::from(error.as_ref()).field.under(&Field::of(["alternative"]).at(*number))
            }
            PolicyError::Vendor { name } => Field::of(["endorsement", "vendor", name]),
            PolicyError::Rego { index, .. }
            | PolicyError::RegoTooLong { index, .. }
            | PolicyError::RegoPackage { index }
            | PolicyError::RegoDecidesNothing { index }
            | PolicyError::RegoAmbiguous { index, .. }
            | PolicyError::RegoBuiltin { index, .. } => Field::of(["rego", "modules"]).at(*index),
            PolicyError::RegoUnsupported => Field::of(["rego"]),
            PolicyError::NoAreas { field } | PolicyError::NoRoom { field } => Field::of(["location", field]),
            PolicyError::TooManyPoints { .. } => Field::of(["location"]),
            PolicyError::CrlGrace { .. } => Field::of(["endorsement", "crl_grace_seconds"]),
            PolicyError::EvidenceAge { field, .. } => Field::of(["freshness", field]),
        };
        // The place of an error of the text is in its words already.
        let (line, message) = match error {
            PolicyError::Text { line, column, error } => (Some(*line), format!("column {column}: {error}")),
            error => (None, error.to_string()),
        };
        Remark { severity: Severity::Error, field, line, message }
    }
}

/// `ima.allow."/a.b"` as its steps; only the last one is ever quoted.
fn dotted(field: &str) -> Vec<Step> {
    let (plain, quoted) = match field.split_once(".\"") {
        Some((plain, quoted)) => (plain, Some(quoted.strip_suffix('"').unwrap_or(quoted))),
        None => (field, None),
    };
    plain.split('.').chain(quoted).map(|key| Step::Key(key.to_owned())).collect()
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if number > 0 {
                        f.write_str(".")?;
                    }
                    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
                    if key.chars().all(bare) { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
