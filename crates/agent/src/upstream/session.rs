//! One Attach stream, from Hello until it is lost: challenges go to [`attest`], grants to [`Grants`].

use std::time::{Duration, SystemTime};

use assay_clock::Clock;
use assay_identity::SvidError;
use assay_wire::edge::{
    self, Challenge, DeviceMessage, Finding, Hello, ServerMessage, Signed, Verdict, device_message,
    device_statement, server_message,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::connection::{Client, Connection};
use super::memory::Memory;
use super::order::Order;
use super::request::{self, Waiting, Wanted};
use super::statement::{self, Hearing, StatementError};
use super::{attest, message};
use crate::VERSION;
use crate::ask::{Ask, Asks, NoToken};
use crate::config::Sources;
use crate::device::Device;
use crate::holding::Grants;
use crate::task::{Heard, Room, Say, Wire};
use crate::tpm::TpmError;

/// Why a stream ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The server ended it, or the connection broke.
    #[error("{}", super::refusal::told(.0))]
    Server(#[from] Status),
    /// The server closed the stream without a word.
    #[error("the server closed the stream")]
    Closed,
    /// The server does not answer.
    #[error("the server does not answer within {ATTACH_WITHIN:?}")]
    Silent,
    /// What was said is not the server's word.
    #[error("not believed: {}", chain(.0))]
    NotBelieved(#[from] StatementError),
    /// The gateway's certificate was revoked.
    #[error("the gateway's certificate does not stand any more: {0}")]
    Gateway(SvidError),
    /// The TPM is lost: its keys have to be loaded again.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

/// One device at one server.
pub struct Session<'a> {
    /// The TPM.
    pub device: &'a Device,
    /// The logs.
    pub sources: &'a Sources,
    /// Its SPIFFE ID.
    pub device_id: &'a str,
    /// Whom it is reached through.
    pub connection: &'a Connection,
    /// What has to be known over restarts.
    pub memory: &'a mut Memory,
    /// What doors ask for.
    pub asks: &'a mut Asks,
    /// Those who run tasks, where the device does, and what room there is for them.
    pub tasks: Option<(&'a mut Wire, Room)>,
}

impl Session<'_> {
    /// Attaches and serves the stream until it ends. `attached` runs when the server has answered the call.
    pub async fn serve(
        self,
        client: &mut Client,
        grants: &mut Grants,
        attached: impl FnOnce(),
    ) -> Result<(), SessionError> {
        let (outbox, receiver) = mpsc::channel(OUTBOX_MESSAGES);
        let hearing = Hearing::new(self.device_id)?;
        let hello = Hello {
            device_id: self.device_id.to_owned(),
            agent_version: VERSION.to_owned(),
            stream: hearing.stream().to_vec().into(),
            tasks: self.tasks.as_ref().map(|(_, room)| edge::TaskRoom {
                memory_bytes: room.memory_bytes,
                cpu_millis: room.cpu_millis,
                tasks: room.tasks,
            }),
        };
        let hello = DeviceMessage { message: Some(device_message::Message::Hello(hello)) };
        // The channel is empty and its receiver is here, so this cannot fail.
        let _ = outbox.send(hello).await;
        let call = client.attach(ReceiverStream::new(receiver));
        let inbox = timeout(ATTACH_WITHIN, call).await.map_err(|_| SessionError::Silent)??.into_inner();
        attached();
        grants.reconnected();
        let (challenge, challenges) = watch::channel(None);
        // Dropped with the session, which ends what runs in it.
        let mut tasks = JoinSet::new();
        tasks.spawn(attest::answer(
            self.device.clone(),
            self.sources.clone(),
            self.connection.clock().clone(),
            challenges,
            outbox.clone(),
        ));
        let (wanted, requests) = mpsc::channel(WANTED_MAX);
        tasks.spawn(request::sign(self.device.clone(), requests, outbox));
        let mut stream = Stream {
            connection: self.connection,
            memory: self.memory,
            asks: self.asks,
            tasks: self.tasks.map(|(wire, _)| wire),
            device_id: self.device_id,
            inbox,
            challenge,
            grants,
            hearing,
            order: Order::default(),
            wanted,
            waiting: Waiting::default(),
            classic_at: None,
            said: String::new(),
        };
        let ended = tokio::select! {
            ended = stream.run() => ended,
            Some(ended) = tasks.join_next() => match ended {
                Ok(Err(error)) => Err(error.into()),
                _ => Err(SessionError::Closed),
            },
        };
        let kept = stream.memory.keep_last_list(stream.grants.list());
        report(kept, "the revocation list could not be kept");
        ended
    }
}

struct Stream<'a> {
    inbox: Streaming<ServerMessage>,
    challenge: watch::Sender<Option<Challenge>>,
    grants: &'a mut Grants,
    connection: &'a Connection,
    memory: &'a mut Memory,
    hearing: Hearing,
    asks: &'a mut Asks,
    tasks: Option<&'a mut Wire>,
    device_id: &'a str,
    /// How far the stream has come: nothing is asked for out of turn.
    order: Order,
    /// What is to be asked for on it.
    wanted: mpsc::Sender<(Vec<u8>, Wanted)>,
    waiting: Waiting,
    /// When a certificate of the RSA key is asked for; `None`: none is wanted.
    classic_at: Option<SystemTime>,
    /// The last verdict, so that only a change is logged.
    said: String,
}

impl Stream<'_> {
    fn clock(&self) -> &Clock {
        self.connection.clock()
    }

    async fn run(&mut self) -> Result<(), SessionError> {
        let mut tick = self.clock().ticks(DUE_INTERVAL);
        loop {
            tokio::select! {
                message = self.inbox.message() => match message? {
                    Some(ServerMessage { message: Some(message) }) => self.take(message)?,
                    // A message of a newer server.
                    Some(ServerMessage { message: None }) => {}
                    None => return Err(SessionError::Closed),
                },
                _ = tick.tick() => {
                    self.memory.ledger.keep_newest();
                    self.ask();
                }
                Some(ask) = self.asks.recv(), if self.order.may_ask().is_some() => self.ask_for_token(ask),
                Some(say) = said(&mut self.tasks), if self.order.may_ask().is_some() => {
                    self.want(Wanted::Said(Box::new(message::said(say))));
                }
            }
        }
    }

    fn take(&mut self, message: server_message::Message) -> Result<(), SessionError> {
        match message {
            server_message::Message::Challenge(challenge) => {
                self.order.challenged(&challenge.stream);
                self.memory.clock.shows(challenge.time_seconds, self.connection.clock());
                self.grants.clock_is(self.memory.clock.sentence());
                self.challenge.send_replace(Some(challenge));
            }
            server_message::Message::Trust(signed) => {
                let ledger_key = statement::trust(signed, self.grants, self.clock().now())?;
                self.memory.ledger.key(&ledger_key);
                self.connection.check_peer().map_err(SessionError::Gateway)?;
            }
            server_message::Message::Statement(signed) => self.hear(signed)?,
            // It is held against what was signed by whoever asked for it.
            server_message::Message::TaskContent(content) => self.tell_tasks(message::piece(content)),
        }
        report(self.memory.keep(self.grants.remembered()), "what was heard could not be kept");
        report(self.memory.keep_list(self.grants.list()), "the revocation list could not be kept");
        Ok(())
    }

    fn hear(&mut self, signed: Signed) -> Result<(), SessionError> {
        let now = self.clock().now();
        let heard = self.hearing.statement(signed, self.grants, now)?;
        self.order.believed();
        self.memory.ledger.head(&heard.ledger_head);
        match heard.body {
            Some(device_statement::Body::Verdict(verdict)) => {
                if verdict.valid_for_seconds > 0 {
                    self.grants.vouched(now + Duration::from_secs(verdict.valid_for_seconds.into()));
                }
                self.log_verdict(&verdict);
            }
            Some(device_statement::Body::Grants(grants)) => {
                match message::grants(grants, self.device_id) {
                    message::Grants::Granted(granted) => {
                        let is_wanted = granted.classic_wanted;
                        self.grants.apply(*granted, now);
                        let held = self.grants.held().borrow().classic.as_ref().map(|held| held.renew_at);
                        let at = held.or(self.classic_at).unwrap_or(now);
                        self.classic_at = is_wanted.then_some(at);
                    }
                    message::Grants::Withdrawn { reason } => {
                        self.classic_at = None;
                        self.grants.withdraw(reason);
                    }
                }
                self.ask();
            }
            Some(device_statement::Body::WorkloadSvid(answer)) => {
                let taken = self.grants.answered(message::answer(answer), now);
                if let Some(clock) = self.memory.clock.sentence().filter(|_| taken.is_err()) {
                    tracing::error!("a workload svid that was just issued does not hold here: {clock}");
                }
                report(taken, "workload svid could not be used");
                self.ask();
            }
            Some(device_statement::Body::JwtSvid(answer)) => self.take_token(&answer, now),
            Some(device_statement::Body::Classic(answer)) => self.take_classic(answer, now),
            Some(device_statement::Body::Secret(answer)) => self.take_secret(answer),
            Some(device_statement::Body::TaskAnswer(answer)) => self.tell_tasks(message::task_answer(answer)),
            None => {}
        }
        Ok(())
    }

    /// Whoever runs tasks and does not listen asks again.
    fn tell_tasks(&self, heard: Heard) {
        if let Some(wire) = &self.tasks
            && wire.hear.try_send(heard).is_err()
        {
            tracing::debug!("a word about a task was not heard");
        }
    }

    /// A door asks: what another caller was just given serves this one too.
    fn ask_for_token(&mut self, ask: Ask) {
        if let Some(token) =
            self.grants.held().borrow().token(&ask.entry_id, &ask.audience, self.clock().now())
        {
            let _ = ask.answer.send(Ok(token));
        } else if let Some(wanted) = self.waiting.take(ask) {
            self.want(wanted);
        }
    }

    fn take_token(&mut self, answer: &edge::JwtSvidResponse, now: SystemTime) {
        let Some(asked) = self.waiting.answered(&answer.request_id) else { return };
        let told = if answer.token.is_empty() {
            let (entry, reason) = (&asked.entry_id, &answer.denied);
            tracing::warn!(%entry, %reason, "token denied");
            // A code that the server shares with whoever else has to tell a denial from a fault.
            Err(if reason.starts_with("unavailable") { NoToken::Unavailable } else { NoToken::Denied })
        } else {
            self.grants.token(&asked.entry_id, &asked.audience, &answer.token, now).map_err(|error| {
                report(Err(error), "token could not be used");
                NoToken::Unavailable
            })
        };
        asked.tell(&told);
    }

    fn take_classic(&mut self, answer: edge::ClassicResponse, now: SystemTime) {
        let edge::ClassicResponse { certificate, denied } = answer;
        if !denied.is_empty() {
            tracing::warn!(reason = denied, "certificate of the RSA key denied");
            return;
        }
        match self.grants.classic(certificate.to_vec(), now) {
            Ok(()) => {
                let held = self.grants.held().borrow().classic.as_ref().map(|held| held.renew_at);
                self.classic_at = held.or(self.classic_at);
                tracing::info!("certificate of the RSA key received");
            }
            Err(error) => report(Err(error), "certificate of the RSA key could not be used"),
        }
    }

    fn take_secret(&mut self, answer: edge::SecretResponse) {
        let Some(stream) = self.order.may_ask() else { return };
        self.grants.secret(message::secret(answer, (self.hearing.device_id(), stream)));
    }

    /// Asks for the certificate of the RSA key, and again after a while unless it has come.
    fn ask_for_classic(&mut self, now: SystemTime) {
        if self.classic_at.is_some_and(|at| at <= now) {
            self.classic_at = Some(now + CLASSIC_AGAIN);
            self.want(Wanted::Classic);
        }
    }

    fn want(&mut self, wanted: Wanted) {
        let Some(stream) = self.order.may_ask() else { return };
        if self.wanted.try_send((stream.to_vec(), wanted)).is_err() {
            tracing::error!("too much is asked for at once");
        }
    }

    /// Has every request that is due signed and sent.
    fn ask(&mut self) {
        if self.order.may_ask().is_none() {
            return;
        }
        let now = self.clock().now();
        self.ask_for_classic(now);
        for (name, version) in self.grants.due_secrets(now) {
            self.want(Wanted::Secret { name, version });
        }
        match self.grants.due(self.clock().now()) {
            Ok(due) => due.into_iter().for_each(|one| self.want(Wanted::Svid(one))),
            Err(error) => report(Err(error), "workload svid could not be asked for"),
        }
    }

    fn log_verdict(&mut self, verdict: &Verdict) {
        let Verdict { tier, state, findings, valid_for_seconds, policy } = verdict;
        let about: Vec<String> =
            findings.iter().map(|finding| finding.check.clone() + &finding.claim).collect();
        let says = format!("{tier} {state} {policy} {}", about.concat());
        if says == self.said {
            return;
        }
        self.said = says;
        tracing::info!(%tier, %state, %policy, valid_for_seconds, findings = findings.len(), "verdict changed");
        for Finding { check, tier, claim, message, .. } in findings.iter().take(FINDINGS_LOGGED) {
            tracing::info!(%check, %tier, %claim, "{message}");
        }
    }
}

/// What those say next who run tasks, where somebody does.
async fn said(tasks: &mut Option<&mut Wire>) -> Option<Say> {
    match tasks {
        Some(wire) => wire.said.recv().await,
        None => std::future::pending().await,
    }
}

fn report<E: std::error::Error>(outcome: Result<(), E>, what: &str) {
    if let Err(error) = outcome {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(%error, cause, "{what}");
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// Requests that wait to be signed: more than may be on their way of both kinds.
const WANTED_MAX: usize = 64;
/// Evidence and requests that wait for the connection.
const OUTBOX_MESSAGES: usize = 16;
/// The first answer: the server has only to look the device up.
const ATTACH_WITHIN: Duration = Duration::from_secs(15);
/// A TPM makes an RSA key within seconds, or a minute.
const CLASSIC_AGAIN: Duration = Duration::from_secs(120);
/// How often it is looked whether an SVID has to be renewed.
const DUE_INTERVAL: Duration = Duration::from_millis(500);
/// A log line each; the server has them all.
const FINDINGS_LOGGED: usize = 16;
