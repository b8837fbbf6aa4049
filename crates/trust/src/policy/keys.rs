//! PCR banks and indexes as policies write them.

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
