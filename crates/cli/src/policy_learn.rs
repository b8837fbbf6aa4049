//! `assay policy learn`: a policy from folders of good evidence.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use assay_evidence::verify::Claims;
use assay_trust::{learn, learn_rules};

use crate::appraise::VerifierArgs;
use crate::case::{Case, SMALL_BYTES_MAX, read_bounded};
use crate::output;
use crate::policy_file::Destination;

/// Arguments of `assay policy learn`.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of evidence of devices known to be good.
    #[arg(required = true, value_name = "CASE_DIR")]
    case_dirs: Vec<PathBuf>,
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
    args.to.write(&policy, &[])?;
    if !args.to.json {
        output::out!(
            "  from {} case(s), with {} signing key(s); try it: assay appraise CASE_DIR --policy {}",
            args.case_dirs.len(),
            args.ima_signing_certs.len(),
            args.to.output.display()
        );
    }
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
