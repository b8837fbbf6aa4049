//! Acceptance of telemetry: from a trusted device, from an attested boot, from an allowed place.
//!
//! No evidence says where a device is. It states that itself, batch by batch, so that a policy's regions are a demand on each batch
//! and no part of appraisal. What meets it is the grant: [`decide`] alone makes one, and without a stated place, or with a list of
//! no region, which is no policy, there is none.

use assay_evidence::Check;
use assay_evidence::time::UnixTime;
use assay_telemetry::json_protocol::{Region, Signed};
use assay_telemetry::{BootEpoch, Location, Opened};

use super::{Denied, require_trust};
use crate::finding::{Finding, Tier};
use crate::region::{Place, RegionList};
use crate::state::TrustState;

/// A batch whose signature and payload verified, and where telemetry may come from.
#[derive(Clone, Copy, Debug)]
pub struct TelemetryRequest<'a> {
    /// The batch.
    pub batch: &'a Opened,
    /// The policy's regions; `None`: anywhere.
    pub location: Option<&'a RegionList>,
}

/// A submission by the JSON protocol whose signature verified, and where telemetry may come from.
#[derive(Clone, Copy, Debug)]
pub struct SubmissionRequest<'a> {
    /// The submission.
    pub signed: &'a Signed,
    /// The number that it gets in the chain that the server makes of them.
    pub sequence: u64,
    /// The policy's regions; `None`: anywhere.
    pub location: Option<&'a RegionList>,
    /// Whether country, state and city all have to be said, and each to lie in the one before it.
    pub is_whole_place_demanded: bool,
}

/// The right of one batch to be stored and forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryGrant {
    sequence: u64,
    place: Option<String>,
    state_version: u64,
}

impl TelemetryGrant {
    /// The batch's sequence number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the device says it is, if it says so.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// The version of the trust state that carried it.
    pub fn state_version(&self) -> u64 {
        self.state_version
    }
}

/// Decides whether a batch is accepted now.
pub fn decide(
    state: &TrustState,
    request: TelemetryRequest<'_>,
    now: UnixTime,
) -> Result<TelemetryGrant, Denied> {
    require_trust(state, now)?;
    if !state.basis().is_quote() {
        return Err(Denied::Unquoted { basis: state.basis() });
    }
    let statement = request.batch.statement();
    if statement.device_id != *state.device() {
        let (stated, device) = (statement.device_id.to_string(), state.device().to_string());
        return Err(Denied::WrongDevice { stated, device });
    }
    if state.device_key() != Some(data_encoding::HEXLOWER.encode(&statement.key_id).as_str()) {
        return Err(Denied::KeyNotBound);
    }
    require_attested_boot(state, statement.boot_epoch)?;
    let place = statement.location.as_ref().map(place);
    if let Some(allowed) = request.location
        && !place.as_ref().is_some_and(|place| allowed.allows(place))
    {
        let place = place
            .map_or_else(|| "a place that the device does not state".to_owned(), |place| place.to_string());
        return Err(Denied::LocationRefused { place, allowed: allowed.to_string() });
    }
    Ok(TelemetryGrant {
        sequence: statement.sequence,
        place: place.map(|place| place.to_string()),
        state_version: state.version(),
    })
}

/// Decides whether a submission by the JSON protocol is accepted now. Whose it is was found by its key.
pub fn decide_submission(
    state: &TrustState,
    request: SubmissionRequest<'_>,
    now: UnixTime,
) -> Result<TelemetryGrant, Denied> {
    require_trust(state, now)?;
    let region = request.signed.submission().region();
    let place = place_in_words(&region);
    let is_sound = place.as_ref().is_some_and(Place::is_complete) || !request.is_whole_place_demanded;
    let is_allowed = match request.location {
        Some(allowed) => place.as_ref().is_some_and(|place| allowed.allows(place)),
        None => true,
    };
    if is_sound && is_allowed {
        let (sequence, place) = (request.sequence, place.map(|place| place.to_string()));
        return Ok(TelemetryGrant { sequence, place, state_version: state.version() });
    }
    let allowed = request.location.map_or_else(|| "country, state and city".to_owned(), ToString::to_string);
    let Region { region, state, city } = region;
    Err(Denied::LocationRefused { place: format!("{region:?} {state:?} {city:?}"), allowed })
}

fn place_in_words(Region { region, state, city }: &Region) -> Option<Place> {
    Place::in_words(region, state, city)
}

/// Batches of earlier boots may have waited in the device's spool; one of a later boot comes before its evidence.
fn require_attested_boot(state: &TrustState, stated: BootEpoch) -> Result<(), Denied> {
    match state.reset_count() {
        Some(attested) if stated.reset_count > attested => {
            Err(Denied::BootNotAttested { stated: stated.reset_count, attested })
        }
        _ => Ok(()),
    }
}

fn place(location: &Location) -> Place {
    Place::stated(&location.country, &location.subdivision, &location.city)
}

impl Denied {
    /// The denial as a finding, where a policy rule is behind it.
    pub fn finding(&self) -> Option<Finding> {
        let Denied::LocationRefused { place, allowed } = self else { return None };
        Some(Finding {
            accept: None,
            check: Check::LocationPolicy,
            tier: Tier::Contraindicated,
            claim: "location".to_owned(),
            expected: allowed.clone(),
            found: place.clone(),
            message: format!("Telemetry was refused: {self}."),
        })
    }
}
