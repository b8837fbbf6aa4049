//! The server under measurement: a process of its own with a new data folder, reached as a gateway reaches it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use assay_testkit::edge::Door;
use assay_wire::console::gateway::{Credentials, Enroll};
use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::de::IgnoredAny;
use serde_json::Value;

use tempfile::TempDir;

use super::sig::ProcessClock;
use crate::console::{Client, Console};

/// A running server. It ends, and its folder goes, when this is dropped.
pub struct Server {
    process: Child,
    folder: TempDir,
    /// The operator's client.
    pub client: Client,
    /// From the start of the process to its first answer.
    pub first_answer: Duration,
}

impl Server {
    /// Starts `assay server` on free ports, trusting EK certificates of the maker whose root this is.
    pub fn start(maker_root_pem: &str) -> Result<Server> {
        let folder = tempfile::Builder::new().prefix("assay-bench-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("maker.pem"), maker_root_pem)?;
        let config = format!(
            "trust_domain = \"{TRUST_DOMAIN}\"\ndata = \"data\"\nedge = \"127.0.0.1:0\"\nconsole = \"127.0.0.1:0\"\n\
             ek_anchors = [\"maker.pem\"]\nattest_interval_seconds = {ATTEST_INTERVAL_SECONDS}\n\
             [limits]\nunproven_streams_max = {STREAMS_MAX}\nunproven_streams_per_address_max = {STREAMS_MAX}\n\
             bytes_in_flight_max = {BYTES_IN_FLIGHT_MAX}\n"
        );
        fs::write(at("server.toml"), config)?;
        let start = Instant::now();
        let mut process = Command::new(std::env::current_exe().context("own program file")?)
            .arg("server")
            .arg("--config")
            .arg(at("server.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("server.log"))?)
            .spawn()
            .context("cannot start the server")?;
        let client = match first_answer(&mut process, &folder, start) {
            Ok(client) => client,
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                let log = fs::read_to_string(at("server.log")).unwrap_or_default();
                return Err(error.context(log.trim().to_owned()));
            }
        };
        Ok(Server { process, folder, client, first_answer: start.elapsed() })
    }

    /// The edge door, with an SVID of a gateway to show.
    pub fn door(&self) -> Result<Door> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let request = Enroll { name: "bench".to_owned(), csr: BASE64.encode(csr.der()) };
        let Credentials { certificate, bundle, .. } = self.client.post("/v1/gateways", &request)?;
        let certificates = |pem: &str| -> Result<Vec<Vec<u8>>> {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .map(|certificate| Ok(certificate?.to_vec()))
                .collect()
        };
        Ok(Door {
            address: address(self.folder.path(), "edge")?,
            spiffe_id: format!("spiffe://{TRUST_DOMAIN}/assay/server"),
            roots: certificates(&bundle)?,
            identity: Some((certificates(&certificate)?, key.serialize_der())),
        })
    }

    /// Processor time it has used.
    pub fn cpu(&self) -> Result<Duration> {
        ProcessClock::of(self.number())?.now()
    }

    /// The number of its process.
    pub fn number(&self) -> u32 {
        self.process.id()
    }

    /// Memory it occupies, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory it ever occupied, in bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &'static str) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
        let kibibytes: u64 = line.split_whitespace().next().unwrap_or_default().parse()?;
        Ok(kibibytes * 1024)
    }

    /// What its database takes on disk.
    pub fn database_bytes(&self) -> Result<u64> {
        let data = self.folder.path().join("data");
        let bytes = |name: &str| fs::metadata(data.join(name)).map_or(0, |file| file.len());
        Ok(bytes("assay.db") + bytes("assay.db-wal"))
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.process.id());
        fs::read_to_string(&path).context(path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn first_answer(process: &mut Child, folder: &TempDir, start: Instant) -> Result<Client> {
    let data = folder.path().join("data");
    let console = Console { data, console: None, bundle: None, token_file: None, trust_domain: None };
    loop {
        if let Some(status) = process.try_wait()? {
            bail!("the server ended with {status}");
        }
        let answer = console.client().and_then(|client| client.get::<IgnoredAny>("/health").map(|_| client));
        match answer {
            Ok(client) => return Ok(client),
            Err(error) if start.elapsed() > START_WITHIN => return Err(error.context("no answer")),
            Err(_) => std::thread::sleep(LOOK_AGAIN_AFTER),
        }
    }
}

fn address(folder: &Path, door: &str) -> Result<String> {
    let text = fs::read(folder.join("data").join("addresses.json")).context("addresses.json")?;
    let value: Value = serde_json::from_slice(&text)?;
    value.get(door).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {door} address"))
}

pub const TRUST_DOMAIN: &str = "bench.assay.example";
/// Long enough that only what the devices ask for is measured.
const ATTEST_INTERVAL_SECONDS: u64 = 3600;
const START_WITHIN: Duration = Duration::from_secs(15);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(2);
/// The whole fleet comes from one address, and shows no SVID there.
const STREAMS_MAX: usize = 200_000;
const BYTES_IN_FLIGHT_MAX: u64 = 32 << 30;
