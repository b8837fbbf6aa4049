//! Challenges and what comes of them: evidence, and its absence.

use assay_evidence::time::UnixTime;
use assay_wire::clocks::Apart;
use assay_wire::edge::{self, device_statement, server_message};
use bytes::Bytes;

use super::super::answers::framed;
use super::super::messages::MessageError;
use super::super::{beginning, convert};
use super::end::{HUNG_UP, MISSED};
use super::{Session, SessionEnd, Standing};
use crate::attest::{AttestError, Judgement, Silence};
use crate::store::StoreError;

impl Session {
    /// Proves the stream by the beginning of evidence whose logs are long.
    pub(super) fn prove(&self, beginning: Bytes) -> Result<(), SessionEnd> {
        let (nonce, quote) = beginning::quote(beginning).ok_or(MessageError::TooLarge)?;
        let (open, _) = self.outstanding.as_ref().ok_or(AttestError::NotAnAnswer)?;
        self.attester.signed(&open.asked, &nonce, &quote)?;
        if let Standing::Unproven(place) = &self.standing {
            self.server.edge.streams.promote(place, &self.peer())?;
        }
        Ok(())
    }

    pub(super) async fn challenge(&mut self) -> Result<(), SessionEnd> {
        let is_proven = matches!(self.standing, Standing::Proven(_));
        let attesting = &self.server.attesting;
        let Some((open, challenge)) = attesting.challenge(&self.attester, is_proven, self.server.now())?
        else {
            self.pace.postpone(self.server.clock.instant());
            return Ok(());
        };
        let (now, at) = (self.server.clock.instant(), open.at);
        self.outstanding = Some((open, now + self.server.config.challenge_ttl()));
        self.unheard_since.get_or_insert(now);
        self.pace.challenged(now);
        let ttl_seconds = self.server.config.challenge_ttl_seconds;
        let message = convert::challenge(challenge, &self.stream, ttl_seconds, at);
        self.send(framed(server_message::Message::Challenge(message))).await
    }

    /// A challenge was not answered in time. A message that was lost, a slow TPM or a bad link makes up for it with the
    /// next one; what the device holds does not wait for that.
    pub(super) async fn miss(&mut self) -> Result<(), SessionEnd> {
        let missed = self.outstanding.take().map(|(open, _)| open.nonce());
        if matches!(self.standing, Standing::Unproven(_)) || self.missed.is_some() {
            return Err(SessionEnd::Silent);
        }
        self.missed = missed;
        self.unheard(Silence::Unanswered(MISSED)).await?;
        self.challenge().await
    }

    /// The device says that it cannot answer the open challenge, such as when its PCRs changed all the while. It is asked again
    /// at once; for what it holds that is a silence like any other.
    pub(super) async fn unanswered(&mut self, said: &edge::Unanswered) -> Result<(), SessionEnd> {
        if self.outstanding.as_ref().is_none_or(|(open, _)| said.nonce != open.nonce().as_slice()) {
            return Ok(());
        }
        self.outstanding = None;
        let (server, id, now) = (&self.server, &self.attester.device.id, self.server.clock.instant());
        if server.rarely.says("unanswered", id.as_str(), server.now()).is_some() {
            let reason: String = said.reason.chars().filter(|c| !c.is_control()).take(REASON_SHOWN).collect();
            tracing::warn!(device = %id, reason, "the device cannot answer its challenge");
        }
        let since = self.unheard_since.unwrap_or(now);
        if since + server.config.challenge_ttl() <= now {
            if matches!(self.standing, Standing::Unproven(_)) {
                return Err(SessionEnd::Silent);
            }
            self.unheard(Silence::Unanswered(MISSED)).await?;
        }
        self.pace.soon(now);
        Ok(())
    }

    /// In which silence the device is whose stream ended so. Whoever hangs up on an open challenge has not answered it: else
    /// that would be the way to keep for the whole age of the evidence what silence ends sooner.
    pub(super) fn silence(&self, ended: &Result<(), SessionEnd>) -> Option<Silence> {
        match ended {
            Ok(()) | Err(SessionEnd::Gone) if self.outstanding.is_some() => {
                Some(Silence::Unanswered(HUNG_UP))
            }
            Ok(()) | Err(SessionEnd::Gone) => Some(Silence::Offline),
            Err(error) => error.unanswered().map(Silence::Unanswered),
        }
    }

    /// Shortens what stands, if the stream is the device's own: anybody can open one and say nothing.
    pub(super) async fn unheard(&mut self, silence: Silence) -> Result<(), SessionEnd> {
        match self.standing {
            Standing::Unproven(_) => Ok(()),
            Standing::Proven(_) => {
                Ok(self.server.attesting.unheard(&self.attester, silence, self.server.now()).await?)
            }
        }
    }

    /// Asks again for what did not come whole. Who lets that take longer than an answer may has not answered.
    pub(super) async fn ask_again(&mut self) -> Result<(), SessionEnd> {
        let ttl = self.server.config.challenge_ttl();
        if self.unheard_since.is_some_and(|since| since + ttl <= self.server.clock.instant()) {
            self.unheard(Silence::Unanswered(MISSED)).await?;
        }
        self.challenge().await
    }

    /// How far the device's clock is from ours, as it says itself: whoever lies about it accuses itself.
    fn compare_clocks(&self, theirs: u64, asked_at: UnixTime) {
        // An older agent does not say.
        if theirs == 0 {
            return;
        }
        let (server, id) = (&self.server, &self.attester.device.id);
        let now = server.now();
        let apart = Apart::least(theirs, (asked_at.0.min(now.0), now.0));
        server.registry.clock_is(id, apart);
        let life = server.config.device_svid_ttl_seconds;
        if let Some(consequence) = apart.consequence(life)
            && server.rarely.says("clock", id.as_str(), now).is_some()
        {
            let (name, offset_s) = (&self.attester.device.record.name, apart.seconds());
            tracing::warn!(device = %id, name, offset_s, "the device's clock is {apart}: {consequence}");
        }
    }

    pub(super) async fn judge(&mut self, evidence: edge::Evidence) -> Result<(), SessionEnd> {
        let theirs = evidence.time_seconds;
        let evidence = convert::evidence(evidence)?;
        if self.missed.is_some_and(|nonce| evidence.nonce == nonce.as_slice()) {
            return Ok(());
        }
        let (open, _) = self.outstanding.take().ok_or(AttestError::NotAnAnswer)?;
        let asked_at = open.at;
        let proven = matches!(self.standing, Standing::Proven(_));
        let attesting = &self.server.attesting;
        match attesting.judge(&mut self.attester, open, evidence, self.server.now()).await {
            Ok(Judgement::AskAgain) => Box::pin(self.ask_again()).await,
            Ok(Judgement::Verdict(verdict)) => {
                (self.missed, self.unheard_since) = (None, None);
                if !proven {
                    let seat = self.server.registry.seat(&self.attester.device.id)?;
                    self.standing = Standing::Proven(seat);
                    self.offer_room();
                    self.announce().await?;
                }
                self.compare_clocks(theirs, asked_at);
                self.say(device_statement::Body::Verdict(convert::verdict(verdict))).await?;
                if !proven {
                    // What changed before there was a seat to wake.
                    self.look_again().await?;
                }
                self.settle().await
            }
            // Whoever put it in force has woken this stream, which is told what it lost.
            Err(AttestError::Store(StoreError::Unrecorded)) if proven => Ok(()),
            Err(error) => self.part(error).await,
        }
    }
}

/// Characters of what a device says that go into the log.
const REASON_SHOWN: usize = 200;
