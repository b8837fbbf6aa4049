//! What Keylime's runtime policies come in: answers of its verifier, signed envelopes, pairs of allowlist and excludes.

use data_encoding::{BASE64, BASE64URL};
use serde_json::{Map, Value};

use super::{Import, ImportError, is_empty, object};
use crate::policy::Field;

impl Import {
    /// The policy itself. Each wrapping is opened once, in the order in which tools put them on.
    pub(super) fn unwrapped(
        &mut self,
        policy: Map<String, Value>,
    ) -> Result<Map<String, Value>, ImportError> {
        let policy = self.answered(policy)?;
        let policy = self.signed(policy)?;
        Ok(self.paired(policy))
    }

    /// `keylime_tenant -c showruntimepolicy` prints the verifier's answer as it is, with the policy as text in it.
    fn answered(&mut self, answer: Map<String, Value>) -> Result<Map<String, Value>, ImportError> {
        let Some(results) = answer.get("results").filter(|_| answer.contains_key("code")) else {
            return Ok(answer);
        };
        let policy = match results.get("runtime_policy") {
            Some(Value::String(text)) => object(text).map_err(|_| ImportError::Answer)?,
            Some(Value::Object(policy)) => policy.clone(),
            _ => return Err(ImportError::Answer),
        };
        self.note(
            Field::of(["results"]),
            "this is an answer of Keylime's verifier, and the policy in it is taken",
        );
        match results.get("tpm_policy") {
            Some(Value::String(text)) if !text.is_empty() => self.tpm_policy(text)?,
            Some(policy @ Value::Object(_)) => self.tpm_policy(&policy.to_string())?,
            Some(other) if !is_empty(other) => {
                self.refuse(Field::of(["results", "tpm_policy"]), "not imported: it is no PCR policy");
            }
            _ => {}
        }
        Ok(policy)
    }

    /// A DSSE envelope.
    fn signed(&mut self, policy: Map<String, Value>) -> Result<Map<String, Value>, ImportError> {
        let Some(payload) = policy.get("payload").filter(|_| policy.contains_key("signatures")) else {
            return Ok(policy);
        };
        let bytes = payload.as_str().unwrap_or_default().as_bytes();
        let payload = BASE64.decode(bytes).or_else(|_| BASE64URL.decode(bytes)).ok();
        let payload = payload.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(ImportError::Envelope)?;
        self.warn(Field::of(["signatures"]), "the signature was not verified: verify it before you import");
        object(&payload).map_err(|_| ImportError::Envelope)
    }

    /// Before runtime policies, the verifier kept an allowlist and the excludes beside it.
    fn paired(&mut self, mut pair: Map<String, Value>) -> Map<String, Value> {
        let Some(Value::Object(mut policy)) = pair.remove("allowlist") else { return pair };
        self.note(
            Field::of(["allowlist"]),
            "this is an allowlist with its excludes beside it, as earlier versions kept them",
        );
        if let Some(excludes) = pair.remove("exclude") {
            policy.insert("excludes".to_owned(), excludes);
        }
        self.refuse_unknown(&pair, &[]);
        policy
    }
}
