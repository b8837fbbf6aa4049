//! What the system's service manager is told of a program that runs for long: that it has started, that it goes on, that it ends.
//!
//! The protocol is systemd's (sd_notify(3)): words in a datagram to the socket that `NOTIFY_SOCKET` names. Where nobody asks,
//! nobody is told.

use std::future::Future;
use std::time::Duration;

use assay_clock::Clock;
use sd_notify::NotifyState;

/// Waits for what ends a program that has just started, and tells the service manager meanwhile: at once that it is ready; twice as
/// often as it asks (`WatchdogSec=`) that it goes on, which it does as long as its runtime takes turns; and last that it ends.
pub async fn attended<T>(end: impl Future<Output = T>) -> T {
    tell(NotifyState::Ready);
    let mut end = std::pin::pin!(end);
    let clock = Clock::system();
    let Some(period) = sd_notify::watchdog_enabled().map(|longest| (longest / 2).max(SHORTEST)) else {
        let ended = end.await;
        tell(NotifyState::Stopping);
        return ended;
    };
    let mut tick = clock.instant();
    loop {
        tell(NotifyState::Watchdog);
        tick += period;
        let waited = clock.sleep_until(tick);
        if let Some(ended) = either(end.as_mut(), waited).await {
            tell(NotifyState::Stopping);
            return ended;
        }
    }
}

/// What the first comes to, unless the second is over before.
async fn either<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> Option<T> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    std::future::poll_fn(|context| match first.as_mut().poll(context) {
        std::task::Poll::Ready(came) => std::task::Poll::Ready(Some(came)),
        std::task::Poll::Pending => second.as_mut().poll(context).map(|()| None),
    })
    .await
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// A manager that asks for less gets this.
const SHORTEST: Duration = Duration::from_millis(100);
