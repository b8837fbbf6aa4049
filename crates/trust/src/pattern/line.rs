//! Patterns of kernel command lines: what differs from device to device or from kernel to kernel is left open, and
//! nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::glob::{Glob, Part, TOKENS_MAX};

/// A pattern over a whole kernel command line, such as `/vmlinuz-* root=UUID=* ro quiet`.
///
/// `*` covers a part of one word, `?` one character of it: never white space or a quote, so that no argument hides.
#[derive(Clone, PartialEq, Eq)]
pub struct LinePattern {
    text: String,
    glob: Glob,
}

/// Why a text is no pattern of a command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinePatternError {
    /// It would accept arguments that nobody named.
    #[error("pattern {text:?} covers whole arguments with {word:?}: name the argument, as in root=*")]
    CoversArguments {
        /// The pattern.
        text: String,
        /// The word that does.
        word: String,
    },
    /// Its part after the first wildcard is too long.
    #[error("pattern {text:?} has more than {TOKENS_MAX} characters after its first wildcard")]
    TooLong {
        /// The pattern.
        text: String,
    },
}

impl LinePattern {
    /// Whether the whole line is covered.
    pub fn matches(&self, line: &str) -> bool {
        self.glob.matches(line.as_bytes())
    }
}

impl FromStr for LinePattern {
    type Err = LinePatternError;

    fn from_str(text: &str) -> Result<Self, LinePatternError> {
        let is_open = |word: &&str| word.contains("**") || word.chars().all(|c| matches!(c, '*' | '?'));
        if let Some(word) = text.split_whitespace().find(is_open) {
            return Err(LinePatternError::CoversArguments { text: text.to_owned(), word: word.to_owned() });
        }
        let glob = Glob::new(text, Part::Word, false)
            .map_err(|_| LinePatternError::TooLong { text: text.to_owned() })?;
        Ok(LinePattern { text: text.to_owned(), glob })
    }
}

impl fmt::Display for LinePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for LinePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinePattern({:?})", self.text)
    }
}

impl Serialize for LinePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for LinePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, line: &str, expected: bool) {
        let pattern: LinePattern = pattern.parse().unwrap();
        assert_eq!(pattern.matches(line), expected, "{pattern} against {line}");
    }

    #[test]
    fn a_star_stays_within_its_word() {
        check("/vmlinuz-* root=UUID=* ro", "/vmlinuz-6.1.0-55-amd64 root=UUID=1234 ro", true);
        check("/vmlinuz-* root=UUID=* ro", "/vmlinuz-6.1 root=UUID=1 init=/bin/sh ro", false);
        check("/vmlinuz-* ro", "/vmlinuz-6.1 ro init=/bin/sh", false);
        check("/vmlinuz-* root=* ro", "/vmlinuz-6.1 root=/dev/mapper/vg-root ro", true);
        check("console=tty?", "console=tty0", true);
        check("/k ro", "/k ro", true);
        check("/k ro", "/k  ro", false);
    }

    /// The kernel takes a tab or a no-break space for a space as well, and a quote makes arguments part of another.
    #[test]
    fn no_argument_hides_in_a_star_or_is_hidden_by_one() {
        for space in ["\t", "\n", "\u{b}", "\u{c}", "\r", "\u{a0}"] {
            check("/k root=* ro", &format!("/k root=x{space}init=/bin/sh ro"), false);
        }
        check("/k root=* lockdown=integrity", "/k root=\"x lockdown=integrity", false);
    }

    #[test]
    fn a_pattern_for_any_argument_is_refused() {
        for (text, word) in [("/k *", "*"), ("/k root=** ro", "root=**"), ("/k ?*", "?*"), ("*", "*")] {
            let expected = LinePatternError::CoversArguments { text: text.to_owned(), word: word.to_owned() };
            assert_eq!(text.parse::<LinePattern>(), Err(expected));
        }
    }
}
