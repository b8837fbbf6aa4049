//! Acceptance of telemetry: from a trusted device, from an attested boot, from an allowed place.
//!
//! No evidence says where a device is. It states that itself, batch by batch, so that a policy's regions and areas are a demand on each
//! batch and no part of appraisal. What meets it is the grant: [`decide`] alone makes one, and without a stated place, or with a list of
//! no region, which is no policy, there is none.

use assay_evidence::Check;
use assay_evidence::time::UnixTime;
use assay_telemetry::json_protocol::{Region, Signed};
use assay_telemetry::{BootEpoch, Location, Opened};

use super::{Denied, require_trust};
use crate::finding::{Finding, Tier};
use crate::place::{Admitted, Fence, Refused};
use crate::region::Place;
use crate::state::TrustState;

/// A batch whose signature and payload verified, and where telemetry may come from.
#[derive(Clone, Copy, Debug)]
pub struct TelemetryRequest<'a> {
    /// The batch.
    pub batch: &'a Opened,
    /// Where the policy lets it be; `None`: anywhere.
    pub location: Option<&'a Fence>,
}

/// A submission by the JSON protocol whose signature verified, and where telemetry may come from.
#[derive(Clone, Copy, Debug)]
pub struct SubmissionRequest<'a> {
    /// The submission.
    pub signed: &'a Signed,
    /// The number that it gets in the chain that the server makes of them.
    pub sequence: u64,
    /// Where the policy lets it be; `None`: anywhere.
    pub location: Option<&'a Fence>,
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
    let position = statement.location.as_ref().and_then(|location| location.position.as_ref());
    let admitted = match request.location {
        Some(fence) => Some(fence.judge(place.as_ref(), position, now).map_err(refused)?),
        None => None,
    };
    Ok(TelemetryGrant {
        sequence: statement.sequence,
        place: in_words(place.as_ref(), admitted.as_ref()),
        state_version: state.version(),
    })
}

fn refused(refused: Refused) -> Denied {
    match refused {
        Refused::Region { place, allowed } => Denied::LocationRefused { place, allowed },
        refused => Denied::PositionRefused(refused),
    }
}

/// The place as it goes on record: what is said in words, and of a position only in which area it is. That is the same for a device
/// that stays there, and tells nobody more than the policy asks for.
fn in_words(place: Option<&Place>, admitted: Option<&Admitted>) -> Option<String> {
    let said = place.filter(|place| !place.says_nothing()).map(ToString::to_string);
    let Some(Admitted { area: Some(area), assurance: Some(assurance), is_uncertain }) = admitted else {
        return said.or_else(|| place.map(ToString::to_string));
    };
    let uncertain = if *is_uncertain { "perhaps " } else { "" };
    let within = format!("{uncertain}within {area} ({assurance})");
    Some(said.map_or(within.clone(), |said| format!("{said}, {within}")))
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
    let said = || format!("{:?} {:?} {:?}", region.region, region.state, region.city);
    if !is_sound {
        let allowed = request.location.and_then(Fence::regions);
        let allowed = allowed.map_or_else(|| "country, state and city".to_owned(), ToString::to_string);
        return Err(Denied::LocationRefused { place: said(), allowed });
    }
    if let Some(fence) = request.location {
        fence.judge(place.as_ref(), None, now).map_err(|why| match refused(why) {
            Denied::LocationRefused { allowed, .. } => Denied::LocationRefused { place: said(), allowed },
            denied => denied,
        })?;
    }
    let (sequence, place) = (request.sequence, place.map(|place| place.to_string()));
    Ok(TelemetryGrant { sequence, place, state_version: state.version() })
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
        let (claim, expected, found) = match self {
            Denied::LocationRefused { place, allowed } => ("location", allowed.clone(), place.clone()),
            Denied::PositionRefused(refused) => ("position", refused.expected(), refused.found()),
            _ => return None,
        };
        Some(Finding {
            accept: None,
            check: Check::LocationPolicy,
            tier: Tier::Contraindicated,
            claim: claim.to_owned(),
            expected,
            found,
            message: format!("Telemetry was refused: {self}."),
        })
    }
}
