//! `assay geofence`: what a policy says of places, before any device does.

mod show;
mod source;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

use crate::output;

/// Arguments of `assay geofence`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Say whether a device at this place may hand in telemetry, and by how many metres. Exit 0: it may; 1: it may not.
    Test(test::Args),
    /// Show the regions and areas of a policy, and what a position has to show.
    Show(show::Args),
}

/// Runs the verb.
pub fn run(args: &Args) -> ExitCode {
    match &args.verb {
        Verb::Test(args) => test::run(args),
        Verb::Show(args) => output::exit(show::run(args)),
    }
}
