//! `assay doctor` and `assay gateway doctor`: one page on what is wrong and what to do, from files and connections, beside a
//! running program or in the place of one that does not start. The report's form is [`assay_wire::doctor`].

mod files;
mod gateway;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use assay_clock::Clock;
use assay_evidence::time::UnixTime;
use assay_wire::doctor::Report;

use crate::failure;
use crate::output;

/// Arguments of `assay doctor`.
#[derive(clap::Args)]
pub struct ServerArgs {
    /// The server's configuration file (TOML).
    #[arg(long, env = "ASSAY_CONFIG")]
    config: Option<PathBuf>,
    /// Its data folder, where no file says it.
    #[arg(long, env = "ASSAY_DATA")]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `assay gateway doctor`.
#[derive(clap::Args)]
pub struct GatewayArgs {
    /// The gateway's configuration file (TOML).
    #[arg(long, env = "ASSAY_GATEWAY_CONFIG")]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Looks at a server.
pub fn server(args: &ServerArgs) -> ExitCode {
    tell(server::examine(args.config.as_deref(), args.data.as_deref()), args.json)
}

/// Looks at a gateway.
pub fn gateway(args: &GatewayArgs) -> ExitCode {
    tell(gateway::examine(&args.config), args.json)
}

fn tell(report: Result<Report>, json: bool) -> ExitCode {
    let told = report.and_then(|report| {
        match json {
            true => output::json(&serde_json::to_value(&report)?)?,
            false => output::out!("{report}"),
        }
        Ok(ExitCode::from(report.exit_code()))
    });
    told.unwrap_or_else(|error| failure::unusable(&error))
}

fn report(program: &'static str) -> Report {
    Report::new(program, env!("CARGO_PKG_VERSION"), Clock::system().seconds())
}

/// A time as people read it.
fn date(at: UnixTime) -> String {
    at.to_string()
}
