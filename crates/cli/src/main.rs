//! `assay`: the operator's program. It starts the server and the gateway, talks to the console, and appraises
//! evidence offline. Each verb is one file or one folder; the console's client is in `console/`, what a verb prints is
//! `output.rs`.

mod appraise;
mod archive;
mod bench;
mod bounded;
mod case;
mod certificate;
mod console;
mod demo;
mod device;
mod doctor;
mod ear;
mod entry;
mod failure;
mod federation;
mod gateway;
mod geofence;
mod import;
mod inspect;
mod ledger;
mod operator;
mod output;
mod policy;
mod secret;
mod security;
mod service;
mod task;
mod tee;
mod telemetry;
mod token;
mod trust;
mod webhook;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Reading a policy of tens of megabytes takes many times that for a moment. This one gives it back, that of the database
/// library as well, where the C library's keeps what each thread once had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hardware-rooted trust for edge fleets.
#[derive(Parser)]
#[command(name = "assay", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server: registrar, verifier, authority, collector and console.
    Server(service::ServerArgs),
    /// Run the gateway, get credentials for one, list and revoke them.
    Gateway(service::GatewayArgs),
    /// Certificates for operators whose programs know no token, such as Keylime's tenant.
    Operator(operator::Args),
    /// Access tokens: who may do what on the console, by a token that names them.
    Token(token::Args),
    /// Who asks, and what they may do.
    Whoami(console::Asking),
    /// What is wrong with this server and what to do about it, on one page: what support asks for first.
    Doctor(doctor::ServerArgs),
    /// Look at devices, explain, label, revoke and approve them.
    Device(device::Args),
    /// Verify signed attestation results (EAR).
    Ear(ear::Args),
    /// Show, set, roll out and learn policies.
    Policy(policy::Args),
    /// What the fleet is trusted with right now.
    Trust(trust::Args),
    /// Registration entries: which workload gets which SPIFFE ID.
    Entry(entry::Args),
    /// What other systems were set up with, as what this one takes.
    Import(import::Args),
    /// Other trust domains that workloads here are to believe.
    Federation(federation::Args),
    /// Secrets that devices are given for as long as they are trusted.
    Secret(secret::Args),
    /// Who tried what they may not: in numbers since the server started, and the last on record.
    Security(security::Args),
    /// Which certificates were issued, how each stands, and what signs them.
    Certificate(certificate::Args),
    /// Who is told what happens, by signed notices: how far each receiver is, and what it was not given.
    Webhook(webhook::Args),
    /// Tasks: WebAssembly that runs on devices that may run it, with results that verify offline.
    Task(task::Args),
    /// Where devices may be: test a place against a policy, show regions and areas.
    Geofence(geofence::Args),
    /// The audit trail.
    Ledger(ledger::Args),
    /// What devices handed in: list, show, verify and export batches.
    Telemetry(telemetry::Args),
    /// Verify and appraise a folder of evidence offline.
    Appraise(appraise::Args),
    /// Say what single files are and what they say: logs, lists, quotes, keys, certificates, policies, tokens.
    Inspect(inspect::Args),
    /// Verify evidence of confidential guests and enclaves.
    Tee(tee::Args),
    /// Measure this machine.
    Bench(bench::Args),
    /// The whole story on this machine: three devices, one compromise, one recovery.
    Demo(demo::Args),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a folder.
    #[command(hide = true)]
    Manual {
        /// The folder; made if it is not there.
        folder: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    // Each verb has a flag of its own of this name, and none has it as a value.
    if std::env::args_os().any(|argument| argument == "--json") {
        failure::tell_as_json();
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| failure::usage(&error));
    assay_identity::tls::install_crypto_provider();
    match cli.verb {
        Verb::Server(args) => service::server(args),
        Verb::Gateway(args) => service::gateway(args),
        Verb::Operator(args) => operator::run(args),
        Verb::Token(args) => output::exit(token::run(args)),
        Verb::Whoami(asking) => output::exit(token::whoami(&asking)),
        Verb::Doctor(args) => doctor::server(&args),
        Verb::Device(args) => output::exit(device::run(args)),
        Verb::Ear(args) => output::exit(ear::run(args)),
        Verb::Policy(args) => policy::run(args),
        Verb::Trust(args) => output::exit(trust::run(args)),
        Verb::Entry(args) => output::exit(entry::run(args)),
        Verb::Import(args) => output::exit(import::run(args)),
        Verb::Federation(args) => output::exit(federation::run(args)),
        Verb::Secret(args) => output::exit(secret::run(args)),
        Verb::Security(args) => output::exit(security::run(&args)),
        Verb::Certificate(args) => output::exit(certificate::run(args)),
        Verb::Webhook(args) => output::exit(webhook::run(args)),
        Verb::Task(args) => task::run(args),
        Verb::Geofence(args) => geofence::run(&args),
        Verb::Ledger(args) => output::exit(ledger::run(args)),
        Verb::Telemetry(args) => telemetry::run(args),
        Verb::Appraise(args) => appraise::run(args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Tee(args) => tee::run(&args),
        Verb::Bench(args) => bench::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "assay", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Verb::Manual { folder } => output::exit(manual(&folder)),
    }
}

/// A page for each verb, as `man` reads it.
fn manual(folder: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    Ok(clap_mangen::generate_to(Cli::command(), folder)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
