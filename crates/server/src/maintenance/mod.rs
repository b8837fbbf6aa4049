//! What has to happen by the clock: stale trust expires ([`expiry`]), lists and certificates are renewed, history is
//! forgotten.

pub(crate) mod expiry;

use std::sync::Arc;
use std::time::Duration;

use assay_evidence::time::UnixTime;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::clock;
use crate::in_force::endorsers::{EndorsersError, ListInForce};
use crate::in_force::manifest::ManifestError;
use crate::keys::{KeysError, ServerCertificate};
use crate::outcome::{chain, fault};
use crate::parts::Server;
use crate::store::{PruneHistory, StoreError};
use crate::thread::{aside, caught};

/// Runs until the server stops. What fails is tried again at the next turn.
pub(crate) async fn run(server: Arc<Server>) {
    while let Err(panicked) = caught(turns(&server)).await {
        fault("panic", &panicked);
        sleep(TICK).await;
    }
}

async fn turns(server: &Arc<Server>) {
    let mut shutdown = server.shutdown.clone();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let now = clock::now();
    let mut due = Due {
        crl: now.plus(server.config.crl_ttl_seconds / 2),
        certificate: now.plus(server.config.server_svid_ttl_seconds / 2),
        pruning: now.plus(PRUNE_EVERY_SECONDS),
        storage: now,
        reminder: now,
    };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = shutdown.changed() => return,
        }
        let now = clock::now();
        report("trust anchors and revocation lists", read_endorsers(server, now).await);
        report("enrollment manifest", read_manifest(server).await);
        measure_endorsers(server, now);
        keep_list(server).await;
        if now >= due.storage {
            due.storage = now.plus(STORAGE_EVERY_SECONDS);
            report("storage", measure(server, now).await);
        }
        if now >= due.reminder {
            due.reminder = now.plus(REMIND_EVERY_SECONDS);
            remind(server, now);
        }
        if now >= due.crl {
            due.crl = now.plus(retry_or(
                server.config.crl_ttl_seconds / 2,
                server.revocations.renew(&server.store, now).await,
            ));
        }
        if now >= due.certificate {
            due.certificate = renew_certificate(server, now).await;
        }
        if now >= due.pruning {
            due.pruning = now.plus(prune(server, now).await);
        }
    }
}

/// When each chore is next.
struct Due {
    crl: UnixTime,
    certificate: UnixTime,
    pruning: UnixTime,
    storage: UnixTime,
    reminder: UnixTime,
}

/// Looks whether a trust anchor or revocation list is another than before; attached streams hear of it.
async fn read_endorsers(server: &Arc<Server>, now: UnixTime) -> Result<(), EndorsersError> {
    let endorsers = server.endorsers.clone();
    match aside(move || endorsers.read_again(now)).await {
        Ok(outcome) => outcome.map(|_| ()),
        Err(panicked) => {
            fault("panic", &panicked);
            Ok(())
        }
    }
}

/// Looks whether the enrollment manifest is another than before.
async fn read_manifest(server: &Arc<Server>) -> Result<(), ManifestError> {
    let newcomers = server.newcomers.clone();
    aside(move || newcomers.manifest.read_again()).await.unwrap_or_else(|panicked| {
        fault("panic", &panicked);
        Ok(())
    })
}

/// Counts what the database takes.
async fn measure(server: &Server, now: UnixTime) -> Result<(), StoreError> {
    let file = server.config.database();
    let bytes = aside(move || std::fs::metadata(file).map_or(0, |file| file.len())).await.unwrap_or(0);
    server.metrics.stored(&server.store.storage(now).await?, bytes, server.revocations.bytes());
    Ok(())
}

/// Keeps the revocation list beside the database.
async fn keep_list(server: &Arc<Server>) {
    let at = server.clone();
    match aside(move || at.revocations.keep(&at.config.data)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => fault("revocation list", &error),
        Err(panicked) => fault("panic", &panicked),
    }
}

/// Shows which makers' lists grow old, and whether they can be read at all.
fn measure_endorsers(server: &Server, now: UnixTime) {
    let failing = server.endorsers.failing_since().map(|since| now.0.saturating_sub(since.0));
    server.metrics.endorsers(failing.unwrap_or(0), &server.endorsers.current().lists);
}

/// Says again what an operator has to do something about, for as long as nobody did.
fn remind(server: &Server, now: UnixTime) {
    for ListInForce { issuer, next_update } in server.endorsers.current().lists.iter() {
        if *next_update < now {
            tracing::error!(
                issuer,
                %next_update,
                "the revocation list of a maker of TPMs is past its time: fetch its newest into ek_crls"
            );
        }
    }
}

async fn renew_certificate(server: &Server, now: UnixTime) -> UnixTime {
    let config = &server.config;
    let issued = ServerCertificate::issue(
        &server.authority,
        &server.store,
        &config.names,
        config.server_svid_ttl_seconds,
        now,
    );
    let renewed = issued.await.and_then(|certificate| {
        server.tls.renew(&certificate)?;
        Ok(certificate.renew_at)
    });
    renewed.unwrap_or_else(|error| {
        tracing::error!(error = %chain(&error), "the server's certificate was not renewed");
        now.plus(RETRY_SECONDS)
    })
}

/// Returns in how many seconds to look again: at once while there is more to forget.
async fn prune(server: &Server, now: UnixTime) -> u64 {
    let config = &server.config;
    let before = |seconds| UnixTime(now.0.saturating_sub(seconds));
    let prune = PruneHistory {
        telemetry_before: before(config.telemetry_retention_seconds),
        svids_before: before(ENDED_SVIDS_KEPT_SECONDS),
        evidence_before: before(config.evidence_retention_seconds),
        evidence_bytes_max: config.evidence_bytes_max,
    };
    match server.store.commit(prune).await {
        Ok(0) => PRUNE_EVERY_SECONDS,
        Ok(_) => 0,
        Err(error) => {
            report("pruning", Err::<(), StoreError>(error));
            PRUNE_EVERY_SECONDS
        }
    }
}

fn retry_or(seconds: u64, outcome: Result<(), KeysError>) -> u64 {
    match outcome {
        Ok(()) => seconds,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the revocation list was not renewed");
            RETRY_SECONDS
        }
    }
}

fn report<E: std::error::Error>(chore: &str, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        tracing::error!(chore, error = %chain(&error), "a chore failed");
    }
}

/// How often it is looked what is due.
const TICK: Duration = Duration::from_secs(1);
const RETRY_SECONDS: u64 = 5;
const PRUNE_EVERY_SECONDS: u64 = 600;
const STORAGE_EVERY_SECONDS: u64 = 15;
const REMIND_EVERY_SECONDS: u64 = 3600;
/// So that an operator can look at what was.
const ENDED_SVIDS_KEPT_SECONDS: u64 = 7 * 24 * 3600;
