//! What is to be run: image, entry, arguments, environment, what it may use, and its limits.
//!
//! There is one encoding of a definition, and bytes that are none of it are refused: so both ends hash the same. What it reads (its
//! input) and which program runs it are no part of it, so that whoever submits a task knows its measurement beforehand; both are named
//! beside it, in the log and in the outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::framed::{self, Writer};
use super::{SHA384_BYTES, Sha384, sha384};
use crate::read::{Reader, Truncated};

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What runs it.
    pub backend: Backend,
    /// SHA-384 of the image.
    pub image: Sha384,
    /// The function that is called.
    pub entry: String,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    /// Its environment. Nothing of the device's own is in it.
    pub environment: BTreeMap<String, String>,
    /// What it may use beside its input and output.
    pub capabilities: BTreeSet<Capability>,
    /// What it may take.
    pub limits: Limits,
}

/// What runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A WebAssembly module with WASI preview 1.
    Wasm,
}

/// What a task may use. Files and network are not among it: there is no way to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// The device's clock.
    Clock,
    /// Random bytes.
    Random,
}

/// What a task may take. Whatever is reached ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Instructions, counted the same on every device; 0: time alone counts.
    pub fuel: u64,
    /// How long it may run, in milliseconds.
    pub milliseconds: u64,
    /// Bytes of its output, and as many of its messages.
    pub output_bytes: u64,
}

/// Why bytes are no definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotADefinition {
    /// They end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Another encoding, or another version of it.
    #[error("it does not begin as the definition of a task")]
    Context,
    /// A field that is too long, not text, or has no such value.
    #[error("{0} is not acceptable")]
    Field(&'static str),
    /// The same in another order, or more than it.
    #[error("it is not the one encoding of what it says")]
    Form,
}

impl Backend {
    /// Every one there is.
    pub const ALL: [Backend; 1] = [Backend::Wasm];

    /// Its name, and the version of what it offers.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Wasm => "wasm",
        }
    }

    /// The version of what it offers to a task: with another, the same image does other things.
    fn version(self) -> u32 {
        match self {
            Backend::Wasm => 1,
        }
    }
}

impl Capability {
    /// Every one there is.
    pub const ALL: [Capability; 2] = [Capability::Clock, Capability::Random];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Clock => "clock",
            Capability::Random => "random",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Definition {
    /// What is measured of it: SHA-384 of its encoding.
    pub fn measurement(&self) -> Sha384 {
        sha384(&self.encode())
    }

    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(CONTEXT);
        writer.text(self.backend.name().as_bytes());
        writer.u32(self.backend.version());
        writer.fixed(&self.image);
        writer.text(self.entry.as_bytes());
        writer.count(self.arguments.len());
        self.arguments.iter().for_each(|argument| writer.text(argument.as_bytes()));
        writer.count(self.environment.len());
        for (name, value) in &self.environment {
            writer.text(name.as_bytes());
            writer.text(value.as_bytes());
        }
        // No mounts: there is no way to files yet, and whoever adds one adds them here.
        writer.count(0);
        writer.count(self.capabilities.len());
        self.capabilities.iter().for_each(|one| writer.text(one.name().as_bytes()));
        let Limits { memory_bytes, fuel, milliseconds, output_bytes } = self.limits;
        [memory_bytes, fuel, milliseconds, output_bytes].into_iter().for_each(|limit| writer.u64(limit));
        writer.finish()
    }

    /// Reads it back, and refuses what [`Definition::encode`] would not have written.
    pub fn parse(bytes: &[u8]) -> Result<Definition, NotADefinition> {
        if bytes.len() > ENCODING_BYTES_MAX {
            return Err(NotADefinition::Field("its length"));
        }
        let definition = Definition::read(&mut Reader::new(bytes))?;
        if definition.encode() != bytes {
            return Err(NotADefinition::Form);
        }
        definition.check()?;
        Ok(definition)
    }

    /// Whether every field is within its bounds.
    pub fn check(&self) -> Result<(), NotADefinition> {
        let is_word = |word: &str| (1..=WORD_BYTES_MAX).contains(&word.len()) && !word.contains('\0');
        let is_value = |word: &str| word.len() <= WORD_BYTES_MAX && !word.contains('\0');
        let is_name = |name: &String| is_word(name) && !name.contains('=');
        let Limits { memory_bytes, fuel: _, milliseconds, output_bytes } = self.limits;
        let fields = [
            ("entry", is_word(&self.entry)),
            ("number of arguments", self.arguments.len() <= ARGUMENTS_MAX),
            ("arguments", self.arguments.iter().all(|argument| is_value(argument))),
            ("number of variables", self.environment.len() <= ENVIRONMENT_MAX),
            ("name of a variable", self.environment.keys().all(is_name)),
            ("value of a variable", self.environment.values().all(|value| is_value(value))),
            ("memory", (1..=MEMORY_BYTES_MAX).contains(&memory_bytes)),
            ("time", (1..=MILLISECONDS_MAX).contains(&milliseconds)),
            ("output", output_bytes <= OUTPUT_BYTES_MAX),
            ("length", self.encode().len() <= ENCODING_BYTES_MAX),
        ];
        match fields.into_iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(NotADefinition::Field(field)),
            None => Ok(()),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Definition, NotADefinition> {
        let word = |reader: &mut Reader<'_>, field| {
            framed::text(reader, WORD_BYTES_MAX)?.ok_or(NotADefinition::Field(field))
        };
        let count = |reader: &mut Reader<'_>, field, max| match framed::count(reader)? {
            count if count <= max => Ok(count),
            _ => Err(NotADefinition::Field(field)),
        };
        if word(reader, "kind")?.as_bytes() != CONTEXT {
            return Err(NotADefinition::Context);
        }
        let backend = word(reader, "back-end")?;
        let backend = Backend::ALL.into_iter().find(|known| known.name() == backend);
        let backend = backend.ok_or(NotADefinition::Field("back-end"))?;
        if reader.u32_be()? != backend.version() {
            return Err(NotADefinition::Field("version of the back-end"));
        }
        let image = reader.array::<SHA384_BYTES>()?;
        let entry = word(reader, "entry")?;
        let arguments = (0..count(reader, "number of arguments", ARGUMENTS_MAX)?)
            .map(|_| word(reader, "arguments"))
            .collect::<Result<_, _>>()?;
        let environment = (0..count(reader, "number of variables", ENVIRONMENT_MAX)?)
            .map(|_| Ok((word(reader, "name of a variable")?, word(reader, "value of a variable")?)))
            .collect::<Result<_, NotADefinition>>()?;
        count(reader, "mounts", 0)?;
        let capabilities = (0..count(reader, "capabilities", Capability::ALL.len())?)
            .map(|_| {
                let name = word(reader, "capabilities")?;
                let known = Capability::ALL.into_iter().find(|known| known.name() == name);
                known.ok_or(NotADefinition::Field("capabilities"))
            })
            .collect::<Result<_, _>>()?;
        let limits = Limits {
            memory_bytes: reader.u64_be()?,
            fuel: reader.u64_be()?,
            milliseconds: reader.u64_be()?,
            output_bytes: reader.u64_be()?,
        };
        Ok(Definition { backend, image, entry, arguments, environment, capabilities, limits })
    }
}

const CONTEXT: &[u8] = b"assay-task-definition-v1";
/// Arguments of one task.
pub const ARGUMENTS_MAX: usize = 64;
/// Variables of one task.
pub const ENVIRONMENT_MAX: usize = 64;
/// Bytes of an argument, of a variable's name or its value.
pub const WORD_BYTES_MAX: usize = 4096;
/// Arguments and environment are for settings; what is long is input.
const ENCODING_BYTES_MAX: usize = 64 << 10;
/// What a module of 32 bits can address.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// A day.
const MILLISECONDS_MAX: u64 = 24 * 3600 * 1000;
/// What comes back is kept by the server.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Definition {
        Definition {
            backend: Backend::Wasm,
            image: sha384(b"image"),
            entry: "_start".to_owned(),
            arguments: vec!["--fast".to_owned()],
            environment: [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())].into(),
            capabilities: [Capability::Random].into(),
            limits: Limits { memory_bytes: 1 << 20, fuel: 0, milliseconds: 1000, output_bytes: 100 },
        }
    }

    /// The encoding is a promise: who noted a measurement finds it again with every later version.
    #[test]
    fn the_measurement_of_a_definition_never_changes() {
        assert_eq!(example().encode().len(), 186);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&example().measurement()),
            "2697143787d8da368515f72b0d2216844197fd8bcb5ca029d36e818c3171c6197123258296bb9f95a515d83e689ccb79",
        );
    }

    #[test]
    fn each_field_counts() {
        let changes: [fn(&mut Definition); 11] = [
            |one| one.image = sha384(b"another"),
            |one| one.entry = "main".to_owned(),
            |one| one.arguments = vec!["--f".to_owned(), "ast".to_owned()],
            |one| one.arguments.clear(),
            |one| drop(one.environment.insert("A".to_owned(), "3".to_owned())),
            |one| drop(one.environment.remove("A")),
            |one| one.capabilities = Capability::ALL.into(),
            |one| one.limits.memory_bytes += 1,
            |one| one.limits.fuel += 1,
            |one| one.limits.milliseconds += 1,
            |one| one.limits.output_bytes += 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = example();
            change(&mut changed);
            assert_ne!(changed.measurement(), example().measurement(), "change {number}");
        }
    }

    #[test]
    fn nothing_but_its_one_encoding_is_a_definition() {
        let encoded = example().encode();
        assert_eq!(Definition::parse(&encoded), Ok(example()));
        for length in 0..encoded.len() {
            assert!(Definition::parse(&encoded[..length]).is_err(), "{length}");
        }
        assert_eq!(Definition::parse(&[&encoded, [0].as_slice()].concat()), Err(NotADefinition::Form));
        // The two variables the other way round say the same and are another measurement.
        let text = |word: &str| [&1_u32.to_be_bytes(), word.as_bytes()].concat();
        let (a, b) = ([text("A"), text("1")].concat(), [text("B"), text("2")].concat());
        let at = encoded.windows(a.len()).position(|window| window == a).unwrap();
        let mut swapped = encoded.clone();
        swapped[at..at + a.len()].copy_from_slice(&b);
        swapped[at + a.len()..at + 2 * a.len()].copy_from_slice(&a);
        assert_eq!(Definition::parse(&swapped), Err(NotADefinition::Form));
    }

    #[test]
    fn every_field_has_a_bound() {
        let check = |change: fn(&mut Definition), field| {
            let mut changed = example();
            change(&mut changed);
            assert_eq!(changed.check(), Err(NotADefinition::Field(field)));
            assert!(Definition::parse(&changed.encode()).is_err(), "{field}");
        };
        check(|one| one.entry.clear(), "entry");
        check(|one| one.arguments = vec![String::new(); ARGUMENTS_MAX + 1], "number of arguments");
        check(|one| one.arguments = vec!["a\0b".to_owned()], "arguments");
        check(|one| one.arguments = vec!["a".repeat(WORD_BYTES_MAX + 1)], "arguments");
        check(|one| drop(one.environment.insert("A=B".to_owned(), String::new())), "name of a variable");
        check(|one| one.limits.memory_bytes = 0, "memory");
        check(|one| one.limits.memory_bytes = u64::MAX, "memory");
        check(|one| one.limits.milliseconds = 0, "time");
        check(|one| one.limits.output_bytes = u64::MAX, "output");
        check(|one| one.arguments = vec!["a".repeat(WORD_BYTES_MAX); ARGUMENTS_MAX], "length");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(definition) = Definition::parse(&bytes) {
                prop_assert_eq!(definition.encode(), bytes);
            }
        }
    }
}
