//! A boot log that was verified before is not read again, and no verdict is another for it.

use std::sync::Arc;

use assay_evidence::boot_log::{self, BootClaims};
use assay_evidence::verify::{Expectation, KnownBootLog, Verification};
use assay_evidence::{Failure, HashAlgorithm};
use assay_testkit::pcrs::{Measurement, Pcrs};
use assay_testkit::tamper::{alter_event_data, flip_bit, truncate};
use assay_testkit::{Bank, SoftwareDevice};
use proptest::prelude::*;

use crate::banks::{device, quoted_as};
use crate::files::vector;

const BANKS: [Bank; 2] = [Bank::Sha256, Bank::Sha384];

/// A device that booted what a recorded log with several banks says.
struct Booted {
    device: SoftwareDevice,
    log: Vec<u8>,
}

impl Booted {
    fn new() -> Self {
        let log = vector("tpm/sb-good-1/binary_bios_measurements");
        let mut device = device();
        device.pcrs = Pcrs::new(&BANKS);
        for event in boot_log::parse(&log).unwrap().events() {
            let Some(pcr) = event.extends() else { continue };
            let digest = |bank: Bank| {
                let algorithm = HashAlgorithm::from_name(bank.name()).unwrap();
                (bank, event.digest(algorithm).unwrap().as_bytes().to_vec())
            };
            device.pcrs.extend(&Measurement {
                pcr: pcr.get().into(),
                digests: BANKS.into_iter().map(digest).collect(),
            });
        }
        Booted { device, log }
    }

    fn verify(&mut self, log: &[u8], banks: &[Bank], known: Option<&Arc<BootClaims>>) -> Verification {
        let known_boot_log = known.map(|known| KnownBootLog::find(log, |_| Some(known.clone())));
        let expectation = Expectation { known_boot_log, ..Expectation::default() };
        quoted_as(&mut self.device, banks, Some(log), false, &expectation)
    }

    /// The claims of the log as it is.
    fn claims(&mut self, banks: &[Bank]) -> Arc<BootClaims> {
        let log = self.log.clone();
        claims(&self.verify(&log, banks, None)).unwrap()
    }
}

fn claims(verification: &Verification) -> Option<Arc<BootClaims>> {
    verification.claims.as_ref().and_then(|claims| claims.boot().cloned())
}

/// Everything that may not depend on what was known.
fn verdict(verification: &Verification) -> (bool, Option<Arc<BootClaims>>, &[Failure], &[Failure]) {
    let Verification { claims: found, failures, notes } = verification;
    (found.is_some(), claims(verification), failures, notes)
}

#[test]
fn devices_that_boot_alike_share_their_claims() {
    let (mut one, mut other) = (Booted::new(), Booted::new());
    let known = one.claims(&BANKS);
    let log = other.log.clone();
    let shared = claims(&other.verify(&log, &BANKS, Some(&known))).unwrap();
    assert!(Arc::ptr_eq(&shared, &known));
    // What user space extended is of one device alone, unless it was so before.
    other.device.pcrs.extend(&Measurement::of(&BANKS, 12, b"a credential"));
    let own = claims(&other.verify(&log, &BANKS, Some(&known))).unwrap();
    assert_ne!(own, known);
    let again = claims(&other.verify(&log, &BANKS, Some(&own))).unwrap();
    assert!(Arc::ptr_eq(&again, &own));
    assert_eq!(claims(&one.verify(&log, &BANKS, Some(&own))).unwrap(), known);
}

#[test]
fn claims_are_found_for_the_bytes_they_were_made_of_alone() {
    let mut booted = Booted::new();
    let known = booted.claims(&BANKS);
    let mut log = booted.log.clone();
    assert!(
        KnownBootLog::find(&log, |sha256| (sha256 == known.log_sha256()).then(|| known.clone())).is_known()
    );
    assert!(!KnownBootLog::find(&log, |_| None).is_known());
    flip_bit(&mut log, 4000);
    assert!(!KnownBootLog::find(&log, |_| Some(known.clone())).is_known());
    // Found for one log, and given with another.
    let honest = booted.log.clone();
    let known_boot_log = Some(KnownBootLog::find(&honest, |_| Some(known.clone())));
    let expectation = Expectation { known_boot_log, ..Expectation::default() };
    alter_event_data(&mut log, 3);
    let verification = quoted_as(&mut booted.device, &BANKS, Some(&log), false, &expectation);
    assert!(verification.claims.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_known_log_changes_no_verdict(
        before in proptest::collection::vec(0u32..16, 0..3),
        after in proptest::collection::vec(0u32..16, 0..3),
        known_banks in 0usize..3,
        quoted_banks in 0usize..3,
        flipped in proptest::option::of(0usize..200_000),
        cut in prop_oneof![4 => Just(0usize), 1 => 1usize..2000],
    ) {
        let of = |choice: usize| [&BANKS[..1], &BANKS[1..], &BANKS][choice];
        let mut booted = Booted::new();
        let log = booted.log.clone();
        for pcr in before {
            booted.device.pcrs.extend(&Measurement::of(&BANKS, pcr, b"before"));
        }
        let known = claims(&booted.verify(&log, of(known_banks), None));
        for pcr in after {
            booted.device.pcrs.extend(&Measurement::of(&BANKS, pcr, b"after"));
        }
        let mut sent = log;
        truncate(&mut sent, cut);
        if let Some(bit) = flipped {
            flip_bit(&mut sent, bit);
        }
        let unaided = booted.verify(&sent, of(quoted_banks), None);
        let aided = booted.verify(&sent, of(quoted_banks), known.as_ref());
        prop_assert_eq!(verdict(&aided), verdict(&unaided));
    }
}
