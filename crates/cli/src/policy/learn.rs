//! `assay policy learn`: a policy from good evidence, in folders or kept by the server of a device.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use assay_evidence::verify::Claims;
use assay_server::archive::KeptResult;
use assay_trust::{learn, learn_rules};
use serde_json::Value;

use super::destination::Destination;
use crate::appraise::VerifierArgs;
use crate::case::{Case, SMALL_BYTES_MAX, read_bounded};
use crate::console::{Client, Console, segment};
use crate::output;

/// Arguments of `assay policy learn`.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of evidence of devices known to be good.
    #[arg(required_unless_present = "devices", value_name = "CASE_DIR")]
    case_dirs: Vec<PathBuf>,
    /// Learn from the last evidence that the server keeps of this device, known to be good (may be repeated).
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    #[command(flatten)]
    to: Destination,
    /// What to call it.
    #[arg(long, default_value = "learned")]
    name: String,
    /// Accept files signed by this certificate or public key, in PEM (may be repeated).
    #[arg(long = "ima-signing-cert", value_name = "FILE")]
    ima_signing_certs: Vec<PathBuf>,
    /// What to learn of the boot: the PCR values, which every update changes, or rules about what they mean.
    #[arg(long, value_enum, default_value_t = Boot::Values)]
    boot: Boot,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    console: Console,
}

/// What is learned of a boot.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Boot {
    /// The values of the PCRs.
    Values,
    /// Secure Boot, who signed what was started, the firmware's version, the command line of any kernel version.
    Rules,
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    output::exit(learn_folders(&args))
}

fn learn_folders(args: &Args) -> Result<()> {
    let keys = args.ima_signing_certs.iter().map(|path| read_pem(path)).collect::<Result<Vec<String>>>()?;
    let claims = claims(&args.case_dirs, &args.devices, &args.verifier, &args.console)?;
    let claims: Vec<&Claims> = claims.iter().collect();
    let policy = match args.boot {
        Boot::Values => learn(&args.name, &keys, &claims)?,
        Boot::Rules => learn_rules(&args.name, &keys, &claims)?,
    };
    args.to.write(&policy, &[])?;
    if !args.to.json {
        output::out!(
            "  from {} case(s), with {} signing key(s); try it: assay appraise CASE_DIR --policy {}",
            claims.len(),
            args.ima_signing_certs.len(),
            args.to.output.display()
        );
    }
    Ok(())
}

/// What folders of evidence, and what the server keeps of devices, say: all of it verified.
pub fn claims(
    folders: &[PathBuf],
    devices: &[String],
    verifier: &VerifierArgs,
    console: &Console,
) -> Result<Vec<Claims>> {
    let mut claims =
        folders.iter().map(|folder| verified(folder, verifier)).collect::<Result<Vec<Claims>>>()?;
    if !devices.is_empty() {
        let client = console.client()?;
        for device in devices {
            claims.push(kept(&client, device).with_context(|| device.clone())?);
        }
    }
    Ok(claims)
}

/// What the last result of a device whose evidence is kept was made of.
fn kept(client: &Client, device: &str) -> Result<Claims> {
    let results = client.get(&format!("/v1/results?device={}", segment(device)))?;
    let is_kept = |result: &&Value| result.get("evidence_kept").and_then(Value::as_bool) == Some(true);
    let last = output::list(&results, "results").iter().find(is_kept).context("no evidence of it is kept")?;
    let id = output::text(last, "id");
    let answer = client.get(&format!("/v1/results/{id}/evidence"))?;
    let kept: KeptResult = serde_json::from_value(answer).context("the evidence cannot be read")?;
    kept.claims()?.with_context(|| format!("its evidence does not verify: assay appraise --stored {id}"))
}

/// Only what verifies can teach anything.
fn verified(folder: &Path, verifier: &VerifierArgs) -> Result<Claims> {
    Ok(Case::read(folder)?.verify(&verifier.expected()?)?.believed(folder)?)
}

fn read_pem(path: &Path) -> Result<String> {
    let bytes =
        read_bounded(path, SMALL_BYTES_MAX)?.with_context(|| format!("{} is not there", path.display()))?;
    let Ok(text) = String::from_utf8(bytes) else { bail!("{} is not PEM", path.display()) };
    Ok(text)
}
