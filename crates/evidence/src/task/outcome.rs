//! What came of a task: the statement that the device's key signs.
//!
//! It names the attempt that it is for, what was run by what on what input, and the digests of what came out: so that no outcome serves
//! for another attempt, device or output.

use std::fmt;

use thiserror::Error;

use super::framed::{self, Writer};
use super::{SHA384_BYTES, Sha384, hash};
use crate::read::{Reader, Truncated};

/// One attempt at a task on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The task.
    pub task: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The device, a SPIFFE ID.
    pub device: String,
    /// What the server drew for it.
    pub nonce: [u8; NONCE_BYTES],
}

impl Occasion {
    /// What the log names it by, and the register is certified for.
    pub fn digest(&self) -> Sha384 {
        let mut writer = Writer::new(OCCASION_CONTEXT);
        self.write(&mut writer);
        hash(&[&writer.finish()])
    }

    fn write(&self, writer: &mut Writer) {
        writer.text(self.task.as_bytes());
        writer.u32(self.attempt);
        writer.text(self.device.as_bytes());
        writer.fixed(&self.nonce);
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For which attempt.
    pub occasion: Occasion,
    /// The measurement of what was run.
    pub measurement: Sha384,
    /// SHA-256 of the program that ran it; zero: it cannot read itself.
    pub runtime: [u8; 32],
    /// SHA-384 of what it read.
    pub input: Sha384,
    /// SHA-384 of what it put out.
    pub output: Sha384,
    /// SHA-384 of its messages.
    pub messages: Sha384,
    /// How it ended.
    pub end: End,
    /// How long it ran, in milliseconds.
    pub milliseconds: u64,
    /// The most memory that it had, in bytes.
    pub memory_bytes: u64,
    /// SHA-256 of the statement about the register; zero: there is none.
    pub register: [u8; 32],
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// It did what it may not, or what cannot be done: a trap.
    Failed,
    /// It took what there was of something.
    Exhausted(Exhausted),
    /// It is not run: what it asks for is not offered, or the image is none.
    Refused,
}

/// What a task took all of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Memory.
    Memory,
    /// Instructions.
    Fuel,
    /// Time.
    Time,
    /// Output.
    Output,
}

/// Why bytes are no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotAnOutcome {
    /// They end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Another encoding, or another version of it.
    #[error("it does not begin as the outcome of a task")]
    Context,
    /// A field that is too long or has no such value.
    #[error("{0} is not acceptable")]
    Field(&'static str),
    /// Bytes follow.
    #[error("{0} bytes after the outcome")]
    Surplus(usize),
}

impl Exhausted {
    const ALL: [Exhausted; 4] = [Exhausted::Memory, Exhausted::Fuel, Exhausted::Time, Exhausted::Output];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Exhausted::Memory => "memory",
            Exhausted::Fuel => "fuel",
            Exhausted::Time => "time",
            Exhausted::Output => "output",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(code) => write!(f, "ended with {code}"),
            End::Failed => f.write_str("failed"),
            End::Exhausted(what) => write!(f, "had all of its {}", what.name()),
            End::Refused => f.write_str("was not run"),
        }
    }
}

impl Outcome {
    /// Its encoding: what is signed, as the body of a DSSE envelope of [`TYPE`].
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(CONTEXT);
        self.occasion.write(&mut writer);
        writer.fixed(&self.measurement);
        writer.fixed(&self.runtime);
        [self.input, self.output, self.messages].iter().for_each(|digest| writer.fixed(digest));
        let (end, more) = match self.end {
            End::Exited(code) => (0, code.cast_unsigned()),
            End::Failed => (1, 0),
            End::Exhausted(what) => (2, u32::from(what as u8)),
            End::Refused => (3, 0),
        };
        writer.u8(end);
        writer.u32(more);
        writer.u64(self.milliseconds);
        writer.u64(self.memory_bytes);
        writer.fixed(&self.register);
        writer.finish()
    }

    /// Reads it back.
    pub fn parse(bytes: &[u8]) -> Result<Outcome, NotAnOutcome> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        if framed::text(reader, CONTEXT.len())?.is_none_or(|context| context.as_bytes() != CONTEXT) {
            return Err(NotAnOutcome::Context);
        }
        let field =
            |reader: &mut Reader<'_>, name, max| framed::text(reader, max)?.ok_or(NotAnOutcome::Field(name));
        let occasion = Occasion {
            task: field(reader, "task", TASK_BYTES_MAX)?,
            attempt: reader.u32_be()?,
            device: field(reader, "device", DEVICE_BYTES_MAX)?,
            nonce: reader.array()?,
        };
        let outcome = Outcome {
            occasion,
            measurement: reader.array::<SHA384_BYTES>()?,
            runtime: reader.array()?,
            input: reader.array::<SHA384_BYTES>()?,
            output: reader.array::<SHA384_BYTES>()?,
            messages: reader.array::<SHA384_BYTES>()?,
            end: end(reader.u8()?, reader.u32_be()?).ok_or(NotAnOutcome::Field("end"))?,
            milliseconds: reader.u64_be()?,
            memory_bytes: reader.u64_be()?,
            register: reader.array()?,
        };
        if !reader.is_empty() {
            return Err(NotAnOutcome::Surplus(reader.rest().len()));
        }
        Ok(outcome)
    }
}

fn end(kind: u8, more: u32) -> Option<End> {
    match (kind, more) {
        (0, code) => Some(End::Exited(code.cast_signed())),
        (1, 0) => Some(End::Failed),
        (2, what) => Exhausted::ALL.into_iter().find(|one| u32::from(*one as u8) == what).map(End::Exhausted),
        (3, 0) => Some(End::Refused),
        _ => None,
    }
}

/// DSSE payload type of an outcome.
pub const TYPE: &str = "application/vnd.assay.task-outcome.v1";
/// Bytes of what the server draws for an attempt.
pub const NONCE_BYTES: usize = 32;
const CONTEXT: &[u8] = b"assay-task-outcome-v1";
const OCCASION_CONTEXT: &[u8] = b"assay-task-occasion-v1";
/// A task's id has 32.
const TASK_BYTES_MAX: usize = 64;
/// A SPIFFE ID has 2,048 at most.
const DEVICE_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn example(end: End) -> Outcome {
        Outcome {
            occasion: Occasion {
                task: "t".to_owned(),
                attempt: 2,
                device: "spiffe://example.org/d".to_owned(),
                nonce: [1; NONCE_BYTES],
            },
            measurement: [2; 48],
            runtime: [3; 32],
            input: [4; 48],
            output: [5; 48],
            messages: [6; 48],
            end,
            milliseconds: 7,
            memory_bytes: 8,
            register: [9; 32],
        }
    }

    #[test]
    fn an_outcome_reads_back_as_it_was_written() {
        let exhausted = Exhausted::ALL.map(End::Exhausted);
        let ends = [End::Exited(0), End::Exited(-1), End::Failed, End::Refused].into_iter().chain(exhausted);
        for end in ends {
            let encoded = example(end).encode();
            assert_eq!(Outcome::parse(&encoded), Ok(example(end)));
            for length in 0..encoded.len() {
                assert!(Outcome::parse(&encoded[..length]).is_err(), "{length}");
            }
            assert_eq!(Outcome::parse(&[&encoded, [0].as_slice()].concat()), Err(NotAnOutcome::Surplus(1)));
        }
        let mut encoded = example(End::Failed).encode();
        let at = encoded.len() - 32 - 16 - 5;
        encoded[at] = 9;
        assert_eq!(Outcome::parse(&encoded), Err(NotAnOutcome::Field("end")));
    }

    #[test]
    fn no_two_attempts_are_the_same_occasion() {
        let occasion = example(End::Failed).occasion;
        let changes: [fn(&mut Occasion); 4] = [
            |one| one.task.push('x'),
            |one| one.attempt += 1,
            |one| one.device.push('x'),
            |one| one.nonce = [2; NONCE_BYTES],
        ];
        for change in changes {
            let mut other = occasion.clone();
            change(&mut other);
            assert_ne!(other.digest(), occasion.digest());
        }
    }
}
