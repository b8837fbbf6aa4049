//! `assay appraise`: verifies and appraises a folder of evidence, offline and without trust in it.
//!
//! Exit 0: affirming, or without a policy that everything agrees; 1: refused; 2: the arguments or the folder are of
//! no use.

mod stored;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use assay_clock::Clock;
use assay_evidence::Check;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{EkCertificate, Endorsers, TrustAnchor};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::revocation::{LIST_BYTES_MAX, RevocationList};
use assay_trust::change::{Change, describe};
use assay_trust::{AttestationResult, CompiledPolicy, Finding, Tier, appraise, refuse};
use serde_json::{Value, json};

use crate::case::{Case, Expected, SMALL_BYTES_MAX, Verified, from_hex, read_bounded};
use crate::console::Console;
use crate::policy;
use crate::{failure, output};

/// Arguments of `assay appraise`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    what: What,
    /// Appraise by this policy, in TOML or JSON. Without it, only verify.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Say what changed since this earlier evidence of the device, a folder as well.
    #[arg(long, value_name = "CASE_DIR")]
    since: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    console: Console,
}

/// What is judged: one of them.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The folder: quote.msg, quote.sig, quote.pcrs, quote.nonce, ak.tpm2b_public, and what else there is.
    case_dir: Option<PathBuf>,
    /// A result on record, by its number (`assay device results`): its evidence is fetched from the console and judged
    /// again here, by the policy and the trust anchors of then. Exit 0: it is the result on record; 1: it is not.
    #[arg(long, value_name = "RESULT_ID", conflicts_with_all = ["policy", "since", "trust_anchors", "nonce", "last_reset_count", "at"])]
    stored: Option<u64>,
}

/// What the verifier brings along.
#[derive(clap::Args)]
pub struct VerifierArgs {
    /// Trust these certificates to vouch for TPMs, not the folder's own (may be repeated; PEM or DER, or a folder).
    #[arg(long = "trust-anchor", value_name = "FILE_OR_DIR")]
    trust_anchors: Vec<PathBuf>,
    /// Heed these revocation lists of the authorities above the TPM (may be repeated; PEM or DER, or a folder).
    #[arg(long = "ek-crl", value_name = "FILE_OR_DIR")]
    ek_crls: Vec<PathBuf>,
    /// The nonce that every quote has to answer, in hex, whatever the folder says.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
    /// The TPM's reset counter when it was last seen.
    #[arg(long, value_name = "N")]
    last_reset_count: Option<u32>,
    /// Check certificates at this time instead of now, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "RFC3339")]
    at: Option<String>,
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    let judged = match (&args.what.case_dir, args.what.stored) {
        (Some(folder), _) => appraise_folder(&args, folder).map(|verdict| verdict.print(&args)),
        (None, Some(result)) => stored::run(&args.console, result, args.json),
        (None, None) => Err(anyhow!("name a folder, or a result with --stored")),
    };
    match judged {
        Ok(exit) => exit,
        Err(error) => failure::unusable(&error),
    }
}

struct Verdict {
    folder: PathBuf,
    is_accepted: bool,
    result: AttestationResult,
    verified: Verified,
    /// What changed since the earlier evidence, where that was asked for.
    changes: Option<Vec<Change>>,
    at: UnixTime,
}

fn appraise_folder(args: &Args, folder: &Path) -> Result<Verdict> {
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    let expected = args.verifier.expected()?;
    let verified = Case::read(folder)?.verify(&expected)?;
    let changes = args.since.as_deref().map(|since| changes(since, &verified, &expected)).transpose()?;
    let at = expected.at;
    let result = match &verified.claims {
        Some(claims) => appraise(claims, policy.as_ref(), verified.endorsement.as_ref(), at),
        None => refuse(&verified.failures, policy.as_ref(), at),
    };
    let result = result.with_notes(policy.as_ref(), &verified.notes);
    let is_accepted = verified.claims.is_some();
    let changes = changes.flatten();
    Ok(Verdict { folder: folder.to_owned(), is_accepted, result, verified, changes, at })
}

/// What changed since the evidence in a folder; `None` where the newer one does not verify and says nothing.
fn changes(since: &Path, now: &Verified, expected: &Expected) -> Result<Option<Vec<Change>>> {
    // The earlier evidence answered another nonce.
    let expected = Expected { nonce: None, last_reset_count: None, ..expected.clone() };
    let before = Case::read(since)?.verify(&expected)?.believed(since)?;
    Ok(now.claims.as_ref().map(|after| describe(&before, after)))
}

impl VerifierArgs {
    /// The arguments as meant.
    pub fn expected(&self) -> Result<Expected> {
        let nonce = self
            .nonce
            .as_deref()
            .map(|hex| from_hex(hex.as_bytes()).context("--nonce is not hex"))
            .transpose()?;
        let at = at(self.at.as_deref())?;
        Ok(Expected { endorsers: self.endorsers()?, nonce, last_reset_count: self.last_reset_count, at })
    }

    fn endorsers(&self) -> Result<Endorsers> {
        let mut anchors = Vec::new();
        for path in &self.trust_anchors {
            let read = each_file(path, &CERTIFICATE_NAMES, &mut |file| {
                let bytes = read_bounded(file, SMALL_BYTES_MAX)?.context("it is not there")?;
                anchors.extend(TrustAnchor::from_pem_or_der(&bytes)?);
                Ok(())
            });
            read.with_context(|| format!("--trust-anchor {}", path.display()))?;
        }
        let mut lists = Vec::new();
        for path in &self.ek_crls {
            let read = each_file(path, &CRL_NAMES, &mut |file| {
                let bytes = read_bounded(file, LIST_BYTES_MAX)?.context("it is not there")?;
                lists.extend(RevocationList::from_pem_or_der(&bytes)?);
                Ok(())
            });
            read.with_context(|| format!("--ek-crl {}", path.display()))?;
        }
        Ok(Endorsers::new(anchors, lists))
    }
}

/// The time that `--at` says, or now.
pub fn at(text: Option<&str>) -> Result<UnixTime> {
    match text {
        Some(text) => UnixTime::from_rfc3339(text)
            .with_context(|| format!("--at {text:?} is not a time: write it as 2027-01-31T12:00:00Z")),
        None => Ok(UnixTime(Clock::system().seconds())),
    }
}

fn read_policy(path: &Path) -> Result<CompiledPolicy> {
    CompiledPolicy::new(policy::text::read(path)?).with_context(|| path.display().to_string())
}

/// Reads one file, or those of a folder whose names end in one of `endings`.
pub fn each_file(path: &Path, endings: &[&str], read: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    if !path.is_dir() {
        return read(path);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path)?.take(FILES_MAX) {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known)));
    files.sort();
    if files.is_empty() {
        bail!("there is no file in it whose name ends in .{}", endings.join(" or ."));
    }
    for file in &files {
        read(file).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

impl Verdict {
    fn print(&self, args: &Args) -> ExitCode {
        let outcome = if args.json { output::json(&self.to_json(args)) } else { self.print_report(args) };
        match outcome {
            Ok(()) => self.exit(args),
            Err(error) => output::exit(Err(error)),
        }
    }

    fn exit(&self, args: &Args) -> ExitCode {
        let is_good = match args.policy {
            Some(_) => self.result.tier() == Tier::Affirming,
            None => self.is_accepted,
        };
        if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Without a policy nothing was judged, not even what failed to verify.
    fn tier(&self, args: &Args) -> Tier {
        if args.policy.is_some() { self.result.tier() } else { Tier::None }
    }

    fn certificate(&self) -> Option<&EkCertificate> {
        self.verified.endorsement.as_ref().and_then(Endorsement::certificate)
    }

    /// That there is no policy is no news to who gave none.
    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.result.findings().iter().filter(|finding| finding.check != Check::PolicyPresent)
    }

    fn to_json(&self, args: &Args) -> Value {
        let claims = self.verified.claims.as_ref();
        json!({
            "integrity": if self.is_accepted { "accept" } else { "reject" },
            "tier": self.tier(args),
            "findings": self.findings().collect::<Vec<_>>(),
            "open": self.result.open_rows(),
            "policy": self.result.policy().map(|(name, version)| json!({ "name": name, "version": version })),
            "at": self.at.to_string(),
            "changes": self.changes,
            "trust_vector": self.result.vector(),
            "ak_name": claims.map(|claims| claims.ak_name().to_hex()),
            "reset_count": claims.map(|claims| claims.clock().reset_count),
            "tpm_manufacturer": self.certificate().and_then(EkCertificate::manufacturer),
            "ek_sha256": self.verified.endorsement.as_ref().map(|endorsement| endorsement.ek_sha256().to_hex()),
            "ima": claims.and_then(|claims| claims.ima()).map(|ima| json!({
                "attested": ima.attested_total(),
                "good": self.result.good_ima_entries(),
                "undecided": ima.undecided(),
            })),
        })
    }

    /// Whether nobody was named who may vouch for TPMs, so that the folder's own authorities stood in.
    fn is_self_vouched(&self) -> bool {
        self.verified.notes.iter().any(|note| note.check == Check::EkChain)
    }

    fn print_report(&self, args: &Args) -> Result<()> {
        crate::output::out!("{}", self.folder.display());
        let vouched = match self.certificate() {
            Some(certificate) if self.is_self_vouched() => {
                format!("EK certificate by {}, which the folder itself names", certificate.issuer())
            }
            Some(certificate) => format!("EK certificate by {}", certificate.issuer()),
            None => "no EK certificate vouches for the TPM".to_owned(),
        };
        crate::output::out!(
            "  integrity  {} ({vouched})",
            if self.is_accepted { "accept" } else { "reject" }
        );
        if let Some(claims) = &self.verified.claims {
            let boot = claims.boot().map_or(0, |boot| boot.events().len());
            let ima = claims.ima().map_or_else(
                || "no IMA list".to_owned(),
                |ima| format!("{} IMA entries", ima.attested_total()),
            );
            crate::output::out!(
                "  attested   {} PCRs, {boot} boot events, {ima}, boot {}",
                claims.pcrs().len(),
                claims.clock().reset_count
            );
        }
        match self.result.policy() {
            Some((name, version)) => {
                crate::output::out!("  result     {} by policy {name} v{version}", self.tier(args))
            }
            None => crate::output::out!("  result     not judged: give a policy with --policy"),
        }
        for finding in self.findings() {
            crate::output::out!("\n  {}  {}\n    {}", finding.tier, finding.check, finding.message);
        }
        let open: Vec<&str> = self.result.open_rows().iter().map(|covered| covered.row.name()).collect();
        if !open.is_empty() {
            crate::output::out!(
                "\n  open       {} (assay policy lint says what that means)",
                open.join(", ")
            );
        }
        if let (Some(since), Some(changes)) = (&args.since, &self.changes) {
            print_changes(since, changes);
        }
        Ok(())
    }
}

fn print_changes(since: &Path, changes: &[Change]) {
    if changes.is_empty() {
        crate::output::out!("\n  nothing changed since {}", since.display());
        return;
    }
    crate::output::out!("\n  changed since {}", since.display());
    for change in changes {
        crate::output::out!("\n  {}\n    {}", change.cause, change.message);
    }
}

/// Manufacturers' roots are some hundred.
const FILES_MAX: usize = 10_000;
/// What files with certificates are called.
pub const CERTIFICATE_NAMES: [&str; 4] = ["pem", "crt", "cer", "der"];
/// What files with revocation lists are called.
pub const CRL_NAMES: [&str; 3] = ["crl", "pem", "der"];
