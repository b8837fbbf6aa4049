//! The log of tasks: what a device was about to run, in order, since it booted.
//!
//! Each entry's digest covers its place, the digest before it and all that it says, and the first stands on the boot: an entry that is
//! missing, moved or of another boot leads to another value of the [`register`](super::register). By itself the log proves nothing.

use thiserror::Error;

use super::framed::{self, Writer};
use super::{SHA384_BYTES, Sha384, hash};
use crate::HashAlgorithm;
use crate::read::{Reader, Truncated};

/// What is known of a task before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// For which attempt: [`Occasion::digest`](super::Occasion::digest).
    pub occasion: Sha384,
    /// The measurement of its definition.
    pub measurement: Sha384,
    /// SHA-256 of the program that runs it.
    pub runtime: [u8; RUNTIME_BYTES],
    /// SHA-384 of what it reads.
    pub input: Sha384,
}

/// A place of the log, and what the register is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Entries up to here.
    pub entries: u64,
    /// The digest of the last.
    pub head: Sha384,
    /// The register's value.
    pub value: [u8; VALUE_BYTES],
}

/// The log of one boot, from some place on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    reset_count: u32,
    from: Point,
    entries: Vec<Entry>,
}

/// Why bytes are no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotALog {
    /// They end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Another encoding, or another version of it.
    #[error("it does not begin as a log of tasks")]
    Context,
    /// Its beginning is not that of the boot.
    #[error("it begins at the first entry, with something else than the boot")]
    Beginning,
    /// Longer than it may be.
    #[error("{0} entries, at most {ENTRIES_MAX} are looked at")]
    TooLong(usize),
    /// Bytes follow.
    #[error("{0} bytes after the last entry")]
    Surplus(usize),
}

impl Point {
    /// The beginning of a boot, when the register was not extended yet.
    fn of_boot(reset_count: u32) -> Point {
        let head = hash(&[BOOT_CONTEXT, &reset_count.to_be_bytes()]);
        Point { entries: 0, head, value: [0; VALUE_BYTES] }
    }

    /// The place after one more entry.
    fn after(&self, entry: &Entry) -> Point {
        let Entry { occasion, measurement, runtime, input } = entry;
        let place = self.entries.to_be_bytes();
        let head = hash(&[ENTRY_CONTEXT, &place, &self.head, occasion, measurement, runtime, input]);
        // TPM 2.0 Part 3, TPM2_NV_Extend: H(nameAlg)(old || data).
        let extended = HashAlgorithm::Sha256.hash(&[&self.value, &head]);
        let mut value = [0; VALUE_BYTES];
        value.copy_from_slice(extended.as_bytes());
        Point { entries: self.entries.saturating_add(1), head, value }
    }
}

impl Log {
    /// The empty log of a boot.
    pub fn of_boot(reset_count: u32) -> Log {
        Log { reset_count, from: Point::of_boot(reset_count), entries: Vec::new() }
    }

    /// Appends an entry; what the register has to be extended with before the task runs.
    pub fn append(&mut self, entry: Entry) -> Sha384 {
        self.entries.push(entry);
        self.end().head
    }

    /// Forgets all but the newest entries: who has seen the log up to where it begins then can go on from there.
    pub fn forget_all_but(&mut self, entries: usize) {
        let old = self.entries.len().saturating_sub(entries);
        self.from = self.entries.drain(..old).fold(self.from, |point, entry| point.after(&entry));
    }

    /// The log before its last entry; `None`: there is none in it.
    pub fn without_last(&self) -> Option<Log> {
        let (_, before) = self.entries.split_last()?;
        Some(Log { entries: before.to_vec(), ..*self })
    }

    /// The boot that it says it is of.
    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }

    /// Where it begins.
    pub fn from(&self) -> Point {
        self.from
    }

    /// Whether it begins where the boot began.
    pub fn is_whole(&self) -> bool {
        self.from.entries == 0
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where it ends.
    pub fn end(&self) -> Point {
        self.entries.iter().fold(self.from, |point, entry| point.after(entry))
    }

    /// Whether it went through here, or begins or ends here.
    pub fn has(&self, point: &Point) -> bool {
        let mut at = self.from;
        let mut entries = self.entries.iter();
        loop {
            if at == *point {
                return true;
            }
            match entries.next() {
                Some(entry) => at = at.after(entry),
                None => return false,
            }
        }
    }

    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(CONTEXT);
        writer.u32(self.reset_count);
        writer.u64(self.from.entries);
        writer.fixed(&self.from.head);
        writer.fixed(&self.from.value);
        writer.count(self.entries.len());
        for Entry { occasion, measurement, runtime, input } in &self.entries {
            [occasion.as_slice(), measurement, runtime, input]
                .into_iter()
                .for_each(|part| writer.fixed(part));
        }
        writer.finish()
    }

    /// Reads it back.
    pub fn parse(bytes: &[u8]) -> Result<Log, NotALog> {
        let mut reader = Reader::new(bytes);
        if framed::text(&mut reader, CONTEXT.len())?.is_none_or(|context| context.as_bytes() != CONTEXT) {
            return Err(NotALog::Context);
        }
        let reset_count = reader.u32_be()?;
        let from = Point {
            entries: reader.u64_be()?,
            head: reader.array::<SHA384_BYTES>()?,
            value: reader.array::<VALUE_BYTES>()?,
        };
        if from.entries == 0 && from != Point::of_boot(reset_count) {
            return Err(NotALog::Beginning);
        }
        let count = framed::count(&mut reader)?;
        if count > ENTRIES_MAX {
            return Err(NotALog::TooLong(count));
        }
        let mut entries = Vec::with_capacity(count.min(reader.rest().len() / ENTRY_BYTES));
        for _ in 0..count {
            entries.push(Entry {
                occasion: reader.array::<SHA384_BYTES>()?,
                measurement: reader.array::<SHA384_BYTES>()?,
                runtime: reader.array::<RUNTIME_BYTES>()?,
                input: reader.array::<SHA384_BYTES>()?,
            });
        }
        if !reader.is_empty() {
            return Err(NotALog::Surplus(reader.rest().len()));
        }
        Ok(Log { reset_count, from, entries })
    }
}

/// Entries that are looked at of one log: a device forgets what its server has seen.
pub const ENTRIES_MAX: usize = 4096;
/// Bytes of SHA-256, which the register is of and the program is hashed with.
pub const VALUE_BYTES: usize = 32;
const RUNTIME_BYTES: usize = 32;
const ENTRY_BYTES: usize = 3 * SHA384_BYTES + RUNTIME_BYTES;
const CONTEXT: &[u8] = b"assay-task-log-v1";
const BOOT_CONTEXT: &[u8] = b"assay-task-log-boot-v1";
const ENTRY_CONTEXT: &[u8] = b"assay-task-log-entry-v1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: u8) -> Entry {
        Entry { occasion: [number; 48], measurement: [1; 48], runtime: [2; 32], input: [3; 48] }
    }

    fn log(numbers: &[u8]) -> Log {
        let mut log = Log::of_boot(7);
        for number in numbers {
            log.append(entry(*number));
        }
        log
    }

    #[test]
    fn whatever_is_done_to_a_log_shows_in_its_value() {
        let value = |log: &Log| log.end().value;
        let good = value(&log(&[1, 2, 3]));
        assert_ne!(value(&log(&[1, 3, 2])), good, "reordered");
        assert_ne!(value(&log(&[1, 2])), good, "cut at the end");
        assert_ne!(value(&log(&[2, 3])), good, "cut at the beginning");
        assert_ne!(value(&log(&[1, 2, 2, 3])), good, "repeated");
        assert_ne!(value(&log(&[1, 2, 4])), good, "exchanged");
        let mut earlier = Log::of_boot(6);
        for number in [1, 2, 3] {
            earlier.append(entry(number));
        }
        assert_ne!(value(&earlier), good, "of an earlier boot");
        for change in [
            |entry: &mut Entry| entry.measurement = [9; 48],
            |entry: &mut Entry| entry.runtime = [9; 32],
            |entry: &mut Entry| entry.input = [9; 48],
        ] {
            let mut other = log(&[1, 2]);
            let mut changed = entry(3);
            change(&mut changed);
            other.append(changed);
            assert_ne!(value(&other), good);
        }
    }

    #[test]
    fn what_was_forgotten_is_gone_on_from() {
        let (whole, mut rest) = (log(&[1, 2, 3, 4]), log(&[1, 2, 3, 4]));
        rest.forget_all_but(1);
        assert_eq!((rest.entries().len(), rest.is_whole()), (1, false));
        assert_eq!(rest.end(), whole.end());
        assert!(rest.has(&log(&[1, 2, 3]).end()) && rest.has(&whole.end()));
        assert!(!rest.has(&log(&[1, 2]).end()), "nothing is known of it any more");
        assert!(whole.has(&log(&[]).end()) && !whole.has(&log(&[2]).end()));
        rest.append(entry(5));
        assert_eq!(rest.end(), log(&[1, 2, 3, 4, 5]).end());
        assert_eq!(Log::parse(&rest.encode()), Ok(rest));
    }

    #[test]
    fn a_log_is_read_whole_or_not_at_all() {
        let log = log(&[1, 2]);
        let encoded = log.encode();
        assert_eq!(Log::parse(&encoded), Ok(log));
        for length in 0..encoded.len() {
            assert!(Log::parse(&encoded[..length]).is_err(), "{length}");
        }
        assert_eq!(Log::parse(&[&encoded, [0].as_slice()].concat()), Err(NotALog::Surplus(1)));
        let count = encoded.len() - 2 * ENTRY_BYTES - 4;
        let mut many = encoded.clone();
        many[count..count + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Log::parse(&many), Err(NotALog::TooLong(0xffff_ffff)));
        // One that begins at the beginning with a value of its own choice.
        let mut forged = encoded;
        forged[count - 1] ^= 1;
        assert_eq!(Log::parse(&forged), Err(NotALog::Beginning));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(log) = Log::parse(&bytes) {
                prop_assert_eq!(log.encode(), bytes);
            }
        }
    }
}
