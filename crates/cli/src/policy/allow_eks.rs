//! `assay policy allow-eks`: vouch for endorsement keys in a policy.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_evidence::HashAlgorithm;
use assay_evidence::tpm::public_area::PublicArea;
use assay_trust::policy::{EkSha256, EndorsementKind};

use super::destination::Destination;
use super::text;
use crate::case::{SMALL_BYTES_MAX, read_bounded};

/// Arguments of `assay policy allow-eks`.
#[derive(clap::Args)]
pub struct Args {
    /// The policy.
    policy: PathBuf,
    /// Lists with a hash in hex on each line (# starts a comment), as device ids end in, or an EK's TPM2B_PUBLIC.
    #[arg(required = true, value_name = "FILE")]
    eks: Vec<PathBuf>,
    /// What is to vouch for an EK from now on: allowlist, both or either.
    #[arg(long, value_name = "KIND")]
    require: Option<String>,
    #[command(flatten)]
    to: Destination,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let mut policy = text::read(&args.policy)?;
    if let Some(kind) = &args.require {
        policy.endorsement.required = EndorsementKind::parse(kind)
            .with_context(|| format!("--require {kind:?}: write allowlist, both or either"))?;
    }
    let mut added = 0u64;
    for path in &args.eks {
        for ek in read_eks(path).with_context(|| path.display().to_string())? {
            if !policy.endorsement.ek_sha256.contains(&ek) {
                policy.endorsement.ek_sha256.push(ek);
                added += 1;
            }
        }
    }
    policy.version += u64::from(added > 0 || args.require.is_some());
    args.to.write(&policy, &[])?;
    if !args.to.json {
        let total = policy.endorsement.ek_sha256.len();
        crate::output::out!("{total} EKs are listed, {added} of them new");
    }
    Ok(())
}

/// The keys of a list, or the one of a public area, which is no text.
fn read_eks(path: &Path) -> Result<Vec<EkSha256>> {
    let bytes = read_bounded(path, LIST_BYTES_MAX)?.context("it is not there")?;
    if bytes.len() <= SMALL_BYTES_MAX
        && let Ok(ek) = PublicArea::parse_tpm2b(&bytes)
    {
        if let Some(failure) = ek.check_ek().into_iter().next() {
            bail!("not an endorsement key: {failure}");
        }
        return Ok(vec![
            EkSha256::new(HashAlgorithm::Sha256.hash(&[&ek.spki_der()]))
                .context("it is hashed with SHA-256")?,
        ]);
    }
    let text = std::str::from_utf8(&bytes).context("neither text nor a TPM2B_PUBLIC")?;
    let mut eks = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let ek = EkSha256::parse(line);
            eks.push(ek.with_context(|| {
                format!("line {}: {line:?} is no EK's hash: write 64 hex digits", number + 1)
            })?);
        }
    }
    Ok(eks)
}

/// A hundred thousand lines, with room for remarks.
const LIST_BYTES_MAX: usize = 16 << 20;
