//! `assay policy init`: a policy that a kind of system can live with, from its packages and a good device, in one step.

mod debian;
mod explained;
mod installed;

use anyhow::Result;
use clap::Subcommand;

/// Arguments of `assay policy init`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    system: System,
}

#[derive(Subcommand)]
enum System {
    /// Debian and its descendants: by the files of packages, of the initial ramdisk, and a device known to be good. Says
    /// how much of what that device measured they explain, and what is left.
    Debian(debian::Args),
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.system {
        System::Debian(args) => debian::run(args),
    }
}
