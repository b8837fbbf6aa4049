//! JSON as Python holds it.

use std::collections::BTreeMap;

/// A value as Python's `json.loads` makes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number of any length, in decimal, as Python writes it.
    Integer(String),
    /// A number with a fraction or an exponent, and `NaN`, `Infinity` and `-Infinity`, which Python reads and writes as bare words.
    Float(f64),
    /// A text.
    Text(Text),
    /// A list.
    List(Vec<Value>),
    /// An object, in the order of `sort_keys`: by code point.
    Object(BTreeMap<Text, Value>),
}

/// A text of code points, among which there may be single surrogates: `"\ud800"` is a text to Python, and is written so again.
///
/// In generalized UTF-8, in which the order of bytes is the order of code points.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Vec<u8>);

impl Text {
    /// The text, if there are no single surrogates in it.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    pub(super) fn push(&mut self, code_point: u32) {
        match char::from_u32(code_point) {
            Some(character) => self.0.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => self.0.extend([12, 6, 0].map(|shift| {
                let bits = u8::try_from((code_point >> shift) & 0x3f).unwrap_or(0);
                // A surrogate is D800 to DFFF: three bytes, the first of which is ED.
                if shift == 12 { 0xed } else { 0x80 | bits }
            })),
        }
    }

    pub(super) fn push_str(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// As UTF-16 code units, which is how they are escaped.
    pub(super) fn units(&self) -> impl Iterator<Item = u16> {
        let mut rest = self.0.as_slice();
        let mut low = None;
        std::iter::from_fn(move || {
            if let Some(unit) = low.take() {
                return Some(unit);
            }
            // Between surrogates it is UTF-8.
            if let [0xed, second @ 0xa0..=0xbf, third, after @ ..] = rest {
                rest = after;
                return Some(0xd000 | (u16::from(*second & 0x3f) << 6) | u16::from(*third & 0x3f));
            }
            let length = match rest.first()? {
                0..=0x7f => 1,
                0x80..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            let (bytes, after) = rest.split_at_checked(length)?;
            rest = after;
            let character = std::str::from_utf8(bytes).ok()?.chars().next()?;
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units);
            low = units.get(1).copied();
            units.first().copied()
        })
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(text.as_bytes().to_vec())
    }
}

impl Value {
    /// The members, if it is an object.
    pub fn as_object(&self) -> Option<&BTreeMap<Text, Value>> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The text, if it is one without single surrogates.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => text.as_str(),
            _ => None,
        }
    }

    /// Python's `not value`.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Integer(digits) => digits == "0",
            Value::Float(number) => *number == 0.0,
            Value::Text(text) => text.0.is_empty(),
            Value::List(values) => values.is_empty(),
            Value::Object(members) => members.is_empty(),
        }
    }

    /// Numbers in it.
    pub fn numbers(&self) -> u64 {
        match self {
            Value::Integer(_) | Value::Float(_) => 1,
            Value::List(values) => values.iter().map(Value::numbers).sum(),
            Value::Object(members) => members.values().map(Value::numbers).sum(),
            Value::Null | Value::Bool(_) | Value::Text(_) => 0,
        }
    }
}
