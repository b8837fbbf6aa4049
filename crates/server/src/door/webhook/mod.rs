//! Notices to programs outside: each leaf of the trail that a receiver asked for, as a signed CloudEvent over HTTP.
//!
//! The trail is the queue, so that nothing that is on record is forgotten and verification waits for nobody. Each receiver has a
//! task and a place in the trail of its own; a notice may come twice, under the same name, and comes in the order of the trail.

mod exchange;
mod receiver;

use std::sync::Arc;
use std::time::Duration;

use assay_clock::Backoff;
use assay_evidence::time::UnixTime;
use tokio::task::JoinSet;

pub use receiver::{WebhookConfig, WebhookError};

use self::exchange::{Exchange, Given};
pub(crate) use self::receiver::Receiver;
use crate::audit::Leaf;
use crate::notice::{self, Severity};
use crate::outcome::chain;
use crate::parts::Server;
use crate::store::{KeepWebhooks, Letter, Notified, Progress, StoreError};

/// Tells every receiver until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let names: Vec<String> = server.receivers.iter().map(|receiver| receiver.name().to_owned()).collect();
    while let Err(error) = server.store.commit(KeepWebhooks(names.clone())).await {
        tracing::error!(error = %chain(&error), "no notices are sent");
        server.clock.sleep(RETRY_LONGEST).await;
    }
    let mut notifiers = JoinSet::new();
    for receiver in server.receivers.iter() {
        notifiers.spawn(Notifier::new(server.clone(), receiver.clone()).run());
    }
    let mut shutdown = server.shutdown.clone();
    // What is under way is sent again after the next start.
    shutdown.wait_for(|stops| *stops).await.ok();
}

/// One receiver, and how far it is.
struct Notifier {
    server: Arc<Server>,
    receiver: Arc<Receiver>,
    exchange: Exchange,
    backoff: Backoff,
}

/// What became of a turn.
enum Turn {
    /// The receiver is at the end of the trail.
    Idle,
    /// There may be more.
    Further,
    /// It has to be left alone for a while; at least for so long.
    Later(Option<Duration>),
}

impl Notifier {
    fn new(server: Arc<Server>, receiver: Arc<Receiver>) -> Notifier {
        let exchange = Exchange::with(receiver.clone());
        Notifier { server, receiver, exchange, backoff: Backoff::between(RETRY_FIRST, RETRY_LONGEST) }
    }

    async fn run(mut self) {
        loop {
            let wait = match self.turn().await {
                Ok(Turn::Further) => {
                    self.backoff.succeeded();
                    continue;
                }
                Ok(Turn::Idle) => LOOK_EVERY,
                Ok(Turn::Later(asked)) => {
                    self.backoff.wait().max(asked.unwrap_or_default().min(RETRY_LONGEST))
                }
                Err(error) => {
                    tracing::error!(webhook = self.receiver.name(), error = %chain(&error), "no notice is sent");
                    self.backoff.wait()
                }
            };
            self.server.clock.sleep(wait).await;
        }
    }

    /// What an operator wants sent again, and then what is new.
    async fn turn(&mut self) -> Result<Turn, StoreError> {
        let (store, name) = (self.server.store.clone(), self.receiver.name().to_owned());
        let Progress { next_leaf, leaves, .. } = store.webhook(&name).await?;
        self.server.metrics.webhook_is_behind(&name, leaves.saturating_sub(next_leaf));
        let mut notified = Notified { webhook: name, next_leaf, ..Notified::default() };
        let mut later = self.again(&mut notified).await?;
        if later.is_none() {
            later = self.onward(&mut notified).await?;
        }
        let is_idle = notified.next_leaf >= leaves && later.is_none();
        let is_new =
            notified.next_leaf > next_leaf || !notified.delivered.is_empty() || !notified.dead.is_empty();
        if is_new {
            store.commit(notified).await?;
        }
        Ok(match later {
            Some(asked) => Turn::Later(asked),
            None if is_idle => Turn::Idle,
            None => Turn::Further,
        })
    }

    async fn again(&mut self, notified: &mut Notified) -> Result<Option<Option<Duration>>, StoreError> {
        for Letter { leaf, .. } in self.server.store.letters(&notified.webhook, true, AT_ONCE).await? {
            match self.tell(&leaf, Severity::of(&leaf)).await? {
                Given::Delivered => notified.delivered.push(leaf.index),
                Given::Refused(why) => notified.dead.push((leaf.index, self.server.now(), why)),
                Given::Later(asked, _) => return Ok(Some(asked)),
            }
        }
        Ok(None)
    }

    async fn onward(&mut self, notified: &mut Notified) -> Result<Option<Option<Duration>>, StoreError> {
        let leaves = self.server.store.audit_leaves(notified.next_leaf, LEAVES_AT_ONCE).await?;
        let mut told = 0;
        for leaf in leaves {
            if let Some(severity) = self.receiver.wants(&leaf) {
                match self.tell(&leaf, severity).await? {
                    Given::Delivered => {}
                    Given::Refused(why) => notified.dead.push((leaf.index, self.server.now(), why)),
                    Given::Later(_, why) if self.is_too_old(leaf.at) => {
                        notified.dead.push((leaf.index, self.server.now(), why));
                    }
                    Given::Later(asked, _) => return Ok(Some(asked)),
                }
                told += 1;
            }
            notified.next_leaf = leaf.index.saturating_add(1);
            if told >= AT_ONCE {
                break;
            }
        }
        Ok(None)
    }

    fn is_too_old(&self, at: UnixTime) -> bool {
        at.plus(self.receiver.give_up_after_seconds) < self.server.now()
    }

    async fn tell(&mut self, leaf: &Leaf, severity: Severity) -> Result<Given, StoreError> {
        let device = match leaf.kind.starts_with("device.") {
            true => self.server.store.device(&leaf.subject).await?.map(|device| device.name),
            false => None,
        };
        let event = notice::event(&self.server.config.trust_domain, leaf, severity, device.as_deref());
        let given = self.exchange.give(leaf.index, event, self.server.now()).await;
        self.server.metrics.notified(self.receiver.name(), given.name());
        Ok(given)
    }
}

/// Leaves that are looked at before it is written down how far the receiver is.
const LEAVES_AT_ONCE: u32 = 500;
/// Notices that are sent before it is; after a crash, so many may come twice.
const AT_ONCE: u32 = 64;
const LOOK_EVERY: Duration = Duration::from_millis(250);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
