//! `assay policy import`: Keylime's policies as one of ours, with a report of what means something else here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_trust::policy::{Import, POLICY_BYTES_MAX, Severity};

use super::destination::Destination;
use super::lint::line;
use crate::bounded::read_text;

/// Arguments of `assay policy import`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).multiple(true)))]
pub struct Args {
    /// A runtime policy of any version, signed or not (its signature is not verified), as Keylime's verifier prints it or
    /// kept it with its excludes, or a plain allowlist.
    #[arg(long, value_name = "FILE", group = "source")]
    keylime_runtime_policy: Option<PathBuf>,
    /// The excludes that a plain allowlist has beside it: a regular expression on each line.
    #[arg(long, value_name = "FILE", group = "source")]
    keylime_excludes: Option<PathBuf>,
    /// PCR values: JSON such as '{"7": ["<hex>"]}', or a file of it.
    #[arg(long, value_name = "JSON_OR_FILE", group = "source")]
    keylime_tpm_policy: Option<String>,
    /// A measured-boot reference state, of the policy `example`.
    #[arg(long, value_name = "FILE", group = "source")]
    keylime_refstate: Option<PathBuf>,
    #[command(flatten)]
    to: Destination,
    /// Write the policy though some of what Keylime's says is lost in it; each loss is still said.
    #[arg(long)]
    lossy: bool,
    /// What to call it.
    #[arg(long, default_value = "imported")]
    name: String,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut import = Import::new(&args.name);
    if let Some(path) = &args.keylime_runtime_policy {
        let text = read(path)?;
        // Before runtime policies there were plain lists.
        let taken = match text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
            true => import.runtime_policy(&text),
            false => import.allowlist(&text),
        };
        taken.with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.keylime_excludes {
        import.excludes_file(&read(path)?);
    }
    if let Some(source) = &args.keylime_tpm_policy {
        let (name, json) = match source.trim_start().starts_with('{') {
            true => ("--keylime-tpm-policy", source.clone()),
            false => (source.as_str(), read(Path::new(source))?),
        };
        import.tpm_policy(&json).with_context(|| name.to_owned())?;
    }
    if let Some(path) = &args.keylime_refstate {
        import.reference_state(&read(path)?).with_context(|| path.display().to_string())?;
    }
    let (policy, remarks) = import.finish();
    let losses = remarks.iter().filter(|remark| remark.severity == Severity::Error).count();
    let is_lost = losses > 0 && !args.lossy;
    if policy.is_err() || is_lost {
        remarks.iter().for_each(|remark| eprintln!("{}", line("import", remark)));
    }
    let policy = policy.context("nothing of it makes a usable policy")?;
    if is_lost {
        bail!(
            "{losses} of its demands would be lost, so nothing is written: see above, or give --lossy to go without them"
        );
    }
    args.to.write(&policy, &remarks)
}

fn read(path: &Path) -> Result<String> {
    read_text(path, POLICY_BYTES_MAX as u64)
}
