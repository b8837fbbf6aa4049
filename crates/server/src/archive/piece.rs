//! A piece of evidence with everything that is needed to judge it again, and how: the same pure calls as the first
//! time.
//!
//! Evidence is often judged with what was known of the boot. That is made anew from evidence of the same boot that
//! says it, so that nothing is believed of the database but what replays to a quote.

use std::sync::Arc;

use assay_evidence::request::Evidence;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::{Baseline, Claims, ImaLog};
use assay_trust::condition::{Conditions, Searched};
use assay_trust::{AttestationResult, CompiledPolicy};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::form::{KeptQuote, read_identity, read_quote};
use crate::attest::judge::{Job, Judged};
use crate::in_force::boot_logs::BootLogs;
use crate::in_force::endorsers::Endorsing;

/// Evidence as it was judged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// When.
    pub at: UnixTime,
    /// TPM2B_PUBLIC of the AK.
    #[serde(with = "base64")]
    pub ak_public: Bytes,
    /// What the device showed of its EK and identity, in the form it is kept in.
    #[serde(with = "base64")]
    pub endorsement: Bytes,
    /// Who was trusted to vouch for that, and what they had revoked: the files, as the server keeps them.
    #[serde(with = "base64")]
    pub anchors: Bytes,
    /// The nonce that it answers.
    #[serde(with = "base64")]
    pub nonce: Bytes,
    /// Message, signature and PCR values, in the form they are kept in.
    #[serde(with = "base64")]
    pub quote: Bytes,
    /// The counters expected then.
    pub last_counters: Option<BootCounters>,
    /// The boot log that was judged or known; empty: there was none.
    #[serde(with = "base64")]
    pub boot_log: Bytes,
    /// Whether it was judged with the rest, and not known.
    pub boot_log_judged: bool,
    /// IMA entries that were known to be good; `None`: nothing was known of the boot.
    pub known_entries: Option<u64>,
    /// The first entry of the list that was judged.
    pub ima_from: u64,
    /// The first entry of `ima_list`: zero, or `ima_from`.
    pub ima_list_from: u64,
    /// The IMA list.
    #[serde(with = "base64")]
    pub ima_list: Bytes,
    /// Whether it is in the ASCII form.
    pub ima_ascii: bool,
}

impl Piece {
    /// Judges it with what was known then, which `basis` says or it itself: to the same result under the same policy.
    pub(crate) fn judge(
        &self,
        basis: Option<&Piece>,
        policy: Option<Arc<CompiledPolicy>>,
        endorsement: Option<Arc<Endorsement>>,
    ) -> Result<AttestationResult, PieceError> {
        let boot_logs = Arc::default();
        let baseline = self.baseline(basis, &boot_logs)?;
        Ok(self.job(baseline, policy, endorsement, &boot_logs)?.judge().result)
    }

    /// Judges it as if nothing had been known, which another policy than the first needs. Evidence that is
    /// not whole does not verify then.
    pub(crate) fn judge_whole(
        &self,
        policy: Option<Arc<CompiledPolicy>>,
        endorsement: Option<Arc<Endorsement>>,
        boot_logs: &Arc<BootLogs>,
    ) -> Result<Judged, PieceError> {
        Ok(self.whole().job(None, policy, endorsement, boot_logs)?.judge())
    }

    /// What it claims of the whole boot, if it verifies.
    pub(crate) fn claims(&self, boot_logs: &Arc<BootLogs>) -> Result<Option<Claims>, PieceError> {
        Ok(self.whole().job(None, None, None, boot_logs)?.verify().claims)
    }

    /// The EK and who vouched for it, verified again with the anchors and revocation lists of then.
    pub fn endorsement(&self) -> Option<Endorsement> {
        self.endorsement_by(&Endorsing::of_kept(&self.anchors)?)
    }

    /// The same, by whoever [`Piece::anchors`] are.
    pub(crate) fn endorsement_by(&self, endorsing: &Endorsing) -> Option<Endorsement> {
        let shown = read_identity(&self.endorsement)?;
        endorsing.endorsement(&shown, self.at).ok()
    }

    fn baseline(
        &self,
        basis: Option<&Piece>,
        boot_logs: &Arc<BootLogs>,
    ) -> Result<Option<Baseline>, PieceError> {
        let Some(known) = self.known_entries else { return Ok(None) };
        let claims = basis.unwrap_or(self).claims(boot_logs)?.ok_or(PieceError::Basis)?;
        Ok(Some(claims.baseline(known)))
    }

    /// The same evidence, with the list from its first entry and the boot log to be judged.
    fn whole(&self) -> Piece {
        Piece { ima_from: self.ima_list_from, boot_log_judged: true, ..self.clone() }
    }

    fn job(
        &self,
        baseline: Option<Baseline>,
        policy: Option<Arc<CompiledPolicy>>,
        endorsement: Option<Arc<Endorsement>>,
        boot_logs: &Arc<BootLogs>,
    ) -> Result<Job, PieceError> {
        let KeptQuote { quote, measure_log, banks } = read_quote(&self.quote).ok_or(PieceError::Quote)?;
        let boot_log = Some(self.boot_log.clone()).filter(|log| self.boot_log_judged && !log.is_empty());
        Ok(Job {
            ak_public: self.ak_public.clone(),
            evidence: Evidence {
                nonce: self.nonce.clone(),
                quote,
                boot_log,
                measure_log,
                ima_log: self.judged_list()?,
                ima_from_entry: self.ima_from,
                ima_ascii: self.ima_ascii,
                banks,
            },
            // What was kept before banks were asked for has none.
            banks_wanted: false,
            nonce: self.nonce.as_ref().try_into().map_err(|_| PieceError::Quote)?,
            baseline,
            last_counters: self.last_counters,
            policy,
            boot_logs: boot_logs.clone(),
            endorsement,
            // What entries ask is no part of a result.
            conditions: Conditions::new(),
            searched: Searched::default(),
            now: self.at,
        })
    }

    /// The list from the entry it was judged from.
    fn judged_list(&self) -> Result<Bytes, PieceError> {
        let list = match self.ima_ascii {
            true => ImaLog::Ascii(&self.ima_list),
            false => ImaLog::Binary(&self.ima_list),
        };
        let before = self.ima_from.checked_sub(self.ima_list_from).ok_or(PieceError::List)?;
        let offset = list.offset(before).ok_or(PieceError::List)?;
        Ok(self.ima_list.slice(offset.min(self.ima_list.len())..))
    }
}

/// Why a piece of evidence cannot be judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PieceError {
    /// The quote is not what the server writes.
    #[error("its quote cannot be read")]
    Quote,
    /// The list has fewer entries than were known.
    #[error("its IMA list is shorter than what was known of it")]
    List,
    /// What was known of the boot cannot be made again.
    #[error("the evidence that says what was known of the boot does not verify")]
    Basis,
}

/// Bytes as base64 text.
mod base64 {
    use bytes::Bytes;
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Bytes::from).map_err(de::Error::custom)
    }
}
