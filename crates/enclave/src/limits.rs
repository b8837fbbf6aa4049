//! What a task may take, and how much of it is gone.

use wasmtime::ResourceLimiter;

use crate::Exhausted;

/// What a task may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, tables among them.
    pub memory_bytes: u64,
    /// Instructions; 0: as many as there is time for.
    pub fuel: u64,
    /// How long it may run.
    pub milliseconds: u64,
    /// Bytes of its output, and as many of its messages.
    pub output_bytes: u64,
}

/// Counts what a task has.
#[derive(Debug)]
pub(crate) struct Meter {
    memory_bytes_max: u64,
    memory_bytes: u64,
    /// What it wanted more of than there is.
    pub(crate) exhausted: Option<Exhausted>,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Meter {
        Meter { memory_bytes_max: limits.memory_bytes, memory_bytes: 0, exhausted: None }
    }

    /// The most that it had: memory of a module never shrinks.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn grows(&mut self, bytes: usize) -> bool {
        let wanted = self.memory_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let fits = wanted <= self.memory_bytes_max;
        match fits {
            true => self.memory_bytes = wanted,
            false => self.exhausted = Some(Exhausted::Memory),
        }
        fits
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grows(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grows(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }
}

/// A function reference, and what belongs to it.
const TABLE_ELEMENT_BYTES: usize = 16;
/// A compiler makes one.
const TABLES_MAX: usize = 8;
