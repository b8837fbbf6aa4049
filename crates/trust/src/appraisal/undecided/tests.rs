//! Each thing that verification can leave undecided, against each section of a policy: it fails where the section demands
//! what is open, and nowhere else.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor, verify_ek_certificate};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Claims, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_evidence::{Check, Digest, Failure, HashAlgorithm, PcrIndex};
use assay_testkit::edge::protocol::{Challenge, PcrSelection};
use assay_testkit::machine::ImaList;
use assay_testkit::pcrs::{Measurement, Pcrs};
use assay_testkit::software_device::Quoting;
use assay_testkit::{Bank, EkMaker, SoftwareDevice, System};

use crate::finding::Tier;
use crate::policy::{Demand, EndorsementKind, ImaSection, Pcr, Policy, Sequence, Weight};
use crate::reference::CompiledPolicy;
use crate::undecided::Undecided;
use crate::{appraise, learn};

/// A section of a policy, with everything that it can demand of a device; the others demand nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Endorsement,
    Clock,
    BootLog,
    BootRules,
    Sequence,
    FirmwarePcr,
    RuntimePcr,
    Files,
    FilesIfThere,
    Location,
}

const SECTIONS: [Section; 10] = [
    Section::Endorsement,
    Section::Clock,
    Section::BootLog,
    Section::BootRules,
    Section::Sequence,
    Section::FirmwarePcr,
    Section::RuntimePcr,
    Section::Files,
    Section::FilesIfThere,
    Section::Location,
];

/// The sections that fail where this is open. A new item does not compile without its row.
fn failing(item: Undecided) -> &'static [Section] {
    match item {
        Undecided::BootAggregate => &[Section::Files],
        // What there is of a list is judged, whoever asks for it.
        Undecided::Entries => &[Section::Files, Section::FilesIfThere],
        Undecided::Endorsement => &[Section::Endorsement],
        // A boot loader may have told the kernel its line there.
        Undecided::Pcr => &[Section::BootRules, Section::Sequence, Section::RuntimePcr],
        Undecided::BootLog => &[Section::BootLog, Section::BootRules, Section::Sequence],
        // Nothing in SHA-1 says anything.
        Undecided::WeakBank => &SECTIONS,
        // The binary form is what PCR 10 attests; a log that explains nothing leaves PCRs as they are; and no section of a policy
        // says who chose the nonce: a server always does.
        Undecided::Forms | Undecided::MeasureLog | Undecided::Nonce => &[],
        // See the tests of `tee.rs`: a TPM's claims have none.
        Undecided::Tee | Undecided::Nothing => &[],
    }
}

/// What a device shows, and what is noted beside.
struct Shown {
    device: SoftwareDevice,
    banks: &'static [Bank],
    boot_log: Option<Vec<u8>>,
    measure_log: Option<&'static [u8]>,
    notes: Vec<Failure>,
}

impl Shown {
    fn good() -> Shown {
        let device = SoftwareDevice::new("device", &MAKER).unwrap();
        let boot_log = Some(device.boot_log.clone());
        Shown { device, banks: &[Bank::Sha256], boot_log, measure_log: None, notes: Vec::new() }
    }

    /// The same with this left open.
    fn without(item: Undecided) -> Shown {
        let mut shown = Shown::good();
        let outside = |check| vec![Failure::new(check, "what", "one", "another")];
        match item {
            Undecided::BootAggregate => {
                shown.device.pcrs.reset(10);
                shown.device.ima = ImaList::default();
                for program in System::default().programs {
                    shown.device.run_program(&program.path, &program.contents);
                }
            }
            Undecided::Entries => {
                let known = shown.device.ima.entries()[1].clone();
                shown.device.measure(known.into_pcr(11));
                shown.device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 11, b"more"));
            }
            Undecided::Pcr => shown.device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 12, b"more")),
            Undecided::BootLog => shown.boot_log = None,
            Undecided::MeasureLog => shown.measure_log = Some(b"no log"),
            Undecided::WeakBank => {
                let log = System::default().boot_log(&[Bank::Sha1]);
                shown.device.pcrs = Pcrs::new(&[Bank::Sha1]);
                log.measurements().iter().for_each(|one| shown.device.pcrs.extend(one));
                shown.boot_log = Some(log.bytes().to_vec());
                shown.device.ima = ImaList::default();
                shown.banks = &[Bank::Sha1];
            }
            Undecided::Endorsement => shown.notes = outside(Check::EkChain),
            Undecided::Forms => shown.notes = outside(Check::ImaForms),
            Undecided::Nonce => shown.notes = outside(Check::QuoteNonce),
            Undecided::Tee | Undecided::Nothing => {}
        }
        shown
    }

    fn claims(&mut self) -> Claims {
        let Shown { device, banks, boot_log, measure_log, .. } = self;
        let selection =
            banks.iter().map(|bank| PcrSelection { bank: bank.name().into(), pcrs: (0..16).collect() });
        let challenge =
            Challenge { nonce: vec![7; 32], selection: selection.collect(), ..Challenge::default() };
        let quote = Quoting::honest(device, &challenge).sign(&device.ak).unwrap();
        let mut pcrs = PcrValues::new();
        for value in &quote.pcrs {
            let bank = HashAlgorithm::from_name(&value.bank).unwrap();
            pcrs.insert(index(value.index), Digest::new(bank, &value.digest).unwrap());
        }
        let list = device.ima.binary_from(0).to_vec();
        let evidence = Evidence {
            ak_public: &device.ak.public_area(),
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &quote.message,
                signature: &quote.signature,
                pcrs,
                nonce: &[7; 32],
                ak_public: None,
            }],
            boot_log: boot_log.as_deref(),
            measure_log: *measure_log,
            ima_log: Some(ImaLog::Binary(&list)).filter(|_| !list.is_empty()),
            ima_from_entry: 0,
            banks: None,
        };
        let verification = verify(&evidence, &Expectation::default());
        verification.claims.unwrap_or_else(|| panic!("{:?}", verification.failures))
    }

    /// The tier under a policy.
    fn tier(&mut self, policy: Policy) -> Tier {
        let (claims, policy) = (self.claims(), CompiledPolicy::new(policy).unwrap());
        let endorsement = endorsement(&self.device);
        appraise(&claims, Some(&policy), Some(&endorsement), AT).with_notes(Some(&policy), &self.notes).tier()
    }
}

/// A policy with this section alone, by which a good device is good.
fn policy(section: Section, good: &Claims) -> Policy {
    let learned = learn("edge", &[], &[good]).unwrap();
    let mut policy = Policy::new("edge");
    policy.endorsement.required = EndorsementKind::DangerousNone;
    policy.clock.unsafe_clock = Weight::Ignore;
    (policy.boot.event_log, policy.boot.secure_boot) = (Demand::Optional, Demand::Optional);
    let values = |wanted: u32| {
        let pins = learned.pcr.iter().filter(move |(_, of, _)| of.get() == u8::try_from(wanted).unwrap());
        pins.flat_map(|(.., values)| values.to_vec()).collect::<Vec<_>>()
    };
    match section {
        Section::Endorsement => policy.endorsement.required = EndorsementKind::Certificate,
        Section::Clock => policy.clock.unsafe_clock = Weight::Refuse,
        Section::BootLog => policy.boot.event_log = Demand::Required,
        Section::BootRules => policy.boot.kernel_command_lines = learned.boot.kernel_command_lines.clone(),
        Section::Sequence => {
            policy.boot.sequence.insert(Pcr(index(12)), vec![Sequence::default()]);
        }
        Section::FirmwarePcr => values(4).into_iter().for_each(|value| policy.allow_pcr(index(4), value)),
        Section::RuntimePcr => values(12).into_iter().for_each(|value| policy.allow_pcr(index(12), value)),
        Section::Files => policy.ima = learned.ima.clone(),
        Section::FilesIfThere => {
            policy.ima = Some(ImaSection { list: Demand::Optional, ..learned.ima.clone().unwrap() });
        }
        Section::Location => {
            policy.location = Some(crate::policy::LocationSection {
                allow_countries: vec!["DE".parse().unwrap()],
                ..crate::policy::LocationSection::default()
            });
        }
    }
    // A policy has to judge something that is measured: a PCR that nobody extends.
    if policy.ima.is_none() && policy.pcr.is_empty() && policy.boot.sequence.is_empty() {
        policy.allow_pcr(index(13), HashAlgorithm::Sha256.zero());
    }
    policy
}

#[test]
fn what_is_undecided_fails_where_it_is_demanded_and_nowhere_else() {
    let good = Shown::good().claims();
    let mut wrong = Vec::new();
    for section in SECTIONS {
        assert_eq!(Shown::good().tier(policy(section, &good)), Tier::Affirming, "{section:?}");
        for item in Undecided::all() {
            let tier = Shown::without(item).tier(policy(section, &good));
            if (tier == Tier::Contraindicated) != failing(item).contains(&section) {
                wrong.push((item, section, tier));
            }
        }
    }
    assert_eq!(wrong, []);
}

/// Whatever it weighs, it is said.
#[test]
fn what_is_undecided_is_a_finding_under_every_policy() {
    let good = Shown::good().claims();
    for item in Undecided::all().into_iter().filter(|item| *item != Undecided::Tee) {
        let mut shown = Shown::without(item);
        let claims = shown.claims();
        let noted: Vec<Check> = claims.notes().iter().chain(&shown.notes).map(|note| note.check).collect();
        assert!(noted.iter().any(|check| Undecided::of(*check) == item), "{item:?}: {noted:?}");
        for section in SECTIONS {
            let policy = CompiledPolicy::new(policy(section, &good)).unwrap();
            let result = appraise(&claims, Some(&policy), None, AT).with_notes(Some(&policy), &shown.notes);
            for check in &noted {
                let is_said = result.findings().iter().any(|finding| finding.check == *check);
                assert!(is_said, "{item:?} under {section:?}: {:?}", result.findings());
            }
        }
    }
}

fn endorsement(device: &SoftwareDevice) -> Endorsement {
    let anchors = TrustAnchor::from_pem_or_der(MAKER.root_ca()).unwrap();
    let endorsers = Endorsers::new(anchors, Vec::new());
    let chain: Vec<&[u8]> = device.ek_intermediates.iter().map(Vec::as_slice).collect();
    verify_ek_certificate(&device.ek_certificate, &chain, &endorsers, AT).unwrap().into()
}

fn index(index: u32) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

static MAKER: std::sync::LazyLock<EkMaker> = std::sync::LazyLock::new(|| EkMaker::new().unwrap());
const AT: UnixTime = UnixTime(1_800_000_000);
