//! The line to the server: what attempts ask for and hand in, and what they hear.

use tokio::sync::mpsc;

use crate::tpm::RegisterStatement;

/// What is said.
#[derive(Debug)]
pub(crate) struct Say {
    /// Of which task.
    pub task: String,
    /// Of which attempt.
    pub attempt: u32,
    /// What.
    pub what: Spoken,
}

/// What is said of an attempt.
#[derive(Debug)]
pub(crate) enum Spoken {
    /// A piece of its image or input is wanted.
    Fetch {
        /// Of the input.
        is_input: bool,
        /// From where on.
        offset: u64,
    },
    /// It has ended.
    Result {
        /// The outcome that was signed.
        outcome: Vec<u8>,
        /// The signature.
        signature: Vec<u8>,
        /// What it put out.
        output: Vec<u8>,
        /// Its messages.
        messages: Vec<u8>,
        /// The TPM's word on the register, and the log.
        register: Option<(RegisterStatement, Vec<u8>)>,
    },
}

/// What is heard of an attempt.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Of which task.
    pub task: String,
    /// Of which attempt.
    pub attempt: u32,
    /// What.
    pub what: Hear,
}

/// What is heard.
#[derive(Debug)]
pub(crate) enum Hear {
    /// A piece of its image or input; empty: there is none.
    Piece {
        /// Of the input.
        is_input: bool,
        /// From where on.
        offset: u64,
        /// It.
        bytes: Vec<u8>,
    },
    /// What became of its result: why it was refused.
    Answer(Result<(), String>),
}

/// The end of those who run tasks.
pub struct Line {
    pub(crate) say: mpsc::Sender<Say>,
    pub(crate) heard: mpsc::Receiver<Heard>,
}

/// The end of whoever speaks with the server.
pub struct Wire {
    pub(crate) said: mpsc::Receiver<Say>,
    pub(crate) hear: mpsc::Sender<Heard>,
}

/// Both ends.
pub fn line() -> (Line, Wire) {
    let (say, said) = mpsc::channel(WAITING_MAX);
    let (hear, heard) = mpsc::channel(WAITING_MAX);
    (Line { say, heard }, Wire { said, hear })
}

/// Questions and results that wait for the stream.
const WAITING_MAX: usize = 16;
