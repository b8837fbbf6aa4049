//! `assay tee`: evidence of confidential guests and enclaves, judged offline.

mod claims;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

/// Arguments of `assay tee`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Verify and appraise evidence of a TEE: SEV-SNP reports, SGX and TDX quotes, Azure machines, Arm CCA tokens, NVIDIA GPUs. Exit 0: accepted; 1: refused; 2: of no
    /// use.
    Verify(verify::Args),
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    match &args.verb {
        Verb::Verify(args) => verify::run(args),
    }
}
