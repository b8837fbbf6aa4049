//! Running tasks in isolation: WebAssembly modules that see their arguments, their environment and their input, and nothing else.
//!
//! A task gets what it is given and has no way to anything besides: no file, no network, no process, and the clock and random bytes
//! only where they are granted. Whatever it takes has a limit, and what reaches one ends. This crate knows nothing of devices, trust
//! or the network; only the agent's program depends on it. Start reading at [`Engine`].

mod engine;
mod limits;
mod wasi;

pub use engine::{Engine, EngineError, Image, NotAnImage, Stop};
pub use limits::Limits;

/// What is run, and on what.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// The function that is called; it takes nothing and returns nothing.
    pub entry: String,
    /// The program's name and its arguments.
    pub arguments: Vec<String>,
    /// `NAME=VALUE` each.
    pub environment: Vec<String>,
    /// Whether it may read the clock.
    pub may_read_clock: bool,
    /// Whether it may draw random bytes.
    pub may_draw_random: bool,
    /// What it reads.
    pub input: Vec<u8>,
    /// What it may take.
    pub limits: Limits,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What it put out.
    pub output: Vec<u8>,
    /// Its messages; the last line is ours where it did not end by itself.
    pub messages: Vec<u8>,
    /// How long it ran.
    pub milliseconds: u64,
    /// The most memory that it had, in bytes.
    pub memory_bytes: u64,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a trap: it did what cannot be done.
    Failed,
    /// It took all there was of something.
    Exhausted(Exhausted),
    /// It asks for what is not offered.
    Refused,
    /// It was stopped.
    Stopped,
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
