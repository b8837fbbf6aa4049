//! PCR values by bank: `[pcr.sha256]` with `"7" = ["<hex>"]`.
//!
//! The hex has no algorithm of its own; the bank says it, and a value of another length is refused where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Section;
use crate::policy::choice::Demanded;
use crate::policy::list::{Lists, sorted, texts};
use crate::policy::remark::Notes;
use crate::policy::suspicion;
use crate::policy::{Bank, Field, Pcr, PolicyError};

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

    /// Takes the values of a PCR out, in every bank.
    pub(crate) fn take(&mut self, index: PcrIndex) -> PcrSection {
        let mut taken = PcrSection::default();
        for (bank, pcrs) in &mut self.0 {
            if let Some(values) = pcrs.remove(&index) {
                taken.0.entry(*bank).or_default().insert(index, values);
            }
        }
        taken
    }

    /// Accepts every value that the other accepts.
    pub(crate) fn allow_all(&mut self, other: &PcrSection) {
        for (_, index, values) in other.iter() {
            values.iter().for_each(|value| self.allow(index, *value));
        }
    }

    /// Whether SHA-1 alone is pinned, of which collisions can be made.
    pub(crate) fn is_weak(&self) -> bool {
        !self.is_empty() && self.iter().all(|(bank, ..)| bank == HashAlgorithm::Sha1)
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl Section for PcrSection {
    fn key(&self) -> &'static str {
        "pcr"
    }

    fn lint(&self, errors: &mut Vec<PolicyError>) {
        for (bank, index, values) in self.iter() {
            if values.is_empty() {
                errors.push(PolicyError::EmptyList { field: format!("pcr.{bank}.{index}") });
            }
            if index.get() == IMA_PCR {
                errors.push(PolicyError::ImaPcrPinned { bank });
            }
        }
    }

    fn review(&self, _pcr: &PcrSection, notes: &mut Notes<'_>) {
        let is_strong = |(bank, index, _): (HashAlgorithm, PcrIndex, &[Digest])| {
            (bank != HashAlgorithm::Sha1).then_some(index)
        };
        let strong: BTreeSet<_> = self.iter().filter_map(is_strong).collect();
        for (bank, index, values) in self.iter() {
            let field = Field::of(["pcr", bank.name(), &index.to_string()]);
            // Where every pin is of SHA-1, an error says so.
            if bank == HashAlgorithm::Sha1 && !strong.is_empty() && !strong.contains(&index) {
                notes.warn(
                    field.clone(),
                    format!("PCR {index} is pinned by SHA-1 alone, and SHA-1 can be made to collide: pin sha256 as well"),
                );
            }
            if matches!(index.get(), RESETTABLE_DEBUG | RESETTABLE_APPLICATION) {
                notes.warn(
                    field.clone(),
                    format!("any program can reset PCR {index}, so its value proves nothing: leave it out"),
                );
            }
            // Of the others zeros say that nothing was measured, which is what a boot without such parts shows.
            if index.get() <= BOOTED_LAST && values.iter().any(Digest::is_zero) {
                notes.warn(
                    field.clone(),
                    format!(
                        "all zeros is PCR {index} before anything was measured: that boot vouches for nothing"
                    ),
                );
            }
            review_values(index, field.clone(), values, notes);
            notes.repeated(field, values);
        }
    }

    fn measures(&self) -> bool {
        !self.is_empty()
    }

    fn demands(&self, _manufacturers: &[&str]) -> Vec<Demanded> {
        Vec::new()
    }

    fn lists(&self) -> Lists {
        let mut lists = Lists::default();
        for (bank, index, values) in self.iter() {
            let values = values.iter().map(Digest::to_hex).collect::<Vec<_>>();
            lists.restricts(Field::of(["pcr", bank.name(), &index.to_string()]), Some(texts(&values)));
        }
        lists
    }
}

impl PcrSection {
    /// Puts the values of each PCR in one order.
    pub(in crate::policy) fn sort(&mut self) {
        self.0.values_mut().flat_map(BTreeMap::values_mut).for_each(sorted);
    }
}

/// Values that say nothing of the boot.
fn review_values(index: PcrIndex, field: Field, values: &[Digest], notes: &mut Notes<'_>) {
    for value in values.iter().filter(|value| !value.is_zero()) {
        if let Some(why) = suspicion::of_digest(value) {
            notes.warn(field.clone(), format!("{value} is no value of a PCR: {why}"));
        }
        if MEASURED_IN_EVERY_BOOT.contains(&index.get()) && suspicion::is_separator_alone(value) {
            notes.warn(
                field.clone(),
                format!("{value} is PCR {index} with nothing measured but its separator: that boot vouches for nothing"),
            );
        }
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

/// Where the kernel extends its list unless told otherwise.
pub(crate) const IMA_PCR: u8 = 10;
/// The firmware extends each of PCRs 0 to 7 in every boot.
const BOOTED_LAST: u8 = 7;
/// TCG PC Client Platform TPM Profile, PCR attributes: 16 and 23 can be reset at any locality.
const RESETTABLE_DEBUG: u8 = 16;
const RESETTABLE_APPLICATION: u8 = 23;
/// Firmware measures itself, what it starts and Secure Boot's variables, whatever the machine.
const MEASURED_IN_EVERY_BOOT: [u8; 3] = [0, 4, 7];
