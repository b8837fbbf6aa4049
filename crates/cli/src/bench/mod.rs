//! `assay bench`: what this machine does, measured, beside what bounds it.
//!
//! [`appraise`] measures the pure core over a folder of evidence; [`attest`] drives a real server process with
//! software devices, and [`identity`] has workloads ask it; [`trial`] tries a policy on what such a server keeps, and [`trust`] hears messages. [`limit`] is the bound they print: what the
//! cryptography alone takes, [`sig`] the unit. [`aims`] is what was to be reached.

mod aims;
mod appraise;
mod attest;
mod identity;
mod instructions;
mod limit;
mod load;
mod memory;
mod policy;
mod server;
mod sig;
mod trial;
mod trust;

use std::process::ExitCode;

use clap::Subcommand;

use crate::output;

/// Arguments of `assay bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The pure core: time and instructions per quote, per boot log and per IMA entry of a folder of evidence.
    Appraise(appraise::Args),
    /// A real server over real TLS, driven by software devices.
    Attest(attest::Args),
    /// Certificates and tokens of workloads, entries, and how soon devices hear of them, at a real server.
    Identity(identity::Args),
    /// What a long policy takes of a real server's memory, set once and again.
    Policy(memory::Args),
    /// Signed messages, certificates and revocation lists, each beside the signature that bounds it.
    Trust(trust::Args),
    /// A policy tried on results of software devices that a real server keeps.
    Try(trial::Args),
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    output::exit(match args.verb {
        Verb::Appraise(args) => appraise::run(&args),
        Verb::Attest(args) => attest::run(&args),
        Verb::Identity(args) => identity::run(&args),
        Verb::Policy(args) => memory::run(&args),
        Verb::Trust(args) => trust::run(&args),
        Verb::Try(args) => trial::run(&args),
    })
}
