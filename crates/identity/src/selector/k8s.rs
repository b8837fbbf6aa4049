//! `k8s`: the pod and the container of it that a process is in, as the node's kubelet tells.
//!
//! Names and labels of pods are what whoever may make them in the cluster said. A namespace and its service accounts are what a cluster
//! separates by.

use std::fmt;

use super::Never;

/// The attestor's name.
pub const KIND: &str = "k8s";

/// One thing that holds of a pod, or of the process's container in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum K8s {
    /// The namespace.
    Namespace(String),
    /// The service account.
    ServiceAccount(String),
    /// The container's name in its pod.
    ContainerName(String),
    /// The container's image: as the pod names it, or as the node resolved it.
    ContainerImage(String),
    /// The node.
    NodeName(String),
    /// A label of the pod.
    PodLabel {
        /// Its key.
        key: String,
        /// Its value; may be empty.
        value: String,
    },
    /// What made the pod.
    PodOwner {
        /// Such as `ReplicaSet`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The same by its number.
    PodOwnerUid {
        /// Such as `ReplicaSet`.
        kind: String,
        /// Its number.
        uid: String,
    },
    /// The pod's number, which no other pod ever has.
    PodUid(String),
    /// The pod's name.
    PodName(String),
    /// The image of any of its containers.
    PodImage(String),
    /// How many containers it has.
    PodImageCount(u32),
    /// The image of any container that runs before those.
    PodInitImage(String),
    /// How many of these it has.
    PodInitImageCount(u32),
}

pub(super) const NAMES: &[&str] = &[
    "ns",
    "sa",
    "container-name",
    "container-image",
    "node-name",
    "pod-label",
    "pod-owner",
    "pod-owner-uid",
    "pod-uid",
    "pod-name",
    "pod-image",
    "pod-image-count",
    "pod-init-image",
    "pod-init-image-count",
];

impl K8s {
    /// Reads one of [`NAMES`] with its value.
    pub(super) fn parse(name: &str, value: &str) -> Result<K8s, Never> {
        match name {
            "ns" => object_name(value).map(K8s::Namespace),
            "sa" => object_name(value).map(K8s::ServiceAccount),
            "container-name" => object_name(value).map(K8s::ContainerName),
            "container-image" => image(value).map(K8s::ContainerImage),
            "node-name" => object_name(value).map(K8s::NodeName),
            "pod-label" => {
                let near = || value.split_once('=').map(|(key, value)| format!("pod-label:{key}:{value}"));
                let (key, value) = split(value)
                    .ok_or_else(|| Never::near("a label is written pod-label:KEY:VALUE", near()))?;
                Ok(K8s::PodLabel { key, value })
            }
            "pod-owner" => {
                let (kind, name) = owner(value)?;
                Ok(K8s::PodOwner { kind, name: object_name(&name)? })
            }
            "pod-owner-uid" => {
                let (kind, uid) = owner(value)?;
                Ok(K8s::PodOwnerUid { kind, uid: number(&uid)? })
            }
            "pod-uid" => number(value).map(K8s::PodUid),
            "pod-name" => object_name(value).map(K8s::PodName),
            "pod-image" => image(value).map(K8s::PodImage),
            "pod-image-count" => count(value).map(K8s::PodImageCount),
            "pod-init-image" => image(value).map(K8s::PodInitImage),
            "pod-init-image-count" => count(value).map(K8s::PodInitImageCount),
            _ => Err(Never::new("there is no selector of that name")),
        }
    }

    /// Whether a pod, or a container, has one of these and no more.
    pub(super) fn is_one_of(&self, other: &K8s) -> bool {
        match (self, other) {
            (K8s::PodLabel { key: a, .. }, K8s::PodLabel { key: b, .. }) => a == b,
            (
                K8s::PodOwner { .. }
                | K8s::PodOwnerUid { .. }
                | K8s::PodImage(_)
                | K8s::PodInitImage(_)
                | K8s::ContainerImage(_),
                _,
            ) => false,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for K8s {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            K8s::Namespace(name) => write!(f, "ns:{name}"),
            K8s::ServiceAccount(name) => write!(f, "sa:{name}"),
            K8s::ContainerName(name) => write!(f, "container-name:{name}"),
            K8s::ContainerImage(image) => write!(f, "container-image:{image}"),
            K8s::NodeName(name) => write!(f, "node-name:{name}"),
            K8s::PodLabel { key, value } => write!(f, "pod-label:{key}:{value}"),
            K8s::PodOwner { kind, name } => write!(f, "pod-owner:{kind}:{name}"),
            K8s::PodOwnerUid { kind, uid } => write!(f, "pod-owner-uid:{kind}:{uid}"),
            K8s::PodUid(uid) => write!(f, "pod-uid:{uid}"),
            K8s::PodName(name) => write!(f, "pod-name:{name}"),
            K8s::PodImage(image) => write!(f, "pod-image:{image}"),
            K8s::PodImageCount(count) => write!(f, "pod-image-count:{count}"),
            K8s::PodInitImage(image) => write!(f, "pod-init-image:{image}"),
            K8s::PodInitImageCount(count) => write!(f, "pod-init-image-count:{count}"),
        }
    }
}

fn split(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once(':').filter(|(key, _)| !key.is_empty())?;
    Some((key.to_owned(), value.to_owned()))
}

/// A kind and what stands behind it.
fn owner(text: &str) -> Result<(String, String), Never> {
    let is_kind = |kind: &str| kind.chars().all(|c| c.is_ascii_alphanumeric());
    let owner = split(text).filter(|(kind, _)| is_kind(kind));
    owner.ok_or(Never::new("an owner is written KIND:NAME, as ReplicaSet:web"))
}

/// Names of Kubernetes' objects are DNS names (RFC 1123) in lower case.
fn object_name(text: &str) -> Result<String, Never> {
    let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_name = text.len() <= NAME_BYTES_MAX
        && text.chars().all(is_legal)
        && is_end(text.chars().next())
        && is_end(text.chars().last());
    match is_name {
        true => Ok(text.to_owned()),
        false => Err(Never::new("its value is no name of an object of Kubernetes, in lower case")),
    }
}

fn image(text: &str) -> Result<String, Never> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err(Never::new("its value is no name of an image")),
        false => Ok(text.to_owned()),
    }
}

/// Numbers of objects: as the kubelet writes them, mostly UUIDs; those of pods from a file are 32 hex digits.
fn number(text: &str) -> Result<String, Never> {
    let is_number =
        (32..=36).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    match is_number && !text.contains(|c: char| c.is_ascii_uppercase()) {
        true => Ok(text.to_owned()),
        false => Err(Never::new("its value is no uid, as 2c48913c-b29f-11e7-9350-020968147796")),
    }
}

fn count(text: &str) -> Result<u32, Never> {
    let count = text.parse().ok().filter(|count: &u32| count.to_string() == text);
    count.ok_or(Never::new("its value is no number"))
}

/// RFC 1123.
const NAME_BYTES_MAX: usize = 253;
