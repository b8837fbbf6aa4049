//! An attached device's stream: challenges out, evidence in, and whatever it holds the moment it changes.
//!
//! One task per stream. It owns the device's [`Attester`]; everything else reaches it as a signal that says "look
//! again". Streams by the thousand wait nearly always, so what a task needs only while it works is boxed. Start at
//! [`attach`].

mod end;
mod evidence;
mod hold;
mod pace;
mod request;
mod say;
mod task;

use std::sync::Arc;
use std::time::Duration;

use assay_admission::Peer;
use assay_evidence::request::NONCE_BYTES;
use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_identity::secret::SecretName;
use assay_trust::condition::Holding;
use assay_trust::placement::Room;
use assay_wire::binding::STREAM_BYTES;
use assay_wire::edge::{self, device_message, device_statement, server_message};
use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::announce::Announcement;
use super::answers::{Answer, framed};
use super::messages::{Heard, MessageError, Messages};
use crate::attest::table::{Seat, Signal};
use crate::attest::{AttestError, Attester, Open};
use crate::door::admission::{Admitted, NoPlace};
use crate::in_force::endorsers::Endorsing;
use crate::in_force::policies::PlanInForce;
use crate::keys::{KeysError, random};
use crate::outcome::Outcome as _;
use crate::parts::Server;
use crate::security::{Cause, Refused};
pub(crate) use end::SessionEnd;
use hold::Held;
pub(crate) use pace::Beat;
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
    let room = hello.tasks.map(task::room);
    let voice = Voice::new(&server, &id, hello.stream);
    let attester = match Box::pin(server.attesting.take_up(&id, server.now())).await {
        Ok(attester) => attester,
        Err(AttestError::Revoked) => {
            note(&server, &id, peer, Cause::RevokedDevice, "attached");
            // Only what is signed takes anything from a device.
            refuse_revoked(&server, &id, voice, &outbound).await?;
            return Err(AttestError::Revoked.into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut session = Session::new(server.clone(), attester, place, voice, outbound)?;
    session.room = room;
    Box::pin(session.challenge()).await?;
    let ended = session.serve(inbound).await;
    if let Some(silence) = session.silence(&ended) {
        Box::pin(session.unheard(silence)).await?;
    }
    if let Err(end) = &ended
        && end.is_not_the_devices()
    {
        note(&server, &id, peer, Cause::Evidence, end.told().1);
    }
    ended
}

fn note(server: &Server, id: &SpiffeId, peer: &Peer, cause: Cause, why: &str) {
    server.refused(Refused { cause, who: id.to_string(), from: peer.to_string(), why: why.to_owned() });
}

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
    /// What held of the device then, of what entries ask.
    told_holding: Holding,
    /// The grace for a restart without a server that it was told last.
    told_restart_offline: Option<u64>,
    /// What is said to this device, signed.
    voice: Voice,
    announced: watch::Receiver<Arc<Announcement>>,
    /// The server's own name of the stream, and the highest number of a request on it.
    stream: [u8; STREAM_BYTES],
    requested: u64,
    endorsers: watch::Receiver<Endorsing>,
    /// The counts of changes of entries and of tasks, as of the last word.
    entries: u64,
    /// When the certificate of its AK is looked at again, where the server signs such.
    ak_renew_at: Option<UnixTime>,
    /// The secrets that the device was told it may have; `None`: it was told nothing yet.
    told_secrets: Option<Vec<(SecretName, u64)>>,
    tasks: u64,
    /// The room that the device says it has for tasks, and what of one it is fetching.
    room: Option<Room>,
    content: Option<task::Content>,
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
            pace: Pace::new(server.config.attest_interval(), server.beat, now),
            announced: server.announcer.watch(),
            voice,
            stream: random()?,
            requested: 0,
            endorsers: server.endorsers.watch(),
            entries: 0,
            ak_renew_at: None,
            told_secrets: None,
            tasks: 0,
            room: None,
            content: None,
            standing: Standing::Unproven(place),
            outstanding: None,
            missed: None,
            unheard_since: None,
            svid_requests: Allowance::new(now),
            token_requests: Allowance::new(now),
            held: None,
            told: false,
            told_holding: Holding::default(),
            told_restart_offline: None,
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
            Some(device_message::Message::Unanswered(said)) => self.unanswered(&said).await,
            Some(device_message::Message::WorkloadSvid(request)) => self.workload_svid(request).await,
            Some(device_message::Message::JwtSvid(request)) => self.jwt_svid(request).await,
            Some(device_message::Message::Classic(request)) => self.classic(request).await,
            Some(device_message::Message::Secret(request)) => self.secret(request).await,
            Some(device_message::Message::TaskContent(request)) => self.task_content(request).await,
            Some(device_message::Message::TaskResult(result)) => Box::pin(self.task_result(result)).await,
            Some(device_message::Message::Hello(_)) => Err(SessionEnd::OutOfTurn),
            // A message of a later version: what we do not know we need not answer.
            None => Ok(()),
        }
    }

    /// Whom its bytes count against once it is proven.
    fn peer(&self) -> Peer {
        Peer::Known(self.attester.device.id.clone())
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
        } else if self.told_secrets.as_ref().is_some_and(|told| *told != self.secrets()) {
            // There are others, or the device has other labels.
            self.tell_again().await?;
        }
        if signal.entries != self.entries {
            self.entries = signal.entries;
            self.tell_again().await?;
            if !self.server.entries.conditions(&self.attester.device.id).is_empty() {
                // What a new entry asks of the device was not looked at yet.
                self.pace.soon(self.server.clock.instant());
            }
        }
        if signal.tasks != self.tasks {
            self.tasks = signal.tasks;
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

    /// Says something to this device alone, signed.
    async fn say(&mut self, body: device_statement::Body) -> Result<(), SessionEnd> {
        // With a verdict, since one comes now and then and to every device.
        let ledger_head = match body {
            device_statement::Body::Verdict(_) => self.server.ledger_head.note(),
            device_statement::Body::Grants(_)
            | device_statement::Body::WorkloadSvid(_)
            | device_statement::Body::JwtSvid(_)
            | device_statement::Body::Classic(_)
            | device_statement::Body::Secret(_)
            | device_statement::Body::TaskAnswer(_) => String::new(),
        };
        let signed = self.voice.say(self.attester.device.state.version(), body, ledger_head).await?;
        self.send(framed(server_message::Message::Statement(signed))).await
    }

    /// A device that does not read is as good as gone.
    async fn send(&mut self, message: Bytes) -> Result<(), SessionEnd> {
        match self.outbound.try_send(Box::new(Ok(message))) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(SessionEnd::Gone),
            Err(TrySendError::Full(message)) => {
                match timeout(SEND_WAIT_MAX, self.outbound.send(message)).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(SessionEnd::Gone),
                    Err(_) => Err(SessionEnd::Silent),
                }
            }
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
