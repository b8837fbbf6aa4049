//! How often one device may bring leaves: the trail is never cut, so that what bounds it is the rate at which it grows.
//!
//! An allowance per device and kind of leaf, which refills with time. It is in the writer's memory and costs no write;
//! after a restart every allowance is full. What falls is never held back, see the transactions that ask here.

use std::collections::HashMap;

use assay_evidence::time::UnixTime;

use super::StoreError;

/// What leaves are brought for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spending {
    /// Changes of the device's fate: enrollments, results, silence.
    Fate,
    /// Certificates for it and its workloads.
    Certificates,
    /// JWT-SVIDs for its workloads.
    Tokens,
    /// Secrets released to it.
    Secrets,
    /// Batches of telemetry, which bring no leaf as long as they go on with a run.
    Telemetry,
    /// Runs of these, which do.
    TelemetryRuns,
}

impl Spending {
    /// Leaves at once, and seconds for each one more.
    fn allowance(self) -> (u64, u64) {
        match self {
            // A fall and a rise a minute, for ever.
            Spending::Fate => (120, 30),
            // More than may stand at a time.
            Spending::Certificates | Spending::Tokens => (1024, 1),
            // All that it may have, some times over.
            Spending::Secrets => (512, 10),
            Spending::Telemetry => (600, 1),
            // Some 280 KB a second of a device for ever, if its batches follow each other.
            Spending::TelemetryRuns => (240, 15),
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Spending::Fate => "changes of this device's state",
            Spending::Certificates => "certificates of this device",
            Spending::Tokens => "tokens of this device",
            Spending::Secrets => "secrets of this device",
            Spending::Telemetry => "batches of this device",
            Spending::TelemetryRuns => "batches of this device that do not go on from the one before",
        }
    }
}

/// What every device has spent.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    /// For each spending, when the device's allowance is full again.
    full_at: HashMap<String, [u64; 6]>,
    /// At so many devices those whose allowances are full are forgotten.
    sweep_at: usize,
}

impl Budgets {
    /// Spends one leaf, if the device has one to spend.
    pub(super) fn spend(
        &mut self,
        device: &str,
        spending: Spending,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (at_once, seconds) = spending.allowance();
        self.sweep(now);
        let full_at = match self.full_at.get_mut(device) {
            Some(known) => known,
            None => self.full_at.entry(device.to_owned()).or_default(),
        };
        let [fate, certificates, tokens, secrets, telemetry, runs] = full_at;
        let full_at = match spending {
            Spending::Fate => fate,
            Spending::Certificates => certificates,
            Spending::Tokens => tokens,
            Spending::Secrets => secrets,
            Spending::Telemetry => telemetry,
            Spending::TelemetryRuns => runs,
        };
        let next = now.0.max(*full_at).saturating_add(seconds);
        if next.saturating_sub(now.0) > at_once.saturating_mul(seconds) {
            return Err(StoreError::TooOften { noun: spending.noun(), at_once, seconds });
        }
        *full_at = next;
        Ok(())
    }

    /// A device whose allowances are full is like one that was never seen.
    fn sweep(&mut self, now: UnixTime) {
        if self.full_at.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.full_at.retain(|_, full_at| full_at.iter().any(|at| *at > now.0));
        self.sweep_at = self.full_at.len().saturating_mul(2);
    }
}

/// Fewer are not worth the look.
const SWEEP_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    fn spent(budgets: &mut Budgets, spending: Spending, now: UnixTime, times: u64) -> usize {
        (0..times).filter(|_| budgets.spend("press-1", spending, now).is_ok()).count()
    }

    #[test]
    fn finding_10_an_allowance_runs_out_and_refills_each_for_itself() {
        let mut budgets = Budgets::default();
        assert_eq!(spent(&mut budgets, Spending::Fate, NOW, 500), 120);
        assert_eq!(spent(&mut budgets, Spending::Fate, NOW.plus(29), 500), 0);
        assert_eq!(spent(&mut budgets, Spending::Fate, NOW.plus(30), 500), 1);
        assert_eq!(
            spent(&mut budgets, Spending::Fate, NOW.plus(24 * 3600), 500),
            120,
            "never more than at once"
        );
        assert_eq!(spent(&mut budgets, Spending::Certificates, NOW.plus(24 * 3600), 2000), 1024);
        assert!(
            budgets.spend("press-2", Spending::Fate, NOW.plus(24 * 3600)).is_ok(),
            "nobody else's is spent"
        );
        // A clock that goes back gives nothing.
        assert_eq!(spent(&mut budgets, Spending::Fate, NOW, 500), 0);
    }

    #[test]
    fn finding_10_a_day_of_one_device_has_a_bound() {
        let mut budgets = Budgets::default();
        let day = (0..24 * 3600).map(|second| spent(&mut budgets, Spending::Fate, NOW.plus(second), 20));
        assert_eq!(day.sum::<usize>(), 120 + 24 * 120 - 1);
    }

    #[test]
    fn devices_that_have_spent_nothing_lately_take_no_memory() {
        let mut budgets = Budgets::default();
        for number in 0..10_000_u64 {
            budgets.spend(&number.to_string(), Spending::Telemetry, NOW.plus(number)).unwrap();
        }
        assert!(budgets.full_at.len() <= 2 * SWEEP_MIN, "{}", budgets.full_at.len());
    }
}
