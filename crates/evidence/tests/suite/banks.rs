//! What a software TPM with other banks, and with PCRs of its own mind, is believed.

use assay_evidence::ima::parse_binary;
use assay_evidence::tpm::banks::BankStatement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Evidence, Expectation, ImaLog, QuoteEvidence, Verification, verify};
use assay_evidence::{Check, Digest, Failure, HashAlgorithm, PcrIndex};
use assay_testkit::edge::protocol::{Challenge, PcrSelection};
use assay_testkit::machine::{ImaEntry, measure_record};
use assay_testkit::pcrs::{Measurement, Pcrs};
use assay_testkit::software_device::{Quoting, Stating};
use assay_testkit::{Bank, EkMaker, SoftwareDevice};

const NONCE: [u8; 32] = [7; 32];

pub fn device() -> SoftwareDevice {
    SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap()
}

/// Quotes PCRs 0 to 15 of these banks and verifies it with the logs.
fn quoted(device: &mut SoftwareDevice, banks: &[Bank], boot_log: Option<&[u8]>, ima: bool) -> Verification {
    quoted_as(device, banks, boot_log, ima, &Expectation::default())
}

/// The same, by what the verifier knows already.
pub fn quoted_as(
    device: &mut SoftwareDevice,
    banks: &[Bank],
    boot_log: Option<&[u8]>,
    ima: bool,
    expectation: &Expectation<'_>,
) -> Verification {
    let ima = ima.then(|| device.ima.binary_from(0).to_vec());
    Told { boot_log, measure_log: None, ima: ima.as_deref(), from: 0 }.by(device, banks, expectation)
}

/// The IMA list from an entry on, and no boot log: the verifier knows it.
pub fn quoted_from(device: &mut SoftwareDevice, from: u64, expectation: &Expectation<'_>) -> Verification {
    let ima = device.ima.binary_from(usize::try_from(from).unwrap()).to_vec();
    Told { boot_log: None, measure_log: None, ima: Some(&ima), from }.by(device, &[Bank::Sha256], expectation)
}

/// What a device tells beside its quote of PCRs 0 to 15.
pub struct Told<'a> {
    pub boot_log: Option<&'a [u8]>,
    pub measure_log: Option<&'a [u8]>,
    pub ima: Option<&'a [u8]>,
    pub from: u64,
}

impl Told<'_> {
    pub fn by(
        &self,
        device: &mut SoftwareDevice,
        banks: &[Bank],
        expectation: &Expectation<'_>,
    ) -> Verification {
        let selection =
            banks.iter().map(|bank| PcrSelection { bank: bank.name().into(), pcrs: (0..16).collect() });
        let challenge =
            Challenge { nonce: NONCE.to_vec(), selection: selection.collect(), ..Challenge::default() };
        let quote = Quoting::honest(device, &challenge).sign(&device.ak).unwrap();
        let mut pcrs = PcrValues::new();
        for value in &quote.pcrs {
            let bank = HashAlgorithm::from_name(&value.bank).unwrap();
            pcrs.insert(PcrIndex::new(value.index).unwrap(), Digest::new(bank, &value.digest).unwrap());
        }
        let active = device.pcrs.banks();
        let stated = expectation
            .banks_wanted
            .then(|| Stating::honest(&active, &device.ak, device.clock, &NONCE).sign(&device.ak).unwrap());
        let evidence = Evidence {
            ak_public: &device.ak.public_area(),
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &quote.message,
                signature: &quote.signature,
                pcrs,
                nonce: &NONCE,
                ak_public: None,
            }],
            boot_log: self.boot_log,
            measure_log: self.measure_log,
            ima_log: self.ima.map(ImaLog::Binary),
            ima_from_entry: self.from,
            banks: stated.as_ref().map(|stated| BankStatement {
                capability: &stated.capability,
                message: &stated.message,
                signature: &stated.signature,
                nonce: &NONCE,
            }),
        };
        verify(&evidence, expectation)
    }
}

pub fn checks(failures: &[Failure]) -> Vec<Check> {
    failures.iter().map(|failure| failure.check).collect()
}

#[test]
fn boot_aggregate_is_of_this_boot() {
    let mut device = device();
    assert_eq!(quoted(&mut device, &[Bank::Sha256], None, true).failures, []);
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"extended after the kernel looked"));
    let verification = quoted(&mut device, &[Bank::Sha256], None, true);
    assert_eq!(checks(&verification.failures), [Check::BootAggregate]);
    assert!(verification.claims.is_none());
}

#[test]
fn boot_aggregate_is_over_the_pcrs_as_the_kernel_found_them() {
    let mut device = device();
    let log = device.boot_log.clone();
    let verified = |device: &mut SoftwareDevice| {
        let verification = quoted(device, &[Bank::Sha256], Some(&log), true);
        (checks(&verification.failures), checks(&verification.notes))
    };
    for index in (0..8).chain([9]) {
        device.pcrs.extend(&Measurement::of(&[Bank::Sha256], index, b"os-separator"));
    }
    assert_eq!(verified(&mut device), (vec![], vec![]));
    // A kernel started by this one finds what there is then.
    let second = ImaEntry::boot_aggregate(&device.pcrs);
    device.measure(second.clone());
    device.measure(ImaEntry::file("/usr/bin/true", b"true"));
    assert_eq!(verified(&mut device), (vec![], vec![]));
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"os-separator"));
    assert_eq!(verified(&mut device), (vec![], vec![]));
    // Any other is refused as one, wherever it stands.
    let mut pcrs = Pcrs::new(&[Bank::Sha256]);
    pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"another boot"));
    device.measure(ImaEntry::boot_aggregate(&pcrs));
    device.measure(second);
    let verification = quoted(&mut device, &[Bank::Sha256], Some(&log), true);
    let [failure] = verification.failures.as_slice() else { panic!("{:?}", verification.failures) };
    assert_eq!(failure.check, Check::BootAggregate);
    assert!(failure.claim.starts_with("boot_aggregate of IMA entry "), "{}", failure.claim);
}

/// User space extended PCR 9 with words of its own, and each kernel looked at another moment.
#[test]
fn boot_aggregate_is_over_the_values_between_the_measurements_too() {
    let stub = |device: &mut SoftwareDevice, log: &mut Vec<u8>| {
        for (pcr, data) in [(11u32, b".linux\0".as_slice()), (9, b"an initrd")] {
            device.pcrs.extend(&Measurement::of(&[Bank::Sha256], pcr, data));
            log.extend([pcr, 0x0d, 1].iter().flat_map(|word| word.to_le_bytes()));
            log.extend([[0x0b, 0].as_slice(), &Bank::Sha256.hash(data), &[0; 4]].concat());
        }
    };
    for is_told in [true, false] {
        let mut device = device();
        let (mut log, mut measured) = (device.boot_log.clone(), Vec::new());
        stub(&mut device, &mut log);
        device.pcrs.reset(10);
        device.ima = assay_testkit::machine::ImaList::default();
        device.measure(ImaEntry::boot_aggregate(&device.pcrs));
        for words in ["nvpcr-init:hardware", "nvpcr-separator"] {
            device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 9, words.as_bytes()));
            measured.extend(measure_record(&[Bank::Sha256], 9, "nvpcr-init", words));
            if is_told {
                device.measure(ImaEntry::boot_aggregate(&device.pcrs));
            }
        }
        for index in (0..8).chain([9]) {
            device.pcrs.extend(&Measurement::of(&[Bank::Sha256], index, b"os-separator"));
            measured.extend(measure_record(&[Bank::Sha256], index, "os-separator", "os-separator"));
        }
        let ima = device.ima.binary_from(0).to_vec();
        let measure_log = is_told.then_some(measured.as_slice());
        let told = Told { boot_log: Some(&log), measure_log, ima: Some(&ima), from: 0 };
        let verification = told.by(&mut device, &[Bank::Sha256], &Expectation::default());
        assert_eq!(checks(&verification.failures), [], "told: {is_told}");
    }
}

#[test]
fn a_violation_is_no_boot_aggregate_whatever_it_is_called() {
    let device = device();
    // What the kernel extends for a violation says nothing about its name.
    let mut named = ImaEntry::boot_aggregate(&device.pcrs).binary();
    named.get_mut(4..24).unwrap().fill(0);
    let entries = parse_binary(&named).unwrap();
    let entry = entries.entry(0).unwrap();
    assert!(entry.is_violation() && !entry.is_boot_aggregate());
}

#[test]
fn a_pcr_extended_past_its_log_does_not_replay() {
    let mut device = device();
    let log = device.boot_log.clone();
    device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 7, b"not in the log"));
    let verification = quoted(&mut device, &[Bank::Sha256], Some(&log), false);
    assert_eq!(checks(&verification.failures), [Check::EventLogReplay]);
}

#[test]
fn sha1_alone_is_verified_and_noted() {
    let mut device = device();
    device.pcrs = Pcrs::new(&[Bank::Sha1, Bank::Sha256]);
    let verification = quoted(&mut device, &[Bank::Sha1], None, false);
    assert_eq!(verification.failures, []);
    assert_eq!(checks(&verification.notes), [Check::AlgorithmPolicy]);
    assert!(verification.claims.unwrap().is_sha1_only());
    // Beside a better bank it does no harm.
    let verification = quoted(&mut device, &[Bank::Sha1, Bank::Sha256], None, false);
    assert_eq!((verification.failures, verification.notes), (vec![], vec![]));
    assert!(!verification.claims.unwrap().is_sha1_only());
}

#[test]
fn a_log_of_another_bank_than_the_quoted_explains_nothing() {
    let mut device = device();
    let log = device.boot_log.clone();
    device.pcrs = Pcrs::new(&[Bank::Sha384]);
    let verification = quoted(&mut device, &[Bank::Sha384], Some(&log), false);
    assert_eq!(checks(&verification.failures), [Check::EventLogReplay]);
}

/// Firmware measured one boot into SHA-384, and the log tells another that replays in SHA-256.
#[test]
fn a_log_without_a_bank_that_firmware_extended_is_refused() {
    let mut device = device();
    let (told, banks) =
        (assay_testkit::System::default().boot_log(&[Bank::Sha256]), [Bank::Sha256, Bank::Sha384]);
    device.pcrs = Pcrs::new(&banks);
    told.measurements().iter().for_each(|measurement| device.pcrs.extend(measurement));
    // The locality of TPM2_Startup is in every bank, and no measurement.
    assert_eq!(quoted(&mut device, &banks, Some(told.bytes()), false).failures, []);
    device.pcrs.extend(&Measurement::of(&[Bank::Sha384], 4, b"what was started"));
    let verification = quoted(&mut device, &banks, Some(told.bytes()), false);
    let [failure] = verification.failures.as_slice() else { panic!("{:?}", verification.failures) };
    assert_eq!(failure.check, Check::EventLogReplay);
    assert!(failure.found.contains("no digests of sha384"), "{failure:?}");
}

/// By the TPM's own word, each active bank has to be quoted, and nothing beside them is.
#[test]
fn every_active_bank_is_quoted() {
    let mut device = device();
    device.pcrs = Pcrs::new(&[Bank::Sha1, Bank::Sha256]);
    let sha256 = || (0..16).filter_map(PcrIndex::new).map(|index| (HashAlgorithm::Sha256, index)).collect();
    let expectation =
        || Expectation { banks_wanted: true, required_selection: sha256(), ..Expectation::default() };
    let verification = quoted_as(&mut device, &[Bank::Sha256], None, false, &expectation());
    assert!(checks(&verification.failures).iter().all(|check| *check == Check::QuoteSelection));
    assert_eq!(verification.failures.len(), 8, "{:?}", verification.failures);
    // All of SHA-1 is more than the policy and the banks ask for.
    let verification = quoted_as(&mut device, &[Bank::Sha1, Bank::Sha256], None, false, &expectation());
    assert_eq!(checks(&verification.failures), [Check::QuoteSelection]);
    let any = Expectation { banks_wanted: true, ..Expectation::default() };
    let claims = quoted_as(&mut device, &[Bank::Sha1, Bank::Sha256], None, false, &any).claims.unwrap();
    assert_eq!(claims.banks().unwrap().known(), [HashAlgorithm::Sha1, HashAlgorithm::Sha256]);
    // What was said once holds for the boot, and for no other.
    let baseline = claims.baseline(0);
    let known =
        Expectation { baseline: Some(&baseline), required_selection: sha256(), ..Expectation::default() };
    let verification = quoted_as(&mut device, &[Bank::Sha256], None, false, &known);
    assert_eq!(verification.failures.len(), 8, "{:?}", verification.failures);
    device.clock.reset_count += 1;
    assert_eq!(quoted_as(&mut device, &[Bank::Sha256], None, false, &known).failures, []);
}

/// A log that says of one event in one bank what it was, and in another something else, tells of two boots.
#[test]
fn what_is_measured_is_the_same_in_every_bank() {
    let mut device = device();
    let banks = [Bank::Sha1, Bank::Sha256];
    let log = assay_testkit::System::default().boot_log(&banks);
    device.pcrs = Pcrs::new(&banks);
    log.measurements().iter().for_each(|measurement| device.pcrs.extend(measurement));
    assert_eq!(quoted(&mut device, &banks, Some(log.bytes()), false).failures, []);
    // An event whose data nothing has to hash: the text of an entry of PCR 1, of which SHA-1 has another digest.
    let data = b"a boot option";
    let event = |sha1: &[u8]| {
        let mut event = [1u32, 0x10, 2].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        event.extend([&[4, 0], sha1, &[11, 0], &Bank::Sha256.hash(data)].concat());
        event.extend([&(data.len() as u32).to_le_bytes(), data.as_slice()].concat());
        event
    };
    for (sha1, expected) in
        [(Bank::Sha1.hash(data), vec![]), (Bank::Sha1.hash(b"another"), vec![Check::EventDataDigest])]
    {
        let mut device = SoftwareDevice { pcrs: device.pcrs.clone(), ..self::device() };
        let digests = vec![(Bank::Sha1, sha1.clone()), (Bank::Sha256, Bank::Sha256.hash(data))];
        device.pcrs.extend(&Measurement { pcr: 1, digests });
        let log = [log.bytes(), &event(&sha1)].concat();
        assert_eq!(checks(&quoted(&mut device, &banks, Some(&log), false).failures), expected);
    }
}
