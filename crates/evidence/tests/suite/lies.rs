//! A software device answers a challenge: its truth is accepted, and each lie is caught by its own check.

use assay_evidence::digest::{Digest, HashAlgorithm, PcrIndex};
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::banks::BankStatement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Evidence, Expectation, ImaLog, QuoteEvidence, Verification, verify};
use assay_testkit::edge::protocol::{self, Challenge, PcrSelection};
use assay_testkit::software_device::lie::Lie;
use assay_testkit::{EkMaker, SoftwareDevice};

#[test]
fn the_truth_is_accepted() {
    let mut device = device();
    let challenge = challenge();
    let told = device.evidence(&challenge).unwrap();
    let verification = verified(&device, &challenge, &told);
    assert_eq!(verification.failures, []);
    let claims = verification.claims.unwrap();
    let boot = claims.boot().unwrap().facts();
    assert!(boot.secure_boot.as_ref().unwrap().is_enabled);
    assert_eq!(boot.loader_texts.iter().filter(|text| text.text.starts_with('/')).count(), 1);
    assert_eq!((boot.boot_applications.len(), boot.authorities.len()), (3, 3));
    assert_eq!(claims.ima().unwrap().attested_total(), device.ima.entries().len() as u64);
}

#[test]
fn each_lie_is_caught_by_its_check() {
    for lie in Lie::ALL {
        let mut device = device();
        let challenge = challenge();
        let told = lie.tell(&mut device, &challenge).unwrap();
        let Verification { claims, failures, notes } = verified(&device, &challenge, &told);
        let names = |checks: &[assay_evidence::Failure]| -> Vec<&str> {
            checks.iter().map(|failure| failure.check.name()).collect()
        };
        if lie == Lie::BootLogMissing {
            // Whether a missing log refuses is the policy's word.
            assert!(names(&notes).contains(&lie.caught_by()), "{lie:?}: {notes:?}");
            continue;
        }
        assert!(claims.is_none(), "{lie:?} is believed");
        assert!(names(&failures).contains(&lie.caught_by()), "{lie:?}: {failures:?}");
    }
}

fn device() -> SoftwareDevice {
    SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap()
}

fn challenge() -> Challenge {
    Challenge {
        nonce: vec![7; 32],
        expires_in_seconds: 30,
        selection: vec![PcrSelection { bank: "sha256".into(), pcrs: (0..16).collect() }],
        boot_log_wanted: true,
        banks_wanted: true,
        ..Challenge::default()
    }
}

fn verified(device: &SoftwareDevice, challenge: &Challenge, told: &protocol::Evidence) -> Verification {
    let quote = told.quote.as_ref().unwrap();
    let mut pcrs = PcrValues::new();
    for value in &quote.pcrs {
        let index = PcrIndex::new(value.index).unwrap();
        pcrs.insert(index, Digest::new(HashAlgorithm::Sha256, &value.digest).unwrap());
    }
    let evidence = Evidence {
        ak_public: &device.ak.public_area(),
        quotes: vec![QuoteEvidence {
            label: "quote",
            message: &quote.message,
            signature: &quote.signature,
            pcrs,
            nonce: &challenge.nonce,
            ak_public: None,
        }],
        boot_log: told.boot_log.as_deref(),
        measure_log: told.measure_log.as_deref(),
        ima_log: Some(ImaLog::Binary(&told.ima_log)),
        ima_from_entry: told.ima_from_entry,
        banks: told.banks.as_ref().map(|banks| BankStatement {
            capability: &banks.capability,
            message: &banks.message,
            signature: &banks.signature,
            nonce: &challenge.nonce,
        }),
    };
    let required = (0..16).filter_map(PcrIndex::new).map(|index| (HashAlgorithm::Sha256, index));
    let expectation = Expectation {
        required_selection: required.collect(),
        banks_wanted: true,
        last_counters: Some(BootCounters {
            reset_count: device.clock.reset_count,
            restart_count: device.clock.restart_count,
        }),
        ..Expectation::default()
    };
    verify(&evidence, &expectation)
}
