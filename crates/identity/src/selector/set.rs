//! What several selectors say together. An entry is a caller's if every one of them holds.

use thiserror::Error;

use super::Selector;
use super::docker::Docker;
use super::tpm::Tpm;
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
        "give a unix:uid beside unix:path, unix:sha256 or ima:sha256, which tell programs of one user apart and no more"
    )]
    ProgramAlone,
    /// They say which device it is, and every process on it would match.
    #[error(
        "tpm: selectors are about the device; give one beside them that says which of its processes, as unix:uid"
    )]
    DeviceAlone,
    /// It is about a node, and no process has it.
    #[error("{0} chooses nodes: it belongs into an alias, an entry whose parent is the server")]
    OfANode(Box<Selector>),
    /// It is about a process, and no node has it.
    #[error("{0} chooses processes, and an entry whose parent is the server chooses nodes")]
    OfAProcess(Box<Selector>),
    /// Whoever may use the TPM sets these two back.
    #[error("tpm:pcr:{index} says nothing, as PCR {index} can be reset by whoever may use the TPM")]
    Resettable {
        /// Which.
        index: u8,
    },
}

/// Refuses selectors that together match nobody, or that anybody could match.
pub fn check_all(selectors: &[Selector]) -> Result<(), SetError> {
    match selectors.len() {
        0 => return Err(SetError::None),
        1..=SELECTORS_MAX => {}
        _ => return Err(SetError::TooMany),
    }
    if let Some(node) = selectors.iter().find(|one| matches!(one, Selector::Node(_))) {
        return Err(SetError::OfANode(node.clone().into()));
    }
    for (index, one) in selectors.iter().enumerate() {
        let mut before = selectors.iter().take(index);
        if let Some(other) = before.find(|other| excludes(one, other)) {
            return Err(SetError::Contradiction { one: other.clone().into(), other: one.clone().into() });
        }
    }
    let resettable = selectors.iter().find_map(|one| match one {
        Selector::Tpm(Tpm::Pcr { index, .. }) if RESETTABLE.contains(index) => Some(*index),
        _ => None,
    });
    if let Some(index) = resettable {
        return Err(SetError::Resettable { index });
    }
    if selectors.iter().all(|one| matches!(one, Selector::Tpm(_))) {
        return Err(SetError::DeviceAlone);
    }
    match is_program_alone(selectors) {
        true => Err(SetError::ProgramAlone),
        false => Ok(()),
    }
}

/// Refuses what does not choose nodes.
pub fn check_alias(selectors: &[Selector]) -> Result<(), SetError> {
    match selectors.len() {
        0 => return Err(SetError::None),
        1..=SELECTORS_MAX => {}
        _ => return Err(SetError::TooMany),
    }
    let chooses_nodes = |one: &&Selector| matches!(one, Selector::Node(_) | Selector::Tpm(Tpm::PubHash(_)));
    match selectors.iter().find(|one| !chooses_nodes(one)) {
        Some(other) => Err(SetError::OfAProcess(other.clone().into())),
        None => Ok(()),
    }
}

/// Of some things there is one: if it is this, it is not that.
fn excludes(one: &Selector, other: &Selector) -> bool {
    let is_same_thing = match (one, other) {
        (Selector::Unix(Unix::Uid(_)), Selector::Unix(Unix::Uid(_)))
        | (Selector::Unix(Unix::Gid(_)), Selector::Unix(Unix::Gid(_)))
        | (Selector::Unix(Unix::Sha256(_)), Selector::Unix(Unix::Sha256(_)))
        | (Selector::Tpm(Tpm::PubHash(_)), Selector::Tpm(Tpm::PubHash(_)))
        | (Selector::Systemd(_), Selector::Systemd(_))
        | (Selector::Docker(Docker::ImageId(_)), Selector::Docker(Docker::ImageId(_)))
        | (Selector::Docker(Docker::ImageConfigDigest(_)), Selector::Docker(Docker::ImageConfigDigest(_)))
        | (Selector::Ima(_), Selector::Ima(_)) => true,
        (Selector::K8s(one), Selector::K8s(other)) => one.is_one_of(other),
        (Selector::Docker(Docker::Label { key: a, .. }), Selector::Docker(Docker::Label { key: b, .. }))
        | (Selector::Docker(Docker::Env { name: a, .. }), Selector::Docker(Docker::Env { name: b, .. })) => {
            a == b
        }
        (
            Selector::Tpm(Tpm::Pcr { index: a, value: one }),
            Selector::Tpm(Tpm::Pcr { index: b, value: other }),
        ) => {
            // Of another bank it has another value.
            a == b && one.as_bytes().len() == other.as_bytes().len()
        }
        _ => false,
    };
    is_same_thing && one != other
}

fn is_program_alone(selectors: &[Selector]) -> bool {
    let is_program =
        |one: &Selector| matches!(one, Selector::Unix(Unix::Path(_) | Unix::Sha256(_)) | Selector::Ima(_));
    selectors.iter().any(is_program)
        && !selectors.iter().any(|one| matches!(one, Selector::Unix(Unix::Uid(_))))
}

/// More say nothing that fewer could not.
const SELECTORS_MAX: usize = 16;
/// TCG PC Client Platform TPM Profile: the debug and the application PCR.
const RESETTABLE: [u8; 2] = [16, 23];

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
            &[&hash.replace("unix", "ima")],
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
            &["systemd:id:a.service", "systemd:id:b.service"],
            &["docker:label:a:1", "docker:label:a:2"],
            &["docker:env:A=1", "docker:env:A=2"],
            &["k8s:ns:a", "k8s:ns:b"],
            &["k8s:pod-label:a:1", "k8s:pod-label:a:2"],
        ] {
            assert!(matches!(check(both), Err(SetError::Contradiction { .. })), "{both:?}");
        }
        for fine in [
            &["unix:uid:7", "unix:uid:7"][..],
            &["unix:uid:7", "unix:gid:8"],
            &[
                "k8s:ns:a",
                "k8s:sa:b",
                "k8s:pod-label:a:1",
                "k8s:pod-label:b:2",
                "k8s:pod-image:a",
                "k8s:pod-image:b",
            ],
            &["unix:supplementary_gid:7", "unix:supplementary_gid:8"],
            &["unix:uid:7", "unix:path:/bin/sh", "unix:path:/usr/bin/sh"],
        ] {
            check(fine).unwrap();
        }
        let pcr = |index: u8, byte: &str| format!("tpm:pcr:{index}:{}", byte.repeat(32));
        let both = ["unix:uid:7", &pcr(7, "ab"), &pcr(7, "cd")];
        assert!(matches!(check(&both), Err(SetError::Contradiction { .. })));
        check(&["unix:uid:7", &pcr(7, "ab"), &pcr(8, "cd"), &format!("tpm:pcr:7:{}", "ab".repeat(48))])
            .unwrap();
        assert_eq!(check(&[&pcr(7, "ab")]), Err(SetError::DeviceAlone));
        assert_eq!(check(&["unix:uid:7", &pcr(23, "ab")]), Err(SetError::Resettable { index: 23 }));
        assert_eq!(check(&[]), Err(SetError::None));
        assert_eq!(check(&["unix:supplementary_gid:1"; SELECTORS_MAX + 1]), Err(SetError::TooMany));
    }
}
