//! The state of the world: each answer has everything that was asked for.

use assay_wire::envoy::{DiscoveryRequest, DiscoveryResponse, Secret};
use tonic::Status;

use super::secret::{Named, Secrets, TYPE_URL, resource};
use super::{Conversation, check_names, check_type, log_refusal};

/// What was asked for, and said last.
#[derive(Debug, Default)]
pub(super) struct Whole {
    names: Vec<String>,
    /// Counts answers; an answer's version, and its nonce.
    answers: u64,
    said: Option<Vec<Secret>>,
}

impl Conversation for Whole {
    type Ask = DiscoveryRequest;
    type Say = DiscoveryResponse;

    fn heed(&mut self, ask: DiscoveryRequest) -> Result<bool, Status> {
        check_type(&ask.type_url)?;
        check_names(ask.resource_names.iter())?;
        let is_first = self.answers == 0;
        // xDS: a request with an earlier nonce was made before the last answer came, and another is on its way.
        if !is_first && ask.response_nonce != self.nonce() {
            return Ok(false);
        }
        log_refusal(ask.error_detail.as_ref());
        let is_other = ask.resource_names != self.names;
        if is_other {
            self.names = ask.resource_names;
            self.said = None;
        }
        Ok(is_first || is_other)
    }

    fn say(&mut self, secrets: &Secrets<'_>) -> Result<Option<DiscoveryResponse>, Status> {
        let names = match self.names.as_slice() {
            [] => secrets.names(),
            names => names.to_vec(),
        };
        let mut found = Vec::new();
        for name in &names {
            match secrets.named(name) {
                Named::Is(secret) => found.push(secret),
                Named::NotYet => {}
                Named::Nothing => {
                    let name: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
                    return Err(Status::invalid_argument(format!("the caller has no secret {name:?}")));
                }
            }
        }
        if found.is_empty() || self.said.as_ref() == Some(&found) {
            return Ok(None);
        }
        self.answers += 1;
        let answer = DiscoveryResponse {
            version_info: self.answers.to_string(),
            resources: found.iter().map(resource).collect(),
            type_url: TYPE_URL.to_owned(),
            nonce: self.nonce(),
        };
        self.said = Some(found);
        Ok(Some(answer))
    }
}

impl Whole {
    fn nonce(&self) -> String {
        format!("{:08x}", self.answers)
    }
}

/// Of what there is not.
const NAME_CHARACTERS_MAX: usize = 256;
