//! Where a process is in the kernel's tree of control groups, which says of which unit and in which container it is.
//!
//! The tree is root's down to where a part is handed to somebody: what a service, or a user's manager, makes below its own
//! group it may name as it likes, also like another's container. So a path is read from the root, and only as far as
//! that. A process's mountinfo is its own to write, and is not read at all.

use std::fs;
use std::path::Path;

use thiserror::Error;

/// What the groups of a process say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// The unit of the system's manager, such as `web.service`.
    pub(crate) unit: Option<String>,
    /// The container.
    pub(crate) container: Option<Container>,
}

/// A container, by what the group is called that its engine made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// 64 hex digits.
    pub(crate) id: String,
    /// Who runs it.
    pub(crate) engine: Engine,
    /// The number of the pod that it is in, as a kubelet names its group.
    pub(crate) pod: Option<String>,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Docker, or what calls its groups alike.
    Docker,
    /// Podman, by the system's own service for it.
    Podman,
    /// containerd or CRI-O on behalf of a kubelet.
    Cri,
}

/// The groups contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum CgroupError {
    /// It cannot be in both.
    #[error("its control groups name two containers")]
    TwoContainers,
    /// No file of the kernel's.
    #[error("its control groups cannot be read")]
    NoCgroups,
}

impl Cgroups {
    /// What the file of a process says; nothing, where it does not say one thing.
    pub(crate) fn of(file: &Path) -> Cgroups {
        let Ok(text) = fs::read_to_string(file) else { return Cgroups::default() };
        Cgroups::parse(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, "a caller's unit and container are not known");
            Cgroups::default()
        })
    }

    /// Reads /proc/PID/cgroup.
    pub(crate) fn parse(text: &str) -> Result<Cgroups, CgroupError> {
        let mut found = Cgroups::default();
        for line in text.lines().take(HIERARCHIES_MAX) {
            // cgroups(7): hierarchy-ID:controller-list:cgroup-path, in version 2 with the number 0 and no controller.
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                return Err(CgroupError::NoCgroups);
            };
            let place = Cgroups::of_path(path);
            match (&found.container, place.container) {
                (Some(one), Some(other)) if one.id != other.id => return Err(CgroupError::TwoContainers),
                (None, Some(container)) => found.container = Some(container),
                _ => {}
            }
            // Units are in the hierarchy that systemd keeps for itself, whatever the others are used for.
            if controllers.is_empty() || controllers == "name=systemd" {
                found.unit = found.unit.or(place.unit);
            }
        }
        Ok(found)
    }

    fn of_path(path: &str) -> Cgroups {
        let mut is_below_slices = true;
        let (mut engine, mut pod) = (Engine::Docker, None);
        for name in path.split('/').filter(|name| !matches!(*name, "" | "..")) {
            if let Some(id) = container_id(name) {
                let engine = engine_of(name).unwrap_or(engine);
                let unit = unit(name).filter(|_| is_below_slices);
                return Cgroups { unit, container: Some(Container { id: id.to_owned(), engine, pod }) };
            }
            if let Some(unit) = unit(name) {
                return Cgroups { unit: Some(unit).filter(|_| is_below_slices), container: None };
            }
            if name.starts_with("kubepods") {
                engine = Engine::Cri;
            }
            // A pod's group is a kubelet's within its own alone.
            if engine == Engine::Cri {
                pod = pod_uid(name).or(pod);
            }
            is_below_slices &= name.ends_with(".slice");
        }
        Cgroups::default()
    }
}

/// The unit whose group this is. systemd puts an underscore before names that would mean something else.
fn unit(name: &str) -> Option<String> {
    let name = name.strip_prefix('_').unwrap_or(name);
    let is_unit =
        [".service", ".scope", ".socket", ".mount", ".swap"].iter().any(|suffix| name.ends_with(suffix));
    is_unit.then(|| name.to_owned())
}

/// The identifier in a group's name, whatever the engine puts around it. The process that watches a container is not in it.
fn container_id(name: &str) -> Option<&str> {
    let mut runs = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let id = runs.find(|run| run.len() == ID_DIGITS && run.bytes().all(|byte| byte.is_ascii_hexdigit()));
    id.filter(|_| !name.contains("conmon"))
}

/// The number of a pod in its group's name: `podUID`, in a slice behind others and with underscores for dashes.
fn pod_uid(name: &str) -> Option<String> {
    let (_, uid) = name.trim_end_matches(".slice").rsplit_once("pod")?;
    let is_uid =
        |uid: &str| (32..=36).contains(&uid.len()) && uid.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    Some(uid.replace('_', "-")).filter(|uid| is_uid(uid))
}

fn engine_of(name: &str) -> Option<Engine> {
    let starts = |prefix: &str| name.starts_with(prefix);
    match () {
        () if starts("libpod-") => Some(Engine::Podman),
        () if starts("docker-") => Some(Engine::Docker),
        () if starts("cri-containerd-") || starts("crio-") => Some(Engine::Cri),
        () => None,
    }
}

/// Of all engines.
const ID_DIGITS: usize = 64;
/// Version 1 has a dozen.
const HIERARCHIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4c4fcc7c6a0d3b1a8d2e5f60718293a4b5c6d7e8f90112233445566778899aab";
    const POD: &str = "2c48913c-b29f-11e7-9350-020968147796";
    const OTHER: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

    fn check(text: &str, unit: Option<&str>, container: Option<Engine>) {
        let text = text.replace("ID", ID).replace("OTHER", OTHER);
        let pod = text.contains("kubepods").then(|| POD.to_owned());
        let container = container.map(|engine| Container { id: ID.to_owned(), engine, pod });
        let unit = unit.map(|unit| unit.replace("ID", ID));
        assert_eq!(Cgroups::parse(&text), Ok(Cgroups { unit, container }), "{text}");
    }

    #[test]
    fn processes_of_the_host_have_units_and_no_container() {
        check("0::/", None, None);
        check("", None, None);
        check("0::/init.scope", Some("init.scope"), None);
        check("0::/system.slice/web.service", Some("web.service"), None);
        check("0::/system.slice/system-web.slice/web@1.service/worker", Some("web@1.service"), None);
        check("0::/system.slice/_cpu.service", Some("cpu.service"), None);
        check("0::/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"), None);
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            Some("user@1000.service"),
            None,
        );
        // Who made this group, and for whom, systemd does not say.
        check("0::/mine/web.service", None, None);
        check("12:pids:/user.slice\n1:name=systemd:/system.slice/web.service\n", Some("web.service"), None);
        check(
            "12:pids:/system.slice/other.service\n1:name=systemd:/system.slice/web.service",
            Some("web.service"),
            None,
        );
    }

    #[test]
    fn containers_are_found_whatever_their_engine_calls_them() {
        let scope = |prefix: &str| format!("{prefix}-{ID}.scope");
        check("0::/docker/ID", None, Some(Engine::Docker));
        check("0::/system.slice/docker-ID.scope", Some(&scope("docker")), Some(Engine::Docker));
        check("0::/system.slice/docker-ID.scope/init.scope", Some(&scope("docker")), Some(Engine::Docker));
        check("0::/../docker-ID.scope", Some(&scope("docker")), Some(Engine::Docker));
        check("0::/machine.slice/libpod-ID.scope/container", Some(&scope("libpod")), Some(Engine::Podman));
        check("0::/libpod_parent/libpod-ID", None, Some(Engine::Podman));
        check("0::/machine.slice/libpod-conmon-ID.scope", Some(&scope("libpod-conmon")), None);
        check("0::/default/ID", None, Some(Engine::Docker));
        check("0::/kubepods/besteffort/pod2c48913c-b29f-11e7-9350-020968147796/ID", None, Some(Engine::Cri));
        let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2c48913c_b29f_11e7_9350_020968147796.slice";
        check(
            &format!("0::/{pod}/cri-containerd-ID.scope"),
            Some(&scope("cri-containerd")),
            Some(Engine::Cri),
        );
        check(&format!("0::/{pod}/crio-ID.scope"), Some(&scope("crio")), Some(Engine::Cri));
        check(
            "11:pids:/docker/ID\n10:cpuset:/docker/ID\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service",
            Some("containerd.service"),
            Some(Engine::Docker),
        );
    }

    #[test]
    fn below_what_was_handed_to_somebody_names_say_nothing() {
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            Some("user@1000.service"),
            None,
        );
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/docker-ID.scope",
            Some("user@1000.service"),
            None,
        );
        check("0::/system.slice/web.service/docker/ID", Some("web.service"), None);
        // A container that makes groups of its own is the one that its engine on this machine started.
        check("0::/docker/ID/docker/OTHER", None, Some(Engine::Docker));
    }

    #[test]
    fn a_pods_group_is_one_below_a_kubelets() {
        let pod = |text: &str| {
            let text = text.replace("ID", ID).replace("POD", POD);
            Cgroups::parse(&text).unwrap().container.and_then(|container| container.pod)
        };
        assert_eq!(pod("0::/kubepods/podPOD/ID"), Some(POD.to_owned()));
        assert_eq!(pod("0::/kubelet.slice/kubelet-kubepods.slice/podPOD/ID"), None);
        assert_eq!(pod("0::/kubepods/pod0/ID"), None);
        assert_eq!(pod("0::/docker/podPOD/ID"), None);
        assert_eq!(pod(&format!("0::/kubepods/pod{}/ID", "0".repeat(32))), Some("0".repeat(32)));
        let text = format!("0::/user.slice/user-7.slice/user@7.service/kubepods/pod{POD}/{ID}");
        assert_eq!(Cgroups::parse(&text).unwrap().container, None);
    }

    #[test]
    fn what_contradicts_itself_or_is_none_is_an_error() {
        let both = format!("2:pids:/docker/{ID}\n1:name=systemd:/docker/{OTHER}");
        assert_eq!(Cgroups::parse(&both), Err(CgroupError::TwoContainers));
        assert_eq!(Cgroups::parse("none"), Err(CgroupError::NoCgroups));
        let too_long = format!("0::/docker/{ID}ab\n");
        assert_eq!(Cgroups::parse(&too_long), Ok(Cgroups::default()));
    }
}
