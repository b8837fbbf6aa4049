//! Boot logs that were verified, by their digest: the same log is read once, whichever device of the fleet sends it,
//! and devices that boot alike share what it says.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use assay_evidence::Digest;
use assay_evidence::boot_log::BootClaims;

/// What verified logs say. Locked for a moment at a time, never across an await.
#[derive(Debug, Default)]
pub(crate) struct BootLogs(Mutex<Generations>);

/// What was used lately, and what was used before that: when the one is full, the other is forgotten.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, Known>,
    young_bytes: usize,
    old: HashMap<Digest, Known>,
    /// Hits and misses.
    asked: (u64, u64),
}

#[derive(Debug)]
struct Known {
    log_bytes: usize,
    claims: Arc<BootClaims>,
}

impl BootLogs {
    /// The claims of the log with this SHA-256, if it was verified lately.
    pub(crate) fn find(&self, log_sha256: &Digest) -> Option<Arc<BootClaims>> {
        self.generations(|generations| {
            let found = generations.find(log_sha256);
            let (hits, misses) = &mut generations.asked;
            *(if found.is_some() { hits } else { misses }) += 1;
            found
        })
    }

    /// How often a log was known, and how often it was not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        self.generations(|generations| generations.asked)
    }

    /// Remembers the claims of a log of so many bytes; if there are some already, these take their place.
    pub(crate) fn keep(&self, log_bytes: usize, claims: &Arc<BootClaims>) {
        let known = Known { log_bytes, claims: claims.clone() };
        self.generations(|generations| generations.keep(known));
    }

    fn generations<T>(&self, of: impl FnOnce(&mut Generations) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    fn find(&mut self, log_sha256: &Digest) -> Option<Arc<BootClaims>> {
        if let Some(known) = self.young.get(log_sha256) {
            return Some(known.claims.clone());
        }
        let known = self.old.remove(log_sha256)?;
        let claims = known.claims.clone();
        self.keep(known);
        Some(claims)
    }

    fn keep(&mut self, known: Known) {
        let bytes = known.log_bytes.saturating_add(CLAIMS_BYTES_LEAST);
        if let Some(same) = self.young.get_mut(known.claims.log_sha256()) {
            *same = known;
            return;
        }
        if self.young_bytes.saturating_add(bytes) > GENERATION_BYTES_MAX {
            (self.old, self.young_bytes) = (mem::take(&mut self.young), 0);
        }
        self.young_bytes = self.young_bytes.saturating_add(bytes);
        self.young.insert(*known.claims.log_sha256(), known);
    }
}

/// Some 500 logs of common size; what they say takes about as much again.
const GENERATION_BYTES_MAX: usize = 16 << 20;
/// What claims of an empty log would take.
const CLAIMS_BYTES_LEAST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    use assay_evidence::verify::{Evidence, Expectation, QuoteEvidence, verify};
    use assay_evidence::{HashAlgorithm, PcrIndex};
    use assay_testkit::edge::protocol::{Challenge, PcrSelection, PcrValue};
    use assay_testkit::software_device::Quoting;
    use assay_testkit::{EkMaker, SoftwareDevice, System};

    /// What the log of a machine with this kernel says.
    fn boot(kernel: &str) -> Arc<BootClaims> {
        let mut device = SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap();
        device.boot(&System { kernel: kernel.into(), ..System::default() });
        let selection = vec![PcrSelection { bank: "sha256".into(), pcrs: (0..16).collect() }];
        let challenge = Challenge { nonce: vec![7; 32], selection, ..Challenge::default() };
        let quote = Quoting::honest(&mut device, &challenge).sign(&device.ak).unwrap();
        let value = |pcr: &PcrValue| {
            (PcrIndex::new(pcr.index).unwrap(), Digest::new(HashAlgorithm::Sha256, &pcr.digest).unwrap())
        };
        let evidence = Evidence {
            ak_public: &device.ak.public_area(),
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &quote.message,
                signature: &quote.signature,
                pcrs: quote.pcrs.iter().map(value).collect(),
                nonce: &[7; 32],
                ak_public: None,
            }],
            boot_log: Some(&device.boot_log),
            measure_log: None,
            ima_log: None,
            ima_from_entry: 0,
            banks: None,
        };
        verify(&evidence, &Expectation::default()).claims.unwrap().boot().unwrap().clone()
    }

    fn knows(logs: &BootLogs, claims: &Arc<BootClaims>) -> bool {
        logs.find(claims.log_sha256()).is_some_and(|found| Arc::ptr_eq(&found, claims))
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let logs = BootLogs::default();
        let [used, unused, another] = ["6.1", "6.2", "6.3"].map(boot);
        let quarter = GENERATION_BYTES_MAX / 4;
        logs.keep(quarter, &used);
        logs.keep(quarter, &unused);
        assert!(knows(&logs, &used) && knows(&logs, &unused));
        for _ in 0..2 {
            logs.keep(3 * quarter, &another);
            assert!(knows(&logs, &used));
            logs.keep(3 * quarter, &boot("6.4"));
            assert!(knows(&logs, &used));
        }
        assert!(!knows(&logs, &unused));
        assert!(logs.find(&HashAlgorithm::Sha256.hash(&[b"a log that nobody sent"])).is_none());
    }

    #[test]
    fn the_same_log_counts_once() {
        let logs = BootLogs::default();
        let [one, other] = ["6.1", "6.2"].map(boot);
        logs.keep(1000, &other);
        for _ in 0..10_000 {
            logs.keep(GENERATION_BYTES_MAX / 2, &one);
        }
        assert!(knows(&logs, &one) && knows(&logs, &other));
        assert!(logs.generations(|generations| generations.old.is_empty()));
    }
}
