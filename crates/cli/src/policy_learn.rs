//! `assay policy learn`: a policy from folders of good evidence.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use assay_evidence::verify::Claims;
use assay_trust::{Policy, learn, learn_rules};

use crate::appraise::VerifierArgs;
use crate::case::{Case, SMALL_BYTES_MAX, read_bounded};
use crate::output;

/// Arguments of `assay policy learn`.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of evidence of devices known to be good.
    #[arg(required = true, value_name = "CASE_DIR")]
    case_dirs: Vec<PathBuf>,
    /// Where to write the policy: TOML, or JSON if it ends in .json.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
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
    let claims =
        args.case_dirs.iter().map(|folder| verified(folder, args)).collect::<Result<Vec<Claims>>>()?;
    let claims: Vec<&Claims> = claims.iter().collect();
    let policy = match args.boot {
        Boot::Values => learn(&args.name, &keys, &claims)?,
        Boot::Rules => learn_rules(&args.name, &keys, &claims)?,
    };
    let text = match args.output.extension() {
        Some(extension) if extension == "json" => policy.to_json(),
        _ => policy.to_toml(),
    };
    std::fs::write(&args.output, text).with_context(|| args.output.display().to_string())?;
    print_summary(args, &policy);
    Ok(())
}

/// Only what verifies can teach anything.
fn verified(folder: &Path, args: &Args) -> Result<Claims> {
    Ok(Case::read(folder)?.verify(&args.verifier.expected()?)?.believed(folder)?)
}

fn read_pem(path: &Path) -> Result<String> {
    let bytes =
        read_bounded(path, SMALL_BYTES_MAX)?.with_context(|| format!("{} is not there", path.display()))?;
    let Ok(text) = String::from_utf8(bytes) else { bail!("{} is not PEM", path.display()) };
    Ok(text)
}

fn print_summary(args: &Args, policy: &Policy) {
    let pcrs = policy.pcr.iter().count();
    let files = policy.ima.as_ref().map_or(0, |ima| ima.allow.len());
    crate::output::out!(
        "{}: policy {} from {} case(s)",
        args.output.display(),
        policy.citation(),
        args.case_dirs.len()
    );
    crate::output::out!("  {pcrs} PCRs, {files} files, {} signing key(s)", args.ima_signing_certs.len());
    crate::output::out!("  try it: assay appraise CASE_DIR --policy {}", args.output.display());
}
