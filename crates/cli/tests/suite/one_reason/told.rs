//! A device in software and what it tells a verifier, each part open to change before it is signed or sent.

use std::collections::BTreeSet;

use assay_evidence::boot_log::{self, EventType};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::revocation::RevocationList;
use assay_evidence::verify::{Evidence, Expectation, ImaLog, QuoteEvidence, Verification, verify};
use assay_evidence::{Digest, Failure, HashAlgorithm, PcrIndex};
use assay_testkit::edge::protocol::{Challenge, PcrSelection, PcrValue, Quote};
use assay_testkit::software_device::Quoting;
use assay_testkit::{EkMaker, SoftwareDevice, policy_for, tamper};
use assay_trust::{CompiledPolicy, Finding, Policy, appraise, refuse};

/// Whoever trusts this maker and has these revocation lists of it.
pub fn endorsers(maker: &EkMaker, lists: &[Vec<u8>]) -> Endorsers {
    let lists = lists.iter().flat_map(|list| RevocationList::from_pem_or_der(list).unwrap());
    Endorsers::new(TrustAnchor::from_pem_or_der(maker.root_ca()).unwrap(), lists.collect())
}

type AfterSigning = fn(&SoftwareDevice, &mut Quote);

pub struct Told {
    pub maker: EkMaker,
    pub device: SoftwareDevice,
    pub ak_public: Vec<u8>,
    pub quoting: Quoting,
    pub after_signing: AfterSigning,
    pub boot_log: Option<Vec<u8>>,
    pub measure_log: Option<Vec<u8>>,
    pub ima: Vec<u8>,
    pub last_counters: Option<BootCounters>,
    pub policy: Option<String>,
}

impl Told {
    /// The truth, after something happened to the device that its policy does not know of.
    pub fn after(happens: impl FnOnce(&mut SoftwareDevice)) -> Told {
        let maker = EkMaker::new().unwrap();
        let mut device = SoftwareDevice::new("device", &maker).unwrap();
        let policy = policy_for("edge", &[&device]);
        happens(&mut device);
        let selection = vec![PcrSelection { bank: "sha256".into(), pcrs: (0..16).collect() }];
        let challenge = Challenge { nonce: NONCE.to_vec(), selection, ..Challenge::default() };
        Told {
            quoting: Quoting::honest(&mut device, &challenge),
            ak_public: device.ak.public_area(),
            after_signing: |_, _| {},
            boot_log: Some(device.boot_log.clone()),
            measure_log: None,
            ima: device.ima.binary_from(0).to_vec(),
            last_counters: Some(BootCounters {
                reset_count: device.clock.reset_count,
                restart_count: device.clock.restart_count,
            }),
            policy: Some(policy),
            maker,
            device,
        }
    }

    /// Puts other lines in place of what the policy says of the boot.
    pub fn boot(&mut self, lines: &str) {
        self.replace("event_log = \"optional\"\nsecure_boot = \"optional\"\n", lines);
    }

    /// Names the PCRs that files may be measured into.
    pub fn name_pcrs(&mut self, pcrs: &str) {
        self.replace("[ima]\n", &format!("[ima]\npcrs = [{pcrs}]\n"));
    }

    /// Accepts a policy of IMA that says this.
    pub fn accept_kernel_policy(&mut self, text: &[u8]) {
        let digest = HashAlgorithm::Sha256.hash(&[text]);
        self.replace("[ima]\n", &format!("[ima]\nkernel_policies = [\"{digest}\"]\n"));
    }

    /// Makes the policy one for the device as it has booted.
    pub fn accept_boot(&mut self) {
        self.policy = Some(policy_for("edge", &[&self.device]));
    }

    /// Puts another text in place of one in the policy.
    pub fn replace(&mut self, text: &str, other: &str) {
        let policy = self.policy.take().unwrap();
        assert!(policy.contains(text), "{text} is not in {policy}");
        self.policy = Some(policy.replace(text, other));
    }

    /// The digests of the images that were started, in order: shim, boot loader, kernel.
    pub fn started(&self) -> Vec<String> {
        let log = boot_log::parse(self.boot_log.as_ref().unwrap()).unwrap();
        let facts = boot_log::facts(&log, HashAlgorithm::Sha256);
        facts.boot_applications.iter().map(|image| image.digest.to_string()).collect()
    }

    /// Changes the boot log, given where its first event of a type is.
    pub fn event(&mut self, event_type: EventType, change: impl FnOnce(&mut Vec<u8>, usize)) {
        let log = self.boot_log.as_mut().unwrap();
        let parsed = boot_log::parse(log).unwrap();
        let event = parsed.events().iter().find(|event| event.event_type() == event_type).unwrap();
        // The tampering counts from the event after the header.
        let index = event.number() - 1;
        change(log, index);
    }

    /// Changes the IMA list, given where one of its entries starts.
    pub fn entry(&mut self, index: usize, change: impl FnOnce(&mut Vec<u8>, usize)) {
        let start = tamper::ima_entries(&self.ima)[index].start;
        change(&mut self.ima, start);
    }

    /// Tells it, and gives the gravest of what is found.
    pub fn findings(self) -> Vec<Finding> {
        let mut quote = self.quoting.sign(&self.device.ak).unwrap();
        (self.after_signing)(&self.device, &mut quote);
        let evidence = Evidence {
            ak_public: &self.ak_public,
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &quote.message,
                signature: &quote.signature,
                pcrs: values(&quote.pcrs),
                nonce: &NONCE,
                ak_public: None,
            }],
            boot_log: self.boot_log.as_deref(),
            measure_log: self.measure_log.as_deref(),
            ima_log: Some(ImaLog::Binary(&self.ima)),
            ima_from_entry: 0,
            banks: None,
        };
        let expectation = Expectation { last_counters: self.last_counters, ..Expectation::default() };
        let Verification { claims, failures, notes } = verify(&evidence, &expectation);
        let policy = self.policy.map(|text| CompiledPolicy::new(Policy::from_toml(&text).unwrap()).unwrap());
        let endorsers = endorsers(&self.maker, &[]);
        let intermediates: Vec<_> = self.device.ek_intermediates.iter().map(Vec::as_slice).collect();
        let ek = PublicArea::parse_tpm2b(self.device.ek.public_area()).unwrap();
        let certificate = &self.device.ek_certificate;
        let endorsement = Endorsement::verify(&ek, certificate, &intermediates, &endorsers, NOW);
        let result = match claims {
            Some(claims) => appraise(&claims, policy.as_ref(), Some(&endorsement), NOW)
                .with_notes(policy.as_ref(), &notes),
            None => refuse(&failures, policy.as_ref(), NOW),
        };
        let gravest = result.findings().iter().map(|finding| finding.tier).max();
        result.findings().iter().filter(|finding| Some(finding.tier) == gravest).cloned().collect()
    }
}

/// The names of the checks, each once.
pub fn of_findings(findings: &[Finding]) -> BTreeSet<&'static str> {
    findings.iter().map(|finding| finding.check.name()).collect()
}

pub fn of_failures(failures: &[Failure]) -> BTreeSet<&'static str> {
    failures.iter().map(|failure| failure.check.name()).collect()
}

fn values(told: &[PcrValue]) -> PcrValues {
    let value = |pcr: &PcrValue| {
        (PcrIndex::new(pcr.index).unwrap(), Digest::new(HashAlgorithm::Sha256, &pcr.digest).unwrap())
    };
    told.iter().map(value).collect()
}

pub const NONCE: [u8; 32] = [7; 32];
pub const NOW: UnixTime = UnixTime(1_800_000_000);
