//! Evidence that is kept: so that a device need not tell it twice, and so that any result can be judged again.
//!
//! `keeper.rs` is the attester's side of it. [`KeptResult`] is a result on record with all that it was made of; what
//! follows from that is pure, and the same in whatever process; `reading.rs` tells people what it says.

pub(crate) mod changes;
pub(crate) mod form;
pub(crate) mod keeper;
mod piece;
pub(crate) mod reading;

use std::sync::Arc;

use assay_evidence::boot_log::LOG_BYTES_MAX;
use assay_evidence::ima::LIST_BYTES_MAX;
use assay_evidence::verify::Claims;
use assay_trust::{AttestationResult, CompiledPolicy, Policy, PolicyError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

pub use piece::{Piece, PieceError};

use crate::fate::{findings_json, vector_json};
use crate::outcome::{Kind, Outcome};
use crate::store::{BlobHash, EvidenceColumns, EvidenceRecord, Store, StoreError};

/// A result on record, and everything to judge it again anywhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptResult {
    /// Its place in the audit trail.
    pub id: u64,
    /// Whose: a SPIFFE ID.
    pub device: String,
    /// none, affirming, warning, contraindicated.
    pub tier: String,
    /// Name and version of the policy; empty: there was none.
    pub policy: String,
    /// Its findings, the gravest first.
    pub findings: Value,
    /// Its trustworthiness vector.
    pub vector: Value,
    /// The policy, in TOML.
    pub policy_text: Option<String>,
    /// What was judged.
    pub evidence: Piece,
    /// What says what was known of the boot, where the evidence does not.
    pub basis: Option<Piece>,
}

impl KeptResult {
    /// Judges the evidence again.
    pub fn judge_again(&self) -> Result<AttestationResult, JudgeAgainError> {
        self.judge_by(self.policy()?)
    }

    /// The policy that judged it.
    fn policy(&self) -> Result<Option<Arc<CompiledPolicy>>, PolicyError> {
        let Some(text) = &self.policy_text else { return Ok(None) };
        Ok(Some(Arc::new(CompiledPolicy::new(Policy::from_toml(text)?)?)))
    }

    fn judge_by(&self, policy: Option<Arc<CompiledPolicy>>) -> Result<AttestationResult, JudgeAgainError> {
        let endorsement = self.evidence.endorsement().map(Arc::new);
        Ok(self.evidence.judge(self.basis.as_ref(), policy, endorsement)?)
    }

    /// What the evidence claims of the whole boot; `None` where it does not verify, or nobody vouches for its TPM.
    pub fn claims(&self) -> Result<Option<Claims>, PieceError> {
        match self.evidence.endorsement() {
            Some(_) => self.evidence.claims(&Arc::default()),
            None => Ok(None),
        }
    }

    /// Whether a result says what is on record.
    pub fn is_on_record(&self, result: &AttestationResult) -> bool {
        let value = |json: String| serde_json::from_str::<Value>(&json).ok();
        let policy = result.policy().map(|(name, version)| format!("{name} v{version}")).unwrap_or_default();
        self.tier == result.tier().name()
            && self.policy == policy
            && value(findings_json(result.findings())).as_ref() == Some(&self.findings)
            && value(vector_json(result.vector())).as_ref() == Some(&self.vector)
    }

    /// Loads a result and what it was made of.
    pub(crate) async fn load(store: &Store, id: u64) -> Result<KeptResult, KeptResultError> {
        let (device, appraisal) = store.appraisal(id).await?.ok_or(KeptResultError::Unknown)?;
        let record = store.evidence_of_result(id).await?.ok_or(KeptResultError::NotKept)?;
        let basis = match record.judged.basis {
            Some(basis) => Some(store.evidence(basis).await?.ok_or(KeptResultError::NotKept)?),
            None => None,
        };
        let json =
            |text: &str, column| serde_json::from_str(text).map_err(|_| StoreError::Corrupt { column });
        Ok(KeptResult {
            id,
            device,
            tier: appraisal.tier,
            policy: appraisal.policy,
            findings: json(&appraisal.findings, "appraisals.findings")?,
            vector: match appraisal.vector.as_str() {
                // Recorded before there was one.
                "" => Value::Null,
                vector => json(vector, "appraisals.vector")?,
            },
            policy_text: match record.judged.policy_revision {
                0 => None,
                revision => Some(store.policy(revision).await?.text.to_string()),
            },
            evidence: load(store, &record).await?,
            basis: match &basis {
                Some(basis) => Some(load(store, basis).await?),
                None => None,
            },
        })
    }
}

/// Loads a piece of evidence with its logs.
pub(crate) async fn load(store: &Store, record: &EvidenceRecord) -> Result<Piece, StoreError> {
    let EvidenceRecord { judged, told, .. } = record;
    let mut list = match judged.ima_shared {
        0 => Vec::new(),
        shared => store.ima_list(record.boot, shared).await?,
    };
    list.extend(blob(store, record.ima_rest.as_ref(), LIST_BYTES_MAX).await?);
    let endorsement = store.blob(&told.endorsement, CERTIFICATES_BYTES_MAX).await?.into();
    let anchors = store.blob(&told.anchors, CERTIFICATES_BYTES_MAX).await?.into();
    let boot_log = blob(store, record.boot_log.as_ref(), LOG_BYTES_MAX).await?.into();
    Ok(Piece::of(record, endorsement, anchors, boot_log, list.into()))
}

impl Piece {
    /// A record with its contents.
    pub(crate) fn of(
        record: &EvidenceRecord,
        endorsement: Bytes,
        anchors: Bytes,
        boot_log: Bytes,
        ima_list: Bytes,
    ) -> Piece {
        let EvidenceColumns { ima_from, ima_shared, .. } = record.judged;
        Piece {
            at: record.judged.at,
            ak_public: record.told.ak_public.clone().into(),
            endorsement,
            anchors,
            nonce: record.judged.nonce.clone().into(),
            quote: record.judged.quote.clone().into(),
            last_counters: record.judged.last_counters,
            boot_log,
            boot_log_judged: record.judged.boot_log_judged,
            known_entries: record.judged.known_entries,
            ima_from,
            ima_list_from: if ima_shared > 0 { 0 } else { ima_from },
            ima_list,
            ima_ascii: record.judged.ima_ascii,
        }
    }
}

async fn blob(store: &Store, hash: Option<&BlobHash>, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
    match hash {
        Some(hash) => store.blob(hash, bytes_max).await,
        None => Ok(Vec::new()),
    }
}

/// Why a result cannot be loaded with its evidence.
#[derive(Debug, Error)]
pub(crate) enum KeptResultError {
    /// There is no such result.
    #[error("there is no such result: assay device results DEVICE lists them")]
    Unknown,
    /// It went to make room, or grew too old.
    #[error("the result's evidence is no longer kept: see evidence_retention_seconds and evidence_bytes_max")]
    NotKept,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for KeptResultError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            KeptResultError::Unknown => (Kind::NotFound, "unknown-result"),
            KeptResultError::NotKept => (Kind::NotFound, "evidence-not-kept"),
            KeptResultError::Store(error) => error.told(),
        }
    }
}

/// Why a result could not be judged again.
#[derive(Debug, Error)]
pub enum JudgeAgainError {
    /// The evidence.
    #[error(transparent)]
    Piece(#[from] PieceError),
    /// The policy of then is none of this program.
    #[error("the policy it was judged under cannot be used")]
    Policy(#[from] PolicyError),
}

/// All the manufacturers there are have some megabytes of roots.
pub(crate) const CERTIFICATES_BYTES_MAX: usize = 16 << 20;
