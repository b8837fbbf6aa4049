//! Selectors that no workload can ever have: refused when an entry is made, and not found out when nothing gets its
//! identity.
//!
//! The table says what each selector's value is; what the agent finds of a caller is in its `workload/`.

use std::fmt;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A number as the kernel has them.
    Number,
    /// A name, as in /etc/passwd.
    Name,
    /// A path from the root.
    Path,
    /// A SHA-256 in hex.
    Sha256,
}

/// The selectors of type `unix`, as SPIRE spells them.
const UNIX: [(&str, Form); 8] = [
    ("uid", Form::Number),
    ("gid", Form::Number),
    ("user", Form::Name),
    ("group", Form::Name),
    ("supplementary_gid", Form::Number),
    ("supplementary_group", Form::Name),
    ("path", Form::Path),
    ("sha256", Form::Sha256),
];

/// Why a selector never matches, and the nearest one that may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverMatches {
    selector: String,
    why: &'static str,
    nearest: Option<String>,
}

impl fmt::Display for NeverMatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} can never match, because {}", self.selector, self.why)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

/// Refuses a selector of type `unix` that no caller can have.
pub(super) fn check(value: &str) -> Result<(), NeverMatches> {
    let never = |why, nearest: Option<String>| {
        let nearest = nearest.map(|nearest| format!("unix:{nearest}"));
        Err(NeverMatches { selector: format!("unix:{value}"), why, nearest })
    };
    let Some((name, rest)) = value.split_once(':') else {
        return never("it has no value", nearest(value).map(|name| format!("{name}:…")));
    };
    let Some((_, form)) = UNIX.iter().find(|(known, _)| *known == name) else {
        return never(
            "there is no selector of that name",
            nearest(name).map(|name| format!("{name}:{rest}")),
        );
    };
    match form {
        Form::Number if rest.parse::<u32>().is_err() => {
            // A name in a number's place is the commonest of all.
            let by_name = match name {
                "uid" => "user",
                "gid" => "group",
                _ => "supplementary_group",
            };
            let nearest = (is_name(rest) && rest.starts_with(|c: char| !c.is_ascii_digit() && c != '-'))
                .then(|| format!("{by_name}:{rest}"));
            never("its value is no number of a user or group", nearest)
        }
        Form::Name if !is_name(rest) => never("its value is no name of a user or group", None),
        Form::Path if !rest.starts_with('/') => {
            let is_bare = !rest.is_empty() && !rest.contains('/');
            never("its value is no path from the root", is_bare.then(|| format!("path:/usr/bin/{rest}")))
        }
        Form::Sha256 if !is_sha256(rest) => {
            let bare = rest.rsplit(':').next().filter(|hex| is_sha256(hex));
            never("its value is no SHA-256 of 64 hex digits", bare.map(|hex| format!("sha256:{hex}")))
        }
        Form::Number | Form::Name | Form::Path | Form::Sha256 => Ok(()),
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A field of /etc/passwd ends at a colon.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains([':', '\n', '/']) && text.trim() == text
}

/// The selector's name that takes the fewest changes, if few are enough.
fn nearest(name: &str) -> Option<&'static str> {
    let name: String = name.chars().take(NAME_CHARACTERS_MAX).collect::<String>().to_ascii_lowercase();
    let distances = UNIX.iter().map(|(known, _)| (changes(&name, known), *known));
    distances.min().filter(|(changes, _)| *changes <= CHANGES_MAX).map(|(_, known)| known)
}

/// How many characters have to be put in, taken out or changed to make one of the other (Levenshtein).
fn changes(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (position, a) in one.chars().enumerate() {
        let mut diagonal = position;
        let mut left = position + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(other.chars()) {
            let kept = diagonal + usize::from(a != b);
            diagonal = *cell;
            *cell = kept.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = position + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Changes after which a name is another one and no slip.
const CHANGES_MAX: usize = 3;
/// Characters of a name that are compared; the longest that is known has 19.
const NAME_CHARACTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_match_is_taken() {
        let hash = format!("sha256:{}", "aB".repeat(32));
        for good in [
            "uid:0",
            "gid:1000",
            "user:web",
            "group:www-data",
            "supplementary_gid:7",
            "path:/usr/bin/web",
            &hash,
        ] {
            check(good).unwrap();
        }
    }

    #[test]
    fn what_never_matches_is_refused_with_the_nearest_that_may() {
        let hex = "ab".repeat(32);
        let with_algorithm = format!("sha256:sha256:{hex}");
        let bare = format!("unix:sha256:{hex}");
        for (value, nearest) in [
            ("usr:web", Some("unix:user:web")),
            ("UID:7", Some("unix:uid:7")),
            ("supplementary-gid:7", Some("unix:supplementary_gid:7")),
            ("uid:abc", Some("unix:user:abc")),
            ("gid:www-data", Some("unix:group:www-data")),
            ("uid:-1", None),
            ("uid:4294967296", None),
            ("uid", Some("unix:uid:…")),
            ("path:web", Some("unix:path:/usr/bin/web")),
            ("path:usr/bin/web", None),
            (&with_algorithm, Some(bare.as_str())),
            ("sha256:ab", None),
            ("user:", None),
            ("cgroup_and_more:7", None),
        ] {
            let refused = check(value).unwrap_err();
            assert_eq!(refused.nearest.as_deref(), nearest, "{value}: {refused}");
        }
        let said = check("usr:web").unwrap_err().to_string();
        assert_eq!(
            said,
            "\"unix:usr:web\" can never match, because there is no selector of that name; did you mean \"unix:user:web\"?"
        );
    }
}
