//! Regular expressions of excludes as anchored patterns.
//!
//! Keylime matches them at the start of a path and lets anything follow; a pattern here covers the whole path. So
//! `/var/log/` stays, and `/tmp/a` becomes `/tmp/a**`. What a pattern cannot say exactly is taken more narrowly,
//! so that more is judged, or not at all. The one exception is said: `**` covers line breaks, which `.*` does not.

use std::iter::Peekable;
use std::str::Chars;

use crate::pattern::Pattern;

/// A regular expression as patterns.
#[derive(Debug)]
pub(super) struct Converted {
    pub(super) patterns: Vec<Pattern>,
    /// Where its meaning is not quite what the writer may think.
    pub(super) differences: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Atom {
    Literal(char),
    /// `.`
    Any,
    /// `.*`
    Anything,
    /// `.+`
    Something,
    /// `[^/]`
    NameByte,
    /// `[^/]*`
    Name,
    /// `[^/]+`
    NameNotEmpty,
    /// `^`
    Start,
    /// `$`
    End,
}

/// The patterns that say the same, or why there are none. What wildcards cannot say becomes a regular expression over the
/// whole path, if it is one that is matched in one pass.
pub(super) fn convert(regex: &str) -> Result<Converted, String> {
    wildcards(regex).or_else(|why| expression(regex).ok_or(why))
}

/// Matched at the start of a path, with anything after it.
fn expression(regex: &str) -> Option<Converted> {
    // Without a slash it might be meant for anything.
    if !regex.trim_start_matches(['^', '(']).starts_with(['/', '.']) || regex.len() > REGEX_BYTES_MAX {
        return None;
    }
    let pattern = format!("^(?:{regex})(?s:.*)$").parse::<Pattern>().ok()?;
    let differences = vec![
        "wildcards cannot say it, so it is a regular expression over the whole path, matched byte by byte"
            .to_owned(),
    ];
    Some(Converted { patterns: vec![pattern], differences })
}

fn wildcards(regex: &str) -> Result<Converted, String> {
    if regex.len() > REGEX_BYTES_MAX {
        return Err(format!("it has more than {REGEX_BYTES_MAX} bytes"));
    }
    let mut characters = regex.chars().peekable();
    let alternatives = alternatives(&mut characters, 0)?;
    if characters.next().is_some() {
        return Err("its brackets do not match".to_owned());
    }
    let mut converted = Converted { patterns: Vec::new(), differences: Vec::new() };
    for atoms in alternatives {
        for atoms in anchored(&atoms) {
            let text = glob(&atoms, &mut converted.differences)?;
            converted.patterns.push(text.parse::<Pattern>().map_err(|error| error.to_string())?);
        }
    }
    converted.differences.sort_unstable();
    converted.differences.dedup();
    Ok(converted)
}

fn alternatives(characters: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Vec<Vec<Atom>>, String> {
    if depth > DEPTH_MAX {
        return Err("its groups are nested too deeply".to_owned());
    }
    let mut all = Vec::new();
    let mut ends = vec![Vec::new()];
    loop {
        match characters.peek() {
            None | Some(')') => break,
            Some('|') => {
                characters.next();
                all.append(&mut ends);
                ends.push(Vec::new());
            }
            Some('(') => {
                characters.next();
                let group = group(characters, depth)?;
                ends = ends
                    .iter()
                    .flat_map(|end| group.iter().map(|more| [end.as_slice(), more].concat()))
                    .collect();
            }
            Some(_) => {
                let atom = atom(characters)?;
                ends.iter_mut().for_each(|end| end.push(atom));
            }
        }
        if all.len() + ends.len() > ALTERNATIVES_MAX {
            return Err(format!("it has more than {ALTERNATIVES_MAX} alternatives"));
        }
    }
    all.append(&mut ends);
    Ok(all)
}

fn group(characters: &mut Peekable<Chars<'_>>, depth: usize) -> Result<Vec<Vec<Atom>>, String> {
    if characters.next_if_eq(&'?').is_some() && characters.next() != Some(':') {
        return Err("its group has a meaning of its own that patterns do not have".to_owned());
    }
    let group = alternatives(characters, depth + 1)?;
    if characters.next() != Some(')') {
        return Err("its brackets do not match".to_owned());
    }
    match characters.peek() {
        Some('*' | '+' | '?' | '{') => Err("it repeats a group, which patterns cannot".to_owned()),
        _ => Ok(group),
    }
}

fn atom(characters: &mut Peekable<Chars<'_>>) -> Result<Atom, String> {
    let one = match characters.next() {
        Some('.') => Atom::Any,
        Some('^') => return Ok(Atom::Start),
        Some('$') => return Ok(Atom::End),
        Some('[') => class(characters)?,
        Some('\\') => match characters.next() {
            Some(character) if !character.is_alphanumeric() => Atom::Literal(character),
            _ => return Err("it has a class of characters that patterns do not have".to_owned()),
        },
        Some(character @ ('*' | '+' | '?' | '{' | '}' | ']')) => {
            return Err(format!("what its {character:?} repeats or ends, patterns cannot say"));
        }
        Some(character) => Atom::Literal(character),
        None => return Err("it ends too early".to_owned()),
    };
    let repeated = match (one, characters.peek()) {
        (Atom::Any, Some('*')) => Atom::Anything,
        (Atom::Any, Some('+')) => Atom::Something,
        (Atom::NameByte, Some('*')) => Atom::Name,
        (Atom::NameByte, Some('+')) => Atom::NameNotEmpty,
        (_, Some('*' | '+' | '?' | '{')) => {
            return Err("it repeats something other than . or [^/], which patterns cannot".to_owned());
        }
        _ => return Ok(one),
    };
    characters.next();
    // Whether it takes as little as it can makes no difference to what it covers.
    characters.next_if_eq(&'?');
    match characters.peek() {
        Some('*' | '+' | '{') => Err("it repeats a repetition, which patterns cannot".to_owned()),
        _ => Ok(repeated),
    }
}

/// `[^/]`, or a class of one character, as `[.]`.
fn class(characters: &mut Peekable<Chars<'_>>) -> Result<Atom, String> {
    let unknown = || "it has a class of characters that patterns do not have".to_owned();
    let first = characters.next().ok_or_else(unknown)?;
    let atom = match first {
        '^' if characters.next() == Some('/') => Atom::NameByte,
        '^' | '\\' | ']' => return Err(unknown()),
        character => Atom::Literal(character),
    };
    if characters.next() == Some(']') { Ok(atom) } else { Err(unknown()) }
}

/// The same without what stands for the start. A path starts with a slash, so `.*a` is `/.*a`; and `.*/a` is `/a`
/// as well.
fn anchored(atoms: &[Atom]) -> Vec<Vec<Atom>> {
    let atoms = atoms.strip_prefix(&[Atom::Start]).unwrap_or(atoms);
    match atoms {
        [Atom::Anything, rest @ ..] => {
            let deep = [&[Atom::Literal('/'), Atom::Anything], rest].concat();
            if rest.first() == Some(&Atom::Literal('/')) { vec![rest.to_vec(), deep] } else { vec![deep] }
        }
        atoms => vec![atoms.to_vec()],
    }
}

fn glob(atoms: &[Atom], differences: &mut Vec<String>) -> Result<String, String> {
    let (atoms, is_whole) = match atoms {
        // Anything may follow anyway.
        [start @ .., Atom::Anything] | [start @ .., Atom::Anything, Atom::End] => (start, false),
        [start @ .., Atom::End] => (start, true),
        atoms => (atoms, false),
    };
    let mut text = String::new();
    for atom in atoms {
        match atom {
            Atom::Literal(character @ ('*' | '?')) => {
                return Err(format!("a pattern cannot name the character {character:?}"));
            }
            Atom::Literal(' ') => {
                differences
                    .push("a space stands for the underscore that the kernel writes for it".to_owned());
                text.push('_');
            }
            Atom::Literal(character) => text.push(*character),
            Atom::Any => {
                differences.push(
                    "a dot without a backslash stands for a dot here, not for any character".to_owned(),
                );
                text.push('.');
            }
            Atom::Anything => {
                differences.push("** covers line breaks in a path as well, .* does not".to_owned());
                text.push_str("**");
            }
            Atom::Something if text.ends_with('/') => text.push_str("?**"),
            Atom::Something => return Err("what its .+ covers, patterns cannot say".to_owned()),
            Atom::NameByte => {
                differences.push("? is one byte here, and letters beyond ASCII have more".to_owned());
                text.push('?');
            }
            // A second star would reach into folders.
            Atom::Name if text.ends_with('*') => {}
            Atom::Name => text.push('*'),
            Atom::NameNotEmpty => text.push_str("?*"),
            Atom::Start | Atom::End => return Err("its ^ or $ stands in the middle".to_owned()),
        }
    }
    if is_whole {
        return if text.ends_with('/') { Err("it covers no file".to_owned()) } else { Ok(text) };
    }
    if !text.ends_with('/') && !text.ends_with("**") {
        if !matches!(atoms.last(), None | Some(Atom::Name)) {
            differences.push(format!("it covers every path that starts with {text}, as it did; end it with / for a folder, or drop ** for a file"));
        }
        text.push_str("**");
    }
    Ok(text)
}

const REGEX_BYTES_MAX: usize = 4096;
const ALTERNATIVES_MAX: usize = 64;
const DEPTH_MAX: usize = 8;
