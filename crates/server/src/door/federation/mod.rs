//! Out to other trust domains: their bundles, fetched from where an operator says they are (SPIFFE Federation 5).
//!
//! A bundle is asked for as often as it says it is worth, within bounds, and what cannot be fetched leaves the one that is
//! there. Redirects are not followed, an answer is read up to a bound, and nothing that answers is believed but by its profile.

mod fetch;

use std::sync::Arc;
use std::time::Duration;

use assay_evidence::time::UnixTime;
use tokio::task::JoinSet;

use self::fetch::FetchError;
pub use self::fetch::NoWebRoots;
pub(crate) use self::fetch::web_roots;
use crate::federation;
use crate::in_force::federation::Foreign;
use crate::outcome::{Kind, Outcome, chain};
use crate::parts::Server;
use crate::thread::caught;

/// Fetches what is due until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let mut shutdown = server.shutdown.clone();
    let mut under_way = JoinSet::new();
    loop {
        let now = server.now();
        let (due, next) = server.federation.due(now);
        for foreign in due {
            // Until it is there nobody asks for it again.
            server.federation.note(&foreign.trust_domain, |fetching| {
                fetching.due_at = Some(now.plus(GIVE_UP_SECONDS));
            });
            let server = server.clone();
            under_way.spawn(async move { caught(refresh(&server, &foreign)).await.map(drop) });
        }
        let wait =
            next.map_or(LOOK_EVERY_SECONDS, |next| next.0.saturating_sub(now.0)).clamp(1, LOOK_EVERY_SECONDS);
        tokio::select! {
            () = server.federation.changed() => {}
            Some(_) = under_way.join_next() => {}
            () = server.clock.sleep(Duration::from_secs(wait)) => {}
            _ = shutdown.changed() => return,
        }
    }
}

/// Fetches one now; whether that brought another bundle.
pub(crate) async fn refresh(server: &Server, foreign: &Foreign) -> Result<bool, FetchError> {
    let fetched = fetch::fetch(server, foreign).await;
    let (now, of) = (server.now(), &foreign.trust_domain);
    match fetched {
        Ok(bundle) => {
            // What it says is what it is worth, and nobody is asked all the time or never.
            let hint = bundle.refresh_hint_seconds().clamp(REFRESH_SECONDS_MIN, REFRESH_SECONDS_MAX);
            let taken = federation::fetched(&server.store, (&foreign.record, &bundle), now).await;
            let taken = taken.map_err(FetchError::from);
            note(server, foreign, taken.as_ref().err(), now.plus(hint));
            taken
        }
        Err(error) => {
            let attempts = server.federation.progress(of).attempts;
            let wait = RETRY_SECONDS.saturating_mul(1 << attempts.min(6)).min(RETRY_SECONDS_MAX);
            note(server, foreign, Some(&error), now.plus(wait));
            Err(error)
        }
    }
}

fn note(server: &Server, foreign: &Foreign, error: Option<&FetchError>, due_at: UnixTime) {
    let (now, of) = (server.now(), &foreign.trust_domain);
    let failure = error.map(|error| chain(error));
    if let Some(failure) = &failure {
        let url = &foreign.record.url;
        tracing::warn!(trust_domain = %of, url, error = failure, "the bundle of another trust domain was not fetched");
    }
    server.federation.note(of, |fetching| {
        fetching.due_at = Some(due_at);
        fetching.attempts = if failure.is_some() { fetching.attempts.saturating_add(1) } else { 0 };
        if failure.is_none() {
            fetching.fetched_at = Some(now);
        }
        fetching.failure = failure;
    });
}

impl Outcome for FetchError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            FetchError::NoEndpoint => (Kind::NotFound, "unknown-federation"),
            FetchError::Taken(error) => error.told(),
            _ => (Kind::Unavailable, "bundle-not-fetched"),
        }
    }
}

/// How often it is looked whether anything is due, should nothing else say so.
const LOOK_EVERY_SECONDS: u64 = 60;
/// Longer than a fetch may take.
const GIVE_UP_SECONDS: u64 = 60;
const REFRESH_SECONDS_MIN: u64 = 10;
const REFRESH_SECONDS_MAX: u64 = 24 * 3600;
/// After a failure; twice that after the next.
const RETRY_SECONDS: u64 = 5;
const RETRY_SECONDS_MAX: u64 = 300;
