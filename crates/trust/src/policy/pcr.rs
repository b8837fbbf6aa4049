//! PCR values by bank: `[pcr.sha256]` with `"7" = ["<hex>"]`.
//!
//! The hex has no algorithm of its own; the bank says it, and a value of another length is refused where it stands.

use std::collections::BTreeMap;
use std::fmt;

use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::keys::{Bank, Pcr};

/// The values that each PCR may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrSection(BTreeMap<HashAlgorithm, BTreeMap<PcrIndex, Vec<Digest>>>);

impl PcrSection {
    /// Accepts one more value of a PCR, in the bank of its algorithm.
    pub fn allow(&mut self, index: PcrIndex, value: Digest) {
        let values = self.0.entry(value.algorithm()).or_default().entry(index).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    /// Each pinned PCR with its values.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlgorithm, PcrIndex, &[Digest])> {
        self.0
            .iter()
            .flat_map(|(bank, pcrs)| pcrs.iter().map(|(index, values)| (*bank, *index, values.as_slice())))
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl Serialize for PcrSection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(bank, pcrs)| {
            let pcrs =
                pcrs.iter().map(|(index, values)| (Pcr(*index), values.iter().map(Digest::to_hex).collect()));
            (Bank(*bank), pcrs.collect::<BTreeMap<Pcr, Vec<String>>>())
        }))
    }
}

impl<'de> Deserialize<'de> for PcrSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Banks)
    }
}

struct Banks;

impl<'de> Visitor<'de> for Banks {
    type Value = PcrSection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PCR banks, such as [pcr.sha256]")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PcrSection, A::Error> {
        let mut banks = BTreeMap::new();
        while let Some(Bank(bank)) = map.next_key()? {
            if banks.insert(bank, map.next_value_seed(Pcrs(bank))?).is_some() {
                return Err(A::Error::custom(format_args!("bank {bank} appears twice")));
            }
        }
        Ok(PcrSection(banks))
    }
}

#[derive(Clone, Copy)]
struct Pcrs(HashAlgorithm);

impl<'de> DeserializeSeed<'de> for Pcrs {
    type Value = BTreeMap<PcrIndex, Vec<Digest>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pcrs {
    type Value = BTreeMap<PcrIndex, Vec<Digest>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCRs with lists of {} values, such as \"7\" = [\"<hex>\"]", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pcrs = BTreeMap::new();
        while let Some(Pcr(index)) = map.next_key()? {
            if pcrs.insert(index, map.next_value_seed(Values(self.0))?).is_some() {
                return Err(A::Error::custom(format_args!("PCR {index} appears twice")));
            }
        }
        Ok(pcrs)
    }
}

#[derive(Clone, Copy)]
struct Values(HashAlgorithm);

impl<'de> DeserializeSeed<'de> for Values {
    type Value = Vec<Digest>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Values {
    type Value = Vec<Digest>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} values in hex", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Value(self.0))? {
            values.push(value);
        }
        Ok(values)
    }
}

struct Value(HashAlgorithm);

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Digest;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Digest, D::Error> {
        let hex = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
        bytes.and_then(|bytes| Digest::new(self.0, &bytes)).ok_or_else(|| {
            let digits = self.0.len() * 2;
            D::Error::custom(format_args!("{hex:?} is no {} value: write {digits} hex digits", self.0))
        })
    }
}
