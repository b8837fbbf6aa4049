//! What is seen of a caller, held against the selectors of entries.

use assay_identity::Selector;
use assay_identity::selector::ima::Ima;
use assay_identity::selector::systemd::Systemd;
use assay_identity::selector::unix::Unix as OfProcess;
use assay_identity::selector::{Sha256, check_all};

use super::cgroup::Cgroups;
use super::engine::Description;
use super::kubelet::InPod;
use super::unix::Unix;

/// Everything that is known of a caller so far.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) unix: Unix,
    pub(crate) cgroups: Cgroups,
    /// The container, as its engine describes it.
    pub(crate) container: Known<Description>,
    /// The container in its pod, as the node's kubelet describes them.
    pub(crate) pod: Known<InPod>,
    /// The hash of its program.
    pub(crate) program: Known<Sha256>,
}

/// What takes time to find out, and is found out where an entry asks for it.
#[derive(Debug)]
pub(crate) enum Known<T> {
    /// Anything may be it.
    NotYet,
    /// It.
    Is(T),
    /// It cannot be found out, and so nothing holds of it.
    Never,
}

impl<T> Known<T> {
    fn may(&self, hold: impl FnOnce(&T) -> bool) -> bool {
        match self {
            Known::NotYet => true,
            Known::Is(it) => hold(it),
            Known::Never => false,
        }
    }
}

impl Seen {
    /// Whether all of these hold, or may. Those that nobody should have together, or anybody could, hold of nobody: what a
    /// server would not make an entry of is none here either.
    pub(crate) fn has_all(&self, selectors: &[Selector]) -> bool {
        check_all(selectors).is_ok() && selectors.iter().all(|one| self.has(one))
    }

    fn has(&self, selector: &Selector) -> bool {
        match selector {
            // That its kernel measured the program, the server says by sending the entry.
            Selector::Unix(OfProcess::Sha256(wanted)) | Selector::Ima(Ima::Sha256(wanted)) => {
                self.unix.is_in_our_world() && self.program.may(|hash| hash == wanted)
            }
            Selector::Unix(wanted) => self.unix.has(wanted),
            Selector::Systemd(Systemd::Id(unit)) => self.cgroups.unit.as_ref() == Some(unit),
            Selector::Docker(wanted) => {
                self.cgroups.container.is_some() && self.container.may(|container| container.has(wanted))
            }
            Selector::K8s(wanted) => {
                let is_in_a_pod = self.cgroups.container.as_ref().is_some_and(|one| one.pod.is_some());
                is_in_a_pod && self.pod.may(|pod| pod.has(wanted))
            }
            // The server's to decide, and never sent.
            Selector::Tpm(_) | Selector::Node(_) => false,
        }
    }
}

/// Whether a selector asks for the hash of the caller's program.
pub(crate) fn is_of_program(selector: &Selector) -> bool {
    matches!(selector, Selector::Unix(OfProcess::Sha256(_)) | Selector::Ima(_))
}

/// Whether a selector asks for the caller's container.
pub(crate) fn is_of_container(selector: &Selector) -> bool {
    matches!(selector, Selector::Docker(_))
}

/// Whether a selector asks for the caller's pod.
pub(crate) fn is_of_pod(selector: &Selector) -> bool {
    matches!(selector, Selector::K8s(_))
}

#[cfg(test)]
mod tests {
    use super::super::unix::tests::{caller, caller_in_another_world};
    use super::*;

    fn selectors(texts: &[&str]) -> Vec<Selector> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn hash(byte: u8) -> String {
        format!("unix:sha256:{}", Sha256::from([byte; 32]))
    }

    fn program(byte: u8) -> Known<Sha256> {
        Known::Is([byte; 32].into())
    }

    #[tokio::test]
    async fn a_caller_has_an_entry_if_every_selector_holds() {
        let cgroups = Cgroups::parse("0::/system.slice/web.service").unwrap();
        let seen = Seen {
            unix: caller().await,
            cgroups,
            container: Known::Never,
            pod: Known::Never,
            program: program(0xab),
        };
        let check = |wanted: &[&str], expected| {
            assert_eq!(seen.has_all(&selectors(wanted)), expected, "{wanted:?}");
        };
        let own = format!("unix:path:{}", std::env::current_exe().unwrap().display());
        check(&["unix:uid:0"], true);
        check(&["unix:uid:1"], false);
        check(&["unix:gid:7", "unix:uid:0"], true);
        check(&["unix:gid:7", "unix:uid:1"], false);
        check(&["unix:user:root"], true);
        check(&["unix:user:nobody at all"], false);
        check(&["unix:group:root"], false);
        check(&["unix:supplementary_gid:1000"], true);
        check(&["unix:supplementary_gid:1001"], false);
        check(&["unix:uid:0", &own], true);
        check(&["unix:uid:0", "unix:path:/proc/self/exe"], true);
        check(&["unix:uid:0", "unix:path:/bin/sh"], false);
        check(&["unix:uid:0", &hash(0xab)], true);
        check(&["unix:uid:0", &hash(0xac)], false);
        check(&["unix:uid:0", &hash(0xab).replace("unix", "ima")], true);
        check(&["unix:uid:0", &hash(0xac).replace("unix", "ima")], false);
        check(&["unix:uid:0", &hash(0xab).replace("unix:sha256", "tpm:pcr:7")], false);
        check(&["unix:uid:0", "unix:uid:1"], false);
        check(&["systemd:id:web.service"], true);
        check(&["systemd:id:web.service", "unix:uid:0"], true);
        check(&["systemd:id:other.service"], false);
        check(&["docker:label:role:web"], false);
        check(&[], false);
    }

    #[tokio::test]
    async fn finding_12_a_program_counts_beside_its_user_and_in_our_world_only() {
        let own = format!("unix:path:{}", std::env::current_exe().unwrap().display());
        let (its, measured) = (hash(0xab), hash(0xab).replace("unix", "ima"));
        let of = |unix, program| Seen {
            unix,
            cgroups: Cgroups::default(),
            container: Known::NotYet,
            pod: Known::NotYet,
            program,
        };
        let seen = async |program| of(caller().await, program);
        for one in [own.as_str(), &its, &measured] {
            let beside = selectors(&["unix:uid:0", one]);
            assert!(seen(program(0xab)).await.has_all(&beside), "{one}");
            assert!(seen(Known::NotYet).await.has_all(&beside), "{one}");
            for alone in [&[one][..], &["unix:gid:7", one]] {
                assert!(!seen(program(0xab)).await.has_all(&selectors(alone)), "{alone:?}");
            }
            // Where it is seen from elsewhere, a file's name and hash are what the caller says they are.
            let elsewhere = of(caller_in_another_world().await, program(0xab));
            assert!(!elsewhere.has_all(&beside), "{one}");
        }
        for one in [&its, &measured] {
            let beside = selectors(&["unix:uid:0", one]);
            assert!(beside.iter().any(is_of_program));
            assert!(
                !seen(program(0xcd)).await.has_all(&beside) && !seen(Known::Never).await.has_all(&beside)
            );
        }
    }
}
