//! `assay-agent run`: brings the parts up, keeps the device attached, and takes everything down again.
//!
//! [`parts`] is the list of what lives as long as the agent.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use assay_clock::Clock;
use assay_identity::bundle::BundleError;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ak_certificate;
use crate::ask::Asker;
use crate::config::Config;
use crate::door;
use crate::door::actions::ActionsError;
use crate::door::json::{JsonDoor, JsonProtocolError};
use crate::door::local::{Socket, SocketError};
use crate::door::otlp::Listeners;
use crate::door::secrets::{SecretsDoor, SecretsError};
use crate::holding::{Grants, Held, Holding, OwnLife};
use crate::link::Linked;
use crate::offline;
use crate::place::{Place, Receiver};
use crate::state_dir::{StateDir, StateError};
use crate::task::{self, Room, Tasks, TasksError, Wire};
use crate::telemetry::{Settings, Telemetry, TelemetryError};
use crate::upstream::Memory;
use crate::upstream::attach::Upstream;

/// The agent cannot start, or cannot go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The trust bundle cannot be read.
    #[error("{path}: the trust bundle cannot be read")]
    ReadBundle {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The trust bundle is none.
    #[error("{path}: no trust bundle")]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// The trust bundle has nothing in it.
    #[error("{path}: no certificate in it; copy the server's bundle.pem here")]
    EmptyBundle {
        /// Which file.
        path: PathBuf,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The Workload API's socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The addresses for OTLP cannot be had.
    #[error("the address for OTLP cannot be used")]
    Otlp(#[source] std::io::Error),
    /// The JSON protocol cannot be served.
    #[error(transparent)]
    JsonProtocol(#[from] JsonProtocolError),
    /// Actions cannot be run.
    #[error(transparent)]
    Actions(#[from] ActionsError),
    /// Secrets cannot be put where they are to be.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// What waits to be handed in cannot be opened.
    #[error("telemetry cannot be kept")]
    Telemetry(#[from] TelemetryError),
    /// Tasks cannot be run.
    #[error(transparent)]
    Tasks(#[from] TasksError),
    /// A part ended that never should.
    #[error("the agent's {part} ended")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}

/// A part of the agent: its name, and what it does until it is dropped.
type Part = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

/// Runs the agent until `stop` is done. What cannot be had now (gateway, TPM, grants) is tried for again and again;
/// what can never work (configuration, files, socket) is an error at once.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    run_by(Clock::system(), config, stop).await
}

/// The same, by a clock of the caller's.
pub async fn run_by(clock: Clock, config: Config, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    tls::install_crypto_provider();
    let parts = parts(config, clock)?;
    let mut running = JoinSet::new();
    for (name, part) in parts {
        running.spawn(async move {
            part.await;
            name
        });
    }
    let ended = tokio::select! {
        () = stop => Ok(()),
        part = running.join_next() => Err(RunError::Ended { part: part.and_then(Result::ok).unwrap_or("task") }),
    };
    // Waits for the tasks to let go, so that the TPM's slots are flushed and the socket is removed.
    running.shutdown().await;
    tracing::info!("agent stopped");
    ended
}

/// Everything that lives as long as the agent. The parts share what the device holds and the link of the moment.
fn parts(config: Config, clock: Clock) -> Result<Vec<Part>, RunError> {
    let state = StateDir::open(&config.state)?;
    let installed = read_bundle(&config)?;
    let memory = Memory::load(&state, &installed.to_der())?;
    // The first list comes with the first announcement; until then nothing that a gateway says counts.
    let trust = Trust { bundle: believed(installed, &memory, &config)?, crls: CrlSet::bootstrapping() };
    let trust = TrustSource::new(trust);
    let socket = Socket::bind(&config.workload_api)?;
    tracing::info!(
        name = %config.name, tpm = %config.sources.tpm, gateway = %config.gateway,
        workload_api = %config.workload_api.display(), "agent started"
    );
    let (held, holding) = watch::channel(Holding::default());
    let (link, linked) = watch::channel(None);
    let (asker, asks) = Asker::new();
    let domain = config.trust_domain.clone();

    let mut parts: Vec<Part> = vec![
        (
            "local door",
            Box::pin(door::serve(
                socket,
                (holding.clone(), asker, linked.clone()),
                domain.clone(),
                config.engines.clone(),
                clock.clone(),
            )),
        ),
        ("janitor", Box::pin(expire(held.clone(), clock.clone()))),
    ];
    parts.extend(telemetry(&config, &state, (&linked, &holding), &clock)?);
    let (secrets_linked, secrets_holding) = (linked.clone(), holding.clone());
    let tasks = tasks(&config, &state, (&linked, &holding), &clock, &mut parts)?;
    let attested = ak_certificate::keep(state.clone(), holding.clone(), clock.clone());
    parts.push(("certificate of the AK", Box::pin(attested)));
    let sealing = offline::keep(state.clone(), linked, holding, clock.clone());
    parts.push(("grants for a restart without a server", Box::pin(sealing)));
    if let Some(actions) = config.actions.clone() {
        actions.check()?;
        parts
            .push(("actions", Box::pin(door::actions::run(actions, secrets_holding.clone(), clock.clone()))));
    }
    let mut grants = Grants::new(held, trust.clone(), domain, memory.remembered().clone());
    if let Some(secrets) = config.secrets.clone() {
        let door = SecretsDoor::open(secrets, secrets_linked)?;
        parts.push(("secrets", Box::pin(door.keep(secrets_holding, clock.clone()))));
        grants = grants.with_secrets();
    }
    parts.push((
        "device",
        Box::pin(Upstream::new(config, state, trust, grants, memory, clock, (link, asks, tasks)).run()),
    ));
    Ok(parts)
}

/// What measures, takes in and hands in, as far as it is configured.
fn telemetry(
    config: &Config,
    state: &StateDir,
    (linked, holding): (&Linked, &watch::Receiver<Holding>),
    clock: &Clock,
) -> Result<Vec<Part>, RunError> {
    let mut parts: Vec<Part> = Vec::new();
    let json = config.json_protocol.clone().map(|json| (json.listen, json));
    let listeners = [config.otlp_grpc, config.otlp_http, json.as_ref().map(|(listen, _)| *listen)];
    let otlp = Listeners::bind(listeners).map_err(RunError::Otlp)?;
    if config.telemetry_interval.is_some() || !otlp.addresses().is_empty() {
        let settings = Settings {
            interval: config.telemetry_interval,
            flush: config.telemetry_flush,
            spool_bytes_max: config.spool_bytes_max,
            place: place(config, clock, &mut parts),
        };
        let telemetry = Telemetry::open(settings, state.clone(), clock.clone())?;
        say_addresses(&otlp, state)?;
        let mut otlp = otlp;
        if let (Some((_, json)), Some(listener)) = (json, otlp.take_json()) {
            let door = JsonDoor::new(json, telemetry.intake(), linked.clone(), state.clone())?;
            parts.push(("JSON door", Box::pin(door.serve(listener))));
        }
        parts.push(("OTLP door", Box::pin(door::otlp::serve(otlp, telemetry.intake()))));
        parts.push(("telemetry", Box::pin(telemetry.run(linked.clone(), holding.clone()))));
    }
    Ok(parts)
}

/// What is stated of the device's place, with what listens to a receiver.
fn place(config: &Config, clock: &Clock, parts: &mut Vec<Part>) -> Place {
    let place = Place::written(config.location.clone());
    let (Some(gpsd), Some(whereabouts)) = (&config.gpsd, &config.location) else { return place };
    let (receiver, heard) = Receiver::new(gpsd.clone(), whereabouts, clock.clone());
    parts.push(("receiver", Box::pin(receiver.run())));
    place.with(heard, Duration::from_secs(gpsd.fix_age_max_seconds))
}

/// What runs tasks, where the device does; the end of whoever speaks with the server, and the room that there is.
fn tasks(
    config: &Config,
    state: &StateDir,
    (linked, holding): (&Linked, &watch::Receiver<Holding>),
    clock: &Clock,
    parts: &mut Vec<Part>,
) -> Result<Option<(Wire, Room)>, RunError> {
    let Some(config) = &config.tasks else { return Ok(None) };
    let (line, wire) = task::line();
    let tasks = Tasks::open(config, state.unheld(), linked.clone(), line, clock.clone())?;
    parts.push(("tasks", Box::pin(tasks.run(holding.clone()))));
    Ok(Some((wire, config.room())))
}

/// Says where telemetry is taken in, in the log and in a file: port 0 takes a free one.
fn say_addresses(otlp: &Listeners, state: &StateDir) -> Result<(), StateError> {
    let addresses: serde_json::Map<_, _> = otlp
        .addresses()
        .into_iter()
        .map(|(protocol, address)| {
            tracing::info!(protocol, %address, "telemetry of programs is taken in");
            (protocol.to_owned(), address.to_string().into())
        })
        .collect();
    state.write("addresses.json", serde_json::Value::from(addresses).to_string().as_bytes())
}

/// Takes SVIDs that nobody could renew out of the holding when their time is over, and says of the device's own how late it is.
async fn expire(held: Held, clock: Clock) {
    let mut own = OwnLife::default();
    let mut tick = clock.ticks(EXPIRY_INTERVAL);
    loop {
        tick.tick().await;
        held.send_if_modified(|holding| holding.expire(clock.now()));
        own.look(&held.borrow(), clock.now());
    }
}

/// The authorities that those it was installed with have led to.
fn believed(installed: Bundle, memory: &Memory, config: &Config) -> Result<Bundle, RunError> {
    match memory.remembered().bundle.as_slice() {
        [] => Ok(installed),
        bundle => Bundle::from_der(config.trust_domain.clone(), bundle)
            .map_err(|source| RunError::Bundle { path: config.state.clone(), source }),
    }
}

fn read_bundle(config: &Config) -> Result<Bundle, RunError> {
    let path = || config.bundle.clone();
    let pem =
        std::fs::read(&config.bundle).map_err(|source| RunError::ReadBundle { path: path(), source })?;
    let bundle = Bundle::from_pem(config.trust_domain.clone(), &pem)
        .map_err(|source| RunError::Bundle { path: path(), source })?;
    // With no authority no gateway would ever be recognised.
    if bundle.authorities().next().is_none() {
        return Err(RunError::EmptyBundle { path: path() });
    }
    Ok(bundle)
}

/// How exactly an SVID's end is kept.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
