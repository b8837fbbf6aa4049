//! Files that no package has because the device makes them itself: named kinds of them, each with what it risks.
//!
//! They matter under a policy of IMA that has measured what is read. A kind covers files by their names in places where only
//! root writes; that somebody who is root runs a program under such a name no list of names keeps him from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of file that a device makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MadeOnDevice {
    /// What `depmod` makes: `modules.dep` and its like.
    ModuleIndexes,
    /// Python's byte code, beside a source that the policy lists.
    PythonBytecode,
    /// Profiles that AppArmor has compiled.
    ApparmorCaches,
    /// What the dynamic linker, D-Bus, udev and the like look things up in.
    LookUpCaches,
    /// What an installer, an administrator or the network writes under `/etc`.
    GeneratedConfiguration,
    /// What is written anew all the time: journals, log in records, random seeds.
    SystemState,
    /// What the agent itself keeps.
    AgentState,
}

impl MadeOnDevice {
    /// Every kind.
    pub const ALL: [MadeOnDevice; 7] = [
        MadeOnDevice::ModuleIndexes,
        MadeOnDevice::PythonBytecode,
        MadeOnDevice::ApparmorCaches,
        MadeOnDevice::LookUpCaches,
        MadeOnDevice::GeneratedConfiguration,
        MadeOnDevice::SystemState,
        MadeOnDevice::AgentState,
    ];

    /// What passes unseen where it is accepted.
    pub fn risk(self) -> &'static str {
        match self {
            MadeOnDevice::ModuleIndexes => {
                "root chooses which listed module is loaded for a device; modules themselves are judged"
            }
            MadeOnDevice::PythonBytecode => {
                "root puts byte code in place that does something else than the listed source beside it"
            }
            MadeOnDevice::ApparmorCaches => "root loads a looser profile than the one that is listed",
            MadeOnDevice::LookUpCaches => "root has a listed program find another listed library",
            MadeOnDevice::GeneratedConfiguration => "root configures listed programs otherwise",
            MadeOnDevice::SystemState => "nothing that runs; what is in it is not judged",
            MadeOnDevice::AgentState => {
                "root configures the agent otherwise, which is not what it is judged by"
            }
        }
    }

    /// The kind of a path, if it is of one. `is_listed` says of another path whether a policy lists a file there.
    pub fn of(path: &[u8], is_listed: impl Fn(&[u8]) -> bool) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.covers(path, &is_listed))
    }

    /// Whether a path is of this kind. `is_listed` says of another path whether the policy lists a file there.
    pub(crate) fn covers(self, path: &[u8], is_listed: impl Fn(&[u8]) -> bool) -> bool {
        let Ok(path) = std::str::from_utf8(path) else { return false };
        let (folder, name) = path.rsplit_once('/').unwrap_or_default();
        match self {
            MadeOnDevice::ModuleIndexes => {
                let modules =
                    ["/usr/lib/modules/", "/lib/modules/"].iter().find_map(|tree| folder.strip_prefix(tree));
                modules.is_some_and(|version| !version.contains('/')) && MODULE_INDEXES.contains(&name)
            }
            MadeOnDevice::PythonBytecode => {
                source_of(folder, name).is_some_and(|source| is_listed(source.as_bytes()))
            }
            MadeOnDevice::ApparmorCaches => {
                let is_cache =
                    path.starts_with("/var/cache/apparmor/") || path.starts_with("/etc/apparmor.d/cache");
                is_cache && !name.contains(".so")
            }
            MadeOnDevice::LookUpCaches => LOOK_UP_CACHES.contains(&path),
            MadeOnDevice::GeneratedConfiguration => CONFIGURATION.contains(&path),
            MadeOnDevice::SystemState => is_state(path, folder, name),
            MadeOnDevice::AgentState => {
                AGENT_FILES.contains(&path) || path.starts_with("/var/lib/assay-agent/")
            }
        }
    }
}

impl fmt::Display for MadeOnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::choice::word(self))
    }
}

/// The source of byte code: `/x/__pycache__/a.cpython-311.pyc` of `/x/a.py`.
fn source_of(folder: &str, name: &str) -> Option<String> {
    let folder = folder.strip_suffix("/__pycache__")?;
    let (module, version) = name.strip_suffix(".pyc")?.split_once(".cpython-")?;
    let is_version = |text: &str| {
        let (version, optimised) = text.split_once(".opt-").unwrap_or((text, "0"));
        [version, optimised]
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_version(version).then(|| format!("{folder}/{module}.py"))
}

fn is_state(path: &str, folder: &str, name: &str) -> bool {
    let is_journal = (path.starts_with("/var/log/journal/") || path.starts_with("/run/log/journal/"))
        && [".journal", ".journal~"].iter().any(|end| name.ends_with(end));
    let is_log = folder == "/var/log"
        && (LOGS.contains(&name) || name.strip_suffix(".1").is_some_and(|log| LOGS.contains(&log)));
    is_journal
        || is_log
        || STATE.contains(&path)
        || STATE.iter().any(|state| path.strip_suffix(".new") == Some(state))
}

const MODULE_INDEXES: [&str; 11] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.devname",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.weakdep",
];
const LOOK_UP_CACHES: [&str; 8] = [
    "/etc/ld.so.cache",
    "/etc/udev/hwdb.bin",
    "/usr/lib/udev/hwdb.bin",
    "/usr/lib/locale/locale-archive",
    "/usr/share/mime/mime.cache",
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/catalog/database",
];
const CONFIGURATION: [&str; 30] = [
    "/etc/.pwd.lock",
    "/etc/adjtime",
    "/etc/default/keyboard",
    "/etc/default/locale",
    "/etc/default/console-setup",
    "/etc/environment",
    "/etc/fstab",
    "/etc/group",
    "/etc/gshadow",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/kernel-img.conf",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/machine-info",
    "/etc/mtab",
    "/etc/network/interfaces",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/shells",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ecdsa_key.pub",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_rsa_key.pub",
    "/etc/subuid",
    "/etc/timezone",
];
const LOGS: [&str; 10] = [
    "alternatives.log",
    "auth.log",
    "btmp",
    "daemon.log",
    "dpkg.log",
    "faillog",
    "kern.log",
    "lastlog",
    "syslog",
    "wtmp",
];
const STATE: [&str; 10] = [
    "/var/lib/dbus/machine-id",
    "/var/lib/dpkg/status",
    "/var/lib/dpkg/available",
    "/var/lib/logrotate/status",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/timesync/clock",
    "/var/lib/systemd/credential.secret",
    "/var/lib/apt/extended_states",
    "/var/lib/apt/periodic/update-success-stamp",
    "/var/lib/urandom/random-seed",
];
const AGENT_FILES: [&str; 3] = ["/etc/assay/agent.toml", "/etc/assay/bundle.pem", "/etc/default/assay-agent"];

#[cfg(test)]
mod tests {
    use super::*;

    /// The kind of a path, where `/usr/lib/python3/a.py` is listed.
    fn kind(path: &str) -> Option<MadeOnDevice> {
        MadeOnDevice::of(path.as_bytes(), |path| path == b"/usr/lib/python3/a.py")
    }

    #[test]
    fn kinds_cover_what_they_say_and_no_program() {
        use MadeOnDevice as Kind;
        for (path, expected) in [
            ("/usr/lib/modules/6.1.0-56-amd64/modules.dep.bin", Some(Kind::ModuleIndexes)),
            ("/usr/lib/modules/6.1.0-56-amd64/kernel/modules.dep", None),
            ("/usr/lib/modules/6.1.0-56-amd64/kernel/evil.ko", None),
            ("/usr/lib/python3/__pycache__/a.cpython-311.pyc", Some(Kind::PythonBytecode)),
            ("/usr/lib/python3/__pycache__/a.cpython-311.opt-1.pyc", Some(Kind::PythonBytecode)),
            ("/usr/lib/python3/__pycache__/b.cpython-311.pyc", None),
            ("/usr/lib/python3/__pycache__/a.cpython-so.pyc", None),
            ("/usr/lib/python3/a.pyc", None),
            ("/var/cache/apparmor/26b63962.0/usr.bin.man", Some(Kind::ApparmorCaches)),
            ("/var/cache/apparmor/evil.so", None),
            ("/etc/ld.so.cache", Some(Kind::LookUpCaches)),
            ("/etc/ld.so.preload", None),
            ("/etc/resolv.conf", Some(Kind::GeneratedConfiguration)),
            ("/var/log/journal/0123/system.journal", Some(Kind::SystemState)),
            ("/var/log/journal/0123/implant", None),
            ("/var/log/wtmp.1", Some(Kind::SystemState)),
            ("/var/lib/dpkg/status.new", Some(Kind::SystemState)),
            ("/root/golden/quote.msg", None),
            ("/var/lib/assay-agent/device.json", Some(Kind::AgentState)),
            ("/usr/bin/true", None),
            ("/tmp/implant", None),
            ("boot_aggregate", None),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }

    #[test]
    fn a_kind_is_written_as_it_is_read() {
        for kind in MadeOnDevice::ALL {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<MadeOnDevice>(&text).unwrap(), kind);
            assert!(!kind.risk().is_empty());
        }
    }
}
