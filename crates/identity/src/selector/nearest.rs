//! The name that was meant, where one was misspelled.

/// The name that takes the fewest changes, if few are enough.
pub(super) fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let name: String = name.chars().take(NAME_CHARACTERS_MAX).collect::<String>().to_ascii_lowercase();
    // Two letters the wrong way round are a slip, two others another word.
    let foreign = |known: &str| name.chars().filter(|letter| !known.contains(*letter)).count();
    let distances = names.iter().map(|known| (changes(&name, known), foreign(known), *known));
    // As many changes as it has letters make any name of any other.
    let is_near = |changes: usize, known: &str| changes <= CHANGES_MAX && changes < known.chars().count();
    distances.min().filter(|(changes, _, known)| is_near(*changes, known)).map(|(_, _, known)| known)
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
    fn slips_are_found_and_other_words_are_not() {
        let names = &["uid", "gid", "user"];
        for (name, expected) in [
            ("uid", Some("uid")),
            ("UID", Some("uid")),
            ("usr", Some("user")),
            ("uidd", Some("uid")),
            ("", None),
            ("xyz", None),
            ("a name that is none of these", None),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
        assert_eq!(nearest("tmp", &["ima", "tpm", "unix"]), Some("tpm"));
    }
}
