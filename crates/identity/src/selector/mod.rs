//! Selectors: what must hold of a workload, as entries write it, typed.
//!
//! An attestor each has its file, with all that it may say of a caller. What parses here is what some caller can have: the
//! rest is refused when an entry is made, with the nearest that may be meant, and not found out when nothing gets its
//! identity. Whether one holds is for those who know the caller; this is the language they share.

pub mod docker;
pub mod ima;
pub mod k8s;
mod nearest;
pub mod node;
mod set;
pub mod systemd;
pub mod tpm;
pub mod unix;
mod value;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::docker::Docker;
use self::ima::Ima;
use self::k8s::K8s;
use self::nearest::nearest;
use self::node::{Node, X509Pop};
pub use self::set::{SetError, check_alias, check_all};
use self::systemd::Systemd;
use self::tpm::Tpm;
use self::unix::Unix;
pub use self::value::Sha256;

/// One thing that must hold of a caller. Written as `type:value`; equal ones are written alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Selector {
    /// What the kernel knows of a process.
    Unix(Unix),
    /// The unit that a process is of.
    Systemd(Systemd),
    /// The container that it is in.
    Docker(Docker),
    /// The pod that it is in.
    K8s(K8s),
    /// What the device's last verified quote says.
    Tpm(Tpm),
    /// What its kernel measured of a process's program.
    Ima(Ima),
    /// What a node is that attested as SPIRE's agents do.
    Node(Node),
}

/// A selector in the form of SPIRE's entries, read by nobody yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The attestor: `unix`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it must say: `uid:1000`.
    pub value: String,
}

/// Why a selector never holds of anybody, and the nearest one that may be meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{selector:?} can never match, because {why}{}", NearestText(.nearest.as_deref()))]
pub struct NeverMatches {
    /// As it was written; a long one is cut.
    pub selector: String,
    /// Completes "because".
    pub why: &'static str,
    /// In full, with its type.
    pub nearest: Option<String>,
}

/// The same before it is known of which attestor it is.
#[derive(Debug, PartialEq, Eq)]
struct Never {
    why: &'static str,
    nearest: Option<String>,
}

impl Never {
    /// With nothing near it.
    fn new(why: &'static str) -> Never {
        Never { why, nearest: None }
    }

    fn near(why: &'static str, nearest: Option<String>) -> Never {
        Never { why, nearest }
    }
}

impl Selector {
    /// Reads a selector; one that nobody can have is an error.
    pub fn parse(kind: &str, value: &str) -> Result<Selector, NeverMatches> {
        parse(kind, value).map_err(|Never { why, nearest }| {
            let selector = format!("{kind}:{value}").chars().take(SHOWN_CHARACTERS_MAX).collect();
            NeverMatches { selector, why, nearest }
        })
    }

    /// The attestor: what stands before the first colon.
    pub fn kind(&self) -> &'static str {
        match self {
            Selector::Unix(_) => unix::KIND,
            Selector::Systemd(_) => systemd::KIND,
            Selector::Docker(_) => docker::KIND,
            Selector::K8s(_) => k8s::KIND,
            Selector::Tpm(_) => tpm::KIND,
            Selector::Ima(_) => ima::KIND,
            Selector::Node(node) => node.kind(),
        }
    }

    /// Whether it is true of a device and not of a process, or of both: the server has its part in deciding it, by the
    /// device's last verified quote.
    pub fn is_condition(&self) -> bool {
        match self {
            Selector::Tpm(_) | Selector::Ima(_) => true,
            Selector::Unix(_)
            | Selector::Systemd(_)
            | Selector::Docker(_)
            | Selector::K8s(_)
            | Selector::Node(_) => false,
        }
    }

    /// Whether it holds for what a quote says, and may not hold by the next one; the TPM itself stays the same.
    pub fn is_by_quote(&self) -> bool {
        self.is_condition() && !matches!(self, Selector::Tpm(Tpm::PubHash(_)))
    }

    /// What stands behind it.
    pub fn value(&self) -> String {
        match self {
            Selector::Unix(unix) => unix.to_string(),
            Selector::Systemd(systemd) => systemd.to_string(),
            Selector::Docker(docker) => docker.to_string(),
            Selector::K8s(k8s) => k8s.to_string(),
            Selector::Tpm(tpm) => tpm.to_string(),
            Selector::Ima(ima) => ima.to_string(),
            Selector::Node(node) => node.to_string(),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.value())
    }
}

impl FromStr for Selector {
    type Err = NeverMatches;

    fn from_str(text: &str) -> Result<Selector, NeverMatches> {
        match text.split_once(':') {
            Some((kind, value)) => Selector::parse(kind, value),
            None => Selector::parse(text, ""),
        }
    }
}

impl TryFrom<Written> for Selector {
    type Error = NeverMatches;

    fn try_from(written: Written) -> Result<Selector, NeverMatches> {
        Selector::parse(&written.kind, &written.value)
    }
}

impl From<Selector> for Written {
    fn from(selector: Selector) -> Written {
        Written { kind: selector.kind().to_owned(), value: selector.value() }
    }
}

fn parse(kind: &str, value: &str) -> Result<Selector, Never> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Never::new("it is longer than a selector may be"));
    }
    if value.chars().any(char::is_control) {
        return Err(Never::new("there are control characters in it"));
    }
    let Some(Attestor { names, read, .. }) = ATTESTORS.iter().find(|attestor| attestor.kind == kind) else {
        let kinds: Vec<&str> = ATTESTORS.iter().map(|attestor| attestor.kind).collect();
        let near = nearest(kind, &kinds).map(|kind| format!("{kind}:{value}"));
        return Err(Never::near("there is no attestor of that name", near));
    };
    let named = |name: &str, rest: &str| format!("{kind}:{name}:{rest}");
    let Some((name, rest)) = value.split_once(':') else {
        return Err(Never::near("it has no value", nearest(value, names).map(|name| named(name, "…"))));
    };
    if !names.contains(&name) {
        let near = nearest(name, names).map(|name| named(name, rest));
        return Err(Never::near("there is no selector of that name", near));
    }
    read(name, rest)
        .map_err(|Never { why, nearest }| Never::near(why, nearest.map(|near| format!("{kind}:{near}"))))
}

/// As the end of a sentence.
struct NearestText<'a>(Option<&'a str>);

impl fmt::Display for NearestText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |nearest| write!(f, "; did you mean {nearest:?}?"))
    }
}

/// What an attestor may say.
struct Attestor {
    kind: &'static str,
    names: &'static [&'static str],
    read: fn(name: &str, value: &str) -> Result<Selector, Never>,
}

const ATTESTORS: &[Attestor] = &[
    Attestor {
        kind: unix::KIND,
        names: unix::NAMES,
        read: |name, value| Unix::parse(name, value).map(Selector::Unix),
    },
    Attestor {
        kind: systemd::KIND,
        names: systemd::NAMES,
        read: |name, value| Systemd::parse(name, value).map(Selector::Systemd),
    },
    Attestor {
        kind: docker::KIND,
        names: docker::NAMES,
        read: |name, value| Docker::parse(name, value).map(Selector::Docker),
    },
    Attestor {
        kind: k8s::KIND,
        names: k8s::NAMES,
        read: |name, value| K8s::parse(name, value).map(Selector::K8s),
    },
    Attestor {
        kind: tpm::KIND,
        names: tpm::NAMES,
        read: |name, value| Tpm::parse(name, value).map(Selector::Tpm),
    },
    Attestor {
        kind: ima::KIND,
        names: ima::NAMES,
        read: |name, value| Ima::parse(name, value).map(Selector::Ima),
    },
    Attestor {
        kind: node::SPIFFE_ID,
        names: node::SPIFFE_ID_NAMES,
        read: |_, value| Node::spiffe_id(value).map(Selector::Node),
    },
    Attestor {
        kind: node::X509POP,
        names: node::X509POP_NAMES,
        read: |name, value| X509Pop::parse(name, value).map(Node::X509Pop).map(Selector::Node),
    },
];

/// Paths may have 4096 bytes, and nobody names a program by one of these.
const VALUE_BYTES_MAX: usize = 1024;
/// Of what is refused.
const SHOWN_CHARACTERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_match_reads_back_as_it_was_written() {
        let hash = format!("unix:sha256:{}", "ab".repeat(32));
        for good in [
            "unix:uid:0",
            "unix:gid:1000",
            "unix:user:web",
            "unix:group:www-data",
            "unix:supplementary_gid:7",
            "unix:path:/usr/bin/web:1",
            &hash,
            "systemd:id:web@1.service",
            "docker:label:com.example.role:a:b",
            "docker:env:PATH=/bin:/usr/bin",
            "docker:env:EMPTY=",
            "k8s:ns:default",
            "k8s:sa:web",
            "k8s:container-name:web",
            "k8s:container-image:registry.example/web@sha256:00",
            "k8s:node-name:ip-10-0-0-1.example",
            "k8s:pod-label:app.kubernetes.io/name:web",
            "k8s:pod-owner:ReplicaSet:web-7f9c",
            "k8s:pod-owner-uid:ReplicaSet:2c48913c-b29f-11e7-9350-020968147796",
            "k8s:pod-uid:2c48913c-b29f-11e7-9350-020968147796",
            "k8s:pod-name:web-0",
            "k8s:pod-image:web:1",
            "k8s:pod-image-count:2",
            "k8s:pod-init-image:init:1",
            "k8s:pod-init-image-count:0",
            "docker:image_id:registry.example:5000/web:1.2",
            &hash.replace("unix:", "docker:image_config_digest:"),
            &hash.replace("unix", "ima"),
            &hash.replace("unix:sha256", "tpm:pub_hash"),
            &hash.replace("unix:sha256", "tpm:pcr:7"),
            &format!("tpm:pcr:0:{}", "0a".repeat(48)),
            "spiffe_id:spiffe://td/spire/agent/join_token/1",
            "x509pop:subject:cn:edge 1",
            &format!("x509pop:ca:fingerprint:{}", "0a".repeat(20)),
            "x509pop:serialnumber:0a",
            "x509pop:san:site:north/3",
        ] {
            assert_eq!(good.parse::<Selector>().unwrap().to_string(), good);
        }
        for (one, other) in [("unix:uid:7", "unix:uid:007"), (&hash, &hash.replace("ab", "AB"))] {
            assert_eq!(one.parse::<Selector>(), other.parse(), "the same, whoever wrote it");
        }
    }

    #[test]
    fn what_never_matches_is_refused_with_the_nearest_that_may() {
        let hex = "ab".repeat(32);
        let with_algorithm = format!("unix:sha256:sha256:{hex}");
        let bare = format!("unix:sha256:{hex}");
        let long = format!("unix:path:/{}", "a".repeat(VALUE_BYTES_MAX));
        for (text, nearest) in [
            ("unix:usr:web", Some("unix:user:web")),
            ("unix:UID:7", Some("unix:uid:7")),
            ("unix:supplementary-gid:7", Some("unix:supplementary_gid:7")),
            ("unix:uid:abc", Some("unix:user:abc")),
            ("unix:gid:www-data", Some("unix:group:www-data")),
            ("unix:uid:-1", None),
            ("unix:uid:4294967296", None),
            ("unix:uid:4294967295", None),
            ("unix:uid", Some("unix:uid:…")),
            ("unix:path:web", Some("unix:path:/usr/bin/web")),
            ("unix:path:usr/bin/web", None),
            ("unix:path:/usr/bin/", None),
            ("unix:path:/usr/bin\n", None),
            (&long, None),
            (&with_algorithm, Some(bare.as_str())),
            ("unix:sha256:ab", None),
            ("unix:user:", None),
            ("unix:cgroup_and_more:7", None),
            ("unix", None),
            (
                &with_algorithm.replace("unix:sha256", "tpm:pcr:7"),
                Some(&bare.replace("unix:sha256", "tpm:pcr:7")),
            ),
            (&with_algorithm.replace("unix", "ima"), Some(&bare.replace("unix", "ima"))),
            (&bare.replace("unix:sha256", "tpm:pcr:24"), None),
            (&bare.replace("unix:sha256", "tpm:pcr"), None),
            (&format!("tpm:pcr:7:{}", "ab".repeat(20)), None),
            ("systemd:id:web", Some("systemd:id:web.service")),
            ("systemd:id:web.target", None),
            ("systemd:id:web@.service", Some("systemd:id:web@INSTANCE.service")),
            ("systemd:id:web service", None),
            ("systemd:unit:web.service", None),
            ("docker:label:role=web", Some("docker:label:role:web")),
            ("docker:label:role", None),
            ("docker:env:ROLE:web", Some("docker:env:ROLE=web")),
            ("docker:env:=web", None),
            ("docker:image_id:", None),
            ("dokcer:image_id:web", Some("docker:image_id:web")),
            (
                &bare.replace("unix:sha256", "docker:image_config_digest"),
                Some(&bare.replace("unix:", "docker:image_config_digest:")),
            ),
            ("tpm:pcr:7", Some("tpm:pcr:7:…")),
            ("tpm:pubhash:ab", Some("tpm:pub_hash:ab")),
            ("tmp:pcr:7:ab", Some("tpm:pcr:7:ab")),
            ("Unix:uid:7", Some("unix:uid:7")),
            ("colour:blue", None),
            ("spiffe_id:td/web", None),
            ("spiffe_id:spiffe://td/a/../b", None),
            ("x509pop:subject:o:edge", None),
            ("x509pop:serialnumber:0A", None),
            ("x509pop:san:site", None),
            ("", None),
        ] {
            let refused = text.parse::<Selector>().unwrap_err();
            assert_eq!(refused.nearest.as_deref(), nearest, "{text}: {refused}");
        }
        let said = "unix:usr:web".parse::<Selector>().unwrap_err().to_string();
        assert_eq!(
            said,
            "\"unix:usr:web\" can never match, because there is no selector of that name; did you mean \"unix:user:web\"?"
        );
    }

    #[test]
    fn json_has_spires_form() {
        let json = r#"{"type":"unix","value":"uid:7"}"#;
        let selector: Selector = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&selector).unwrap(), json);
        let refused = serde_json::from_str::<Selector>(r#"{"type":"unix","value":"usr:7"}"#).unwrap_err();
        assert!(refused.to_string().contains("unix:user:7"), "{refused}");
    }
}
