//! `assay bench appraise`: the pure core over a folder of evidence, without network, store or signing.

use std::ffi::OsString;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use assay_clock::Clock;
use assay_evidence::boot_log;
use assay_evidence::ima::{self, PCR, Replay, attested_prefix};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::Endorsers;
use assay_evidence::verify::{Claims, Evidence, Expectation, ImaLog, verify};
use assay_evidence::{HashAlgorithm, PcrIndex};
use assay_trust::{CompiledPolicy, Policy, appraise, learn};
use clap::ValueEnum;
use serde::Serialize;

use super::instructions::Counter;
use super::limit::Limit;
use super::sig::{Cost, Signature, thread_time};
use crate::bounded::read_text;
use crate::case::{Case, Expected, Verified};
use crate::output;

/// Arguments of `assay bench appraise`.
#[derive(clap::Args)]
pub struct Args {
    /// The folder of evidence.
    case_dir: PathBuf,
    /// Accept files signed by this certificate or public key, in PEM, and measure what their signatures cost.
    #[arg(long, value_name = "FILE")]
    ima_signing_cert: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Only do one part of the work, for a counter of instructions that watches.
    #[arg(long, hide = true, requires = "runs")]
    part: Option<Part>,
    /// How often to do it.
    #[arg(long, hide = true)]
    runs: Option<u32>,
}

/// A part of the core's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The quote: keys, signature, nonce, PCR digest.
    Quote,
    /// The boot log: parse, replay, facts.
    BootLog,
    /// The IMA list: parse, replay to the quoted value.
    ImaList,
    /// Every check of the evidence.
    Verify,
    /// The claims against a policy learned from them.
    Appraise,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Report {
    limit_per_second_and_core: Limit,
    instructions_by: Option<Counter>,
    boot_events: usize,
    ima_entries: usize,
    parts: Vec<Figures>,
    signed_files: Option<SignedFiles>,
}

/// Files that are accepted by signature.
#[derive(Serialize)]
struct SignedFiles {
    files: usize,
    /// What each costs the policy that sees its signature for the first time, on top of what it costs later.
    first_microseconds: f64,
}

/// One part.
#[derive(Serialize)]
struct Figures {
    part: &'static str,
    cost: Cost,
    instructions: Option<f64>,
    /// What it is divided by: entries of the IMA list where there are any.
    per_entry: Option<Cost>,
    per_entry_instructions: Option<f64>,
}

/// The folder and what is known of it.
struct Bench<'a> {
    evidence: Evidence<'a>,
    claims: Claims,
    verified: &'a Verified,
    /// Learned from the claims.
    learned: Policy,
    policy: CompiledPolicy,
    expected: &'a Expected,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let at = UnixTime(Clock::system().seconds());
    let expected = Expected { endorsers: Endorsers::default(), nonce: None, last_reset_count: None, at };
    let case = Case::read(&args.case_dir)?;
    let verified = case.verify(&expected)?;
    let signer = args.ima_signing_cert.as_ref().map(|file| read_text(file, SIGNER_BYTES_MAX)).transpose()?;
    let bench = Bench::new(&case, &verified, &expected, signer.as_slice())?;
    if let Some(part) = args.part {
        (0..args.runs.unwrap_or(1)).for_each(|_| bench.work(part));
        return Ok(());
    }
    let report = bench.measure(args)?;
    if args.json {
        return output::json(&serde_json::to_value(&report)?);
    }
    print(&report);
    Ok(())
}

impl<'a> Bench<'a> {
    fn new(
        case: &'a Case,
        verified: &'a Verified,
        expected: &'a Expected,
        signers: &[String],
    ) -> Result<Bench<'a>> {
        let evidence = case.evidence(expected)?;
        let claims = verify(&evidence, &Expectation::default()).claims;
        let claims = claims.context("the evidence does not verify; assay appraise says why")?;
        let learned = learn("bench", signers, &[&claims])?;
        let policy = CompiledPolicy::new(learned.clone())?;
        Ok(Bench { evidence, claims, verified, learned, policy, expected })
    }

    fn measure(&self, args: &Args) -> Result<Report> {
        eprintln!("measuring {}", args.case_dir.display());
        let limit = Limit::measure()?;
        let counter = Counter::find();
        let ima_entries = self.claims.ima().map_or(0, |ima| ima.entries().count());
        let mut parts = Vec::new();
        for part in Part::value_variants() {
            if !self.has(*part) {
                continue;
            }
            eprintln!("  {}", part.name());
            let cost = self.cost(*part)?;
            let instructions =
                counter.map(|counter| counter.per_run(|runs| part.arguments(args, runs))).transpose()?;
            let entries = Some(ima_entries as f64).filter(|count| *count > 0.0 && part.grows_with_entries());
            parts.push(Figures {
                part: part.name(),
                cost,
                instructions,
                per_entry: entries.map(|count| Cost { ms: cost.ms / count, sig: cost.sig / count }),
                per_entry_instructions: entries.zip(instructions).map(|(count, total)| total / count),
            });
        }
        Ok(Report {
            limit_per_second_and_core: limit,
            instructions_by: counter,
            boot_events: self.claims.boot().map_or(0, |boot| boot.events().len()),
            ima_entries,
            parts,
            signed_files: args.ima_signing_cert.as_ref().map(|_| self.signed_files()).transpose()?,
        })
    }

    /// A policy that has never seen the signatures against one that has.
    fn signed_files(&self) -> Result<SignedFiles> {
        let listed = self.learned.ima.as_ref().map_or(0, |ima| ima.allow.len());
        let all = learn("bench", &[], &[&self.claims])?;
        let files = all.ima.as_ref().map_or(0, |ima| ima.allow.len()).saturating_sub(listed);
        let mut times = Vec::new();
        for _ in 0..FIRST_SIGHTS {
            let policy = CompiledPolicy::new(self.learned.clone())?;
            let appraised = || -> Result<Duration> {
                let start = thread_time()?;
                self.appraise(&policy);
                Ok(thread_time()?.saturating_sub(start))
            };
            let (first, later) = (appraised()?, appraised()?);
            times.push(first.saturating_sub(later));
        }
        let first = median(times).as_secs_f64() * 1e6;
        Ok(SignedFiles { files, first_microseconds: first / files.max(1) as f64 })
    }

    fn appraise(&self, policy: &CompiledPolicy) {
        let endorsement = self.verified.endorsement.as_ref();
        black_box(appraise(&self.claims, Some(policy), endorsement, self.expected.at));
    }

    fn has(&self, part: Part) -> bool {
        match part {
            Part::BootLog => self.claims.boot().is_some(),
            Part::ImaList => self.claims.ima().is_some(),
            _ => true,
        }
    }

    /// What one run costs: the median of many rounds, so that an interruption does not count. In each, signatures are
    /// verified beside it.
    fn cost(&self, part: Part) -> Result<Cost> {
        let (signature, start) = (Signature::new()?, thread_time()?);
        let mut rounds = Vec::new();
        while rounds.len() < ROUNDS_MIN || thread_time()?.saturating_sub(start) < MEASURED_FOR {
            let sig = signature.time()?;
            let (round, mut runs) = (thread_time()?, 0);
            let took = loop {
                self.work(part);
                runs += 1;
                let took = thread_time()?.saturating_sub(round);
                if took >= ROUND {
                    break took;
                }
            };
            rounds.push(Cost::new(took / runs, sig));
        }
        Ok(Cost::median(&rounds))
    }

    fn work(&self, part: Part) {
        match part {
            Part::Quote => {
                let evidence = Evidence { boot_log: None, ima_log: None, ..self.evidence.clone() };
                black_box(verify(&evidence, &Expectation::default()));
            }
            Part::BootLog => self.boot_log(),
            Part::ImaList => self.ima_list(),
            Part::Verify => drop(black_box(verify(&self.evidence, &Expectation::default()))),
            Part::Appraise => self.appraise(&self.policy),
        }
    }

    fn boot_log(&self) {
        let Some(Ok(log)) = self.evidence.boot_log.map(boot_log::parse) else { return };
        black_box(boot_log::replay(&log));
        black_box(boot_log::data_digest_failures(&log));
        black_box(boot_log::facts(&log, BANK));
    }

    fn ima_list(&self) {
        let list = match self.evidence.ima_log {
            Some(ImaLog::Binary(bytes)) => ima::parse_binary(bytes),
            Some(ImaLog::Shared(bytes)) => ima::parse_shared(bytes.clone()),
            Some(ImaLog::Ascii(text)) => ima::parse_ascii(text),
            None => return,
        };
        let quoted = PcrIndex::new(PCR.into()).and_then(|index| self.claims.pcrs().get(BANK, index));
        if let (Ok(list), Some(quoted)) = (list, quoted) {
            black_box(attested_prefix(&list, &Replay::new(&[BANK]), &[(PcrIndex::IMA, *quoted)]));
        }
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Quote => "quote",
            Part::BootLog => "boot log: parse, replay, facts",
            Part::ImaList => "IMA list: parse, replay",
            Part::Verify => "verify: all evidence",
            Part::Appraise => "appraise: all claims",
        }
    }

    fn grows_with_entries(self) -> bool {
        matches!(self, Part::ImaList | Part::Appraise)
    }

    /// How this program is told to do only this.
    fn arguments(self, args: &Args, runs: u32) -> Vec<OsString> {
        let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut arguments: Vec<OsString> =
            vec!["bench".into(), "appraise".into(), args.case_dir.clone().into()];
        arguments.extend(["--part".into(), name.into(), "--runs".into(), runs.to_string().into()]);
        if let Some(file) = &args.ima_signing_cert {
            arguments.extend(["--ima-signing-cert".into(), file.clone().into()]);
        }
        arguments
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn print(report: &Report) {
    let Limit { rsa_2048, p256, .. } = report.limit_per_second_and_core;
    println!(
        "One core verifies {rsa_2048:.0} RSA-2048 or {p256:.0} P-256 signatures a second: {:.1} or {:.1} µs of every \
         quote. A P-256 verification is a sig.\n{} boot events, {} IMA entries.\n",
        1e6 / rsa_2048,
        1e6 / p256,
        report.boot_events,
        report.ima_entries
    );
    let number = |value: Option<f64>, digits: usize, unit: &str| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}{unit}"))
    };
    let rows = report.parts.iter().map(|figures| {
        vec![
            figures.part.to_owned(),
            format!("{:.1} µs", figures.cost.ms * 1e3),
            format!("{:.3}", figures.cost.sig),
            number(figures.instructions, 0, ""),
            number(figures.per_entry.map(|cost| cost.ms * 1e3), 3, " µs"),
            number(figures.per_entry.map(|cost| cost.sig), 4, ""),
            number(figures.per_entry_instructions, 0, ""),
        ]
    });
    println!("{}\n", output::table(&HEADER, rows));
    if let Some(SignedFiles { files, first_microseconds }) = report.signed_files {
        println!(
            "{files} files are accepted by signature: {first_microseconds:.1} µs each when a policy sees one first, and not \
             again.\n"
        );
    }
    println!(
        "{}",
        match report.instructions_by {
            Some(Counter::Perf) => "Instructions are the processor's own count, in user space.",
            Some(Counter::Callgrind) =>
                "Instructions are callgrind's count, without SHA and vector extensions it lacks.",
            None =>
                "Instructions were not counted: neither perf nor valgrind works here (apt-get install valgrind).",
        }
    );
}

const BANK: HashAlgorithm = HashAlgorithm::Sha256;
const HEADER: [&str; 7] = [
    "part",
    "time",
    "in sig",
    "instructions",
    "time per entry",
    "in sig per entry",
    "instructions per entry",
];
const MEASURED_FOR: Duration = Duration::from_millis(600);
const ROUNDS_MIN: usize = 5;
const ROUND: Duration = Duration::from_millis(3);
/// Policies that see the signatures first.
const FIRST_SIGHTS: usize = 101;
/// A certificate has some 2 KB.
const SIGNER_BYTES_MAX: u64 = 64 << 10;
