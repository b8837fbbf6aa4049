//! Keylime's policies, read as they are. What has the same meaning here is taken over exactly; whatever has not is
//! left out or taken more strictly, and said with its place in the source.
//!
//! `runtime.rs` reads runtime policies, `wrapped.rs` what they come in, `allowlist.rs` the lists of Keylime's first years,
//! `exclude.rs` their regular expressions, `boot.rs` what judges a boot.

mod allowlist;
mod boot;
mod exclude;
mod runtime;
mod wrapped;

use assay_evidence::{Digest, HashAlgorithm};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Field, Policy, PolicyError, Remark, Severity};

/// A policy that is being made of others.
#[derive(Clone, Debug)]
pub struct Import {
    policy: Policy,
    remarks: Vec<Remark>,
}

/// Why a text cannot be imported at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImportError {
    /// The text is no JSON.
    #[error("line {line}, column {column}: this is no JSON")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The text is JSON, but no object.
    #[error("this is JSON, but not an object: Keylime's policies are objects")]
    NotAnObject,
    /// A signed policy whose content cannot be read.
    #[error("this is a signed envelope, and its payload is not JSON in base64")]
    Envelope,
    /// An answer of Keylime's verifier without a policy in it.
    #[error("this is an answer of Keylime's verifier, and there is no runtime policy in it that can be read")]
    Answer,
    /// A list of files and digests with a line that is neither.
    #[error("line {line}: this is no digest in hex and a path after it")]
    Line {
        /// The line, from 1.
        line: usize,
    },
}

impl Import {
    /// Starts with nothing.
    pub fn new(name: &str) -> Self {
        Import { policy: Policy::new(name), remarks: Vec::new() }
    }

    /// The policy, refused if it could not do its work, and everything that is to be said of it: what was left out is
    /// why it could not.
    pub fn finish(self) -> (Result<Policy, PolicyError>, Vec<Remark>) {
        let error = self.policy.lint().into_iter().next();
        (error.map_or(Ok(self.policy), Err), self.remarks)
    }

    /// Left out.
    fn refuse(&mut self, field: Field, message: impl Into<String>) {
        self.remarks.push(Remark::new(Severity::Error, field, message));
    }

    /// Means something else here.
    fn warn(&mut self, field: Field, message: impl Into<String>) {
        self.remarks.push(Remark::new(Severity::Warning, field, message));
    }

    fn note(&mut self, field: Field, message: impl Into<String>) {
        self.remarks.push(Remark::new(Severity::Note, field, message));
    }

    /// A text, or every text of a list; of anything else it is said that it was left out.
    fn texts<'a>(&mut self, field: &Field, value: &'a Value) -> Vec<&'a str> {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        if texts.len() < values.len() {
            let others = values.len() - texts.len();
            self.refuse(field.clone(), format!("{others} of its values are not imported: they are no text"));
        }
        texts
    }

    /// The members of an object in another, which may be missing; what is no object is left out, and that is said.
    fn members<'a>(&mut self, above: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
        let value = above.get(name)?;
        if !value.is_object() && !is_empty(value) {
            self.refuse(Field::of([name]), "not imported: it is no object");
        }
        value.as_object()
    }

    /// The same of a list.
    fn items<'a>(&mut self, above: &'a Map<String, Value>, name: &str) -> &'a [Value] {
        let Some(value) = above.get(name) else { return &[] };
        if !value.is_array() && !is_empty(value) {
            self.refuse(Field::of([name]), "not imported: it is no list");
        }
        value.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Says of everything that no line of ours reads that it was not read.
    fn refuse_unknown(&mut self, object: &Map<String, Value>, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            self.refuse(Field::of([key]), "not known, so not imported");
        }
    }
}

fn object(json: &str) -> Result<Map<String, Value>, ImportError> {
    match serde_json::from_str(without_mark(json)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ImportError::NotAnObject),
        Err(error) => Err(ImportError::Json { line: error.line(), column: error.column() }),
    }
}

/// A digest that states no algorithm: its length tells.
fn digest_by_length(hex: &str) -> Option<Digest> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
    let algorithm = HashAlgorithm::ALL.into_iter().find(|algorithm| algorithm.len() == bytes.len())?;
    Digest::new(algorithm, &bytes)
}

/// Some editors begin a text with a byte order mark, which says nothing in UTF-8.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Whether a member says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
