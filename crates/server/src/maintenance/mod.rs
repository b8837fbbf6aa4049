//! What has to happen by the clock: stale trust expires ([`expiry`]), lists and certificates are renewed, history is
//! forgotten.

mod chore;
pub(crate) mod expiry;
mod sealing;

use std::sync::Arc;
use std::time::Duration;

use assay_evidence::time::UnixTime;

use crate::config::Config;
use crate::in_force::endorsers::{EndorsersError, ListInForce};
use crate::in_force::manifest::ManifestError;
use crate::keys::{FileError, KeysError, ServerCertificate};
use crate::outcome::fault;
use crate::parts::Server;
use crate::store::{Dropped, PruneHistory, StoreError, Why};
use crate::thread::{aside, caught};
use chore::Chore;

/// Runs until the server stops. What fails is tried again at the next turn.
pub(crate) async fn run(server: Arc<Server>) {
    while let Err(panicked) = caught(turns(&server)).await {
        fault("panic", &panicked);
        server.clock.sleep(TICK).await;
    }
}

async fn turns(server: &Arc<Server>) {
    let mut shutdown = server.shutdown.clone();
    let mut ticks = server.clock.ticks(TICK);
    let mut chores = Chores::new(server, server.now());
    loop {
        tokio::select! {
            _ = ticks.tick() => chores.turn(server, server.now()).await,
            _ = shutdown.changed() => return,
        }
    }
}

/// What is done by the clock.
struct Chores {
    endorsers: Chore,
    manifest: Chore,
    keeping: Chore,
    storage: Chore,
    reminder: Chore,
    certificates: Chore,
    issuing: Chore,
    list: Chore,
    certificate: Chore,
    pruning: Chore,
    sealing: Chore,
}

impl Chores {
    fn new(server: &Server, now: UnixTime) -> Chores {
        let renew_at = UnixTime(server.tls.life().renew_at().as_secs());
        Chores {
            endorsers: Chore::new("trust anchors and revocation lists", now),
            manifest: Chore::new("enrollment manifest", now),
            keeping: Chore::new("keeping the revocation list", now),
            storage: Chore::new("storage", now),
            reminder: Chore::new("reminder", now),
            certificates: Chore::new("lives of certificates", now),
            issuing: Chore::new("issuing CA", now),
            list: Chore::new("revocation list", now.plus(server.config.crl_ttl_seconds / 2)),
            certificate: Chore::new("server's certificate", renew_at),
            pruning: Chore::new("pruning", now.plus(PRUNE_EVERY_SECONDS)),
            sealing: Chore::new("sealing telemetry", now),
        }
    }

    async fn turn(&mut self, server: &Arc<Server>, now: UnixTime) {
        server.concerns.look_at_disk(server);
        if self.endorsers.is_due(now) {
            self.endorsers.did(read_endorsers(server, now).await.map(|()| now), now);
            measure_endorsers(server, now);
        }
        if self.manifest.is_due(now) {
            self.manifest.did(read_manifest(server).await.map(|()| now), now);
        }
        if self.issuing.is_due(now) {
            let renewed = server.authority.renew_issuing(now);
            self.issuing.did(renewed.map(|_| now.plus(ISSUING_EVERY_SECONDS)), now);
        }
        if self.list.is_due(now) {
            let renewed = server.revocations.renew(&server.store, now).await;
            self.list.did(renewed.map(|()| now.plus(server.config.crl_ttl_seconds / 2)), now);
        }
        if self.certificate.is_due(now) {
            self.certificate.did(renew_certificate(server, now).await, now);
        }
        if self.keeping.is_due(now) {
            self.keeping.did(keep_list(server).await.map(|()| now), now);
        }
        if self.storage.is_due(now) {
            let measured = measure(server, now).await;
            self.storage.did(measured.map(|()| now.plus(STORAGE_EVERY_SECONDS)), now);
        }
        if self.reminder.is_due(now) {
            remind(server, now);
            self.reminder.did(Ok::<_, StoreError>(now.plus(REMIND_EVERY_SECONDS)), now);
        }
        if self.certificates.is_due(now) {
            server.metrics.clocks(server.registry.clocks());
            let looked = server.concerns.look(server, now).await;
            self.certificates.did(looked.map(|()| now.plus(CERTIFICATES_EVERY_SECONDS)), now);
        }
        if self.pruning.is_due(now) {
            self.pruning.did(prune(server, now).await.map(|seconds| now.plus(seconds)), now);
        }
        if self.sealing.is_due(now) {
            self.sealing.did(sealing::seal_runs(&server.store, now).await.map(|()| now), now);
        }
    }
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
    let bytes = server.store.bytes().await?;
    server.metrics.waiting(server.store.waiting().await?);
    server.metrics.list_ends(server.revocations.ends());
    server.metrics.stored(&server.store.storage(now).await?, bytes, server.revocations.bytes());
    Ok(())
}

/// Keeps the revocation list beside the database.
async fn keep_list(server: &Arc<Server>) -> Result<(), FileError> {
    let at = server.clone();
    aside(move || at.revocations.keep(&at.config.data)).await.unwrap_or_else(|panicked| {
        fault("panic", &panicked);
        Ok(())
    })
}

/// Shows which makers' lists grow old, and whether they can be read at all.
fn measure_endorsers(server: &Server, now: UnixTime) {
    let failing = server.endorsers.failing_since().map(|since| now.0.saturating_sub(since.0));
    server.metrics.endorsers(failing.unwrap_or(0), &server.endorsers.current().lists);
}

/// Says again what an operator has to do something about, for as long as nobody did.
fn remind(server: &Server, now: UnixTime) {
    server.concerns.remind();
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

async fn renew_certificate(server: &Server, now: UnixTime) -> Result<UnixTime, KeysError> {
    let Config { names, server_svid_ttl_seconds: ttl, .. } = &server.config;
    let certificate = ServerCertificate::issue(&server.authority, &server.store, names, *ttl, now).await?;
    server.tls.renew(&certificate)?;
    if let Some(tls) = &server.spire_tls {
        let (authority, store) = (&server.authority, &server.store);
        tls.renew(&ServerCertificate::issue_for_spire(authority, store, names, *ttl, now).await?)?;
    }
    Ok(UnixTime(certificate.life.renew_at().as_secs()))
}

/// Returns in how many seconds to look again: at once while there is more to forget.
async fn prune(server: &Server, now: UnixTime) -> Result<u64, StoreError> {
    let config = &server.config;
    let before = |seconds| UnixTime(now.0.saturating_sub(seconds));
    let prune = PruneHistory {
        now,
        telemetry_before: before(config.telemetry_retention_seconds),
        telemetry_bytes_max: config.telemetry_bytes_max,
        svids_before: before(ENDED_SVIDS_KEPT_SECONDS),
        evidence_before: before(config.evidence_retention_seconds),
        evidence_bytes_max: config.evidence_bytes_max,
    };
    let pruned = server.store.commit(prune).await?;
    for (why, dropped) in [(Why::Age, pruned.old), (Why::All, pruned.over)] {
        dropped_telemetry(server, why, &dropped);
    }
    Ok(if pruned.is_nothing() { PRUNE_EVERY_SECONDS } else { 0 })
}

fn dropped_telemetry(server: &Server, why: Why, dropped: &Dropped) {
    server.metrics.telemetry_dropped(why, dropped);
    let Dropped { runs, batches, bytes } = *dropped;
    match why {
        _ if runs == 0 => {}
        Why::Age => tracing::info!(runs, batches, bytes, "telemetry is past its time and no longer kept"),
        Why::Device | Why::All => {
            tracing::warn!(
                runs,
                batches,
                bytes,
                why = why.name(),
                "telemetry made room and is no longer kept"
            );
        }
    }
}

/// How often it is looked what is due.
const TICK: Duration = Duration::from_secs(1);
/// A certificate of a year.
const ISSUING_EVERY_SECONDS: u64 = 60;
const PRUNE_EVERY_SECONDS: u64 = 600;
const STORAGE_EVERY_SECONDS: u64 = 15;
const CERTIFICATES_EVERY_SECONDS: u64 = 15;
const REMIND_EVERY_SECONDS: u64 = 3600;
/// So that an operator can look at what was.
const ENDED_SVIDS_KEPT_SECONDS: u64 = 7 * 24 * 3600;
