//! Good machines of every kind, and the policies that say what is good about them.

use std::sync::LazyLock;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor, verify_ek_certificate};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Claims, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use assay_testkit::redteam::{BootPath, FirmwareStyle, Installation, Scene, Submission};
use assay_testkit::software_device::{EkKind, EndorsementKey, TpmKey, key};
use assay_testkit::{Bank, EkMaker};
use assay_trust::{CompiledPolicy, Policy, Tier, appraise, learn, learn_rules};

/// How a policy came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// Learned: the PCR values.
    Values,
    /// Learned: rules.
    Rules,
    /// Written by hand: every typed demand.
    Typed,
    /// Written by hand: signers, lines and files.
    Signers,
}

/// A machine and what is demanded of it.
pub struct GoodMachine {
    pub installation: Installation,
    pub policies: Vec<(PolicyKind, CompiledPolicy)>,
}

/// Every machine, with what they share.
pub struct Fleet {
    pub key: TpmKey,
    endorsement: Endorsement,
    pub machines: Vec<GoodMachine>,
}

pub static FLEET: LazyLock<Fleet> = LazyLock::new(Fleet::new);

impl Fleet {
    fn new() -> Fleet {
        let mut fleet = Fleet {
            key: TpmKey::generate(key::ATTESTATION_KEY).unwrap(),
            endorsement: endorsement(),
            machines: Vec::new(),
        };
        for installation in installations() {
            let claims = fleet.claims(&fleet.submit(Scene::boot(&installation, &installation, false)));
            let policies = policies(&claims.unwrap());
            fleet.machines.push(GoodMachine { installation, policies });
        }
        fleet
    }

    /// What is sent of a scene.
    pub fn submit(&self, scene: Scene) -> Submission {
        scene.submit(&self.key, NONCE).unwrap()
    }

    /// The claims of what was sent, if it verifies.
    pub fn claims(&self, sent: &Submission) -> Option<Claims> {
        let value = |(bank, index, digest): &(Bank, u32, Vec<u8>)| {
            Some((PcrIndex::new(*index)?, Digest::new(algorithm(*bank), digest)?))
        };
        let evidence = Evidence {
            ak_public: &sent.ak_public,
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &sent.message,
                signature: &sent.signature,
                pcrs: sent.pcrs.iter().filter_map(value).collect::<PcrValues>(),
                nonce: &sent.nonce,
                ak_public: None,
            }],
            boot_log: sent.boot_log.as_deref(),
            ima_log: sent.ima_log.as_deref().map(ImaLog::Binary),
            ima_from_entry: 0,
        };
        verify(&evidence, &Expectation::default()).claims
    }

    /// The verdict on it.
    pub fn tier(&self, claims: Option<&Claims>, policy: &CompiledPolicy) -> Tier {
        claims.map_or(Tier::Contraindicated, |claims| {
            appraise(claims, Some(policy), Some(&self.endorsement), AT).tier()
        })
    }

    /// The same with what was found.
    pub fn findings(&self, sent: &Submission, policy: &CompiledPolicy) -> String {
        match self.claims(sent) {
            Some(claims) => {
                format!("{:#?}", appraise(&claims, Some(policy), Some(&self.endorsement), AT).findings())
            }
            None => "it does not verify".to_owned(),
        }
    }
}

fn installations() -> Vec<Installation> {
    let paths = [
        BootPath::Grub206,
        BootPath::Grub212,
        BootPath::SystemdBoot,
        BootPath::Stub,
        BootPath::UnifiedKernel,
    ];
    let styles = [FirmwareStyle::Edk2, FirmwareStyle::Server, FirmwareStyle::Terse];
    let mut installations = Vec::new();
    for path in paths {
        for style in styles {
            for secure_boot in [true, false] {
                let good = Installation::new(path, style, secure_boot);
                // Each set of banks meets each path and each style.
                let good = match installations.len() % 4 {
                    0 => good,
                    1 => good.with_banks(&[Bank::Sha1, Bank::Sha256]),
                    2 => good.with_banks(&[Bank::Sha256, Bank::Sha384]),
                    _ => Installation { banks: vec![Bank::Sha256, Bank::Sha384], ..good },
                };
                installations.push(good);
            }
        }
    }
    installations
}

fn policies(claims: &Claims) -> Vec<(PolicyKind, CompiledPolicy)> {
    let values = learn("values", &[], &[claims]).unwrap();
    let typed = typed(claims, values.clone());
    let signers = signers(typed.clone());
    let rules = learn_rules("rules", &[], &[claims]).ok();
    let policies = [
        (PolicyKind::Values, Some(values)),
        (PolicyKind::Rules, rules),
        (PolicyKind::Typed, Some(typed)),
        (PolicyKind::Signers, signers),
    ];
    let compiled = policies.into_iter().filter_map(|(kind, policy)| Some((kind, policy?)));
    compiled.map(|(kind, policy)| (kind, CompiledPolicy::new(policy).unwrap())).collect()
}

/// Every demand that there is a typed line for, as an operator would copy it from what a good machine shows.
fn typed(claims: &Claims, learned: Policy) -> Policy {
    let facts = claims.boot().unwrap().facts();
    let images = facts.boot_applications.iter().map(|image| image.digest);
    let mut policy = Policy::new("typed");
    policy.ima = learned.ima;
    policy.boot = assay_trust::policy::BootSection {
        secure_boot: learned.boot.secure_boot,
        kernel_command_lines: learned.boot.kernel_command_lines,
        applications: Some(images.collect()),
        firmware_versions: facts.firmware_version.clone().map(|version| vec![version]),
        dbx_contains: dbx(claims),
        dbx_entries_min: Some(3),
        signers: learn_rules("signers", &[], &[claims]).ok().and_then(|rules| rules.boot.signers),
        ..assay_trust::policy::BootSection::default()
    };
    policy
}

fn dbx(claims: &Claims) -> Vec<Digest> {
    let variables = claims.boot().and_then(|boot| boot.facts().secure_boot.as_ref());
    let digest = |signature: &assay_evidence::boot_log::Signature| match signature.kind {
        assay_evidence::boot_log::SignatureKind::ImageDigest(digest) => Some(digest),
        _ => None,
    };
    variables.iter().flat_map(|variables| variables.dbx.iter().filter_map(digest)).collect()
}

/// As the guide for Debian recommends where kernels change often.
fn signers(typed: Policy) -> Option<Policy> {
    let mut policy = typed;
    policy.name = "signers".into();
    policy.boot.applications = None;
    policy.boot.signers.is_some().then_some(policy)
}

fn endorsement() -> Endorsement {
    let maker = EkMaker::new().unwrap();
    let ek = EndorsementKey::generate(EkKind::P256).unwrap();
    let anchors = TrustAnchor::from_pem_or_der(maker.root_ca()).unwrap();
    let endorsers = Endorsers::new(anchors, Vec::new());
    let certificate = maker.certify(&ek).unwrap();
    verify_ek_certificate(&certificate, &[maker.issuing_ca()], &endorsers, AT).unwrap().into()
}

fn algorithm(bank: Bank) -> HashAlgorithm {
    HashAlgorithm::from_name(bank.name()).unwrap()
}

const AT: UnixTime = UnixTime(1_800_000_000);
const NONCE: &[u8] = b"a nonce of the verifier's own";
