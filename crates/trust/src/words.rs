//! Lists in sentences.

use std::borrow::Cow;
use std::fmt::Display;

use assay_evidence::PcrIndex;

/// `PCR 4, 8 and 9`.
pub(crate) fn pcrs(pcrs: &[PcrIndex]) -> String {
    format!("PCR {}", joined(pcrs))
}

/// `4, 8 and 9`.
pub(crate) fn joined<T: Display>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    match texts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => texts.concat(),
    }
}

/// The first few names, each in backquotes: `` `a`, `b` and 3 more``.
pub(crate) fn names<T: AsRef<str>>(names: &[T]) -> String {
    let mut shown: Vec<String> =
        names.iter().take(NAMES_SHOWN_MAX).map(|name| format!("`{}`", short(name.as_ref()))).collect();
    let more = names.len().saturating_sub(shown.len());
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    joined(&shown)
}

/// `1 file`, `2 files`.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    counted_as(count, noun, &format!("{noun}s"))
}

/// `1 entry`, `2 entries`.
pub(crate) fn counted_as<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == N::from(1) { one } else { many };
    format!("{count} {noun}")
}

/// A TPM's firmware version as vendors write it: the two halves, each with its own two.
pub(crate) fn tpm_firmware(version: u64) -> String {
    let [major, minor, build, revision] =
        [48, 32, 16, 0].map(|shift| (version >> shift) & u64::from(u16::MAX));
    format!("{major}.{minor}.{build}.{revision}")
}

/// Words as they stand in a line, in backquotes.
pub(crate) fn quoted(words: &[&str]) -> String {
    format!("`{}`", words.join(" ").escape_debug())
}

/// A boot menu's entry is a page of text; its end tells boots apart as well as its beginning.
fn short(name: &str) -> Cow<'_, str> {
    let characters = name.chars().count();
    if characters <= NAME_CHARACTERS_MAX {
        return Cow::Borrowed(name);
    }
    let half = NAME_CHARACTERS_MAX / 2;
    let head: String = name.chars().take(half).collect();
    let tail: String = name.chars().skip(characters - half).collect();
    Cow::Owned(format!("{head} … {tail}"))
}

/// The words that only one of two lines has, in its order: first the new ones, then the gone ones. A word that stands
/// twice counts twice.
pub(crate) fn apart<'a>(before: &'a str, after: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut gone: Vec<&str> = before.split_whitespace().collect();
    let mut new = Vec::new();
    for word in after.split_whitespace() {
        match gone.iter().position(|known| *known == word) {
            Some(position) => drop(gone.remove(position)),
            None => new.push(word),
        }
    }
    (new, gone)
}

/// Names that one sentence can bear.
const NAMES_SHOWN_MAX: usize = 4;
/// About a line of a name.
const NAME_CHARACTERS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(joined::<u8>(&[]), "");
        assert_eq!(joined(&[4_u8]), "4");
        assert_eq!(joined(&[4_u8, 8, 9]), "4, 8 and 9");
        assert_eq!(names(&["a"]), "`a`");
        assert_eq!(names(&["a", "b", "c", "d", "e", "f"]), "`a`, `b`, `c`, `d` and 2 more");
        assert_eq!([counted(1_usize, "file"), counted(2_usize, "file")], ["1 file", "2 files"]);
    }

    #[test]
    fn words_apart_count_repetitions() {
        assert_eq!(apart("ro quiet ro", "ro audit=1"), (vec!["audit=1"], vec!["quiet", "ro"]));
        assert_eq!(apart("a b", "b a"), (vec![], vec![]));
    }
}
