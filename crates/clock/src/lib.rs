//! What time it is, for every part that runs: the one place that asks the system.
//!
//! Whoever needs the time holds a [`Clock`]. It is the system's, unless somebody made one that has [`Hands`]: that one goes
//! as the system's does, and whoever holds the hands moves it, so that a year passes in seconds or a machine is two hours
//! off. Bounds on how long a peer may take within a connection are no matter of a clock: they stay with the runtime.

mod backoff;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio::sync::watch;
use tokio::time::Instant;

pub use backoff::{Backoff, jitter};

/// Where a part reads the time, and waits for it.
#[derive(Clone, Default)]
pub struct Clock(Option<watch::Receiver<Moved>>);

/// What moves a clock. Dropped, the clock stays moved and goes on.
#[derive(Debug)]
pub struct Hands(watch::Sender<Moved>);

/// How far a clock is from the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moved {
    /// The time of day, which may be set to anything.
    calendar: Offset,
    /// The time that has passed, which only grows.
    passed: Duration,
}

/// Ahead of the system's, or behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offset {
    Ahead(Duration),
    Behind(Duration),
}

impl Default for Offset {
    fn default() -> Self {
        Offset::Ahead(Duration::ZERO)
    }
}

impl Clock {
    /// The system's own.
    pub fn system() -> Clock {
        Clock(None)
    }

    /// One that can be moved, and what moves it.
    pub fn with_hands() -> (Clock, Hands) {
        let (hands, moved) = watch::channel(Moved::default());
        (Clock(Some(moved)), Hands(hands))
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        let system = SystemTime::now();
        match self.moved().calendar {
            Offset::Ahead(by) => system.checked_add(by).unwrap_or(system),
            Offset::Behind(by) => system.checked_sub(by).unwrap_or(UNIX_EPOCH),
        }
    }

    /// The time of day as certificates have it: whole seconds since 1970. A clock before 1970 counts as 1970, where nothing
    /// is fresh.
    pub fn unix_time(&self) -> UnixTime {
        UnixTime::since_unix_epoch(self.since_1970())
    }

    /// The time of day as Python's `datetime.utcnow().isoformat()` writes it: UTC that does not say so, to the microsecond.
    pub fn utc_without_zone(&self) -> String {
        let since = self.since_1970();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}",
            since.subsec_micros()
        )
    }

    /// The seconds since 1970.
    pub fn seconds(&self) -> u64 {
        self.since_1970().as_secs()
    }

    /// How long until the time of day is another second: what ends then has ended, to the moment.
    pub fn until_next_second(&self) -> Duration {
        let fraction = Duration::from_nanos(self.since_1970().subsec_nanos().into());
        Duration::from_secs(1).saturating_sub(fraction)
    }

    /// A moment to measure from, whatever becomes of the time of day.
    pub fn instant(&self) -> Instant {
        let system = Instant::now();
        system.checked_add(self.moved().passed).unwrap_or(system)
    }

    /// Waits until so much time has passed.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.instant() + duration.min(FAR)).await;
    }

    /// Waits until a moment of [`Clock::instant`].
    pub async fn sleep_until(&self, moment: Instant) {
        match self.0.clone() {
            None => tokio::time::sleep_until(moment).await,
            // Boxed, so that thousands who wait by the system's clock do not pay for it.
            Some(moved) => Box::pin(self.sleep_while_moved(moment, moved)).await,
        }
    }

    async fn sleep_while_moved(&self, moment: Instant, mut moved: watch::Receiver<Moved>) {
        loop {
            moved.borrow_and_update();
            let left = moment.saturating_duration_since(self.instant());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                changed = moved.changed() => {
                    // A clock that nobody moves any more goes on as it is.
                    if changed.is_err() {
                        tokio::time::sleep(moment.saturating_duration_since(self.instant())).await;
                    }
                }
            }
        }
    }

    /// Ticks of this period, the first at once; one that comes late moves the next.
    pub fn ticks(&self, period: Duration) -> Ticks {
        Ticks { clock: self.clone(), period, next: self.instant() }
    }

    fn since_1970(&self) -> Duration {
        self.now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn moved(&self) -> Moved {
        self.0.as_ref().map(|moved| *moved.borrow()).unwrap_or_default()
    }
}

impl Hands {
    /// Lets time pass: whatever waits for less is woken.
    pub fn advance(&self, duration: Duration) {
        self.0.send_modify(|moved| {
            moved.passed = moved.passed.saturating_add(duration);
            moved.calendar = match moved.calendar {
                Offset::Ahead(by) => Offset::Ahead(by.saturating_add(duration)),
                Offset::Behind(by) if by > duration => Offset::Behind(by - duration),
                Offset::Behind(by) => Offset::Ahead(duration - by),
            };
        });
    }

    /// Sets the time of day ahead of the system's by so much. No time passes by that.
    pub fn set_ahead(&self, by: Duration) {
        self.0.send_modify(|moved| moved.calendar = Offset::Ahead(by));
    }

    /// Sets the time of day behind the system's by so much. No time passes by that.
    pub fn set_behind(&self, by: Duration) {
        self.0.send_modify(|moved| moved.calendar = Offset::Behind(by));
    }
}

/// TLS verifies certificates by it.
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.unix_time())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("Clock(system)"),
            Some(_) => f.debug_tuple("Clock").field(&self.moved()).finish(),
        }
    }
}

/// What happens again and again.
#[derive(Debug)]
pub struct Ticks {
    clock: Clock,
    period: Duration,
    next: Instant,
}

impl Ticks {
    /// Waits for the next one. Dropped while it waits, it is not missed.
    pub async fn tick(&mut self) {
        self.clock.sleep_until(self.next).await;
        self.next = self.clock.instant() + self.period;
    }
}

/// The clock for TLS, which has it shared.
impl From<&Clock> for Arc<dyn TimeProvider> {
    fn from(clock: &Clock) -> Self {
        Arc::new(clock.clone())
    }
}

/// Longer than anything runs.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Year, month and day of a day since 1970, by the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Eras of 400 years, each of which begins on the first of March of a year that 400 divides.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    #[test]
    fn days_have_the_dates_of_the_calendar() {
        for (days, date) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11016, "2000-02-29"),
            (11017, "2000-03-01"),
            (19782, "2024-02-29"),
            (20424, "2025-12-02"),
            (47540, "2100-02-28"),
        ] {
            let (year, month, day) = civil(days);
            assert_eq!(format!("{year:04}-{month:02}-{day:02}"), date);
        }
        assert_eq!(Clock::system().utc_without_zone().len(), "2025-08-15T10:00:00.123456".len());
    }

    #[tokio::test]
    async fn a_year_passes_for_whoever_waits_for_it_when_the_hands_move() {
        let (clock, hands) = Clock::with_hands();
        let (began, waiting) = (clock.seconds(), clock.clone());
        let waiter = tokio::spawn(async move {
            let mut ticks = waiting.ticks(YEAR);
            ticks.tick().await;
            ticks.tick().await;
            waiting.seconds()
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        hands.advance(YEAR);
        assert!(waiter.await.unwrap() >= began + YEAR.as_secs());
    }

    #[tokio::test]
    async fn setting_the_time_of_day_wakes_nobody_and_dropping_the_hands_stops_nothing() {
        let (clock, hands) = Clock::with_hands();
        let began = clock.instant();
        hands.set_behind(YEAR);
        assert!(clock.seconds() < Clock::system().seconds());
        hands.advance(2 * YEAR);
        assert!(clock.seconds() > Clock::system().seconds() + YEAR.as_secs() - 2);
        hands.set_ahead(Duration::ZERO);
        assert!(clock.instant() >= began + 2 * YEAR);
        let (waiting, moment) = (clock.clone(), clock.instant() + Duration::from_millis(1));
        let waiter = tokio::spawn(async move { waiting.sleep_until(moment).await });
        drop(hands);
        waiter.await.unwrap();
    }

    #[test]
    fn the_system_clock_is_the_systems() {
        let clock = Clock::default();
        let apart = clock.now().duration_since(SystemTime::now());
        assert!(apart.unwrap_or_else(|error| error.duration()) < Duration::from_secs(60));
        assert!(clock.until_next_second() <= Duration::from_secs(1));
    }
}
