//! Word to a page that what it shows may have changed: server-sent events (HTML Standard, 9.2), so that nobody has to ask.
//!
//! An event says that, and nothing of what: the page is fetched again by whoever may see it. Its id is how many leaves the trail
//! had, so that a browser that comes back with the last one is told at once what it missed. A page hears once a second at most,
//! and of a fleet in which something happens all the time less often. The stream ends with the session, and with the right to
//! see what it is about.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::access::looks_by_itself;
use super::devices::find;
use super::parameters::Asked;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::principal::Principal;
use crate::store::{Committed, Follower};

/// What the page is about; without a device, all of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct About {
    device: String,
}

pub(super) const PARAMETERS: &[&str] = &["device"];

pub(super) async fn stream(
    State(server): State<Arc<Server>>,
    principal: Principal,
    headers: HeaderMap,
    Asked(about): Asked<About>,
) -> Result<Response, Refusal> {
    let full = |_| {
        let message =
            format!("{PAGES_TOLD_MAX} pages are told of changes already: this one asks now and then");
        Refusal::new(Kind::Exhausted, "pages", message)
    };
    let place = server.pages.clone().try_acquire_owned().map_err(full)?;
    let device = match about.device.as_str() {
        "" => None,
        name => {
            let device = find(&server, name).await?;
            if !principal.sees(&device.labels) {
                return Err(super::devices::unknown(name));
            }
            Some(device.id.to_string())
        }
    };
    let last = headers.get(&LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    let (events, receiver) = mpsc::channel(1);
    let follower = server.store.follow();
    let page = Page { server, principal, headers, device, events, _place: place };
    tokio::spawn(page.tell(follower, last));
    let stream = Sse::new(ReceiverStream::new(receiver));
    // A comment every 15 s, for what stands between and ends what is silent.
    Ok(stream.keep_alive(KeepAlive::default()).into_response())
}

/// A page that is open somewhere.
struct Page {
    server: Arc<Server>,
    principal: Principal,
    /// Which say by what right.
    headers: HeaderMap,
    device: Option<String>,
    events: mpsc::Sender<Result<Event, Infallible>>,
    _place: OwnedSemaphorePermit,
}

impl Page {
    /// Until it is closed, or may not see any more what it shows.
    async fn tell(self, mut follower: Follower, last: Option<u64>) {
        let mut shutdown = self.server.shutdown.clone();
        let clock = self.server.clock.clone();
        let mut pace = Pace::new(clock.instant());
        let mut owed = last.is_some_and(|last| last != follower.next_leaf());
        let mut look = clock.instant() + LOOK_EVERY;
        loop {
            tokio::select! {
                () = self.events.closed() => return,
                _ = shutdown.changed() => return,
                () = clock.sleep_until(look) => {
                    if !self.may_still_look().await {
                        return;
                    }
                    look = clock.instant() + LOOK_EVERY;
                }
                () = clock.sleep_until(pace.next), if owed => {
                    let event = Event::default().id(follower.next_leaf().to_string()).event(CHANGED).data("");
                    if self.events.send(Ok(event)).await.is_err() {
                        return;
                    }
                    pace.told(clock.instant());
                    owed = false;
                }
                commits = follower.next() => match commits {
                    Ok(Some(commits)) => owed |= self.concerns(&commits),
                    Ok(None) => return,
                    // Whoever is not told looks again by themselves.
                    Err(error) => return tracing::warn!(%error, "a page is not told of changes any more"),
                },
            }
        }
    }

    fn concerns(&self, commits: &[Committed]) -> bool {
        match &self.device {
            Some(device) => commits.iter().any(|committed| committed.subject == *device),
            None => !commits.is_empty(),
        }
    }

    /// The session stands, it is as somebody else's nor less than it was, and the device is one that they see.
    async fn may_still_look(&self) -> bool {
        let now = looks_by_itself(&self.server, &self.headers);
        if now.as_ref() != Some(&self.principal) {
            return false;
        }
        match &self.device {
            None => true,
            Some(device) => {
                find(&self.server, device).await.is_ok_and(|device| self.principal.sees(&device.labels))
            }
        }
    }
}

/// How often a page hears: once a second, and each time at twice the distance while it never stops.
struct Pace {
    next: Instant,
    every: Duration,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { next: now, every: AT_MOST_EVERY }
    }

    fn told(&mut self, now: Instant) {
        // It was quiet for as long again since it could have been told.
        let was_quiet = now.saturating_duration_since(self.next) >= self.every;
        self.every = if was_quiet { AT_MOST_EVERY } else { (self.every * 2).min(AT_LEAST_EVERY) };
        self.next = now + self.every;
    }
}

/// Pages that are told at once; each holds a task and some hundred bytes.
pub(crate) const PAGES_TOLD_MAX: usize = 1024;
const CHANGED: &str = "changed";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
const AT_LEAST_EVERY: Duration = Duration::from_secs(8);
/// The time within which a page loses what it may not see any more.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_hears_at_once_after_quiet_and_less_often_in_a_storm() {
        let start = assay_clock::Clock::system().instant();
        let mut pace = Pace::new(start);
        let mut now = start + Duration::from_secs(60);
        let mut waits = Vec::new();
        for _ in 0..6 {
            pace.told(now);
            waits.push((pace.next - now).as_secs());
            now = pace.next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
        pace.told(now + Duration::from_secs(8));
        assert_eq!(pace.every, AT_MOST_EVERY);
    }
}
