//! The programs as processes of the whole-system tests: `assay-system server|gateway|agent CONFIG`.
//!
//! A program says one line, `ready`, when it has started (the server: when it can be reached), and ends on SIGTERM.

use std::path::Path;

use anyhow::{Result, bail};
use assay_agent::config::Options;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_env_filter("info,assay_server=debug").with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, config] = arguments.as_slice() else {
        bail!("which program, and with which configuration?")
    };
    let config = Path::new(config);
    let mut terminate = signal(SignalKind::terminate())?;
    let told = async move {
        terminate.recv().await;
    };
    match program.as_str() {
        "server" => {
            let running = assay_server::Running::start(assay_server::Config::load(config)?).await?;
            println!("ready");
            told.await;
            running.stop().await;
        }
        "gateway" => {
            let config = assay_gateway::Config::load(config)?;
            println!("ready");
            assay_gateway::run(config, told).await?;
        }
        "agent" => {
            let options = Options { config: Some(config.to_owned()), ..Options::default() };
            let config = options.merge()?.complete()?;
            println!("ready");
            assay_agent::run::run(config, told).await?;
        }
        other => bail!("no program {other}"),
    }
    Ok(())
}
