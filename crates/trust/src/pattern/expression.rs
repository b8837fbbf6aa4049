//! Regular expressions over whole paths, for what wildcards cannot say: `^/var/log/app-[0-9]{4}\.log$`.
//!
//! They are matched in time that grows with the path alone (no backtracking), byte by byte: `.` is any byte but a line
//! feed, and letters beyond ASCII have several.

use regex::bytes::{Regex, RegexBuilder};

/// A regular expression that covers a path as a whole.
#[derive(Clone, Debug)]
pub(super) struct Expression(Regex);

/// Why a text is none that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no regular expression, has what cannot be matched in one pass, or is too large.
    Malformed,
    /// It covers every path, as far as can be seen.
    Everything,
}

impl Expression {
    /// Reads a text that begins with `^`; it covers a path from there to its end, whether or not it ends with `$`.
    pub(super) fn new(text: &str) -> Result<Self, Refused> {
        let inside = text.strip_prefix('^').ok_or(Refused::Malformed)?;
        let inside = inside.strip_suffix('$').unwrap_or(inside);
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(Refused::Malformed);
        }
        // First by itself, or brackets that do not match could close the group. That keeps alternatives from being
        // anchored one by one.
        compiled(inside)?;
        let expression = Expression(compiled(&format!(r"\A(?:{inside})\z"))?);
        match EVERYTHING.iter().all(|path| expression.matches(path)) {
            true => Err(Refused::Everything),
            false => Ok(expression),
        }
    }

    /// Whether the whole of `path` is covered.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        // What does not start at the root is no path: measured buffers are judged by other rules.
        path.starts_with(b"/") && self.0.is_match(path)
    }
}

fn compiled(text: &str) -> Result<Regex, Refused> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(PROGRAM_BYTES_MAX)
        .dfa_size_limit(PROGRAM_BYTES_MAX)
        .nest_limit(DEPTH_MAX)
        .build()
        .map_err(|_| Refused::Malformed)
}

/// Paths that have nothing in common: what covers all of them excludes everything.
const EVERYTHING: [&[u8]; 4] = [b"/a", b"/usr/bin/0", b"/~q/Z/#/%41/w.x", b"/opt/\xc3\xa9\x01/-"];
const EXPRESSION_BYTES_MAX: usize = 4096;
/// Of the compiled program; counted repetitions are what makes it grow.
const PROGRAM_BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: u32 = 32;
