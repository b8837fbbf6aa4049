//! An attached device's stream: challenges out, evidence in, and whatever it holds the moment it changes.
//!
//! One task per stream. It owns the device's [`Attester`]; everything else reaches it as a signal that says "look
//! again". Streams by the thousand wait nearly always, so what a task needs only while it works is boxed. Start at
//! [`attach`].

mod end;
mod pace;
mod request;
mod say;

use std::sync::Arc;
use std::time::Duration;

use assay_admission::Peer;
use assay_evidence::request::NONCE_BYTES;
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::Status as TrustStatus;
use assay_wire::binding::STREAM_BYTES;
use assay_wire::edge::{self, device_message, device_statement, server_message};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::announce::Announcement;
use super::beginning;
use super::convert;
use super::messages::{Heard, MessageError, Messages};
use crate::attest::table::{Seat, Signal};
use crate::attest::{AttestError, Attester, Judgement, Open};
use crate::door::admission::{Admitted, NoPlace};
use crate::grant::svid::SvidError;
use crate::in_force::endorsers::Endorsing;
use crate::in_force::policies::PlanInForce;
use crate::keys::{Chain, KeysError, random};
use crate::parts::Server;
use crate::store::StoreError;
pub(crate) use end::SessionEnd;
use end::{HUNG_UP, MISSED};
use pace::{Allowance, Pace};
use say::{Voice, refuse_revoked};

/// Serves one stream until it ends.
pub(super) async fn attach(
    server: Arc<Server>,
    peer: &Peer,
    mut inbound: Messages<edge::DeviceMessage>,
    outbound: mpsc::Sender<Answer>,
) -> Result<(), SessionEnd> {
    let place = server.edge.streams.admit(peer)?;
    let hello = tokio::select! {
        hello = timeout(server.config.challenge_ttl().min(HELLO_WITHIN), inbound.next()) => {
            hello.map_err(|_| SessionEnd::Silent)?
        }
        () = place.leave() => return Err(NoPlace::made_room().into()),
    };
    let hello = match hello {
        Ok(Some(Heard::Message(edge::DeviceMessage {
            message: Some(device_message::Message::Hello(hello)),
        }))) => hello,
        Ok(Some(_)) => return Err(SessionEnd::OutOfTurn),
        Err(error) => return broken(error),
        Ok(None) => return Ok(()),
    };
    let id = SpiffeId::parse(&hello.device_id).map_err(|_| SessionEnd::NotAnId)?;
    if hello.stream.len() != STREAM_BYTES {
        return Err(SessionEnd::NoStream);
    }
    let voice = Voice::new(&server, &id, hello.stream);
    let attester = match Box::pin(server.attesting.take_up(&id, server.now())).await {
        Ok(attester) => attester,
        Err(AttestError::Revoked) => {
            // Only what is signed takes anything from a device.
            refuse_revoked(&server, &id, voice, &outbound).await?;
            return Err(AttestError::Revoked.into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut session = Session::new(server, attester, place, voice, outbound)?;
    Box::pin(session.challenge()).await?;
    let ended = session.serve(inbound).await;
    if let Some(reason) = session.left_undone(&ended) {
        Box::pin(session.unanswered(reason)).await?;
    }
    ended
}

/// A message on its way out. A queue has room for dozens from the start, so that each stream pays for their size.
pub(crate) type Answer = Box<Result<edge::ServerMessage, tonic::Status>>;

struct Session {
    server: Arc<Server>,
    attester: Attester,
    standing: Standing,
    /// A challenge that waits for its evidence, and until when.
    outstanding: Option<(Open, Instant)>,
    /// The challenge before it, which was not answered in time: what comes for it still is no evidence, and no offence.
    missed: Option<[u8; NONCE_BYTES]>,
    /// When the first challenge went out that no verdict came of yet.
    unheard_since: Option<Instant>,
    pace: Pace,
    /// Of certificates and of tokens: who asks for many of one kind keeps nobody from the other.
    svid_requests: Allowance,
    token_requests: Allowance,
    held: Option<Held>,
    /// Whether the device has heard what it holds.
    told: bool,
    /// What is said to this device, signed.
    voice: Voice,
    announced: watch::Receiver<Arc<Announcement>>,
    /// The server's own name of the stream, and the highest number of a request on it.
    stream: [u8; STREAM_BYTES],
    requested: u64,
    endorsers: watch::Receiver<Endorsing>,
    /// The count of changes of entries, as of the last word.
    entries: u64,
    plan: watch::Receiver<Arc<PlanInForce>>,
    /// The policy that judges the device, as of the last look.
    revision: u64,
    outbound: mpsc::Sender<Answer>,
}

/// Whether the stream has shown to be the device's.
enum Standing {
    /// Not yet; it holds one of few places.
    Unproven(Admitted),
    /// Yes, and it has the device's seat.
    Proven(Seat),
}

/// The device's SVID, and when to get the next one.
struct Held {
    chain: Chain,
    renew_at: UnixTime,
    state_version: u64,
}

impl Session {
    fn new(
        server: Arc<Server>,
        attester: Attester,
        place: Admitted,
        voice: Voice,
        outbound: mpsc::Sender<Answer>,
    ) -> Result<Session, KeysError> {
        let now = server.clock.instant();
        let mut plan = server.policies.watch();
        let revision = plan.borrow_and_update().of(&attester.device).revision;
        Ok(Session {
            pace: Pace::new(server.config.attest_interval(), now),
            announced: server.announcer.watch(),
            voice,
            stream: random()?,
            requested: 0,
            endorsers: server.endorsers.watch(),
            entries: 0,
            standing: Standing::Unproven(place),
            outstanding: None,
            missed: None,
            unheard_since: None,
            svid_requests: Allowance::new(now),
            token_requests: Allowance::new(now),
            held: None,
            told: false,
            plan,
            revision,
            attester,
            server,
            outbound,
        })
    }

    async fn serve(&mut self, mut inbound: Messages<edge::DeviceMessage>) -> Result<(), SessionEnd> {
        let mut believed = false;
        let (mut shutdown, clock) = (self.server.shutdown.clone(), self.server.clock.clone());
        loop {
            let due = self.outstanding.as_ref().map_or(self.pace.next(), |(_, expires_at)| *expires_at);
            tokio::select! {
                // What was withdrawn is told before anything else is.
                biased;
                woken = woken(&mut self.standing) => {
                    woken?;
                    Box::pin(self.look_again()).await?;
                }
                Ok(()) = shutdown.changed() => return Err(SessionEnd::ShuttingDown),
                () = clock.sleep_until(due) => match self.outstanding {
                    Some(_) => Box::pin(self.miss()).await?,
                    None => Box::pin(self.challenge()).await?,
                },
                Ok(()) = self.announced.changed(), if self.told => self.announce().await?,
                Ok(()) = self.endorsers.changed() => Box::pin(self.endorse_again()).await?,
                Ok(()) = self.plan.changed() => self.heed_plan(),
                message = inbound.next() => match message {
                    Ok(Some(Heard::Message(message))) => Box::pin(self.hear(message)).await?,
                    Ok(Some(Heard::Beginning(beginning))) => {
                        self.prove(beginning)?;
                        inbound.believe(self.peer())?;
                    }
                    Err(error) => return broken(error),
                    Ok(None) => return Ok(()),
                },
            }
            if !believed && matches!(self.standing, Standing::Proven(_)) {
                inbound.believe(self.peer())?;
                believed = true;
            }
        }
    }

    async fn hear(&mut self, message: edge::DeviceMessage) -> Result<(), SessionEnd> {
        match message.message {
            Some(device_message::Message::Evidence(evidence)) => self.judge(evidence).await,
            Some(device_message::Message::Changed(_)) => {
                self.pace.soon(self.server.clock.instant());
                Ok(())
            }
            Some(device_message::Message::WorkloadSvid(request)) => self.workload_svid(request).await,
            Some(device_message::Message::JwtSvid(request)) => self.jwt_svid(request).await,
            Some(device_message::Message::Hello(_)) => Err(SessionEnd::OutOfTurn),
            // A message of a later version: what we do not know we need not answer.
            None => Ok(()),
        }
    }

    /// Whom its bytes count against once it is proven.
    fn peer(&self) -> Peer {
        Peer::Known(self.attester.device.id.clone())
    }

    /// Proves the stream by the beginning of evidence whose logs are long.
    fn prove(&self, beginning: Bytes) -> Result<(), SessionEnd> {
        let (nonce, quote) = beginning::quote(beginning).ok_or(MessageError::TooLarge)?;
        let (open, _) = self.outstanding.as_ref().ok_or(AttestError::NotAnAnswer)?;
        self.attester.signed(&open.asked, &nonce, &quote)?;
        if let Standing::Unproven(place) = &self.standing {
            self.server.edge.streams.promote(place, &self.peer())?;
        }
        Ok(())
    }

    async fn challenge(&mut self) -> Result<(), SessionEnd> {
        let is_proven = matches!(self.standing, Standing::Proven(_));
        let Some((open, challenge)) = self.server.attesting.challenge(&self.attester, is_proven)? else {
            self.pace.postpone(self.server.clock.instant());
            return Ok(());
        };
        let now = self.server.clock.instant();
        self.outstanding = Some((open, now + self.server.config.challenge_ttl()));
        self.unheard_since.get_or_insert(now);
        self.pace.challenged(now);
        let message = convert::challenge(challenge, &self.stream, self.server.config.challenge_ttl_seconds);
        self.send(server_message::Message::Challenge(message)).await
    }

    /// A challenge was not answered in time. A message that was lost, a slow TPM or a bad link makes up for it with the
    /// next one; what the device holds does not wait for that.
    async fn miss(&mut self) -> Result<(), SessionEnd> {
        let missed = self.outstanding.take().map(|(open, _)| open.nonce());
        if matches!(self.standing, Standing::Unproven(_)) || self.missed.is_some() {
            return Err(SessionEnd::Silent);
        }
        self.missed = missed;
        self.unanswered(MISSED).await?;
        self.challenge().await
    }

    /// What the device left undone whose stream ended so. Whoever hangs up on an open challenge has not answered it: else
    /// that would be the way to keep for the whole age of the evidence what silence ends sooner.
    fn left_undone(&self, ended: &Result<(), SessionEnd>) -> Option<&'static str> {
        match ended {
            Ok(()) | Err(SessionEnd::Gone) => self.outstanding.as_ref().map(|_| HUNG_UP),
            Err(error) => error.unanswered(),
        }
    }

    /// Shortens what stands, if the stream is the device's own: anybody can open one and say nothing.
    async fn unanswered(&mut self, reason: &str) -> Result<(), SessionEnd> {
        match self.standing {
            Standing::Unproven(_) => Ok(()),
            Standing::Proven(_) => {
                Ok(self.server.attesting.unanswered(&self.attester, reason, self.server.now()).await?)
            }
        }
    }

    /// Asks again for what did not come whole. Who lets that take longer than an answer may has not answered.
    async fn ask_again(&mut self) -> Result<(), SessionEnd> {
        let ttl = self.server.config.challenge_ttl();
        if self.unheard_since.is_some_and(|since| since + ttl <= self.server.clock.instant()) {
            self.unanswered(MISSED).await?;
        }
        self.challenge().await
    }

    async fn judge(&mut self, evidence: edge::Evidence) -> Result<(), SessionEnd> {
        let evidence = convert::evidence(evidence)?;
        if self.missed.is_some_and(|nonce| evidence.nonce == nonce.as_slice()) {
            return Ok(());
        }
        let (open, _) = self.outstanding.take().ok_or(AttestError::NotAnAnswer)?;
        let proven = matches!(self.standing, Standing::Proven(_));
        let attesting = &self.server.attesting;
        match attesting.judge(&mut self.attester, open, evidence, self.server.now()).await {
            Ok(Judgement::AskAgain) => Box::pin(self.ask_again()).await,
            Ok(Judgement::Verdict(verdict)) => {
                (self.missed, self.unheard_since) = (None, None);
                if !proven {
                    let seat = self.server.registry.seat(&self.attester.device.id)?;
                    self.standing = Standing::Proven(seat);
                    self.announce().await?;
                }
                self.say(device_statement::Body::Verdict(convert::verdict(verdict))).await?;
                if !proven {
                    // What changed before there was a seat to wake.
                    self.look_again().await?;
                }
                self.settle().await
            }
            Err(error) => self.part(error).await,
        }
    }

    /// Another part of the server changed something about this device.
    async fn look_again(&mut self) -> Result<(), SessionEnd> {
        let signal = match &mut self.standing {
            Standing::Proven(seat) => *seat.signal.borrow_and_update(),
            Standing::Unproven(_) => Signal::default(),
        };
        if signal.replaced {
            return Err(SessionEnd::Replaced);
        }
        let before = self.attester.device.state.version();
        if let Err(error) = self.server.attesting.look_again(&mut self.attester).await {
            return self.part(error).await;
        }
        self.heed_plan();
        if self.attester.device.state.version() != before {
            self.settle().await?;
        }
        if signal.entries != self.entries {
            self.entries = signal.entries;
            self.tell_again().await?;
        }
        Ok(())
    }

    /// Hurries to attest again if another policy judges the device now.
    fn heed_plan(&mut self) {
        let revision = self.plan.borrow_and_update().of(&self.attester.device).revision;
        if revision != self.revision {
            self.revision = revision;
            self.pace.hurry(self.server.registry.attached(), self.server.clock.instant());
        }
    }

    /// Whoever vouches for the device may have taken that back, or come by it.
    async fn endorse_again(&mut self) -> Result<(), SessionEnd> {
        // What an impostor's stream is about is not told it; the next to prove itself is judged by what holds then.
        if matches!(self.standing, Standing::Unproven(_)) {
            return Ok(());
        }
        match self.server.attesting.endorse_again(&mut self.attester, self.server.now()).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.pace.soon(self.server.clock.instant());
                self.settle().await
            }
            Err(error) => self.part(error).await,
        }
    }

    /// Takes leave of a revoked device with word of what it lost.
    async fn part(&mut self, error: AttestError) -> Result<(), SessionEnd> {
        if matches!((&error, &self.standing), (AttestError::Revoked, Standing::Proven(_))) {
            self.held = None;
            self.tell().await?;
        }
        Err(error.into())
    }

    /// Brings what the device holds in line with its state, and tells it if that changed anything.
    async fn settle(&mut self) -> Result<(), SessionEnd> {
        let now = self.server.now();
        let state = &self.attester.device.state;
        if state.status_at(now) != TrustStatus::Trusted {
            if self.held.take().is_some() || !self.told {
                return self.tell().await;
            }
            return Ok(());
        }
        let version = state.version();
        let good =
            self.held.as_ref().is_some_and(|held| held.state_version == version && now < held.renew_at);
        if good {
            return Ok(());
        }
        match self.server.granting.device_svid(&self.attester.device, now).await {
            Ok(chain) => {
                let life = chain.not_after.0.saturating_sub(now.0);
                self.held = Some(Held { chain, renew_at: now.plus(life / 2), state_version: version });
                self.tell().await
            }
            // The state moved on meanwhile; whoever moved it has woken this stream.
            Err(SvidError::Denied(_) | SvidError::Keys(KeysError::Record(StoreError::Conflict))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Something changed in what everyone is told.
    async fn tell_again(&mut self) -> Result<(), SessionEnd> {
        if self.told { self.tell().await } else { Ok(()) }
    }

    /// Everything the device holds now; what is not there is withdrawn.
    async fn tell(&mut self) -> Result<(), SessionEnd> {
        let server = &self.server;
        let state = &self.attester.device.state;
        let mut grants = edge::Grants {
            version: state.version(),
            policy: state.policy().unwrap_or_default().to_owned(),
            ..edge::Grants::default()
        };
        match &self.held {
            Some(held) => {
                grants.device_svid = held.chain.certificates.iter().cloned().map(Into::into).collect();
                let entries = server.entries.of(&self.attester.device.id);
                grants.entries = entries.iter().map(|entry| convert::entry(entry)).collect();
            }
            None => {
                grants.withdrawn = true;
                grants.reason = state.reason().to_owned();
            }
        }
        self.told = true;
        self.say(device_statement::Body::Grants(grants)).await
    }

    /// Whom everybody believes from now on.
    async fn announce(&mut self) -> Result<(), SessionEnd> {
        let announcement = self.announced.borrow_and_update().clone();
        self.voice.take_key(announcement.key.clone());
        self.send(server_message::Message::Trust(announcement.signed.clone())).await
    }

    /// Says something to this device alone, signed.
    async fn say(&mut self, body: device_statement::Body) -> Result<(), SessionEnd> {
        // With a verdict, since one comes now and then and to every device.
        let ledger_head = match body {
            device_statement::Body::Verdict(_) => self.server.ledger_head.note(),
            device_statement::Body::Grants(_)
            | device_statement::Body::WorkloadSvid(_)
            | device_statement::Body::JwtSvid(_) => String::new(),
        };
        let signed = self.voice.say(self.attester.device.state.version(), body, ledger_head)?;
        self.send(server_message::Message::Statement(signed)).await
    }

    /// A device that does not read is as good as gone.
    async fn send(&mut self, message: server_message::Message) -> Result<(), SessionEnd> {
        let message = edge::ServerMessage { message: Some(message) };
        match timeout(SEND_WAIT_MAX, self.outbound.send(Box::new(Ok(message)))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionEnd::Gone),
            Err(_) => Err(SessionEnd::Silent),
        }
    }
}

/// A message that cannot be read ends the stream with the reason; a connection that is gone ends it as it is.
fn broken(error: MessageError) -> Result<(), SessionEnd> {
    match error {
        MessageError::Gone => Ok(()),
        error => Err(error.into()),
    }
}

async fn woken(standing: &mut Standing) -> Result<(), NoPlace> {
    match standing {
        Standing::Proven(seat) => {
            // The registry keeps the sender for as long as the seat is there; a replaced one has been told first.
            if seat.signal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        Standing::Unproven(place) => {
            place.leave().await;
            Err(NoPlace::made_room())
        }
    }
}

/// How long a message may wait for a device to read the ones before it.
const SEND_WAIT_MAX: Duration = Duration::from_secs(10);
/// The first message is there when the stream is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
