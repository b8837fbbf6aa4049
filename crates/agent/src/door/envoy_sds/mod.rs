//! Envoy's secret discovery service (v3) on the agent's socket: identities and whom to believe, pushed to a proxy.
//!
//! What a name stands for is in `secret.rs`, and what is said when in `stream.rs` and `delta.rs`, neither of which does I/O. A
//! validation context always has the revocation list: without one nobody's revocation would be noticed, so that there is no
//! context before there is a list.

mod delta;
mod secret;
mod stream;

use std::future::Future;
use std::pin::Pin;

use assay_identity::TrustDomain;
use assay_wire::envoy::secret_discovery_service_server::SecretDiscoveryService;
pub(crate) use assay_wire::envoy::secret_discovery_service_server::SecretDiscoveryServiceServer;
use assay_wire::envoy::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Status as Nack,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::delta::Changes;
use self::secret::Secrets;
use self::stream::Whole;
use super::workload_api::{entitled, nothing_yet};
use crate::holding::Holding;
use crate::workload::Caller;

/// The service for one connection, over what the device holds.
pub(crate) struct EnvoySds {
    pub(crate) holding: watch::Receiver<Holding>,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) caller: Caller,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for EnvoySds {
    type DeltaSecretsStream = Messages<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Messages<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let session = self.session(Changes::default());
        Ok(Response::new(session.answers(request.into_inner())))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let session = self.session(Whole::default());
        Ok(Response::new(session.answers(request.into_inner())))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut session = self.session(Whole::default());
        session.conversation.heed(request.into_inner())?;
        let answer = session.answer().await?;
        answer.map(Response::new).ok_or_else(|| nothing_yet(&self.holding.borrow()))
    }
}

impl EnvoySds {
    fn session<C: Conversation>(&self, conversation: C) -> Session<C> {
        let EnvoySds { holding, trust_domain, caller } = self;
        let (holding, trust_domain) = (holding.clone(), trust_domain.clone());
        Session { holding, trust_domain, caller: caller.clone(), conversation }
    }
}

/// What was asked for and said on one stream.
trait Conversation: Send + 'static {
    type Ask: Send + 'static;
    type Say: Send + 'static;

    /// Takes a request; whether it wants an answer.
    fn heed(&mut self, ask: Self::Ask) -> Result<bool, Status>;

    /// What to say of what there is now, if it is anything new.
    fn say(&mut self, secrets: &Secrets<'_>) -> Result<Option<Self::Say>, Status>;
}

struct Session<C> {
    holding: watch::Receiver<Holding>,
    trust_domain: TrustDomain,
    caller: Caller,
    conversation: C,
}

impl<C: Conversation> Session<C> {
    /// Answers requests, and says again what changes, until either end has had enough.
    fn answers(mut self, mut asks: Streaming<C::Ask>) -> Messages<C::Say> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = self.converse(&mut asks, &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }

    async fn converse(
        &mut self,
        asks: &mut Streaming<C::Ask>,
        sender: &mpsc::Sender<Result<C::Say, Status>>,
    ) -> Result<(), Status> {
        // Nothing is said before something is asked for.
        let mut asked = false;
        loop {
            let speak = tokio::select! {
                ask = asks.message() => match ask? {
                    Some(ask) => {
                        let wants = self.conversation.heed(ask)?;
                        asked = true;
                        wants
                    }
                    None => return Ok(()),
                },
                changed = self.holding.changed(), if asked => match changed {
                    Ok(()) => true,
                    Err(_) => return Err(Status::unavailable("the agent is stopping")),
                },
            };
            if speak
                && let Some(answer) = self.answer().await?
                && sender.send(Ok(answer)).await.is_err()
            {
                return Ok(());
            }
        }
    }

    fn answer(&mut self) -> impl Future<Output = Result<Option<C::Say>, Status>> + Send {
        let holding = self.holding.borrow_and_update().clone();
        async move {
            let mine = entitled(&holding, &self.caller).await?;
            let secrets = Secrets { holding: &holding, mine: &mine, trust_domain: &self.trust_domain };
            self.conversation.say(&secrets)
        }
    }
}

/// A type other than secrets is not served here.
fn check_type(type_url: &str) -> Result<(), Status> {
    match type_url {
        "" | secret::TYPE_URL => Ok(()),
        _ => Err(Status::invalid_argument("this is the secret discovery service: it has secrets alone")),
    }
}

/// Refuses more names than a proxy needs.
fn check_names(names: impl ExactSizeIterator) -> Result<(), Status> {
    match names.len() <= NAMES_MAX {
        true => Ok(()),
        false => Err(Status::invalid_argument(format!("ask for {NAMES_MAX} secrets at most"))),
    }
}

/// What the proxy could not use is said in the log, and said to it again once it is another.
fn log_refusal(nack: Option<&Nack>) {
    if let Some(Nack { code, message }) = nack {
        let message: String = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
        tracing::warn!(code, message, "a proxy could not use its secrets");
    }
}

/// A proxy has an identity or two and believes a trust domain or two.
const NAMES_MAX: usize = 64;
/// Of what a proxy says is wrong.
const MESSAGE_CHARACTERS_MAX: usize = 512;
/// A proxy's first request names all that it is built of: some hundred kilobytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;
