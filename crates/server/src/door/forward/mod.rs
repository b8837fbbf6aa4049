//! Accepted telemetry goes on to OTLP endpoints, each request in it with the bytes it came with.
//!
//! Each destination has a queue in the database and a task of its own, so that one that is slow or down holds up no other. What
//! may go better later is tried again, after longer each time, for as long as the batch is kept; what is refused for good is said
//! and counted. After a crash a batch may come twice, and never not at all.

mod destination;
mod exchange;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use assay_clock::Backoff;
use assay_telemetry::OTLP_METRICS;
use assay_telemetry::json_protocol::{Acceptance, Submission, is_acceptance};
use assay_telemetry::otlp::{Encoding, OTLP_BATCH, OtlpBatch, Signal};
use bytes::Bytes;

use crate::outcome::chain;
use crate::parts::Server;
use crate::store::{Forwarded, KeepDestinations, KeptBatch, StoreError};
pub use destination::{Destination, DestinationError, ForwardConfig};
use exchange::{Exchange, Given};

/// Forwards until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let names = server.destinations.iter().map(|destination| destination.name().to_owned()).collect();
    if let Err(error) = server.store.commit(KeepDestinations(names)).await {
        tracing::warn!(error = %chain(&error), "what waits for former destinations could not be forgotten");
    }
    let mut tasks = tokio::task::JoinSet::new();
    for destination in server.destinations.iter().cloned() {
        let (server, mut shutdown) = (server.clone(), server.shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = Forwarder::new(server, destination).run() => {}
                _ = shutdown.changed() => {}
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

struct Forwarder {
    server: Arc<Server>,
    destination: Arc<Destination>,
    exchange: Exchange,
    backoff: Backoff,
    /// The batch that is being given, how many of its requests were settled, and how.
    begun: Option<((u64, u64), usize, Given)>,
}

/// What became of a turn.
enum Turn {
    /// Nothing waits.
    Idle,
    /// All that was looked at is settled.
    Settled,
    /// The destination has to be left alone for a while; at least for so long.
    Later(Option<Duration>),
}

impl Forwarder {
    fn new(server: Arc<Server>, destination: Arc<Destination>) -> Forwarder {
        let exchange = Exchange::with(destination.clone());
        let backoff = Backoff::between(RETRY_FIRST, RETRY_LONGEST);
        Forwarder { server, destination, exchange, backoff, begun: None }
    }

    async fn run(mut self) {
        loop {
            let wait = match self.turn().await {
                Ok(Turn::Settled) => {
                    self.backoff.succeeded();
                    continue;
                }
                Ok(Turn::Idle) => LOOK_EVERY,
                Ok(Turn::Later(asked)) => {
                    self.backoff.wait().max(asked.unwrap_or_default().min(ASKED_LONGEST))
                }
                Err(error) => {
                    tracing::error!(destination = self.destination.name(), error = %chain(&error), "not forwarded");
                    self.backoff.wait()
                }
            };
            self.server.clock.sleep(wait).await;
        }
    }

    async fn turn(&mut self) -> Result<Turn, StoreError> {
        let (store, name) = (self.server.store.clone(), self.destination.name().to_owned());
        let waiting = store.outbox(&name, BATCHES_AT_ONCE).await?;
        self.server.metrics.forward_waits(&name, store.outbox_length(&name).await?);
        if waiting.is_empty() {
            return Ok(Turn::Idle);
        }
        let (mut settled, mut later) = (Vec::new(), None);
        let mut run: Option<(u64, String, HashMap<u64, KeptBatch>)> = None;
        for (leaf, sequence) in waiting {
            if run.as_ref().is_none_or(|(of, ..)| *of != leaf) {
                let (device, batches) = store.telemetry_run(leaf).await?.unwrap_or_default();
                let batches = batches.into_iter().map(|batch| (batch.sequence, batch)).collect();
                run = Some((leaf, device, batches));
            }
            let found =
                run.as_mut().and_then(|(_, device, batches)| Some((&*device, batches.remove(&sequence)?)));
            let given = match found {
                Some((device, batch)) => self.give(&batch, device, leaf).await,
                None => {
                    tracing::warn!(destination = %name, leaf, sequence, "a batch made room before it was forwarded");
                    Given::Lost
                }
            };
            if let Given::Later(asked) = given {
                later = Some(asked);
                break;
            }
            self.server.metrics.forwarded(&name, given.name());
            settled.push((leaf, sequence));
        }
        store.commit(Forwarded { destination: name, batches: settled }).await?;
        Ok(later.map_or(Turn::Settled, Turn::Later))
    }

    /// Gives a batch, request by request, from the first on that is not settled.
    async fn give(&mut self, batch: &KeptBatch, device: &str, leaf: u64) -> Given {
        let name = (leaf, batch.sequence);
        let begun = self.begun.take().filter(|(of, ..)| *of == name);
        let (mut settled, mut worst) =
            begun.map_or((0, Given::Delivered), |(_, settled, worst)| (settled, worst));
        let origin =
            [("assay-device", device.to_owned()), ("assay-batch", format!("{leaf}/{}", batch.sequence))];
        let Some(requests) = requests(batch) else {
            let destination = self.destination.name();
            tracing::warn!(destination, leaf, sequence = batch.sequence, "a batch is nothing that OTLP has");
            return Given::Refused;
        };
        for (signal, encoding, body) in requests.into_iter().skip(settled) {
            match self.exchange.give(signal, encoding, body, &origin).await {
                Given::Delivered => {}
                Given::Later(asked) => {
                    self.begun = Some((name, settled, worst));
                    return Given::Later(asked);
                }
                other => worst = other,
            }
            settled += 1;
        }
        worst
    }
}

/// The requests in a batch, which was verified when it was taken in; `None`: nothing that an OTLP endpoint knows.
fn requests(batch: &KeptBatch) -> Option<Vec<(Signal, Encoding, Bytes)>> {
    let payload = Bytes::copy_from_slice(&batch.payload);
    if is_acceptance(&batch.statement) {
        let submission = Submission::read(&payload).ok()?;
        let received = Acceptance::read(&batch.statement).ok()?.received_at;
        return Some(vec![(Signal::Metrics, Encoding::Protobuf, submission.to_otlp(received).into())]);
    }
    match assay_telemetry::stated_payload_type(&batch.statement).as_deref() {
        Ok(OTLP_METRICS) => Some(vec![(Signal::Metrics, Encoding::Protobuf, payload)]),
        Ok(OTLP_BATCH) => {
            let parts = OtlpBatch::read(payload).ok()?.parts.into_iter();
            let parts = parts.filter(|part| part.signal() != Signal::Gap);
            Some(parts.map(|part| (part.signal(), part.encoding(), part.body)).collect())
        }
        _ => None,
    }
}

const BATCHES_AT_ONCE: u32 = 64;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// A destination may ask for a rest, and not for ever.
const ASKED_LONGEST: Duration = Duration::from_secs(3600);
