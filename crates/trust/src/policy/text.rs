//! Policies as text. An error names the line and column, and what to write instead.

use assay_evidence::{HashAlgorithm, PcrIndex};
use thiserror::Error;

use super::Policy;

/// Why a text is no usable policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// The text is too long to be read.
    #[error("the policy has {bytes} bytes; at most {POLICY_BYTES_MAX} are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The text is not of the schema.
    #[error("line {line}, column {column}: {error}")]
    Text {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there.
        error: TextError,
    },
    /// The name is empty, too long or unprintable.
    #[error("name: {name:?} is no policy name: use 1 to 64 letters, digits, dots, dashes and underscores")]
    Name {
        /// The name.
        name: String,
    },
    /// The version is out of range.
    #[error("version: {version} is out of range: count from 1")]
    Version {
        /// The version.
        version: u64,
    },
    /// Nothing that a device measures is judged.
    #[error(
        "the policy measures nothing: pin PCRs under [pcr.sha256] or list files under [ima.allow] (assay policy learn does both)"
    )]
    MeasuresNothing,
    /// Only SHA-1 values are pinned.
    #[error("pcr: only the sha1 bank is pinned, and SHA-1 is never trusted alone: pin sha256 as well")]
    WeakBankAlone,
    /// A list that nothing can satisfy.
    #[error("{field}: an empty list accepts nothing: list values, or leave the line out")]
    EmptyList {
        /// Where it is.
        field: String,
    },
    /// A digest that is none.
    #[error("{field}: not a digest: write its bytes, 32, 48 or of some kinds 64, in lowercase hex")]
    NotHex {
        /// Where it is.
        field: String,
    },
    /// A privilege level that there is not.
    #[error("tee.vmpl_max: {value} is no privilege level: 0 is the highest, 3 the lowest")]
    Vmpl {
        /// The number.
        value: u8,
    },
    /// Kernels without the boot loaders that start them.
    #[error(
        "boot.kernels: whatever starts the kernel would be refused: list shim and boot loader under boot.applications"
    )]
    KernelsAlone,
    /// A sequence of a PCR that no boot log tells of.
    #[error("boot.sequence.{index}: the boot log tells of PCRs 0 to 9 and 11 to 15 alone")]
    SequencePcr {
        /// The PCR.
        index: PcrIndex,
    },
    /// A PCR that grows with every measured file.
    #[error(
        "pcr.{bank}.10: PCR 10 holds the IMA list, whose order changes from boot to boot: judge files under [ima] instead"
    )]
    ImaPcrPinned {
        /// The bank.
        bank: HashAlgorithm,
    },
    /// `boot_aggregate` is checked against the PCRs themselves.
    #[error("ima.allow: boot_aggregate is not a file; it is checked against the boot PCRs by itself")]
    BootAggregateListed,
    /// A path with a bad escape.
    #[error("ima.allow: {path:?} is no path: write a backslash as \\\\ and other bytes as \\xNN")]
    Path {
        /// The text.
        path: String,
    },
    /// A key that cannot be read.
    #[error("ima.signing_keys[{index}]: no certificate or public key in PEM")]
    SigningKey {
        /// Which one.
        index: usize,
    },
    /// Too much of something that costs time for each file.
    #[error("{field}: {count} entries; at most {max} are allowed")]
    TooMany {
        /// Where it is.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A kernel's version in which no number says how old it is.
    #[error(
        "boot.kernel_version_min: {version:?} has no number, so that every kernel is as new: write a version, such as 6.1.0-55"
    )]
    NoVersion {
        /// What is there.
        version: String,
    },
    /// More boots than are judged one by one.
    #[error(
        "alternative: {count} boots would be accepted, each as a whole, and at most {max} may be: end a roll-out first, or \
         merge fewer policies",
        max = super::BOOTS_MAX
    )]
    TooManyBoots {
        /// How many there are.
        count: usize,
    },
    /// Something in an alternative.
    #[error("alternative[{number}].{error}")]
    Alternative {
        /// Which one, from 0.
        number: usize,
        /// What is wrong there.
        error: Box<PolicyError>,
    },
    /// A rule for no manufacturer, or a second one for the same.
    #[error(
        "endorsement.vendor: {name:?} is no manufacturer, or is there twice: write it once, as the EK certificate does, \
         such as \"id:49465800\""
    )]
    Vendor {
        /// The name.
        name: String,
    },
    /// A Rego module does not compile.
    #[error("rego.modules[{index}], line {line}, column {column}: {error}")]
    Rego {
        /// Which one.
        index: usize,
        /// The line of the module, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there.
        error: TextError,
    },
    /// A Rego module is too long.
    #[error("rego.modules[{index}] has {bytes} bytes; at most {max} are read", max = super::REGO_MODULE_BYTES_MAX)]
    RegoTooLong {
        /// Which one.
        index: usize,
        /// How long it is.
        bytes: usize,
    },
    /// A Rego module in another package, whose rules nothing would ask for.
    #[error("rego.modules[{index}]: nothing asks for rules of this package: write `package assay`")]
    RegoPackage {
        /// Which one.
        index: usize,
    },
    /// A Rego module that says nothing.
    #[error("rego.modules[{index}]: it has neither a rule `deny` nor a rule `warn`, so it decides nothing")]
    RegoDecidesNothing {
        /// Which one.
        index: usize,
    },
    /// A Rego rule whose definitions may contradict each other.
    #[error(
        "rego.modules[{index}]: {rule} may have more than one value: write `deny contains`, `warn contains`, or `else` between \
         values"
    )]
    RegoAmbiguous {
        /// Which one.
        index: usize,
        /// The rule.
        rule: String,
    },
    /// A Rego module that asks for what is not part of the evidence, or for what no bound holds.
    #[error(
        "rego.modules[{index}]: {name} is not available: rules decide by the input alone, so that the same evidence \
         always gives the same result"
    )]
    RegoBuiltin {
        /// Which one.
        index: usize,
        /// The builtin function.
        name: String,
    },
    /// This program was built without Rego.
    #[error(
        "rego: this program was built without Rego, and rules that are not judged would be no rules: leave the section out"
    )]
    RegoUnsupported,
    /// A line on positions where none is asked for.
    #[error(
        "location.{field}: no position is asked for, so that it judges nothing: list areas under [[location.allow_areas]], or leave \
         the line out"
    )]
    NoAreas {
        /// Which line.
        field: &'static str,
    },
    /// A bound that nothing is within.
    #[error("location.{field}: 0 accepts nothing: count from 1, or leave the line out")]
    NoRoom {
        /// Which line.
        field: &'static str,
    },
    /// More points than are looked at with every batch.
    #[error(
        "location: the areas have {points} points together, and at most {max} are judged: simplify them",
        max = crate::place::POINTS_MAX
    )]
    TooManyPoints {
        /// How many.
        points: usize,
    },
    /// A grace that is none.
    #[error("endorsement.crl_grace_seconds: {seconds} is out of range: 0 to {max}")]
    CrlGrace {
        /// The value.
        seconds: u64,
        /// The largest.
        max: u64,
    },
    /// An evidence age that is nonsense.
    #[error("freshness.{field}: {seconds} is out of range: 1 to {max}")]
    EvidenceAge {
        /// Which.
        field: &'static str,
        /// The value.
        seconds: u64,
        /// The largest.
        max: u64,
    },
}

/// The parser's own words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TextError(String);

impl TextError {
    #[cfg(feature = "rego")]
    pub(crate) fn new(words: impl Into<String>) -> Self {
        TextError(words.into())
    }

    /// serde_json ends its messages with the place, which the error around this has already.
    pub(super) fn of_json(error: &serde_json::Error) -> Self {
        let message = error.to_string();
        TextError(
            message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned(),
        )
    }
}

impl Policy {
    /// Reads TOML, and refuses a policy that could not do its work.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        parse_toml(text)?.usable()
    }

    /// Reads JSON, and refuses a policy that could not do its work.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        parse_json(text)?.usable()
    }

    /// Reads either form.
    pub fn from_text(text: &str) -> Result<Self, PolicyError> {
        parse(text)?.usable()
    }

    /// Writes TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every key of a policy is text and every number fits: lint saw to it")
    }

    /// Writes JSON on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("every key of a policy is text")
    }

    fn usable(self) -> Result<Self, PolicyError> {
        match self.lint().into_iter().next() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

/// Reads either form, whether or not the policy could do its work.
pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    if is_json(text) { parse_json(text) } else { parse_toml(text) }
}

/// JSON starts with a brace, TOML never does.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn parse_toml(text: &str) -> Result<Policy, PolicyError> {
    within_bounds(text)?;
    toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        PolicyError::Text { line, column, error: TextError(error.message().to_owned()) }
    })
}

fn parse_json(text: &str) -> Result<Policy, PolicyError> {
    within_bounds(text)?;
    serde_json::from_str(text).map_err(|error| PolicyError::Text {
        line: error.line(),
        column: error.column(),
        error: TextError::of_json(&error),
    })
}

fn within_bounds(text: &str) -> Result<(), PolicyError> {
    if text.len() > POLICY_BYTES_MAX { Err(PolicyError::TooLong { bytes: text.len() }) } else { Ok(()) }
}

/// Line and column, from 1, of a byte offset.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

/// A policy of 100,000 files has about 15 MB.
pub const POLICY_BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "name = \"edge\"\nversion = 1\n[ima.allow]\n";

    fn error(text: &str) -> String {
        Policy::from_text(text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_place() {
        assert!(
            error("name = \"a\"\nversion = 1\ncolour = 3\n")
                .starts_with("line 3, column 1: unknown field `colour`")
        );
        let message = error("name = \"a\"\nversion = 1\n[pcr.sha256]\n\"7\" = [\"abc\"]\n");
        assert_eq!(message, "line 4, column 7: \"abc\" is no sha256 value: write 64 hex digits");
        let message = error("name = \"a\"\nversion = 1\n[boot]\nsecure_boot = \"maybe\"\n");
        assert!(message.starts_with("line 4, column 15: unknown variant `maybe`"), "{message}");
        let message = error("{\"name\": \"a\",\n \"version\": 1,\n \"pcr\": {\"sha3\": {}}}");
        assert!(
            message.starts_with("line 3,") && message.contains("\"sha3\" is no hash algorithm"),
            "{message}"
        );
    }

    #[test]
    fn a_key_that_is_written_twice_is_refused_in_both_forms() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let toml = format!("{MINIMAL}\"/bin/a\" = [\"{digest}\"]\n\"/bin/a\" = [\"{digest}\"]\n");
        assert!(error(&toml).starts_with("line 5, column 1: duplicate key"), "{}", error(&toml));
        let ima = |section: &str| {
            error(&format!("{{\"name\": \"edge\", \"version\": 1, \"ima\": {{\n{section}}}}}"))
        };
        let twice = |key: &str| format!("{{\"{key}\": [\"{digest}\"],\n\"{key}\": []}}");
        let message = ima(&format!("\"allow\": {}", twice("/bin/a")));
        // The last character of the key or the one behind it: serde_json with raw values looks one further.
        let of_column = |column: u8| format!("line 3, column {column}: \"/bin/a\" appears twice");
        assert!([8, 9].map(of_column).contains(&message), "{message}");
        let message = ima(&format!("\"keyrings\": {}", twice(".ima")));
        assert!(message.starts_with("line 3,") && message.ends_with("appears twice"), "{message}");
        assert!(ima("\"list\": \"optional\",\n\"list\": \"optional\"").starts_with("line 3,"));
        let event = format!("\"{digest}\": \"an event\"");
        let boot = |events: &str| {
            error(&format!(
                "{{\"name\": \"edge\", \"version\": 1, \"boot\": {{\"events\": {{\n{events}}}}}}}"
            ))
        };
        assert!(boot(&format!("\"4\": {{{event},\n{event}}}")).starts_with("line 3,"));
        assert!(boot(&format!("\"4\": {{{event}}},\n\"4\": {{}}")).starts_with("line 3,"));
    }

    #[test]
    fn both_forms_say_the_same() {
        let digest = "ab".repeat(32);
        let toml = format!(
            "name = \"edge\"\nversion = 7\n[location]\nallow_countries = [\"DE\"]\n[pcr.sha256]\n\"7\" = [\"{digest}\"]\n\
             [boot]\nsecure_boot = \"any\"\n[ima]\nexclude = [\"/var/log/\"]\n[ima.allow]\n\"/bin/a\" = [\"sha256:{digest}\"]\n"
        );
        let policy = Policy::from_toml(&toml).unwrap();
        assert_eq!(Policy::from_toml(&policy.to_toml()).unwrap(), policy);
        assert_eq!(Policy::from_text(&policy.to_json()).unwrap(), policy);
        assert_eq!(policy.citation(), "edge v7");
        assert_eq!(policy.digest(), Policy::from_json(&policy.to_json()).unwrap().digest());
    }

    #[test]
    fn a_long_text_is_not_read() {
        let text = format!("{MINIMAL}#{}", " ".repeat(POLICY_BYTES_MAX));
        assert_eq!(Policy::from_toml(&text), Err(PolicyError::TooLong { bytes: text.len() }));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[\\[\\]{}\"=.:, \n0-9a-z]{0,80}") {
            let _ = Policy::from_text(&text);
        }
    }

    #[test]
    fn what_does_nothing_is_an_error() {
        assert_eq!(Policy::from_toml(MINIMAL), Err(PolicyError::MeasuresNothing));
        assert_eq!(Policy::from_toml("name = \"edge\"\nversion = 1\n"), Err(PolicyError::MeasuresNothing));
    }
}
