//! Acceptance of telemetry by the JSON protocol: nonce, signature, trust state and place; then it is stored as every batch is.
//!
//! A nonce is used up before anything else is looked at, so that it is never tried twice. Whose a submission is says the key that the
//! nonce was drawn for, which an operator tied to a device; nothing that the body says of itself counts for it.

use std::sync::{Mutex, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_telemetry::json_protocol::{
    Acceptance, Nonces, Region, Signed, Submission, SubmissionError, Taken,
};
use assay_telemetry::{SequenceState, sha256};
use assay_trust::grant::Denied;
use assay_trust::grant::telemetry::{SubmissionRequest, TelemetryGrant, decide_submission};
use assay_trust::place::Fence;
use aws_lc_rs::rand;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use thiserror::Error;

use super::telemetry::{Answer, Collecting, read_position, refuse, write_position};
use crate::device::{Device, DeviceError};
use crate::outcome::{Kind, Outcome};
use crate::store::{AcceptTelemetry, Chain, StoreError, TelemetryKey};

/// What taking submissions in needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submitting<'a> {
    pub collecting: Collecting<'a>,
    pub nonces: &'a Mutex<Nonces>,
    pub leniency: Leniency,
    pub listed: Listed<'a>,
}

/// Where it is as lenient as the original.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leniency {
    pub unbound_nonce: bool,
    pub late_nonce: bool,
    pub unsigned_digest: bool,
    pub partial_region: bool,
}

/// The words that a region may be said in; an empty list is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'a> {
    pub regions: &'a [String],
    pub states: &'a [String],
    pub cities: &'a [String],
}

impl Listed<'_> {
    /// As the original has it, what is not said is not looked up, except where everything has to be said.
    fn has(&self, region: &Region, is_lenient: bool) -> bool {
        let has = |list: &[String], text: &String| list.is_empty() || list.contains(text);
        let says = |list, text: &String| has(list, text) || (text.is_empty() && is_lenient);
        has(self.regions, &region.region)
            && says(self.states, &region.state)
            && says(self.cities, &region.city)
    }

    fn demands_a_place(&self) -> bool {
        !(self.regions.is_empty() && self.states.is_empty() && self.cities.is_empty())
    }
}

/// Hands a nonce out, to whoever has the key of this hash.
pub(crate) async fn draw(
    submitting: Submitting<'_>,
    key_hash: Option<&str>,
    digits: usize,
    now: UnixTime,
) -> Result<(String, Option<TelemetryKey>), NoNonce> {
    let key = match key_hash {
        Some(hash) => {
            let key = submitting.collecting.store.telemetry_key(hash).await?;
            Some(key.ok_or(NoNonce::UnknownKey)?)
        }
        None if submitting.leniency.unbound_nonce => None,
        None => return Err(NoNonce::Whose),
    };
    let mut random = vec![0; digits / 2];
    rand::fill(&mut random).map_err(|_| NoNonce::Random)?;
    let mut nonces = submitting.nonces.lock().unwrap_or_else(PoisonError::into_inner);
    let drawn = nonces.draw(key.as_ref().map(|key| key.hash.as_str()), &random, now.0);
    Ok((drawn.nonce, key))
}

/// Takes a submission in, or says why not. A denial is an answer; what is broken or forged is an error.
pub(crate) async fn submit(
    submitting: Submitting<'_>,
    body: &Bytes,
    now: UnixTime,
) -> Result<Answer, NotSubmitted> {
    let submission = Submission::read(body)?;
    let nonce = submission.nonce().to_owned();
    let nonces = || submitting.nonces.lock().unwrap_or_else(PoisonError::into_inner);
    // Even where it is used up only by what is accepted, nobody else has it meanwhile.
    let taken = nonces().take(&nonce, now.0).ok_or(NotSubmitted::Nonce)?;
    let outcome = take_in(submitting, submission, (body, &taken), now).await;
    if submitting.leniency.late_nonce && !matches!(outcome, Ok(Answer::Accepted(_))) {
        nonces().give_back(&nonce, taken);
    }
    outcome
}

async fn take_in(
    submitting: Submitting<'_>,
    submission: Submission,
    (body, taken): (&Bytes, &Taken),
    now: UnixTime,
) -> Result<Answer, NotSubmitted> {
    let (signed, key) = verified(submitting, submission, taken).await?;
    let id = SpiffeId::parse(&key.device_id).map_err(|_| NotSubmitted::UnknownDevice)?;
    for _ in 0..ATTEMPTS_MAX {
        match attempt(submitting, (&signed, body), (&id, &key), now).await {
            Err(NotSubmitted::Store(StoreError::Conflict)) => {}
            outcome => return outcome,
        }
    }
    Err(StoreError::Conflict.into())
}

/// The submission with the key that signed it: the one that the nonce was drawn for.
async fn verified(
    submitting: Submitting<'_>,
    submission: Submission,
    taken: &Taken,
) -> Result<(Signed, TelemetryKey), NotSubmitted> {
    let store = submitting.collecting.store;
    // A later version names the key in the body as well, unsigned: it cannot say another than that.
    let named = submission.key_hash().map(str::to_owned);
    let keys = match (&taken.key, &named) {
        (Some(hash), Some(named)) if hash != named => return Err(NotSubmitted::Signature),
        (Some(hash), _) => store.telemetry_key(hash).await?.into_iter().collect(),
        (None, Some(named)) => store.telemetry_key(named).await?.into_iter().collect(),
        (None, None) => store.telemetry_keys(None, UNBOUND_KEYS_MAX).await?,
    };
    let labels_count = !submitting.leniency.unsigned_digest;
    for key in keys {
        if let Ok(signed) = submission.clone().signed_by(&key.spki, labels_count) {
            return Ok((signed, key));
        }
    }
    Err(NotSubmitted::Signature)
}

async fn attempt(
    submitting: Submitting<'_>,
    (signed, body): (&Signed, &Bytes),
    (id, key): (&SpiffeId, &TelemetryKey),
    now: UnixTime,
) -> Result<Answer, NotSubmitted> {
    let collecting = submitting.collecting;
    let Collecting { store, policies, device_bytes_max, destinations } = collecting;
    let device = Device::load(store, id).await?.ok_or(NotSubmitted::UnknownDevice)?;
    let stored = store.telemetry_position(id.as_str(), Chain::Json).await?;
    let from_revision = stored.as_ref().map_or(0, |stored| stored.revision);
    let last = stored.map(|stored| read_position(&stored.position)).transpose()?.unwrap_or_default();
    let sequence = last.sequence.saturating_add(1);
    let policy = policies.of(&device).compiled;
    let location = policy.as_ref().and_then(|policy| policy.location());
    let grant = match decided(submitting, &device, (signed, sequence, location), now) {
        Ok(grant) => grant,
        Err(denied) => return Ok(refuse(store, &device, (Chain::Json, sequence), denied, now).await?),
    };
    let acceptance = Acceptance {
        device_id: device.id.clone(),
        key_id: sha256(&key.spki),
        sequence,
        previous: last.statement_sha256,
        payload_sha256: sha256(body),
        algorithm: signed.algorithm(),
        items: signed.submission().metrics().numbers(),
        received_at: now.0,
    };
    let statement = acceptance.encode();
    let statement_sha256 = sha256(&statement);
    let detail = serde_json::json!({
        "sequence": sequence, "statement_sha256": HEXLOWER.encode(&statement_sha256), "place": grant.place(),
        "state_version": grant.state_version(), "protocol": "json", "key_hash": key.hash,
    });
    let accept = AcceptTelemetry {
        device_id: device.id.to_string(),
        chain: Chain::Json,
        state_version: grant.state_version(),
        from_revision,
        position: write_position(&SequenceState { sequence, statement_sha256, ..SequenceState::default() })?,
        continues: sequence > 1,
        received_at: now,
        sequence,
        items: acceptance.items,
        location: grant.place().unwrap_or_default().to_owned(),
        detail: detail.to_string(),
        statement,
        signature: signed.submission().signature().unwrap_or_default(),
        payload: body.to_vec(),
        device_bytes_max,
        destinations: destinations.clone(),
    };
    Ok(Answer::Accepted(store.commit(accept).await?))
}

/// By the device's state and policy, and by the words that the protocol's own lists have.
fn decided(
    Submitting { leniency, listed, .. }: Submitting<'_>,
    device: &Device,
    (signed, sequence, location): (&Signed, u64, Option<&Fence>),
    now: UnixTime,
) -> Result<TelemetryGrant, Denied> {
    let is_fenced = location.is_some() || listed.demands_a_place();
    let is_whole_place_demanded = is_fenced && !leniency.partial_region;
    let request = SubmissionRequest { signed, sequence, location, is_whole_place_demanded };
    let grant = decide_submission(&device.state, request, now)?;
    let region = signed.submission().region();
    if listed.has(&region, leniency.partial_region) { Ok(grant) } else { Err(elsewhere(&region)) }
}

fn elsewhere(Region { region, state, city }: &Region) -> Denied {
    let place = format!("{region:?} {state:?} {city:?}");
    Denied::LocationRefused { place, allowed: "json_protocol.allowed_…".to_owned() }
}

/// Why there is no nonce.
#[derive(Debug, Error)]
pub(crate) enum NoNonce {
    /// Who asks does not say whose it is to be.
    #[error("whose key is it for? public_key_hash says so")]
    Whose,
    /// No key of this hash signs for anybody.
    #[error("no key of this hash signs for a device: assay telemetry key add")]
    UnknownKey,
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a submission is not even denied.
#[derive(Debug, Error)]
pub(crate) enum NotSubmitted {
    /// It is none.
    #[error(transparent)]
    Submission(#[from] SubmissionError),
    /// Its nonce was not handed out, was used, or is too old.
    #[error("its nonce is not one that is out")]
    Nonce,
    /// The key did not sign it.
    #[error("the signature is not that of the key that the nonce was drawn for")]
    Signature,
    /// The key's device is not enrolled.
    #[error("the key's device is not enrolled")]
    UnknownDevice,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for NotSubmitted {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotSubmitted::Submission(_) => (Kind::Malformed, "submission"),
            NotSubmitted::Nonce => (Kind::OutOfTurn, "nonce"),
            NotSubmitted::Signature => (Kind::Unauthenticated, "submission-signature"),
            NotSubmitted::UnknownDevice => (Kind::NotFound, "not-enrolled"),
            NotSubmitted::Store(error) => error.told(),
        }
    }
}

impl From<DeviceError> for NotSubmitted {
    fn from(error: DeviceError) -> Self {
        NotSubmitted::Store(error.0)
    }
}

/// Submissions of one device that come in at once are taken one after the other.
const ATTEMPTS_MAX: usize = 16;
/// Keys that are tried where a nonce is for nobody in particular.
const UNBOUND_KEYS_MAX: u32 = 16;
