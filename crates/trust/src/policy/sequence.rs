//! Sequences: what may have been measured into a PCR, event by event, from its first to its last.
//!
//! A log that replays has each PCR's digests in their order, and nobody can take one out or put one between. So a
//! sequence closes a PCR: what it does not name was not measured, neither by the boot nor by who appended afterwards.
//! What differs from boot to boot or with an update is left open event by event, each in its place.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use assay_evidence::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// All events of one PCR in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub Vec<Slot>);

/// What one event of a sequence may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// This digest: `sha256:…`.
    Digest(Digest),
    /// Whatever it is, but the same wherever the number is the same: `*1`.
    Any(u8),
    /// A file of `boot.files`: `file`.
    File,
    /// LoadOptions of the kernel's command line, which the rules about command lines judge: `kernel-line`.
    KernelLine,
}

/// Why a text is no event of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no event of a sequence: write sha256:<hex>, file, kernel-line, or *1 for any, the same wherever the number is"
)]
pub struct SlotError(String);

impl Sequence {
    /// The first place at which the events are others; `None` where they are what the sequence says.
    ///
    /// `fits` says of a place, its slot and the digest there whether they go together, but for the repetitions of what is
    /// left open.
    pub(crate) fn mismatch(
        &self,
        events: &[Digest],
        fits: impl Fn(usize, &Slot, &Digest) -> bool,
    ) -> Option<usize> {
        let mut seen: BTreeMap<u8, Digest> = BTreeMap::new();
        let mut repeats = |slot: &Slot, event: &Digest| match slot {
            Slot::Any(number) => seen.entry(*number).or_insert(*event) == event,
            Slot::Digest(_) | Slot::File | Slot::KernelLine => true,
        };
        let mut places = self.0.iter().zip(events).enumerate();
        let place = places
            .find(|(place, (slot, event))| !(fits(*place, slot, event) && repeats(slot, event)))
            .map(|(place, _)| place);
        place.or_else(|| (self.0.len() != events.len()).then(|| self.0.len().min(events.len())))
    }

    /// Whether every event is pinned: nothing is left to what is there.
    pub fn is_pinned(&self) -> bool {
        self.0.iter().all(|slot| !matches!(slot, Slot::Any(_)))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Digest(digest) => digest.fmt(f),
            Slot::Any(number) => write!(f, "*{number}"),
            Slot::File => f.write_str("file"),
            Slot::KernelLine => f.write_str("kernel-line"),
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (place, slot) in self.0.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{slot}")?;
        }
        Ok(())
    }
}

impl FromStr for Slot {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        let slot = match text {
            "file" => Some(Slot::File),
            "kernel-line" => Some(Slot::KernelLine),
            _ => match text.strip_prefix('*') {
                // Written as it is read: no sign, no leading zeros.
                Some(number) => number.parse().ok().map(Slot::Any).filter(|slot| slot.to_string() == text),
                None => Digest::from_text(text).map(Slot::Digest),
            },
        };
        slot.ok_or_else(|| SlotError(text.to_owned()))
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Sequences of one PCR: each is a kind of boot.
pub(crate) const SEQUENCES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use assay_evidence::HashAlgorithm;

    fn digest(letter: char) -> Digest {
        HashAlgorithm::Sha256.hash(&[letter.to_string().as_bytes()])
    }

    fn check(sequence: &str, events: &str, expected: Option<usize>) {
        let slots = sequence.split_whitespace().map(|word| match word.chars().next() {
            Some(letter @ 'a'..='z') if word.len() == 1 => Slot::Digest(digest(letter)),
            _ => word.parse().unwrap(),
        });
        let events: Vec<Digest> = events.chars().map(digest).collect();
        let is = |letters: &'static str| {
            move |event: &Digest| letters.chars().any(|letter| digest(letter) == *event)
        };
        let fits = |_, slot: &Slot, event: &Digest| match slot {
            Slot::Digest(digest) => digest == event,
            Slot::Any(_) => true,
            Slot::File => is("fg")(event),
            Slot::KernelLine => is("l")(event),
        };
        let found = Sequence(slots.collect()).mismatch(&events, fits);
        assert_eq!(found, expected, "{sequence}");
    }

    #[test]
    fn each_event_is_held_against_its_place() {
        check("", "", None);
        check("", "a", Some(0));
        check("a b", "ab", None);
        check("a b", "ba", Some(0));
        check("a b", "a", Some(1));
        check("a b", "abb", Some(2));
        check("*1 file file kernel-line", "xfgl", None);
        check("*1 file file kernel-line", "xfxl", Some(2));
        check("*1 *1 *2 *1", "xxyx", None);
        check("*1 *1 *2 *1", "xxxx", None);
        check("*1 *1", "xy", Some(1));
    }

    #[test]
    fn slots_are_read_as_they_are_written() {
        for text in ["file", "kernel-line", "*1", "*255", &digest('a').to_string()] {
            assert_eq!(text.parse::<Slot>().unwrap().to_string(), text);
        }
        for text in ["", "*", "*01", "*+1", "*256", "File", "sha256:ab", "any"] {
            assert!(text.parse::<Slot>().is_err(), "{text}");
        }
    }
}
