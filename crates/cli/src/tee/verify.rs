//! `assay tee verify`: one piece of evidence, with what vouches for its platform.
//!
//! Files are told apart by what is in them, so that evidence, certificates, collateral and revocation lists may be named in
//! any order. Exit 0: accepted; 1: refused; 2: the arguments or the files are of no use.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use assay_evidence::boot_log::parse_cc;
use assay_evidence::check::Failure;
use assay_evidence::tee::azure::{self, AzureEvidence, AzureExpectation, AzurePlatform};
use assay_evidence::tee::cca::{self, CcaExpectation, PlatformKey};
use assay_evidence::tee::dcap::{self, DcapClaims, DcapCollateral, DcapEvidence, DcapExpectation};
use assay_evidence::tee::nvidia::{self, NvidiaEvidence, NvidiaExpectation};
use assay_evidence::tee::snp::{self, SnpEvidence, SnpExpectation};
use assay_evidence::tee::{Verified, certificates_of};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor};
use assay_evidence::tpm::revocation::{LIST_BYTES_MAX, RevocationList};
use assay_trust::policy::TeeSection;
use assay_trust::{TeeAppraisal, TeeClaims, Tier, appraise_tee, refuse_tee};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::claims;
use crate::appraise::{CERTIFICATE_NAMES, CRL_NAMES, at, each_file};
use crate::case::{from_hex, read_bounded};
use crate::{failure, output, policy};

/// Arguments of `assay tee verify`.
#[derive(clap::Args)]
pub struct Args {
    /// The evidence, and beside it what vouches for it, in any order: the certificate of an SNP report's key, collateral.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the evidence is, where it should not be told from its bytes.
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// The certificate of the key that signed an SNP report: VCEK or VLEK (may be repeated; DER or PEM).
    #[arg(long = "endorsement", value_name = "FILE")]
    endorsements: Vec<PathBuf>,
    /// Intel's statements on the platform, in one JSON document.
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
    /// The maker's certificates between the key and its root: of AMD, ASK or ASVK and ARK (a file, or a folder). Its root
    /// keys are known; which certificates bring them does not matter.
    #[arg(long, value_name = "FILE_OR_DIR")]
    roots: Vec<PathBuf>,
    /// The maker's revocation lists (may be repeated; PEM or DER, or a folder).
    #[arg(long = "crl", value_name = "FILE_OR_DIR")]
    lists: Vec<PathBuf>,
    /// Trust this root as well, such as a test laboratory's; of Arm CCA the platforms' keys, as JWK or with the platform that each is
    /// for (may be repeated; PEM, DER or JSON, or a folder).
    #[arg(long = "trust-anchor", value_name = "FILE_OR_DIR")]
    trust_anchors: Vec<PathBuf>,
    /// The nonce that the evidence has to carry, in hex: REPORT_DATA is it, with zeros behind.
    #[arg(long, value_name = "HEX", conflicts_with = "report_data")]
    nonce: Option<String>,
    /// What REPORT_DATA has to be, 64 bytes in hex.
    #[arg(long, value_name = "HEX")]
    report_data: Option<String>,
    /// Verify as of this time instead of now, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "RFC3339")]
    at: Option<String>,
    /// Appraise by the [tee] section of this policy. Without it, by rules that refuse debugging and known holes.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Kinds of evidence.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX.
    Tdx,
    /// Intel SGX.
    Sgx,
    /// The virtual TPM of an Azure machine, as JSON, with the SNP report that vouches for it.
    AzureSnp,
    /// The same with a TDX quote.
    AzureTdx,
    /// An Arm CCA token.
    Cca,
    /// Measurements of a confidential GPU of NVIDIA's, over SPDM.
    Nvidia,
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    let verdict = match Verdict::of(args) {
        Ok(verdict) => verdict,
        Err(error) => return failure::unusable(&error),
    };
    let printed = if args.json { output::json(&verdict.to_json()) } else { verdict.print() };
    match printed {
        Ok(()) if verdict.is_accepted() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(failure::Exit::No as u8),
        Err(error) => output::exit(Err(error)),
    }
}

/// What there is to say of one piece of evidence.
struct Verdict {
    kind: Kind,
    claims: Option<TeeClaims>,
    appraisal: TeeAppraisal,
    citation: String,
    at: UnixTime,
}

impl Verdict {
    fn of(args: &Args) -> Result<Verdict> {
        let mut pieces = Pieces::read(args)?;
        let evidence = pieces.evidence.take().context(
            "none of the files is evidence of a TEE: name a report, a quote, a token or a transcript",
        )?;
        let at = at(args.at.as_deref())?;
        let (section, citation) = section(args.policy.as_deref())?;
        let kind = args.kind.map_or_else(|| recognise(&evidence), Ok)?;
        let (claims, failures, notes) = match kind {
            Kind::SevSnp => pieces.verify_snp(&evidence, report_data(args)?, at)?,
            Kind::Tdx | Kind::Sgx => pieces.verify_dcap(&evidence, report_data(args)?, at),
            Kind::AzureSnp | Kind::AzureTdx => pieces.verify_azure(&evidence, args, at)?,
            Kind::Cca => pieces.verify_cca(&evidence, report_data(args)?),
            Kind::Nvidia => pieces.verify_nvidia(&evidence, args, at)?,
        };
        let appraisal = match &claims {
            Some(claims) => appraise_tee(claims, &notes, &section, &citation),
            None => refuse_tee(&failures),
        };
        Ok(Verdict { kind, claims, appraisal, citation, at })
    }

    /// Evidence that verified, and that nothing refuses.
    fn is_accepted(&self) -> bool {
        self.claims.is_some() && self.appraisal.tier() < Tier::Contraindicated
    }

    fn dcap(&self) -> Option<&DcapClaims> {
        match self.claims.as_ref()? {
            TeeClaims::Dcap(claims) => Some(claims),
            TeeClaims::Azure(claims) => match &claims.platform {
                AzurePlatform::Tdx(claims) => Some(claims),
                AzurePlatform::Snp(_) => None,
            },
            TeeClaims::Snp(_) | TeeClaims::Cca(_) | TeeClaims::Nvidia(_) => None,
        }
    }

    fn integrity(&self) -> &'static str {
        if self.is_accepted() { "accept" } else { "reject" }
    }

    fn to_json(&self) -> Value {
        let dcap = self.dcap();
        json!({
            "integrity": self.integrity(),
            "kind": self.kind.name(),
            "tier": self.appraisal.tier().name(),
            "tcb_status": dcap.map(|claims| claims.tcb_status),
            "advisories": dcap.map(|claims| claims.advisories.clone()).unwrap_or_default(),
            "claims": self.claims.as_ref().map(claims::to_json),
            "trust_vector": self.appraisal.vector(),
            "findings": self.appraisal.findings(),
            "judged_by": self.citation,
            "at": self.at.to_string(),
        })
    }

    fn print(&self) -> Result<()> {
        output::out!("{:18} {}", "kind", self.kind.name());
        output::out!(
            "{:18} {} ({} by {})",
            "integrity",
            self.integrity(),
            self.appraisal.tier(),
            self.citation
        );
        if let Some(Value::Object(claims)) = self.claims.as_ref().map(claims::to_json) {
            print_members(&claims, 0);
        }
        if let Some(claims) = self.dcap() {
            output::out!("{:18} {}", "tcb_status", claims.tcb_status);
            output::out!("{:18} {}", "advisories", claims.advisories.join(", "));
        }
        for finding in self.appraisal.findings() {
            output::out!("\n  {}  {}\n    {}", finding.tier, finding.check, finding.message);
        }
        Ok(())
    }
}

fn print_members(members: &serde_json::Map<String, Value>, depth: usize) {
    let indent = "  ".repeat(depth);
    for (name, value) in members {
        match value {
            Value::Null => {}
            Value::Object(inner) => {
                output::out!("{indent}{name}");
                print_members(inner, depth + 1);
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    output::out!(
                        "{indent}{:18} {}",
                        format!("{name}[{index}]"),
                        item.as_str().unwrap_or_default()
                    );
                }
            }
            value => {
                let holder = json!({ "value": value });
                output::out!("{indent}{name:18} {}", output::text(&holder, "value"));
            }
        }
    }
}

/// What the files hold, told apart by their content.
#[derive(Default)]
struct Pieces {
    evidence: Option<Vec<u8>>,
    /// The boot log of a TDX guest.
    cc_log: Option<Vec<u8>>,
    vek: Option<Vec<u8>>,
    authorities: Vec<Vec<u8>>,
    collateral: Option<DcapCollateral>,
    lists: Vec<RevocationList>,
    anchors: Vec<TrustAnchor>,
    platform_keys: Vec<PlatformKey>,
}

impl Pieces {
    fn read(args: &Args) -> Result<Pieces> {
        let mut pieces = Pieces::default();
        for file in &args.files {
            pieces.take(&bytes(file)?, args.kind).with_context(|| file.display().to_string())?;
        }
        for file in &args.endorsements {
            pieces
                .certificates(&bytes(file)?)
                .with_context(|| format!("--endorsement {}", file.display()))?;
        }
        if let Some(file) = &args.collateral {
            pieces.collateral(&bytes(file)?).with_context(|| format!("--collateral {}", file.display()))?;
        }
        for path in &args.roots {
            each_file(path, &CERTIFICATE_NAMES, &mut |file| pieces.certificates(&bytes(file)?))
                .with_context(|| format!("--roots {}", path.display()))?;
        }
        for path in &args.lists {
            each_file(path, &CRL_NAMES, &mut |file| {
                pieces.lists.extend(RevocationList::from_pem_or_der(&bytes(file)?)?);
                Ok(())
            })
            .with_context(|| format!("--crl {}", path.display()))?;
        }
        for path in &args.trust_anchors {
            each_file(path, &ANCHOR_NAMES, &mut |file| pieces.anchor(&bytes(file)?))
                .with_context(|| format!("--trust-anchor {}", path.display()))?;
        }
        Ok(pieces)
    }

    fn take(&mut self, bytes: &[u8], kind: Option<Kind>) -> Result<()> {
        // Drivers write SPDM transcripts as text.
        let unhexed = from_hex(bytes).filter(|bytes| nvidia::is_transcript(bytes));
        let bytes = unhexed.as_deref().unwrap_or(bytes);
        if snp::is_report(bytes) || dcap::is_quote(bytes) {
            return self.evidence(bytes);
        }
        if AzureEvidence::is_json(bytes) || cca::is_token(bytes) || nvidia::is_transcript(bytes) {
            return self.evidence(bytes);
        }
        match bytes.first() {
            Some(b'{') => self.collateral(bytes),
            Some(0x30 | b'-') => self.certificates(bytes),
            _ if kind.is_none() && parse_cc(bytes).is_ok() => {
                if self.cc_log.replace(bytes.to_vec()).is_some() {
                    bail!("a second boot log");
                }
                Ok(())
            }
            _ if kind.is_some() => self.evidence(bytes),
            _ => bail!("neither evidence of a TEE nor a certificate or collateral; --kind says what it is"),
        }
    }

    fn evidence(&mut self, bytes: &[u8]) -> Result<()> {
        if self.evidence.replace(bytes.to_vec()).is_some() {
            bail!("a second piece of evidence: verify one at a time");
        }
        Ok(())
    }

    fn collateral(&mut self, bytes: &[u8]) -> Result<()> {
        if self.collateral.replace(DcapCollateral::from_json(bytes)?).is_some() {
            bail!("collateral for the second time: name one document");
        }
        Ok(())
    }

    fn anchor(&mut self, bytes: &[u8]) -> Result<()> {
        match bytes.first() {
            Some(b'{' | b'[') => self.platform_keys.extend(PlatformKey::from_json(bytes)?),
            _ => self.anchors.extend(TrustAnchor::from_pem_or_der(bytes)?),
        }
        Ok(())
    }

    /// A key's certificate, and those of authorities, in one file or in several.
    fn certificates(&mut self, bytes: &[u8]) -> Result<()> {
        for certificate in certificates_of(bytes)? {
            if !snp::is_vek(&certificate) {
                self.authorities.push(certificate);
            } else if self.vek.replace(certificate).is_some() {
                bail!("a second VCEK or VLEK: name that of the report");
            }
        }
        Ok(())
    }

    fn verify_snp(&mut self, report: &[u8], report_data: Option<[u8; 64]>, at: UnixTime) -> Result<Outcome> {
        let vek = self.vek.take().context(
            "an SNP report needs the certificate of its key: name it, or give it with --endorsement",
        )?;
        let authorities: Vec<&[u8]> = self.authorities.iter().map(Vec::as_slice).collect();
        let evidence = SnpEvidence { report, vek: &vek, authorities: &authorities };
        let endorsers = Endorsers::new(std::mem::take(&mut self.anchors), std::mem::take(&mut self.lists));
        let Verified { claims, failures, notes } =
            snp::verify(&evidence, &SnpExpectation { report_data, endorsers }, at);
        Ok((claims.map(|claims| TeeClaims::Snp(Box::new(claims))), failures, notes))
    }

    fn verify_dcap(&mut self, quote: &[u8], report_data: Option<[u8; 64]>, at: UnixTime) -> Outcome {
        let expectation = DcapExpectation { report_data, anchors: std::mem::take(&mut self.anchors) };
        let evidence = DcapEvidence { quote, cc_log: self.cc_log.as_deref() };
        let Verified { claims, failures, notes } =
            dcap::verify(&evidence, self.collateral.as_ref(), &expectation, at);
        (claims.map(|claims| TeeClaims::Dcap(Box::new(claims))), failures, notes)
    }

    fn verify_cca(&mut self, token: &[u8], challenge: Option<[u8; 64]>) -> Outcome {
        let keys = std::mem::take(&mut self.platform_keys);
        let Verified { claims, failures, notes } = cca::verify(token, &CcaExpectation { challenge, keys });
        (claims.map(|claims| TeeClaims::Cca(Box::new(claims))), failures, notes)
    }

    /// The certificates are the device's own, the signing key's first.
    fn verify_nvidia(&mut self, transcript: &[u8], args: &Args, at: UnixTime) -> Result<Outcome> {
        let nonce = match (&args.nonce, &args.report_data) {
            (_, Some(_)) => bail!("--report-data: a GPU has none; give the request's --nonce"),
            (None, None) => None,
            (Some(hex), None) => {
                let nonce = from_hex(hex.as_bytes()).context("--nonce is not hex")?;
                Some(
                    nonce
                        .try_into()
                        .map_err(|_| anyhow::anyhow!("--nonce: that of an SPDM request has 32 bytes"))?,
                )
            }
        };
        let chain: Vec<&[u8]> = self.authorities.iter().map(Vec::as_slice).collect();
        let endorsers = Endorsers::new(std::mem::take(&mut self.anchors), std::mem::take(&mut self.lists));
        let evidence = NvidiaEvidence { transcript, chain: &chain };
        let Verified { claims, failures, notes } =
            nvidia::verify(&evidence, &NvidiaExpectation { nonce, endorsers }, at);
        Ok((claims.map(|claims| TeeClaims::Nvidia(Box::new(claims))), failures, notes))
    }

    /// The nonce is the TPM's here; REPORT_DATA is spoken for.
    fn verify_azure(&mut self, json: &[u8], args: &Args, at: UnixTime) -> Result<Outcome> {
        if args.report_data.is_some() {
            bail!(
                "--report-data: on Azure the hardware's report is bound to the virtual TPM; give the TPM's --nonce"
            );
        }
        let nonce = args.nonce.as_deref().map(|hex| from_hex(hex.as_bytes()).context("--nonce is not hex"));
        let nonce = nonce.transpose()?;
        let evidence = AzureEvidence::from_json(json)?;
        let authorities: Vec<&[u8]> = self.authorities.iter().map(Vec::as_slice).collect();
        let anchors = std::mem::take(&mut self.anchors);
        let endorsers = Endorsers::new(anchors.clone(), std::mem::take(&mut self.lists));
        let expectation = AzureExpectation {
            nonce: nonce.as_deref(),
            authorities: &authorities,
            snp: SnpExpectation { report_data: None, endorsers },
            collateral: self.collateral.as_ref(),
            dcap: DcapExpectation { report_data: None, anchors },
        };
        let Verified { claims, failures, notes } = azure::verify(&evidence, &expectation, at);
        Ok((claims.map(|claims| TeeClaims::Azure(Box::new(claims))), failures, notes))
    }
}

type Outcome = (Option<TeeClaims>, Vec<Failure>, Vec<Failure>);

fn bytes(file: &Path) -> Result<Vec<u8>> {
    read_bounded(file, LIST_BYTES_MAX)?.with_context(|| format!("{}: it is not there", file.display()))
}

fn recognise(evidence: &[u8]) -> Result<Kind> {
    match evidence {
        _ if snp::is_report(evidence) => Ok(Kind::SevSnp),
        _ if dcap::is_quote(evidence) && evidence.get(4) == Some(&0x81) => Ok(Kind::Tdx),
        _ if dcap::is_quote(evidence) => Ok(Kind::Sgx),
        _ if AzureEvidence::is_json(evidence) => match AzureEvidence::from_json(evidence)?.is_snp() {
            true => Ok(Kind::AzureSnp),
            false => Ok(Kind::AzureTdx),
        },
        _ if cca::is_token(evidence) => Ok(Kind::Cca),
        _ if nvidia::is_transcript(evidence) => Ok(Kind::Nvidia),
        _ => bail!("the evidence is of no kind that is known: --kind says which"),
    }
}

/// The section that judges, and how it is called.
fn section(file: Option<&Path>) -> Result<(TeeSection, String)> {
    let Some(file) = file else { return Ok((TeeSection::without_policy(), "built-in rules".to_owned())) };
    let policy = policy::text::read(file)?;
    if let Some(error) = policy.lint().into_iter().next() {
        return Err(error).with_context(|| file.display().to_string());
    }
    let citation = policy.citation();
    let section =
        policy.tee.with_context(|| format!("{}: the policy has no [tee] section", file.display()))?;
    Ok((section, citation))
}

fn report_data(args: &Args) -> Result<Option<[u8; 64]>> {
    let (name, text) = match (&args.report_data, &args.nonce) {
        (Some(text), _) => ("--report-data", text),
        (None, Some(text)) => ("--nonce", text),
        (None, None) => return Ok(None),
    };
    let given = from_hex(text.as_bytes()).with_context(|| format!("{name} is not hex"))?;
    let mut wanted = [0; 64];
    match wanted.get_mut(..given.len()) {
        Some(head) if args.report_data.is_none() || given.len() == 64 => head.copy_from_slice(&given),
        _ => bail!("{name} has {} bytes; REPORT_DATA has 64", given.len()),
    }
    Ok(Some(wanted))
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::SevSnp => "sev-snp",
            Kind::Tdx => "tdx",
            Kind::Sgx => "sgx",
            Kind::AzureSnp => "azure-snp",
            Kind::AzureTdx => "azure-tdx",
            Kind::Cca => "cca",
            Kind::Nvidia => "nvidia",
        }
    }
}

/// What files with roots or platform keys are called.
const ANCHOR_NAMES: [&str; 5] = ["pem", "crt", "cer", "der", "json"];
