//! Good machines of every kind, and the policies that say what is good about them.

use std::sync::LazyLock;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::banks::BankStatement;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor, verify_ek_certificate};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Baseline, Claims, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use assay_testkit::redteam::{BootPath, FirmwareStyle, Installation, Scene, Submission};
use assay_testkit::software_device::{EkKind, EndorsementKey, TpmKey, key};
use assay_testkit::{Bank, EkMaker};
use assay_trust::policy::Revocation;
use assay_trust::{AttestationResult, CompiledPolicy, Policy, Tier, appraise, learn, learn_rules};

/// How a policy came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// Learned: the PCR values.
    Values,
    /// Learned: rules.
    Rules,
    /// Written by hand: every typed demand.
    Typed,
    /// The same, with the kernel told apart from what starts it.
    Kernels,
    /// The same without a word of lines.
    Images,
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
            let policies = policies(&claims.unwrap(), shows_line(&installation));
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
        self.claims_since(sent, None)
    }

    /// The same by a verifier that remembers.
    pub fn claims_since(&self, sent: &Submission, baseline: Option<&Baseline>) -> Option<Claims> {
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
            measure_log: None,
            ima_log: sent.ima_log.as_deref().map(if sent.ima_ascii { ImaLog::Ascii } else { ImaLog::Binary }),
            ima_from_entry: sent.ima_from,
            banks: sent.banks.as_ref().map(|banks| BankStatement {
                capability: &banks.capability,
                message: &banks.message,
                signature: &banks.signature,
                nonce: &sent.nonce,
            }),
        };
        verify(&evidence, &Expectation { banks_wanted: true, baseline, ..Expectation::default() }).claims
    }

    /// The verdict on it.
    pub fn tier(&self, claims: Option<&Claims>, policy: &CompiledPolicy) -> Tier {
        claims.map_or(Tier::Contraindicated, |claims| {
            appraise(claims, Some(policy), Some(&self.endorsement), AT).tier()
        })
    }

    /// The result.
    pub fn result(&self, claims: &Claims, policy: &CompiledPolicy) -> AttestationResult {
        appraise(claims, Some(policy), Some(&self.endorsement), AT)
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
                    _ => good.with_banks(&[Bank::Sha1, Bank::Sha256, Bank::Sha384]),
                };
                // Older kernels measure nothing themselves.
                let is_stub_measuring = style != FirmwareStyle::Terse || path == BootPath::Stub;
                let good = Installation { is_stub_measuring, ..good };
                installations.push(good);
            }
        }
    }
    installations
}

/// Every kind of policy for a machine that shows this; `shows_line` says whether a list of lines is of use.
pub fn policies(claims: &Claims, shows_line: bool) -> Vec<(PolicyKind, CompiledPolicy)> {
    let values = learn("values", &[], &[claims]).unwrap();
    let mut typed = typed(claims, values.clone());
    typed.boot.kernel_command_lines.take_if(|_| !shows_line);
    let signers = signers(typed.clone());
    let kernels = kernels(typed.clone());
    let rules = learn_rules("rules", &[], &[claims]).ok();
    let policies = [
        (PolicyKind::Values, Some(values)),
        (PolicyKind::Rules, rules),
        (PolicyKind::Typed, Some(typed)),
        (PolicyKind::Images, kernels.clone().map(without_lines)),
        (PolicyKind::Kernels, kernels),
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
        dbx_also_contains: dbx_of_signers(claims),
        dbx_entries_min: Some(3),
        signers: learn_rules("signers", &[], &[claims]).ok().and_then(|rules| rules.boot.signers),
        ..assay_trust::policy::BootSection::default()
    };
    policy
}

fn without_lines(mut policy: Policy) -> Policy {
    policy.name = "images".into();
    policy.boot.kernel_command_lines = None;
    policy
}

/// Whether something shows the line that can be believed of a machine of which no order of images is known.
pub fn shows_line(good: &Installation) -> bool {
    good.path != BootPath::SystemdBoot || good.is_stub_measuring
}

/// The kernel is what was started last, but where GRUB 2.12 starts it without asking anybody.
fn kernels(typed: Policy) -> Option<Policy> {
    let mut policy = typed;
    policy.name = "kernels".into();
    let images = policy.boot.applications.as_mut()?;
    let kernel = images.pop().filter(|_| images.len() > LOADERS)?;
    images.retain(|image| *image != kernel);
    policy.boot.kernels = Some(vec![kernel]);
    Some(policy)
}

fn dbx(claims: &Claims) -> Vec<Digest> {
    let variables = claims.boot().and_then(|boot| boot.facts().secure_boot.as_ref());
    let digest = |signature: &assay_evidence::boot_log::Signature| match signature.kind {
        assay_evidence::boot_log::SignatureKind::ImageDigest(digest) => Some(digest),
        _ => None,
    };
    variables.iter().flat_map(|variables| variables.dbx.iter().filter_map(digest)).collect()
}

fn dbx_of_signers(claims: &Claims) -> Vec<Revocation> {
    let variables = claims.boot().and_then(|boot| boot.facts().secure_boot.as_ref());
    variables
        .iter()
        .flat_map(|variables| &variables.dbx)
        .filter_map(|one| Revocation::of(&one.kind))
        .collect()
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
/// What every path starts before a kernel: shim, and perhaps one more.
const LOADERS: usize = 1;
