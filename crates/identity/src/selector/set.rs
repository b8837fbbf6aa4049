//! What several selectors say together. An entry is a caller's if every one of them holds.

use thiserror::Error;

use super::Selector;
use super::unix::Unix;

/// Why nobody can, or nobody should, have all of these.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetError {
    /// Every caller would have them.
    #[error("without a selector every process on the device would match")]
    None,
    /// More than anybody reads.
    #[error("at most {SELECTORS_MAX} selectors make an entry")]
    TooMany,
    /// No caller has both.
    #[error("{one} and {other} hold of no process together")]
    Contradiction {
        /// The first.
        one: Box<Selector>,
        /// What it leaves no room for.
        other: Box<Selector>,
    },
    /// Whoever runs as the same user can make a program do as they like: a program alone tells nobody apart.
    #[error(
        "give a unix:uid beside unix:path or unix:sha256, which tell programs of one user apart and no more"
    )]
    ProgramAlone,
}

/// Refuses selectors that together match nobody, or that anybody could match.
pub fn check_all(selectors: &[Selector]) -> Result<(), SetError> {
    match selectors.len() {
        0 => return Err(SetError::None),
        1..=SELECTORS_MAX => {}
        _ => return Err(SetError::TooMany),
    }
    for (index, one) in selectors.iter().enumerate() {
        let mut before = selectors.iter().take(index);
        if let Some(other) = before.find(|other| excludes(one, other)) {
            return Err(SetError::Contradiction { one: other.clone().into(), other: one.clone().into() });
        }
    }
    match is_program_alone(selectors) {
        true => Err(SetError::ProgramAlone),
        false => Ok(()),
    }
}

/// Of some things a process has one: if it has this, it does not have that.
fn excludes(one: &Selector, other: &Selector) -> bool {
    let (Selector::Unix(one), Selector::Unix(other)) = (one, other);
    let is_single = matches!(one, Unix::Uid(_) | Unix::Gid(_) | Unix::Sha256(_));
    is_single && std::mem::discriminant(one) == std::mem::discriminant(other) && one != other
}

fn is_program_alone(selectors: &[Selector]) -> bool {
    let is_any = |wanted: fn(&Unix) -> bool| {
        selectors.iter().any(|one| match one {
            Selector::Unix(unix) => wanted(unix),
        })
    };
    is_any(|one| matches!(one, Unix::Path(_) | Unix::Sha256(_))) && !is_any(|one| matches!(one, Unix::Uid(_)))
}

/// More say nothing that fewer could not.
const SELECTORS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[&str]) -> Result<(), SetError> {
        let selectors: Vec<Selector> = texts.iter().map(|text| text.parse().unwrap()).collect();
        check_all(&selectors)
    }

    #[test]
    fn finding_12_a_program_is_named_beside_its_user() {
        let hash = format!("unix:sha256:{}", "ab".repeat(32));
        for good in [
            &["unix:uid:7"][..],
            &["unix:gid:7"],
            &["unix:uid:7", "unix:path:/usr/bin/web"],
            &[&hash, "unix:uid:7"],
        ] {
            check(good).unwrap();
        }
        for alone in [
            &["unix:path:/usr/bin/web"][..],
            &[&hash, "unix:gid:7"],
            &["unix:path:/usr/bin/web", "unix:user:web"],
        ] {
            assert_eq!(check(alone), Err(SetError::ProgramAlone), "{alone:?}");
        }
    }

    #[test]
    fn what_excludes_each_other_matches_nobody() {
        let other = format!("unix:sha256:{}", "cd".repeat(32));
        let hash = format!("unix:sha256:{}", "ab".repeat(32));
        for both in [
            &["unix:uid:7", "unix:uid:8"][..],
            &["unix:gid:7", "unix:user:web", "unix:gid:8"],
            &["unix:uid:7", &hash, &other],
        ] {
            assert!(matches!(check(both), Err(SetError::Contradiction { .. })), "{both:?}");
        }
        for fine in [
            &["unix:uid:7", "unix:uid:7"][..],
            &["unix:uid:7", "unix:gid:8"],
            &["unix:supplementary_gid:7", "unix:supplementary_gid:8"],
            &["unix:uid:7", "unix:path:/bin/sh", "unix:path:/usr/bin/sh"],
        ] {
            check(fine).unwrap();
        }
        assert_eq!(check(&[]), Err(SetError::None));
        assert_eq!(check(&["unix:supplementary_gid:1"; SELECTORS_MAX + 1]), Err(SetError::TooMany));
    }
}
