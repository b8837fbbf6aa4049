//! Allowlists of Keylime's first years: lines of a digest and a path, as `sha256sum` writes them.

use serde_json::{Map, Value};

use super::{Field, Import, ImportError, without_mark};

impl Import {
    /// Takes over a plain list: each line a digest in hex, white space, and a path that may have spaces, or the name of a
    /// keyring.
    pub fn allowlist(&mut self, text: &str) -> Result<(), ImportError> {
        let (mut digests, mut keyrings) = (Map::new(), Map::new());
        for (number, line) in without_mark(text).lines().enumerate() {
            let line = line.trim_end_matches('\r').trim_start();
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (digest, name) = entry(line).ok_or(ImportError::Line { line: number + 1 })?;
            let (listed, name) = match name.strip_prefix(KEYRING) {
                Some(keyring) => (&mut keyrings, keyring.to_owned()),
                None => (&mut digests, name),
            };
            let listed = listed.entry(name).or_insert_with(|| Vec::<Value>::new().into());
            if let Some(listed) = listed.as_array_mut() {
                listed.push(digest.into());
            }
        }
        self.note(
            Field::default(),
            "this is a plain allowlist of Keylime's first years: it has no excludes, which were a file of their own \
             (--keylime-excludes)",
        );
        let policy = [("digests", digests), ("keyrings", keyrings)];
        self.take_runtime_policy(
            &policy.map(|(name, listed)| (name.to_owned(), listed.into())).into_iter().collect(),
        );
        Ok(())
    }
}

/// A line's digest, and what it is of. As `sha256sum` writes it: a star before a file that was read as binary; a
/// backslash before the whole line where one, or a line break, in the name is written with a backslash.
fn entry(line: &str) -> Option<(&str, String)> {
    let (is_escaped, line) = match line.strip_prefix('\\') {
        Some(line) => (true, line),
        None => (false, line),
    };
    let (digest, name) = line.split_once([' ', '\t'])?;
    let name = name.trim_start_matches([' ', '\t']);
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = if is_escaped { unescaped(name)? } else { name.to_owned() };
    let is_digest = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_digest && !name.is_empty()).then_some((digest, name))
}

fn unescaped(name: &str) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            character => character,
        });
    }
    Some(text)
}

/// What stands before the name of a keyring, where the digest is of a key.
const KEYRING: &str = "%keyring:";
