//! PCR banks and indexes as policies write them.

use std::fmt;

use assay_evidence::{HashAlgorithm, PcrIndex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A hash algorithm by name, `sha256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bank(pub HashAlgorithm);

/// SHA-1 can be made to collide; SHA-256 is the least that says something.
impl Default for Bank {
    fn default() -> Self {
        Bank(HashAlgorithm::Sha256)
    }
}

/// A PCR by its number, written as text because keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pcr(pub PcrIndex);

/// A PCR that the kernel may measure files into, as a number: 8 to 15. Those before are the firmware's, and those after can be
/// reset by programs or are a dynamic launch's, so that they vouch for no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImaPcr(PcrIndex);

impl ImaPcr {
    /// The PCR, if files may be measured into it.
    pub fn new(index: PcrIndex) -> Option<Self> {
        IMA_PCRS.contains(&index.get()).then_some(ImaPcr(index))
    }

    /// The PCR.
    pub fn index(self) -> PcrIndex {
        self.0
    }
}

/// Where the kernel measures unless it is told another.
impl Default for ImaPcr {
    fn default() -> Self {
        ImaPcr(PcrIndex::IMA)
    }
}

impl fmt::Display for ImaPcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ImaPcr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0.get())
    }
}

impl<'de> Deserialize<'de> for ImaPcr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        PcrIndex::new(number).and_then(ImaPcr::new).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "files cannot be measured into PCR {number}: write 8 to 15"
            ))
        })
    }
}

const IMA_PCRS: std::ops::RangeInclusive<u8> = 8..=15;

impl Serialize for Bank {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bank {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        HashAlgorithm::from_name(&name).map(Bank).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{name:?} is no hash algorithm: write sha1, sha256, sha384 or sha512"
            ))
        })
    }
}

impl Serialize for Pcr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pcr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let index = text.parse().ok().and_then(PcrIndex::new).filter(|index| index.to_string() == text);
        index.map(Pcr).ok_or_else(|| {
            serde::de::Error::custom(format_args!("{text:?} is no PCR: write \"0\" to \"23\""))
        })
    }
}
