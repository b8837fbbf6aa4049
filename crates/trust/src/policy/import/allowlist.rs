//! Allowlists of Keylime's first years: lines of a digest and a path, as `sha256sum` writes them.

use super::{Field, Import, ImportError};

impl Import {
    /// Takes over a plain list: each line a digest in hex, white space, and a path that may have spaces.
    pub fn allowlist(&mut self, text: &str) -> Result<(), ImportError> {
        let mut digests = serde_json::Map::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() {
                continue;
            }
            let malformed = ImportError::Line { line: number + 1 };
            let (digest, path) = line.trim_start().split_once([' ', '\t']).ok_or(malformed.clone())?;
            // sha256sum marks files that it read as binary with a star.
            let path = path.trim_start_matches([' ', '\t']);
            let path = path.strip_prefix('*').unwrap_or(path);
            if path.is_empty() || digest.is_empty() || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(malformed);
            }
            let listed = digests.entry(path).or_insert_with(|| Vec::<serde_json::Value>::new().into());
            if let Some(listed) = listed.as_array_mut() {
                listed.push(digest.into());
            }
        }
        self.note(
            Field::default(),
            "this is a plain allowlist of Keylime's first years: it has no excludes, which were a file of their own \
             (--keylime-excludes), and no keys",
        );
        self.take_runtime_policy(&serde_json::Map::from_iter([("digests".to_owned(), digests.into())]));
        Ok(())
    }
}
