//! Attestation results for others: load, decide what can be said, sign.

use assay_evidence::time::UnixTime;
use assay_identity::{SpiffeId, TrustDomain};
use assay_trust::Tier;
use assay_trust::ear::{Ear, EarError, NoResult, Nonce, RecordedResult};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::device::Device;
use crate::keys::{KeysError, ResultKey};
use crate::outcome::{Kind, Outcome};
use crate::store::{AppraisalRecord, Store, StoreError};

/// The signed result of a device, as of now.
pub(crate) async fn sign(
    store: &Store,
    (trust_domain, key): (&TrustDomain, &ResultKey),
    device: &Device,
    nonce: Option<Nonce>,
    now: UnixTime,
) -> Result<String, EarFailure> {
    let (_, last) = store.last_appraisal(device.id.as_str()).await?.ok_or(NoResult::NotAppraised)?;
    let ear = Ear::of(&device.state, recorded(last)?, &SpiffeId::server(trust_domain), nonce, now)?;
    Ok(key.sign(&ear)?)
}

fn recorded(last: AppraisalRecord) -> Result<RecordedResult, EarFailure> {
    // Results of a server that did not record the vector yet: the next attestation records it.
    if last.vector.is_empty() {
        return Err(EarFailure::NoVector);
    }
    Ok(RecordedResult {
        tier: read::<Tier>(&format!("\"{}\"", last.tier), "appraisals.tier")?,
        vector: read(&last.vector, "appraisals.vector")?,
        policy: Some(last.policy).filter(|policy| !policy.is_empty()),
        findings: read(&last.findings, "appraisals.findings")?,
    })
}

fn read<T: DeserializeOwned>(json: &str, column: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|_| StoreError::Corrupt { column })
}

/// Why there is no token.
#[derive(Debug, Error)]
pub(crate) enum EarFailure {
    /// There is nothing to say.
    #[error(transparent)]
    NoResult(#[from] NoResult),
    /// The last result is of an older server.
    #[error("the last result was recorded by an older server; the device's next attestation replaces it")]
    NoVector,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for EarError {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Malformed, "nonce")
    }
}

impl Outcome for EarFailure {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            EarFailure::NoResult(reason) => (Kind::NotFound, reason.code()),
            EarFailure::NoVector => (Kind::NotFound, "no-vector"),
            EarFailure::Store(error) => error.told(),
            EarFailure::Keys(error) => error.told(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(vector: &str, findings: &str) -> AppraisalRecord {
        AppraisalRecord {
            at: UnixTime(1),
            tier: "warning".to_owned(),
            policy: String::new(),
            findings: findings.to_owned(),
            vector: vector.to_owned(),
        }
    }

    #[test]
    fn a_record_is_read_back_or_the_reason_is_said() {
        let result = recorded(record(r#"{"hardware":32}"#, "[]")).unwrap();
        assert_eq!((result.tier, result.vector.hardware.value()), (Tier::Warning, 32));
        assert_eq!((result.policy, result.findings), (None, Vec::new()));
        assert!(matches!(recorded(record("", "[]")), Err(EarFailure::NoVector)));
        for (vector, findings, place) in
            [("[", "[]", "appraisals.vector"), ("{}", "{}", "appraisals.findings")]
        {
            let Err(EarFailure::Store(StoreError::Corrupt { column })) = recorded(record(vector, findings))
            else {
                panic!("{place}")
            };
            assert_eq!(column, place);
        }
    }
}
