//! Reading JSON as Python's `json.loads` does, within bounds.

use std::collections::BTreeMap;

use thiserror::Error;

use super::value::{Text, Value};

/// Why bytes are not what Python would read, or more than is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Longer than any body.
    #[error("a body has at most {BODY_BYTES_MAX} bytes, this has {length}")]
    TooLong {
        /// Bytes of the body.
        length: usize,
    },
    /// Not JSON.
    #[error("no JSON at byte {at}")]
    Syntax {
        /// Where.
        at: usize,
    },
    /// Nested too deeply.
    #[error("nested more than {DEPTH_MAX} deep at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
    },
    /// Too many values.
    #[error("more than {VALUES_MAX} values")]
    TooMany,
    /// A member twice: of two, readers differ in which one counts.
    #[error("a member that is there already, at byte {at}")]
    Twice {
        /// Where.
        at: usize,
    },
}

impl Value {
    /// Reads a whole body.
    pub fn read(body: &[u8]) -> Result<Value, JsonError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(JsonError::TooLong { length: body.len() });
        }
        let text =
            std::str::from_utf8(body).map_err(|error| JsonError::Syntax { at: error.valid_up_to() })?;
        let mut reader = Reader { text, at: 0, values: 0 };
        let value = reader.value(0)?;
        reader.space();
        if reader.at == text.len() { Ok(value) } else { Err(reader.syntax()) }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    values: usize,
}

impl<'t> Reader<'t> {
    fn syntax(&self) -> JsonError {
        JsonError::Syntax { at: self.at }
    }

    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let spaces = self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.at += spaces.count();
    }

    /// Passes over this, if it is next.
    fn passes(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token.as_bytes());
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.space();
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(JsonError::TooMany);
        }
        if depth > DEPTH_MAX {
            return Err(JsonError::TooDeep { at: self.at });
        }
        for (word, value) in WORDS {
            if self.passes(word) {
                return Ok(value);
            }
        }
        match self.rest().first() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.text().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.syntax()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut members = BTreeMap::new();
        self.space();
        if self.passes("}") {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            let at = self.at;
            let name = self.text()?;
            self.space();
            if !self.passes(":") {
                return Err(self.syntax());
            }
            let value = self.value(depth + 1)?;
            if members.insert(name, value).is_some() {
                return Err(JsonError::Twice { at });
            }
            self.space();
            if self.passes("}") {
                return Ok(Value::Object(members));
            }
            if !self.passes(",") {
                return Err(self.syntax());
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut values = Vec::new();
        self.space();
        if self.passes("]") {
            return Ok(Value::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.space();
            if self.passes("]") {
                return Ok(Value::List(values));
            }
            if !self.passes(",") {
                return Err(self.syntax());
            }
        }
    }

    fn text(&mut self) -> Result<Text, JsonError> {
        if !self.passes("\"") {
            return Err(self.syntax());
        }
        let mut text = Text::default();
        loop {
            let plain =
                self.rest().iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            // Whatever ends it is ASCII, so that no character is cut in two.
            text.push_str(self.text.get(self.at..self.at + plain).unwrap_or_default());
            self.at += plain;
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(text);
                }
                [b'\\', ..] => text.push(self.escaped()?),
                _ => return Err(self.syntax()),
            }
        }
    }

    fn escaped(&mut self) -> Result<u32, JsonError> {
        let escape = self.rest().get(1).copied();
        let code_point = match escape {
            Some(b'u') => {
                let high = self.unit(self.at).ok_or_else(|| self.syntax())?;
                self.at += UNIT_BYTES;
                // A pair is one code point; a single surrogate stays what it is.
                return Ok(match self.unit(self.at) {
                    Some(low @ 0xdc00..=0xdfff) if (0xd800..=0xdbff).contains(&high) => {
                        self.at += UNIT_BYTES;
                        0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    }
                    _ => high,
                });
            }
            Some(same @ (b'"' | b'\\' | b'/')) => same,
            Some(b'b') => 8,
            Some(b'f') => 0xc,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            _ => return Err(self.syntax()),
        };
        self.at += 2;
        Ok(u32::from(code_point))
    }

    /// The code unit that is escaped at a place.
    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at.checked_add(UNIT_BYTES)?)?.strip_prefix("\\u")?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        let is_negative = self.passes("-");
        if is_negative && self.passes("Infinity") {
            return Ok(Value::Float(f64::NEG_INFINITY));
        }
        if !self.passes("0") && self.digits() == 0 {
            return Err(self.syntax());
        }
        let whole = self.text.get(start..self.at).unwrap_or_default();
        let is_float = self.fraction() | self.exponent();
        let written = self.text.get(start..self.at).unwrap_or_default();
        if is_float {
            return written.parse().map(Value::Float).map_err(|_| self.syntax());
        }
        if whole.len() > INTEGER_DIGITS_MAX + usize::from(is_negative) {
            return Err(JsonError::Syntax { at: start });
        }
        // Python knows no negative zero among whole numbers.
        Ok(Value::Integer(if whole == "-0" { "0" } else { whole }.to_owned()))
    }

    fn digits(&mut self) -> usize {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// A dot that no digit follows is not part of the number.
    fn fraction(&mut self) -> bool {
        let is_one = matches!(self.rest(), [b'.', b'0'..=b'9', ..]);
        if is_one {
            self.at += 1;
            self.digits();
        }
        is_one
    }

    fn exponent(&mut self) -> bool {
        let sign = match self.rest() {
            [b'e' | b'E', b'0'..=b'9', ..] => 0,
            [b'e' | b'E', b'+' | b'-', b'0'..=b'9', ..] => 1,
            _ => return false,
        };
        self.at += 1 + sign;
        self.digits();
        true
    }
}

const WORDS: [(&str, Value); 5] = [
    ("null", Value::Null),
    ("true", Value::Bool(true)),
    ("false", Value::Bool(false)),
    ("NaN", Value::Float(f64::NAN)),
    ("Infinity", Value::Float(f64::INFINITY)),
];
/// `\u` and four digits.
const UNIT_BYTES: usize = 6;
/// `sys.get_int_max_str_digits()`: longer ones Python does not read.
const INTEGER_DIGITS_MAX: usize = 4300;
/// What of a body is held in memory is some dozen bytes each.
const VALUES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 100;
/// The original's bodies have less than two kilobytes; `custom_data` is whatever a program says.
pub const BODY_BYTES_MAX: usize = 1 << 20;
