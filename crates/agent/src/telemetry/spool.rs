//! What was taken and is not handed in yet, on disk: numbered records in segments, each record behind its length and a checksum.
//!
//! A record is there once [`Spool::append`] has returned. A crash in between leaves a torn tail, which is cut off at the next start
//! and was never acknowledged; what is damaged elsewhere is passed over and told. When there is no room the oldest segment goes.
//! Whatever went is a [`Gap`] in the place of the records, so that it is signed with the rest.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use assay_telemetry::otlp::{Gap, PARTS_MAX, Part};
use assay_telemetry::sha256;
use prost::Message;

/// The open spool.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    /// The oldest first; the last is written to.
    segments: VecDeque<Segment>,
    tail: Option<File>,
    /// The next record's number.
    next: u64,
    /// Records before this one were handed in.
    head: u64,
    /// What went and is not written down as a gap yet.
    missing: Gap,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    /// Of the last record and one.
    end: u64,
    bytes: u64,
}

impl Spool {
    /// Opens the folder; records before `head` were handed in. What is damaged is cut off or passed over.
    pub(super) fn open(folder: &Path, head: u64, bytes_max: u64) -> io::Result<Spool> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let first = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            firsts.extend(first.and_then(|first| u64::from_str_radix(first, 16).ok()));
        }
        firsts.sort_unstable();
        let (segments, missing) = (VecDeque::new(), Gap::default());
        let mut spool =
            Spool { folder: folder.to_owned(), bytes_max, segments, tail: None, next: head, head, missing };
        let mut torn = Vec::new();
        for (index, first) in firsts.iter().enumerate() {
            let following = firsts.get(index + 1).copied();
            torn.extend(spool.recover(*first, following)?);
        }
        spool.forget()?;
        // First it is said, then it is cut off: whatever happens in between, what is missing is told.
        if spool.write_gap(0).is_ok() {
            for (path, whole) in torn.into_iter().filter(|(path, _)| path.exists()) {
                OpenOptions::new().write(true).open(path)?.set_len(whole)?;
            }
        }
        Ok(spool)
    }

    /// Reads a segment and keeps what of it is whole; returns where it has to be cut off.
    fn recover(&mut self, first: u64, following: Option<u64>) -> io::Result<Option<(PathBuf, u64)>> {
        let bytes = fs::read(self.path(first))?;
        let (mut rest, mut end) = (bytes.as_slice(), first);
        while let Some((_, after)) = record(rest, end) {
            (rest, end) = (after, end + 1);
        }
        let whole = (bytes.len() - rest.len()) as u64;
        self.next = self.next.max(end).max(following.unwrap_or(0));
        if whole > 0 {
            self.segments.push_back(Segment { first, end, bytes: whole });
        }
        if !rest.is_empty() {
            // What stands behind the last whole record was not acknowledged, unless there is another segment after it.
            let lost = following.map_or(0, |following| following.saturating_sub(end));
            tracing::warn!(
                segment = first,
                bytes = rest.len(),
                records = lost,
                "the spool's end was torn off"
            );
            if lost > 0 && following > Some(self.head) {
                self.missing.requests += lost;
                self.missing.bytes += rest.len() as u64;
                self.missing.reason = DAMAGED.to_owned();
            }
        }
        Ok((!rest.is_empty()).then(|| (self.path(first), whole)))
    }

    /// Writes a part down. If there is no room for it the oldest make it; if the disk has none nothing is changed.
    pub(super) fn append(&mut self, part: &Part) -> io::Result<()> {
        let body = part.encode_to_vec();
        while self.bytes() + body.len() as u64 + HEADER_BYTES > self.bytes_max && self.drop_oldest()? {}
        self.write_gap(part.received_unix_nano)?;
        self.write(&body)
    }

    /// The oldest parts, of at most so many bytes but at least one, and the number behind the last of them.
    pub(super) fn oldest(&self, bytes_max: usize) -> io::Result<(Vec<Part>, u64)> {
        let (mut parts, mut bytes, mut end) = (Vec::new(), 0, self.head);
        for segment in self.segments.iter().filter(|segment| segment.end > self.head) {
            let content = fs::read(self.path(segment.first))?;
            let (mut rest, mut number) = (content.as_slice(), segment.first);
            while let Some((body, after)) = record(rest, number) {
                if number >= self.head {
                    bytes += body.len();
                    let is_enough = bytes > bytes_max || parts.len() >= PARTS_MAX;
                    if is_enough && !parts.is_empty() {
                        return Ok((parts, end));
                    }
                    parts.extend(Part::decode(body).ok());
                    end = number + 1;
                }
                (rest, number) = (after, number + 1);
            }
            end = end.max(segment.end);
        }
        Ok((parts, end))
    }

    /// Everything before a number was handed in.
    pub(super) fn handed_in(&mut self, end: u64) -> io::Result<()> {
        self.head = self.head.max(end);
        self.forget()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.end <= self.head)
    }

    /// Bytes that wait, up to a segment more.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().filter(|segment| segment.end > self.head).map(|segment| segment.bytes).sum()
    }

    /// Removes segments that were handed in whole.
    fn forget(&mut self) -> io::Result<()> {
        while self.segments.front().is_some_and(|segment| segment.end <= self.head) {
            let Some(segment) = self.segments.pop_front() else { break };
            if self.segments.is_empty() {
                self.tail = None;
            }
            fs::remove_file(self.path(segment.first))?;
        }
        Ok(())
    }

    /// Lets the oldest segment go, and remembers what was in it; `false`: there is none.
    fn drop_oldest(&mut self) -> io::Result<bool> {
        let Some(segment) = self.segments.front() else { return Ok(false) };
        let content = fs::read(self.path(segment.first))?;
        let (mut rest, mut number) = (content.as_slice(), segment.first);
        let mut gone = Gap { reason: FULL.to_owned(), ..Gap::default() };
        while let Some((body, after)) = record(rest, number) {
            if number >= self.head {
                gone.add(body);
            }
            (rest, number) = (after, number + 1);
        }
        let end = segment.end;
        tracing::warn!(
            requests = gone.requests,
            items = gone.items,
            "the spool is full: its oldest make room"
        );
        self.missing.join(gone);
        self.handed_in(end)?;
        Ok(true)
    }

    /// Says in the spool what is missing before what comes next.
    fn write_gap(&mut self, received_unix_nano: u64) -> io::Result<()> {
        if self.missing.requests == 0 {
            return Ok(());
        }
        let gap = Part::gap(&self.missing, received_unix_nano);
        self.write(&gap.encode_to_vec())?;
        self.missing = Gap::default();
        Ok(())
    }

    /// Writes a record; if that fails the file is as it was.
    fn write(&mut self, body: &[u8]) -> io::Result<()> {
        let framed = framed(body, self.next);
        let starts =
            self.tail.is_none() || self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        if starts {
            let path = self.path(self.next);
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            // A file of that name was torn off before its first record.
            file.set_len(0)?;
            File::open(&self.folder)?.sync_all()?;
            self.tail = Some(file);
            self.segments.push_back(Segment { first: self.next, end: self.next, bytes: 0 });
        }
        let (Some(tail), Some(segment)) = (&mut self.tail, self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let written = tail.write_all(&framed).and_then(|()| tail.sync_data());
        if let Err(error) = written {
            tail.set_len(segment.bytes)?;
            return Err(error);
        }
        segment.bytes += framed.len() as u64;
        segment.end += 1;
        self.next += 1;
        Ok(())
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:016x}{SUFFIX}"))
    }
}

/// What can be told of records that went.
trait Missing {
    fn add(&mut self, body: &[u8]);
    fn join(&mut self, other: Gap);
}

impl Missing for Gap {
    fn add(&mut self, body: &[u8]) {
        self.bytes += body.len() as u64;
        let Ok(part) = Part::decode(body) else {
            self.requests += 1;
            return;
        };
        match part.as_gap() {
            // What it says of earlier ones is still true.
            Some(earlier) => self.join(earlier),
            None => {
                let at = part.received_unix_nano;
                let first = if self.first_unix_nano == 0 { at } else { self.first_unix_nano.min(at) };
                self.requests += 1;
                self.items += part.items;
                (self.first_unix_nano, self.last_unix_nano) = (first, self.last_unix_nano.max(at));
            }
        }
    }

    fn join(&mut self, other: Gap) {
        let first = [self.first_unix_nano, other.first_unix_nano].into_iter().filter(|at| *at > 0).min();
        self.first_unix_nano = first.unwrap_or(0);
        self.last_unix_nano = self.last_unix_nano.max(other.last_unix_nano);
        self.requests += other.requests;
        self.items += other.items;
        self.bytes += other.bytes;
        if self.reason.is_empty() {
            self.reason = other.reason;
        }
    }
}

/// The record of a number at the start of `bytes`, and what follows it; `None`: there is no whole one.
fn record(bytes: &[u8], number: u64) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
    let (body, after) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    (*checksum == check(body, number)).then_some((body, after))
}

fn framed(body: &[u8], number: u64) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, check(body, number).as_slice(), body].concat()
}

/// Over the number too, so that no record stands in another's place.
fn check(body: &[u8], number: u64) -> [u8; CHECKSUM_BYTES] {
    let hash = sha256(&[number.to_be_bytes().as_slice(), body].concat());
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    checksum
}

const SUFFIX: &str = ".segment";
const CHECKSUM_BYTES: usize = 8;
const HEADER_BYTES: u64 = 4 + CHECKSUM_BYTES as u64;
/// At so many bytes another segment is begun: what goes at once when there is no room.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Reasons of a gap.
const FULL: &str = "full";
const DAMAGED: &str = "damaged";

#[cfg(test)]
mod tests {
    use assay_telemetry::otlp::{Encoding, Signal};

    use super::*;

    fn part(number: u64, bytes: usize) -> Part {
        let body = vec![0x7a; bytes];
        Part {
            signal: Signal::Logs.into(),
            encoding: Encoding::Protobuf.into(),
            items: 2,
            received_unix_nano: number,
            body: body.into(),
        }
    }

    fn open(folder: &Path, head: u64) -> Spool {
        Spool::open(folder, head, 8 << 20).unwrap()
    }

    fn numbers(spool: &Spool) -> Vec<u64> {
        let (parts, _) = spool.oldest(usize::MAX).unwrap();
        parts.iter().map(|part| part.received_unix_nano).collect()
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_until_it_was_handed_in() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path(), 0);
        for number in 0..10 {
            spool.append(&part(number, 100)).unwrap();
        }
        assert_eq!(numbers(&spool), (0..10).collect::<Vec<_>>());
        let (some, end) = spool.oldest(350).unwrap();
        assert_eq!((some.len(), end), (3, 3));
        spool.handed_in(end).unwrap();
        drop(spool);
        let mut spool = open(folder.path(), 3);
        assert_eq!(numbers(&spool), (3..10).collect::<Vec<_>>());
        spool.append(&part(10, 100)).unwrap();
        spool.handed_in(11).unwrap();
        assert!(spool.is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        spool.append(&part(11, 100)).unwrap();
        assert_eq!(numbers(&open(folder.path(), 11)), [11]);
    }

    #[test]
    fn a_torn_tail_is_cut_off_wherever_it_was_torn_and_the_spool_goes_on() {
        let whole = {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = open(folder.path(), 0);
            (1..=3).for_each(|number| spool.append(&part(number, 20)).unwrap());
            fs::read(spool.path(0)).unwrap()
        };
        let each = whole.len() / 3;
        for length in 0..whole.len() {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(format!("{:016x}{SUFFIX}", 0)), &whole[..length]).unwrap();
            let mut spool = open(folder.path(), 0);
            let kept = (length / each) as u64;
            spool.append(&part(99, 20)).unwrap();
            let expected: Vec<u64> = (1..=kept).chain([99]).collect();
            assert_eq!(numbers(&spool), expected, "torn at {length}");
            assert_eq!(numbers(&open(folder.path(), 0)), expected, "and again");
        }
    }

    #[test]
    fn what_is_damaged_is_passed_over_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path(), 0);
        (0..6).for_each(|number| spool.append(&part(number, 400 << 10)).unwrap());
        let path = spool.path(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[500 << 10] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut spool = open(folder.path(), 0);
        spool.append(&part(6, 10)).unwrap();
        drop(spool);
        let spool = open(folder.path(), 0);
        let (parts, _) = spool.oldest(usize::MAX).unwrap();
        let gaps: Vec<Gap> = parts.iter().filter_map(Part::as_gap).collect();
        assert_eq!((gaps.len(), gaps[0].requests, gaps[0].reason.as_str()), (1, 2, DAMAGED));
        assert_eq!(
            parts.len(),
            1 + 3 + 1 + 1,
            "one before it, those of the next segment, the gap, the new one"
        );
    }

    #[test]
    fn the_oldest_make_room_and_the_gap_counts_every_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 0, 3 << 20).unwrap();
        for number in 0..40 {
            spool.append(&part(number + 1, 200 << 10)).unwrap();
            assert!(spool.bytes() <= (3 << 20) + 100);
        }
        let (parts, _) = spool.oldest(usize::MAX).unwrap();
        let (gaps, kept): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.signal() == Signal::Gap);
        let gone: u64 = gaps.iter().filter_map(|part| part.as_gap()).map(|gap| gap.requests).sum();
        assert!(gone > 20 && gone as usize + kept.len() == 40, "{gone} {}", kept.len());
        let gaps: Vec<Gap> = gaps.iter().filter_map(|part| part.as_gap()).collect();
        assert_eq!(gaps.iter().map(|gap| gap.first_unix_nano).min(), Some(1));
        assert!(gaps.iter().all(|gap| gap.reason == FULL && gap.items == 2 * gap.requests), "{gaps:?}");
    }

    #[test]
    fn a_record_in_anothers_place_is_none() {
        let bytes = framed(b"body", 7);
        assert!(record(&bytes, 7).is_some() && record(&bytes, 8).is_none());
    }
}
