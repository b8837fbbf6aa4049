//! Anchored patterns, of paths here and of kernel command lines in `line.rs`, matched in one pass.
//!
//! `/var/log/` is a whole tree, `*` any bytes but `/`, `**` any bytes, `?` one byte but `/`. A pattern always
//! covers the whole path: `/opt/tool` does not match `/opt/tool-evil`, and nothing matches in the middle. A text that
//! begins with `^` is a regular expression over the whole path instead.
//!
//! A path is what the kernel logs: a space in a pattern of wildcards stands for the underscore that the kernel writes.

mod expression;
mod glob;
mod line;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use expression::{Expression, Refused};
use glob::{Glob, Part, TOKENS_MAX};
pub use line::{LinePattern, LinePatternError};

/// A pattern over the bytes of a path.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    form: Form,
}

#[derive(Clone)]
enum Form {
    Glob(Glob),
    Expression(Expression),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// It would match every path.
    #[error("pattern {text:?} matches everything: name a folder or file, such as /var/log/")]
    MatchesEverything {
        /// The pattern.
        text: String,
    },
    /// It does not start at the root.
    #[error("pattern {text:?} does not start with /: patterns cover the whole path")]
    NotAnchored {
        /// The pattern.
        text: String,
    },
    /// It begins as a regular expression, and is none that can be matched in one pass.
    #[error(
        "pattern {text:?} begins with ^ and is no regular expression that is matched in one pass over the path"
    )]
    Expression {
        /// The pattern.
        text: String,
    },
    /// Its part after the first wildcard is too long.
    #[error("pattern {text:?} has more than {TOKENS_MAX} characters after its first wildcard")]
    TooLong {
        /// The pattern.
        text: String,
    },
}

impl Pattern {
    /// Whether the whole of `path` is covered.
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.form {
            Form::Glob(glob) => glob.matches(path),
            Form::Expression(expression) => expression.matches(path),
        }
    }
}

/// By what was written.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.starts_with('^') {
            let form = Expression::new(text).map(Form::Expression).map_err(|refused| match refused {
                Refused::Malformed => PatternError::Expression { text: text.to_owned() },
                Refused::Everything => PatternError::MatchesEverything { text: text.to_owned() },
            })?;
            return Ok(Pattern { text: text.to_owned(), form });
        }
        if !text.starts_with('/') {
            return Err(PatternError::NotAnchored { text: text.to_owned() });
        }
        if !text.bytes().any(|byte| !matches!(byte, b'/' | b'*' | b'?')) {
            return Err(PatternError::MatchesEverything { text: text.to_owned() });
        }
        let glob = Glob::new(&text.replace(' ', "_"), Part::Name, text.ends_with('/'))
            .map_err(|_| PatternError::TooLong { text: text.to_owned() })?;
        Ok(Pattern { text: text.to_owned(), form: Form::Glob(glob) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, path: &str, expected: bool) {
        let pattern: Pattern = pattern.parse().unwrap();
        assert_eq!(pattern.matches(path.as_bytes()), expected, "{pattern} against {path}");
    }

    #[test]
    fn a_pattern_covers_the_whole_path() {
        check("/opt/tool", "/opt/tool", true);
        check("/opt/tool", "/opt/tool-evil", false);
        check("/opt/tool", "/mnt/opt/tool", false);
    }

    #[test]
    fn a_space_is_the_underscore_that_the_kernel_writes() {
        check("/opt/my app/", "/opt/my_app/run", true);
        check("/opt/* app", "/opt/my_app", true);
    }

    #[test]
    fn an_expression_covers_the_whole_path() {
        check("^/var/log/app-[0-9]{4}\\.log$", "/var/log/app-2026.log", true);
        check("^/var/log/app-[0-9]{4}\\.log$", "/var/log/app-20261.log", false);
        check("^/var/log/app-[0-9]{4}\\.log", "/var/log/app-2026.log.gz", false);
        check("^/a|/b$", "/a/evil", false);
        check("^/a|/b$", "/evil/b", false);
        check("^/a|/b$", "/b", true);
        check("^kernel_version$", "kernel_version", false);
        check("^/opt(/x)?/y*$", "/opt/yyy", true);
    }

    #[test]
    fn expressions_without_bound_or_measure_are_refused() {
        let refused = |text: &str| text.parse::<Pattern>().unwrap_err();
        for everything in ["^.*$", "^/.*$", "^/(?s:.)*$", "^/[^~]*|.*~.*$", "^(?:.*)(?s:.*)$"] {
            let error = refused(everything);
            assert!(matches!(error, PatternError::MatchesEverything { .. }), "{everything}: {error}");
        }
        for malformed in [
            "^/(a",
            "^/a)|(b$",
            "^/(?=a)b$",
            "^/(a)\\1$",
            "^/a{100000}{1000}$",
            &format!("^/{}", "(".repeat(99)),
        ] {
            assert!(matches!(refused(malformed), PatternError::Expression { .. }), "{malformed}");
        }
    }

    #[test]
    fn a_folder_is_its_tree() {
        check("/var/log/", "/var/log/a/b", true);
        check("/var/log/", "/var/logs", false);
        check("/var/log/", "/var/log", false);
    }

    #[test]
    fn stars_stop_at_slashes_unless_doubled() {
        check("/tmp/*.sh", "/tmp/a.sh", true);
        check("/tmp/*.sh", "/tmp/a/b.sh", false);
        check("/tmp/**.sh", "/tmp/a/b.sh", true);
        check("/home/*/.cache/**", "/home/ann/.cache/x/y", true);
        check("/home/*/.cache/**", "/home/ann/bin/x", false);
        check("/dev/tty?", "/dev/tty1", true);
        check("/dev/tty?", "/dev/tty", false);
        check("/a/*", "/a/", true);
    }

    #[test]
    fn a_pattern_for_everything_is_refused() {
        for text in ["/", "/**", "/*/**", "//"] {
            assert_eq!(text.parse::<Pattern>(), Err(PatternError::MatchesEverything { text: text.into() }));
        }
        assert_eq!("usr/".parse::<Pattern>(), Err(PatternError::NotAnchored { text: "usr/".into() }));
    }

    #[test]
    fn the_longest_pattern_matches_and_a_longer_one_is_refused() {
        let text = format!("/a*{}", "b".repeat(TOKENS_MAX - 1));
        check(&text, &format!("/axx{}", "b".repeat(TOKENS_MAX - 1)), true);
        assert!(matches!(format!("{text}b").parse::<Pattern>(), Err(PatternError::TooLong { .. })));
    }

    #[test]
    fn hostile_paths_cost_their_length_only() {
        let pattern: Pattern = "/a*a*a*a*a*a*a*a*a*a*a*a*a*b".parse().unwrap();
        assert!(!pattern.matches(format!("/{}", "a".repeat(100_000)).as_bytes()));
    }

    /// The same by its definition, and by backtracking.
    fn matches_slowly(pattern: &[u8], path: &[u8]) -> bool {
        let some_suffix = |rest: &[u8], stops: &dyn Fn(u8) -> bool| {
            let end = path.iter().position(|byte| stops(*byte)).unwrap_or(path.len());
            (0..=end).any(|cut| matches_slowly(rest, &path[cut..]))
        };
        match (pattern, path) {
            ([b'*', b'*', rest @ ..], _) => some_suffix(rest, &|_| false),
            ([b'*', rest @ ..], _) => some_suffix(rest, &|byte| byte == b'/'),
            ([], path) => path.is_empty(),
            ([b'?', rest @ ..], [byte, tail @ ..]) => *byte != b'/' && matches_slowly(rest, tail),
            ([expected, rest @ ..], [byte, tail @ ..]) => expected == byte && matches_slowly(rest, tail),
            (_, []) => false,
        }
    }

    proptest::proptest! {
        #[test]
        fn the_automaton_agrees_with_the_definition(pattern in "/[ab/*?]{0,8}", path in "/[ab/]{0,8}") {
            if let Ok(parsed) = pattern.parse::<Pattern>() {
                let tree = if pattern.ends_with('/') { format!("{pattern}**") } else { pattern };
                let expected = matches_slowly(tree.as_bytes(), path.as_bytes());
                proptest::prop_assert_eq!(parsed.matches(path.as_bytes()), expected);
            }
        }
    }
}
