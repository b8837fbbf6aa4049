//! Labels: what operators say about a device (`site=paris`), and the selectors that go by them.
//!
//! Both are written `key=value,key=value`, in the order of their keys, so equal ones read the same.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// A device's labels; each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(BTreeMap<String, String>);

/// The labels a device must have to be meant; none: every device is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(Labels);

/// Why something is no label, or no selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LabelError {
    /// No `=` in it.
    #[error("{text:?} is no label: write key=value, such as site=paris")]
    NotAPair {
        /// The text.
        text: String,
    },
    /// A key or value with other characters, or too many.
    #[error(
        "{word:?} cannot be in a label: key and value have 1 to {WORD_BYTES_MAX} letters, digits, dots, dashes \
         and underscores each"
    )]
    Word {
        /// The key or value.
        word: String,
    },
    /// A key with two values.
    #[error("{key} is there twice: a key has one value")]
    Twice {
        /// The key.
        key: String,
    },
    /// More labels than a device may have.
    #[error("these are more than the {LABELS_MAX} labels that a device may have")]
    TooMany,
}

impl Labels {
    /// Says one more, or something else of a key that is there.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), LabelError> {
        for word in [key, value] {
            if !is_word(word) {
                return Err(LabelError::Word { word: word.to_owned() });
            }
        }
        if self.0.len() >= LABELS_MAX && !self.0.contains_key(key) {
            return Err(LabelError::TooMany);
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Takes one back; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    /// Keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl Selector {
    /// Whether a device with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.0.get(key).is_some_and(|found| found == value))
    }

    /// The labels that it asks for, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter()
    }

    /// How many labels it asks for.
    pub fn len(&self) -> usize {
        self.0.0.len()
    }

    /// Whether it means every device.
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    /// What a device that both mean has at least; `None`: no device can be meant by both.
    pub(crate) fn both(&self, other: &Selector) -> Option<Labels> {
        let mut both = self.0.clone();
        for (key, value) in other.0.iter() {
            if both.0.get(key).is_some_and(|mine| mine != value) {
                return None;
            }
            both.0.insert(key.to_owned(), value.to_owned());
        }
        Some(both).filter(|both| both.0.len() <= LABELS_MAX)
    }

    /// Whom it means, as part of a sentence.
    pub fn whom(&self) -> impl fmt::Display {
        if self.is_empty() { "every device".to_owned() } else { format!("devices with {self}") }
    }
}

impl FromStr for Labels {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let mut labels = Labels::default();
        for pair in text.split(',').filter(|_| !text.is_empty()) {
            let not_a_pair = || LabelError::NotAPair { text: pair.to_owned() };
            let (key, value) = pair.split_once('=').ok_or_else(not_a_pair)?;
            if labels.0.contains_key(key) {
                return Err(LabelError::Twice { key: key.to_owned() });
            }
            labels.set(key, value)?;
        }
        Ok(labels)
    }
}

impl FromStr for Selector {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        text.parse().map(Selector)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (key, value)) in self.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As an object, which is how programs look labels up.
impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// More than anyone tells devices apart by.
pub const LABELS_MAX: usize = 16;
/// A DNS label's length.
const WORD_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let outcome = text.parse::<Labels>();
        let said = outcome.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }

    #[test]
    fn labels_read_and_write_the_same() {
        check("", "");
        check("site=paris", "site=paris");
        check("site=paris,line=3,a.b_c-D=1.0", "a.b_c-D=1.0,line=3,site=paris");
    }

    #[test]
    fn what_is_no_label_is_refused_with_the_reason() {
        check("site", "\"site\" is no label");
        check(",", "\"\" is no label");
        check("a=1,", "\"\" is no label");
        check("a=1,a=2", "a is there twice");
        check("=1", "\"\" cannot be in a label");
        check("a=", "\"\" cannot be in a label");
        check("a=b=c", "\"b=c\" cannot be in a label");
        check("a=b c", "\"b c\" cannot be in a label");
        check("ключ=1", "\"ключ\" cannot be in a label");
        check(&format!("{}=1", "k".repeat(64)), "\"kkk");
        check(&format!("k={}", "v".repeat(63)), "k=vvv");
        let many: Vec<String> = (0..17).map(|number| format!("k{number}=1")).collect();
        check(&many.join(","), "these are more than the 16 labels");
    }

    #[test]
    fn a_key_that_is_there_can_be_set_again_when_all_are_taken() {
        let mut labels = Labels::default();
        (0..LABELS_MAX).for_each(|number| labels.set(&format!("k{number}"), "1").unwrap());
        assert_eq!(labels.set("more", "1"), Err(LabelError::TooMany));
        labels.set("k3", "2").unwrap();
        assert!(labels.remove("k4") && !labels.remove("k4"));
        labels.set("more", "1").unwrap();
    }

    #[test]
    fn a_selector_means_devices_with_all_its_labels() {
        let labels: Labels = "site=paris,line=3".parse().unwrap();
        for (selector, meant) in [("", true), ("line=3", true), ("line=4", false), ("line=3,model=x", false)]
        {
            assert_eq!(selector.parse::<Selector>().unwrap().matches(&labels), meant, "{selector}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it_and_what_reads_reads_again(text in "[ab=,.é ]{0,12}") {
            if let Ok(labels) = text.parse::<Labels>() {
                prop_assert_eq!(labels.to_string().parse::<Labels>(), Ok(labels));
            }
        }

        #[test]
        fn a_device_is_meant_by_two_if_it_has_what_both_ask_for(
            one in "(a=[12](,b=[12])?)?", other in "(b=[12](,c=[12])?)?", labels in "a=[12],b=[12],c=[12]",
        ) {
            let [one, other] = [one, other].map(|text| text.parse::<Selector>().unwrap());
            let labels: Labels = labels.parse().unwrap();
            let both = one.both(&other).is_some_and(|both| Selector(both).matches(&labels));
            prop_assert_eq!(both, one.matches(&labels) && other.matches(&labels));
        }
    }
}
