//! Pods as a kubelet lists them, and what holds of a container in one.

use std::collections::HashMap;

use assay_identity::selector::k8s::K8s;
use serde::Deserialize;

/// Pods by their numbers.
pub(super) type ByUid = HashMap<String, Pod>;

/// A container in its pod.
#[derive(Debug)]
pub(crate) struct InPod {
    pub(super) pod: Pod,
    pub(super) own: Status,
}

impl InPod {
    /// Whether this holds of them.
    pub(crate) fn has(&self, wanted: &K8s) -> bool {
        let InPod { pod: Pod { metadata, spec, status }, own } = self;
        let has_image = |all: &[Status], image: &String| all.iter().any(|one| one.is_of_image(image));
        let counts = |all: &[Status], count: u32| u32::try_from(all.len()) == Ok(count);
        match wanted {
            K8s::Namespace(name) => metadata.namespace == *name,
            K8s::ServiceAccount(name) => spec.service_account_name == *name,
            K8s::ContainerName(name) => own.name == *name,
            K8s::ContainerImage(image) => own.is_of_image(image),
            K8s::NodeName(name) => spec.node_name == *name,
            K8s::PodLabel { key, value } => metadata.labels.get(key) == Some(value),
            K8s::PodOwner { kind, name } => {
                metadata.owner_references.iter().any(|owner| owner.kind == *kind && owner.name == *name)
            }
            K8s::PodOwnerUid { kind, uid } => {
                metadata.owner_references.iter().any(|owner| owner.kind == *kind && owner.uid == *uid)
            }
            K8s::PodUid(uid) => metadata.uid == *uid,
            K8s::PodName(name) => metadata.name == *name,
            K8s::PodImage(image) => has_image(&status.container_statuses, image),
            K8s::PodImageCount(count) => counts(&status.container_statuses, *count),
            K8s::PodInitImage(image) => has_image(&status.init_container_statuses, image),
            K8s::PodInitImageCount(count) => counts(&status.init_container_statuses, *count),
        }
    }
}

/// Reads the kubelet's list; of a number that two pods have, neither is known.
pub(super) fn parse(json: &[u8]) -> Result<ByUid, serde_json::Error> {
    let List { items } = serde_json::from_slice(json)?;
    let mut pods = HashMap::with_capacity(items.len());
    let mut twice = Vec::new();
    for pod in items {
        let uid = pod.metadata.uid.clone();
        if pods.insert(uid.clone(), pod).is_some() {
            twice.push(uid);
        }
    }
    twice.iter().for_each(|uid| drop(pods.remove(uid)));
    Ok(pods)
}

/// Of Kubernetes' PodList, the part that tells pods apart.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Statuses,
}

impl Pod {
    /// One of its containers, by the number that its engine gave it.
    pub(super) fn container(&self, id: &str) -> Option<&Status> {
        let Statuses { container_statuses, init_container_statuses, ephemeral_container_statuses } =
            &self.status;
        let all =
            container_statuses.iter().chain(init_container_statuses).chain(ephemeral_container_statuses);
        all.into_iter()
            .find(|status| status.container_id.split_once("://").is_some_and(|(_, found)| found == id))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Debug, Deserialize)]
struct OwnerReference {
    kind: String,
    name: String,
    uid: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    service_account_name: String,
    #[serde(default)]
    node_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Statuses {
    container_statuses: Vec<Status>,
    init_container_statuses: Vec<Status>,
    ephemeral_container_statuses: Vec<Status>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    name: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    #[serde(rename = "containerID")]
    container_id: String,
}

impl Status {
    fn is_of_image(&self, image: &str) -> bool {
        self.image == image || self.image_id == image
    }
}
