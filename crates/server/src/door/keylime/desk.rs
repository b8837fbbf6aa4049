//! Where an agent's `Attester` waits between its requests, one per device, with the challenge that is open.
//!
//! A desk is its agent's alone while it works, so that what one sends is taken in order; no desk waits for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_evidence::tpm::public_area::PublicArea;
use assay_identity::SpiffeId;
use assay_wire::keylime::attestation::Request;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use super::At;
use crate::attest::table::Seat;
use crate::attest::{Attester, Open, Silence};
use crate::keylime::KeylimeAgent;
use crate::outcome::{Refusal, fault};
use crate::store::StoreError;

/// The desks of the agents that attest.
#[derive(Debug, Default)]
pub(super) struct Desks(Mutex<HashMap<SpiffeId, Arc<Turn<Desk>>>>);

/// An agent's.
#[derive(Debug)]
pub(super) struct Desk {
    pub attester: Attester,
    pub ak: PublicArea,
    pub asked: Option<Asked>,
    /// Of the attestation that was begun last.
    pub number: u64,
    /// When it was begun.
    pub begun: Option<Instant>,
    /// When the agent was heard last.
    pub heard: Instant,
    _seat: Seat,
}

/// What an agent was asked and has yet to answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub open: Open,
    pub request: Request,
    pub until: Instant,
}

impl Desks {
    /// The desk of an agent, if it has one.
    pub(super) fn find(&self, device: &SpiffeId) -> Option<Arc<Turn<Desk>>> {
        self.desks().get(device).cloned()
    }

    /// Closes an agent's desk.
    pub(super) fn close(&self, device: &SpiffeId) {
        self.desks().remove(device);
    }

    /// The desk of an agent, which is opened if there is none.
    pub(super) async fn of(&self, at: &At, agent: &KeylimeAgent) -> Result<Arc<Turn<Desk>>, Refusal> {
        let id = &agent.device.id;
        if let Some(desk) = self.find(id) {
            return Ok(desk);
        }
        let server = &at.server;
        let attester = server.attesting.take_up(id, server.now()).await?.without_banks();
        let ak = PublicArea::parse_tpm2b(&agent.record.ak_public)
            .map_err(|_| StoreError::Corrupt { column: "keylime_agents.ak_public" })?;
        let desk = Desk {
            attester,
            ak,
            asked: None,
            number: 0,
            begun: None,
            heard: server.clock.instant(),
            _seat: server.registry.seat(id)?,
        };
        // Whoever came meanwhile has it.
        let mut desks = self.desks();
        Ok(desks.entry(id.clone()).or_insert_with(|| Arc::new(Turn::new(desk))).clone())
    }

    /// What was asked and not answered in time is noted, and agents that do not come any more are let go.
    pub(super) async fn look_after(&self, at: &At) {
        let (now, silent_after) = (at.server.clock.instant(), at.silent_after());
        let desks: Vec<_> = self.desks().iter().map(|(id, desk)| (id.clone(), desk.clone())).collect();
        for (id, desk) in desks {
            // One that works is heard.
            let Ok(mut desk) = desk.try_lock() else { continue };
            let is_late = desk.asked.as_ref().is_some_and(|asked| asked.until <= now);
            let is_gone = desk.heard + silent_after <= now;
            if is_late {
                desk.asked = None;
                silence(at, &desk.attester, Silence::Unanswered(MISSED)).await;
            }
            if is_gone {
                silence(at, &desk.attester, Silence::Offline).await;
                self.close(&id);
            }
        }
    }

    fn desks(&self) -> MutexGuard<'_, HashMap<SpiffeId, Arc<Turn<Desk>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl At {
    /// How often an agent is to come.
    pub(super) fn interval_seconds(&self) -> u64 {
        self.server.config.attest_interval_seconds
    }

    /// After how long an agent is taken to be away that was not heard: as long as Keylime gives it.
    fn silent_after(&self) -> Duration {
        self.server.config.attest_interval().saturating_mul(5)
    }
}

/// Notes that a device is not heard; that it cannot be noted leaves what stands its time.
pub(super) async fn silence(at: &At, attester: &Attester, silence: Silence) {
    if let Err(error) = at.server.attesting.unheard(attester, silence, at.server.now()).await {
        fault("silence", &error);
    }
}

const MISSED: &str = "a challenge was not answered in time";
