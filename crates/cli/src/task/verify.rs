//! `assay task verify`: whether a result is what a device of this trust domain says of this task, and what that proves.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use assay_evidence::task::log::{Entry, Log};
use assay_evidence::task::outcome::TYPE;
use assay_evidence::task::register::{RegisterStatement, verify_register};
use assay_evidence::task::{Definition, Outcome, Sha384, sha384};
use assay_evidence::tpm::public_area::PublicArea;
use assay_identity::{Bundle, CrlSet, SpiffeId, verify_svid};
use assay_telemetry::{sha256, verify_device_signature};
use assay_wire::console::task::{Register, TaskResult};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Serialize;

use crate::bounded;
use crate::failure;
use crate::output;

/// Arguments of `assay task verify`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The result, as `assay task result --json` writes it.
    #[arg(value_name = "FILE")]
    result: PathBuf,
    /// The trust domain's bundle, PEM.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// A revocation list, DER: a device that was revoked when its result was accepted does not count.
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// The module that was to be run.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// What it was to read.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The measurement that is expected, hex, as `task measure` says.
    #[arg(long, value_name = "HEX")]
    expect: Option<String>,
    /// The SHA-256 of a program that may have run it, hex (may be repeated); otherwise any may.
    #[arg(long = "runtime", value_name = "HEX")]
    runtimes: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was looked at, and whether it holds.
#[derive(Debug, Serialize)]
struct Checked {
    check: &'static str,
    holds: bool,
    message: String,
}

/// The verdict.
#[derive(Debug, Serialize)]
struct Verdict {
    holds: bool,
    task: String,
    attempt: u32,
    device: String,
    end: String,
    measurement: String,
    runtime: String,
    checks: Vec<Checked>,
    /// What follows from it if it holds, and what does not.
    proves: Vec<&'static str>,
    proves_not: Vec<&'static str>,
}

/// Runs the verb.
pub(super) fn run(args: &Args) -> ExitCode {
    match verify(args) {
        Ok(verdict) => {
            let told = output::answer(&verdict, args.json, print);
            match told {
                Ok(()) if verdict.holds => ExitCode::SUCCESS,
                Ok(()) => ExitCode::from(failure::Exit::No as u8),
                Err(error) => failure::tell(&error),
            }
        }
        Err(error) => failure::unusable(&error),
    }
}

fn print(verdict: &Verdict) {
    let Verdict { holds, task, attempt, device, end, checks, proves, proves_not, .. } = verdict;
    let word = if *holds { "holds" } else { "DOES NOT HOLD" };
    output::out!(
        "task {}, attempt {attempt} on {}, {end}: {word}",
        output::shown(task),
        output::shown(device)
    );
    let row = |checked: &Checked| {
        let word = if checked.holds { "holds" } else { "does not" };
        vec![checked.check.to_owned(), word.to_owned(), output::shown(&checked.message)]
    };
    output::out!("{}", output::table(&["check", "", ""], checks.iter().map(row)));
    if *holds {
        proves.iter().for_each(|sentence| output::out!("+ {sentence}"));
        proves_not.iter().for_each(|sentence| output::out!("- {sentence}"));
    }
}

/// The parts of a result, read.
struct Parts {
    result: TaskResult,
    definition: Definition,
    outcome: Outcome,
    signed: Vec<u8>,
    output: Vec<u8>,
    messages: Vec<u8>,
}

impl Parts {
    fn read(args: &Args) -> Result<Parts> {
        let text = bounded::read_text(&args.result, RESULT_BYTES_MAX)?;
        let result: TaskResult = serde_json::from_str(&text)
            .with_context(|| format!("{}: not a task's result", args.result.display()))?;
        let signed = hex("outcome", &result.outcome)?;
        let base64 = |what: &'static str, text: &str| BASE64.decode(text.as_bytes()).context(what);
        Ok(Parts {
            definition: Definition::parse(&hex("definition", &result.definition)?).context("definition")?,
            outcome: Outcome::parse(&signed).context("outcome")?,
            signed,
            output: base64("output", &result.output)?,
            messages: base64("messages", &result.messages)?,
            result,
        })
    }
}

fn verify(args: &Args) -> Result<Verdict> {
    let parts = Parts::read(args)?;
    let mut checks = Checks(Vec::new());
    signer(args, &parts, &mut checks)?;
    content(args, &parts, &mut checks)?;
    let is_attested = register(&parts, &mut checks)?;
    let Parts { result: _, outcome, .. } = &parts;
    let (mut proves, mut proves_not) = (vec![PROVES_SIGNED], vec![NO_SECRECY, NO_RUNTIME]);
    match is_attested {
        true => proves.push(PROVES_MEASURED),
        false => proves_not.insert(0, NOT_MEASURED),
    }
    Ok(Verdict {
        holds: checks.0.iter().all(|checked| checked.holds),
        task: outcome.occasion.task.clone(),
        attempt: outcome.occasion.attempt,
        device: outcome.occasion.device.clone(),
        end: outcome.end.to_string(),
        measurement: HEXLOWER.encode(&outcome.measurement),
        runtime: HEXLOWER.encode(&outcome.runtime),
        checks: checks.0,
        proves,
        proves_not,
    })
}

/// The device's certificate stood when the result was accepted, and its key signed the outcome.
fn signer(args: &Args, parts: &Parts, checks: &mut Checks) -> Result<()> {
    let Parts { result, outcome, signed, .. } = parts;
    let chain: Vec<Vec<u8>> =
        result.device_svid.iter().map(|der| hex("device_svid", der)).collect::<Result<_>>()?;
    let pem = bounded::read(&args.bundle, BUNDLE_BYTES_MAX)?;
    let lists = match &args.crl {
        Some(file) => {
            CrlSet::from_der([bounded::read(file, CRL_BYTES_MAX)?]).context("the revocation list")?
        }
        // Nothing is looked up: whether it was revoked since is another question, which --crl answers.
        None => CrlSet::bootstrapping(),
    };
    let device = SpiffeId::parse(&outcome.occasion.device).context("the device of the outcome")?;
    let bundle = Bundle::from_pem(device.trust_domain().clone(), &pem)
        .with_context(|| format!("{}: no trust bundle", args.bundle.display()))?;
    let at = assay_identity::UnixTime::since_unix_epoch(std::time::Duration::from_secs(result.at.0));
    match verify_svid(&chain, &bundle, &lists, at) {
        Ok(peer) => {
            let is_its = *peer.spiffe_id() == device;
            checks.add("certificate", is_its, format!("of {}, at {}", peer.spiffe_id(), result.at));
            let signature = hex("signature", &result.signature)?;
            let signs = verify_device_signature(peer.spki(), TYPE, signed, &signature);
            let message = signs.as_ref().err().map(ToString::to_string);
            let message = message.unwrap_or_else(|| "the device key's, over the outcome".to_owned());
            checks.add("signature", signs.is_ok(), message);
        }
        Err(error) => checks.add("certificate", false, error.to_string()),
    }
    Ok(())
}

/// What was run, read and put out is what is here.
fn content(args: &Args, parts: &Parts, checks: &mut Checks) -> Result<()> {
    let Parts { result, definition, outcome, output, messages, .. } = parts;
    checks.same("task", (&result.task, result.attempt), (&outcome.occasion.task, outcome.occasion.attempt));
    checks.digest("measurement", &definition.measurement(), &outcome.measurement);
    checks.digest("output", &sha384(output), &outcome.output);
    checks.digest("messages", &sha384(messages), &outcome.messages);
    if let Some(file) = &args.image {
        checks.digest("image", &sha384(&bounded::read(file, CONTENT_BYTES_MAX)?), &definition.image);
    }
    if let Some(file) = &args.input {
        checks.digest("input", &sha384(&bounded::read(file, CONTENT_BYTES_MAX)?), &outcome.input);
    }
    if let Some(expected) = &args.expect {
        let expected = hex("--expect", expected)?;
        let Ok(expected) = Sha384::try_from(expected.as_slice()) else {
            bail!("--expect: {} bytes, SHA-384 has 48", expected.len());
        };
        checks.digest("expected", &expected, &outcome.measurement);
    }
    if !args.runtimes.is_empty() {
        let found = HEXLOWER.encode(&outcome.runtime);
        let is_known = args.runtimes.iter().any(|known| known.eq_ignore_ascii_case(&found));
        checks.add("runtime", is_known, found);
    }
    Ok(())
}

/// The TPM's register shows that the attempt was measured before it ran; whether there is one.
fn register(parts: &Parts, checks: &mut Checks) -> Result<bool> {
    let Parts { result, outcome, .. } = parts;
    let Some(Register { public, message, signature, log }) = &result.register else {
        let names_none = outcome.register == [0; 32];
        checks.add("register", names_none, "the device shows none".to_owned());
        return Ok(false);
    };
    let (public, message) = (hex("register", public)?, hex("register", message)?);
    let (signature, log) = (hex("register", signature)?, hex("register", log)?);
    let ak = PublicArea::parse_tpm2b(&hex("ak_public", &result.ak_public)?).context("ak_public")?;
    let occasion = outcome.occasion.digest();
    let statement =
        RegisterStatement { public: &public, message: &message, signature: &signature, nonce: &occasion };
    let is_named = sha256(&message) == outcome.register;
    checks.add("register", is_named, format!("the outcome names the statement of AK {}", ak.name().to_hex()));
    let register = match verify_register(&statement, &ak) {
        Ok(register) => register,
        Err(faults) => {
            faults.iter().for_each(|fault| checks.add("register", false, fault.to_string()));
            return Ok(true);
        }
    };
    let log = match Log::parse(&log) {
        Ok(log) => log,
        Err(error) => {
            checks.add("log", false, error.to_string());
            return Ok(true);
        }
    };
    let leads = register.is_of(&log);
    let from = if log.is_whole() { "from the boot on" } else { "from what the server had seen on" };
    let message = leads.as_ref().err().map(ToString::to_string);
    let message = message
        .unwrap_or_else(|| format!("{} entries of boot {}, {from}", log.end().entries, log.reset_count()));
    checks.add("log", leads.is_ok(), message);
    let Outcome { measurement, runtime, input, .. } = *outcome;
    let entry = Entry { occasion, measurement, runtime, input };
    let is_there = log.entries().contains(&entry);
    checks.add(
        "measured",
        is_there,
        "the log names the attempt, what was run, by what and on what".to_owned(),
    );
    Ok(true)
}

/// What was looked at so far.
struct Checks(Vec<Checked>);

impl Checks {
    fn add(&mut self, check: &'static str, holds: bool, message: String) {
        self.0.push(Checked { check, holds, message });
    }

    fn digest(&mut self, check: &'static str, found: &Sha384, signed: &Sha384) {
        let (found, signed) = (HEXLOWER.encode(found), HEXLOWER.encode(signed));
        let message = if found == signed { found.clone() } else { format!("{found} here, {signed} signed") };
        self.add(check, found == signed, message);
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, check: &'static str, found: T, signed: T) {
        let message = format!("{signed:?}");
        self.add(check, found == signed, message);
    }
}

fn hex(what: &'static str, text: &str) -> Result<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).with_context(|| format!("{what}: not hexadecimal"))
}

const PROVES_SIGNED: &str =
    "a key in the device's TPM signed that this task, on this input, had this output there";
const PROVES_MEASURED: &str =
    "before it ran, its measurement was extended into the TPM, in the order that the log says";
const NOT_MEASURED: &str = "nothing shows that it was measured before it ran";
const NO_SECRECY: &str = "it was not hidden from the device: its root can read and change a running task";
const NO_RUNTIME: &str = "that the program which ran it is an honest one is for the device's boot and IMA list to show: its policy has to demand both";
const CONTENT_BYTES_MAX: u64 = 8 << 20;
const RESULT_BYTES_MAX: u64 = 64 << 20;
const BUNDLE_BYTES_MAX: u64 = 1 << 20;
const CRL_BYTES_MAX: u64 = 32 << 20;
