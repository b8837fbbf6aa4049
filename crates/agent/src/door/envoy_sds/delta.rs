//! Changes alone: each answer has what became another or went since the one before.

use std::collections::{BTreeMap, BTreeSet};

use assay_wire::envoy::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use tonic::Status;

use super::secret::{Named, Secrets, TYPE_URL, resource, version};
use super::{Conversation, check_names, check_type, log_refusal};

/// What was asked for, and which version of it the proxy has.
#[derive(Debug, Default)]
pub(super) struct Changes {
    names: BTreeSet<String>,
    /// Everything there is was asked for.
    all: bool,
    /// By name; an empty version: it knows that there is none.
    known: BTreeMap<String, String>,
    requests: u64,
    answers: u64,
}

impl Conversation for Changes {
    type Ask = DeltaDiscoveryRequest;
    type Say = DeltaDiscoveryResponse;

    fn heed(&mut self, ask: DeltaDiscoveryRequest) -> Result<bool, Status> {
        check_type(&ask.type_url)?;
        log_refusal(ask.error_detail.as_ref());
        let is_first = self.requests == 0;
        self.requests += 1;
        if is_first {
            check_names(ask.initial_resource_versions.iter())?;
            self.known.extend(ask.initial_resource_versions);
            // xDS: a first request without names asks for everything.
            self.all = ask.resource_names_subscribe.is_empty();
        }
        let wants = is_first || !ask.resource_names_subscribe.is_empty();
        for name in ask.resource_names_unsubscribe {
            self.all &= name != EVERYTHING;
            self.names.remove(&name);
            self.known.remove(&name);
        }
        for name in ask.resource_names_subscribe {
            if name == EVERYTHING {
                self.all = true;
                continue;
            }
            // xDS: what is asked for again is said again, unless the proxy says that it has it.
            if !is_first {
                self.known.remove(&name);
            }
            self.names.insert(name);
        }
        check_names(self.names.iter())?;
        Ok(wants)
    }

    fn say(&mut self, secrets: &Secrets<'_>) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let mut names = self.names.clone();
        if self.all {
            names.extend(secrets.names());
            names.extend(self.known.keys().cloned());
        }
        let (mut resources, mut removed_resources) = (Vec::new(), Vec::new());
        for name in names {
            let (version, secret) = match secrets.named(&name) {
                Named::Is(secret) => (version(&secret), Some(secret)),
                Named::NotYet => continue,
                Named::Nothing => (String::new(), None),
            };
            if self.known.get(&name) == Some(&version) {
                continue;
            }
            match secret {
                Some(secret) => resources.push(Resource {
                    name: name.clone(),
                    version: version.clone(),
                    resource: Some(resource(&secret)),
                }),
                None => removed_resources.push(name.clone()),
            }
            self.known.insert(name, version);
        }
        if resources.is_empty() && removed_resources.is_empty() {
            return Ok(None);
        }
        self.answers += 1;
        Ok(Some(DeltaDiscoveryResponse {
            system_version_info: self.answers.to_string(),
            resources,
            type_url: TYPE_URL.to_owned(),
            nonce: format!("{:08x}", self.answers),
            removed_resources,
        }))
    }
}

/// xDS's name for all there is.
const EVERYTHING: &str = "*";
