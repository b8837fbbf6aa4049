//! The unit of the figures: one P-256 verification (*sig*), timed in the same run as the work that is stated in it.
//!
//! What a machine does in a millisecond depends on the machine and on who else uses it. How many signatures it could
//! have verified instead hardly does. All time here is processor time, and each ratio is of neighbours in time.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

/// Work, in both units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Milliseconds of processor time.
    pub ms: f64,
    /// P-256 verifications that the same time would have done.
    pub sig: f64,
}

/// A signature to be verified again and again, by the library that the verifier uses.
pub struct Signature {
    key: ParsedPublicKey,
    signature: Vec<u8>,
}

impl Signature {
    /// Makes one.
    pub fn new() -> Result<Signature> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let signature = pair.sign(&SystemRandom::new(), MESSAGE)?.as_ref().to_vec();
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref())?;
        Ok(Signature { key, signature })
    }

    /// Verifies it once.
    pub fn verify(&self) -> bool {
        self.key.verify_sig(MESSAGE, &self.signature).is_ok()
    }

    /// What verifying it takes now: of a few in a row.
    pub fn time(&self) -> Result<Duration> {
        let start = thread_time()?;
        for _ in 0..IN_A_ROW {
            black_box(self.verify());
        }
        Ok(thread_time()?.saturating_sub(start) / IN_A_ROW)
    }
}

impl Cost {
    /// Work that took so long while one verification took `sig`.
    pub fn new(took: Duration, sig: Duration) -> Cost {
        Cost { ms: took.as_secs_f64() * 1e3, sig: took.as_secs_f64() / sig.as_secs_f64().max(1e-9) }
    }

    /// The median of each unit on its own.
    pub fn median(costs: &[Cost]) -> Cost {
        let of = |unit: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = costs.iter().map(unit).collect();
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Cost { ms: of(|cost| cost.ms), sig: of(|cost| cost.sig) }
    }

    /// What it takes more than `base` does.
    pub fn over(self, base: Cost) -> Cost {
        Cost { ms: self.ms - base.ms, sig: self.sig - base.sig }
    }
}

/// Watches a process while it does the same thing again and again, and verifies signatures beside it.
pub struct Watch {
    /// How often it did it.
    pub done: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Vec<Cost>>>,
}

impl Watch {
    /// Starts to watch.
    pub fn start(process: u32) -> Result<Watch> {
        let (done, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (clock, signature) = (ProcessClock::of(process)?, Signature::new()?);
        let (counter, is_over) = (done.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut stretches = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                stretches.extend(stretch(&clock, &signature, &counter)?);
            }
            Ok(stretches)
        });
        Ok(Watch { done, over, thread })
    }

    /// What one time took, in the median of all stretches.
    pub fn finish(self) -> Result<Cost> {
        self.over.store(true, Ordering::Relaxed);
        let stretches = self.thread.join().ok().context("the thread that watches")??;
        Ok(Cost::median(&stretches))
    }
}

/// One stretch of time: what the process used in it for each time it did the work. `None`: it did it too rarely to say.
fn stretch(clock: &ProcessClock, signature: &Signature, done: &AtomicU64) -> Result<Option<Cost>> {
    let (start, cpu, before) = (Instant::now(), clock.now()?, done.load(Ordering::Relaxed));
    let mut sigs = Vec::new();
    while start.elapsed() < STRETCH {
        sigs.push(signature.time()?);
        std::thread::sleep(BETWEEN_SIGNATURES);
    }
    let times = done.load(Ordering::Relaxed).saturating_sub(before);
    let took = clock.now()?.saturating_sub(cpu);
    sigs.sort_unstable();
    let sig = sigs.get(sigs.len() / 2).copied().unwrap_or_default();
    let each = took.as_secs_f64() / times.max(1) as f64;
    Ok((times >= TIMES_MIN).then(|| Cost::new(Duration::from_secs_f64(each), sig)))
}

/// Processor time of a process: all of its threads, those that ended too.
pub struct ProcessClock(ClockId);

impl ProcessClock {
    /// The clock of a process.
    pub fn of(process: u32) -> Result<ProcessClock> {
        let pid = Pid::from_raw(i32::try_from(process).context("a process number")?);
        Ok(ProcessClock(clock_getcpuclockid(pid).context("the clock of the process")?))
    }

    /// What it used until now.
    pub fn now(&self) -> Result<Duration> {
        Ok(clock_gettime(self.0).context("the clock of the process")?.into())
    }
}

/// Processor time of this thread.
pub fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("the clock of the thread")?.into())
}

/// As long as a quote usually is.
pub const MESSAGE: &[u8] = &[0x5a; 145];
/// A millisecond or two.
const IN_A_ROW: u32 = 32;
/// Long enough for some hundred attestations, short enough that a machine is the same throughout.
const STRETCH: Duration = Duration::from_millis(500);
/// Verifying takes a few per cent of a core then.
const BETWEEN_SIGNATURES: Duration = Duration::from_millis(20);
/// Fewer in a stretch are left out: it was the last, and not whole.
const TIMES_MIN: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_has_its_median() {
        let costs = [(1.0, 9.0), (3.0, 5.0), (2.0, 7.0)].map(|(ms, sig)| Cost { ms, sig });
        assert_eq!(Cost::median(&costs), Cost { ms: 2.0, sig: 7.0 });
        assert_eq!(costs[1].over(costs[0]), Cost { ms: 2.0, sig: -4.0 });
        assert!(Cost::median(&[]).sig.is_nan());
    }

    #[test]
    fn work_is_stated_in_signatures() {
        let cost = Cost::new(Duration::from_micros(90), Duration::from_micros(30));
        assert!((cost.ms - 0.09).abs() < 1e-9 && (cost.sig - 3.0).abs() < 1e-9);
        assert!(Signature::new().unwrap().verify());
    }
}
