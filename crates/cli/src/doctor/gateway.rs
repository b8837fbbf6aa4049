//! A gateway: its configuration and credentials, and whether the servers take them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use assay_gateway::Config;
use assay_gateway::examine::Examined;
use assay_wire::doctor::{Report, Severity};

use super::{files, report};

pub(super) fn examine(file: &Path) -> Result<Report> {
    let mut report = report("assay gateway");
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            let found = format!("{}: {:#}", file.display(), anyhow::Error::from(error));
            report.find(
                Severity::Problem,
                "configuration",
                found,
                "docs/reference/configuration.md has every key",
            );
            return Ok(report);
        }
    };
    report.good("configuration", file.display().to_string());
    let folder = &config.credentials;
    files::private(&mut report, &folder.join("key.pem"), true);
    certificate(&mut report, folder);
    files::disk(&mut report, folder);
    listening(&mut report, config.listen);
    match Examined::load(&config) {
        Ok(examined) => {
            report.good("credentials", examined.spiffe_id());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            for (address, met) in runtime.block_on(examined.meet()) {
                server(&mut report, &address, met);
            }
        }
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::from(error));
            let action = "get others for a new folder with assay gateway enroll, or put these back";
            report.find(Severity::Problem, "credentials", found, action);
        }
    }
    Ok(report)
}

/// Of the certificate that an operator gave and the one that the gateway renewed, the one that ends later.
fn certificate(report: &mut Report, folder: &Path) {
    let (given, renewed) = (folder.join("credentials.pem"), folder.join("renewed.pem"));
    let ends = |file: &Path| files::life(file).map_or(0, |(_, until)| until);
    let newest = if ends(&renewed) > ends(&given) { renewed } else { given };
    let action = "it is renewed at half of its life while a server can be reached: look below why it was not, or get others for a \
                  new folder with assay gateway enroll";
    files::certificate(report, "certificate", &newest, action);
}

/// Whether somebody listens where devices connect.
fn listening(report: &mut Report, listen: SocketAddr) {
    let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    if listen.port() == 0 {
        let action = "give it a port, so that devices find it";
        return report.find(Severity::Note, "running", "it listens on a free port", action);
    }
    match TcpStream::connect_timeout(&SocketAddr::new(ip, listen.port()), CONNECT_WITHIN) {
        Ok(_) => report.good("running", format!("listens on {listen}")),
        Err(error) => {
            let found = format!("nothing listens on {listen}: {error}");
            report.find(Severity::Problem, "running", found, "start it: assay gateway run --config FILE");
        }
    }
}

fn server(report: &mut Report, address: &str, met: Result<Option<SystemTime>, String>) {
    match met {
        Err(why) => {
            let action = "look whether it runs (assay doctor on its machine), and for a firewall or clocks that differ";
            report.find(Severity::Problem, "server", format!("{address}: {why}"), action);
        }
        Ok(date) => {
            report.good("server", format!("{address}: takes this gateway, with a fresh revocation list"));
            let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
            if let Some(date) = date {
                report.clock(&format!("server {address}"), date.as_secs());
            }
        }
    }
}

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
