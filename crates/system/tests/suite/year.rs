//! A year and more in seconds: server, gateway and agent in this process, by clocks that the test moves.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use assay_agent::config::Options;
use assay_agent::fetch::FetchError;
use assay_clock::{Clock, Hands};
use assay_identity::{PrivateKey, TrustDomain, csr};
use assay_server::Running;
use assay_testkit::{EkMaker, Machine, SoftTpm, SoftwareDevice, TpmMaker, policy_for};
use axum::body::Body;
use data_encoding::BASE64;
use http_body_util::BodyExt as _;
use hyper::{Method, Request, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::stage::{TRUST_DOMAIN, eventually};

/// A server, a gateway, and a device with a real agent on a real TPM.
struct Site {
    folder: TempDir,
    clock: Clock,
    hands: Hands,
    /// The device's own, which goes as the others do until it is set.
    device_clock: Clock,
    device_hands: Hands,
    server: Running,
    gateway: Option<Part>,
    agent: Option<Part>,
    tpm: SoftTpm,
    machine: Machine,
}

/// A part that runs until it is dropped.
struct Part {
    _stop: oneshot::Sender<()>,
    _running: JoinHandle<Result<()>>,
}

impl Part {
    fn start<F: Future<Output = Result<()>> + Send + 'static>(
        run: impl FnOnce(oneshot::Receiver<()>) -> F,
    ) -> Part {
        let (stop, stopped) = oneshot::channel();
        Part { _running: tokio::spawn(run(stopped)), _stop: stop }
    }
}

impl Site {
    async fn start() -> Result<Site> {
        let folder = tempfile::tempdir()?;
        let (clock, hands) = Clock::with_hands();
        let (device_clock, device_hands) = Clock::with_hands();
        let maker = TpmMaker::new(&folder.path().join("tpm-maker"))?;
        let tpm = SoftTpm::start(&maker, &folder.path().join("tpm"))?;
        let machine = Machine::boot(&tpm, &folder.path().join("logs"))?;
        let makers =
            std::fs::read_to_string(maker.root_ca())? + &std::fs::read_to_string(maker.issuing_ca())?;
        std::fs::write(folder.path().join("maker.pem"), makers)?;
        let config = assay_server::Config {
            data: folder.path().join("data"),
            trust_domain: TrustDomain::parse(TRUST_DOMAIN)?,
            edge: ([127, 0, 0, 1], 0).into(),
            console: ([127, 0, 0, 1], 0).into(),
            ek_anchors: vec![folder.path().join("maker.pem")],
            attest_interval_seconds: 60,
            gateway_svid_ttl_seconds: 30 * DAY,
            server_svid_ttl_seconds: 30 * DAY,
            crl_ttl_seconds: 2 * DAY,
            ..assay_server::Config::default()
        };
        let server = Running::start_by(clock.clone(), config).await?;
        let mut site = Site {
            folder,
            clock,
            hands,
            device_clock,
            device_hands,
            server,
            gateway: None,
            agent: None,
            tpm,
            machine,
        };
        // The machine runs what a software device runs, so that one's policy is its too.
        let specimen = SoftwareDevice::new("specimen", &EkMaker::new()?)?;
        site.ask(Method::PUT, "/v1/policy", policy_for("test", &[&specimen])).await?;
        site.enroll_gateway().await?;
        let gateway = site.start_gateway().await?;
        site.start_agent(&gateway)?;
        Ok(site)
    }

    /// Lets time pass, for all.
    fn advance(&self, seconds: u64) {
        self.hands.advance(Duration::from_secs(seconds));
        self.device_hands.advance(Duration::from_secs(seconds));
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> Result<Value> {
        let token = std::fs::read_to_string(self.at("data/operator.token"))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))?;
        let answer = self.server.console().oneshot(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    /// Has the server certify a gateway, as `assay gateway enroll` does, in place of what the folder has.
    async fn enroll_gateway(&self) -> Result<()> {
        let key = PrivateKey::generate()?;
        let body = json!({ "name": "edge-1", "csr": BASE64.encode(&csr::request(&key)?) }).to_string();
        let answer = self.ask(Method::POST, "/v1/gateways", body).await?;
        let chain = answer.get("certificate").and_then(Value::as_str).context("certificate")?;
        std::fs::create_dir_all(self.at("gateway"))?;
        std::fs::copy(self.at("data/bundle.pem"), self.at("gateway/bundle.pem"))?;
        std::fs::write(self.at("gateway/key.pem"), key.to_pem())?;
        std::fs::set_permissions(self.at("gateway/key.pem"), std::fs::Permissions::from_mode(0o600))?;
        std::fs::write(self.at("gateway/credentials.pem"), chain)?;
        Ok(())
    }

    fn gateway_config(&self) -> assay_gateway::Config {
        assay_gateway::Config {
            trust_domain: TrustDomain::parse(TRUST_DOMAIN).expect("a trust domain"),
            listen: ([127, 0, 0, 1], 0).into(),
            servers: vec![self.server.addresses().edge.to_string()],
            credentials: self.at("gateway"),
            addresses_file: Some(self.at("addresses.json")),
            json_protocol: None,
            limits: assay_gateway::Limits::default(),
        }
    }

    /// Starts the gateway and says where it is.
    async fn start_gateway(&mut self) -> Result<String> {
        let _ = std::fs::remove_file(self.at("addresses.json"));
        let (clock, config) = (self.clock.clone(), self.gateway_config());
        self.gateway = Some(Part::start(async move |stopped| {
            let stop = async move { drop(stopped.await) };
            Ok(assay_gateway::run_by(clock, config, stop).await?)
        }));
        eventually(10, async || {
            let addresses: Value = serde_json::from_slice(&std::fs::read(self.at("addresses.json"))?)?;
            Ok(addresses.get("gateway").and_then(Value::as_str).context("its address")?.to_owned())
        })
        .await
    }

    fn start_agent(&mut self, gateway: &str) -> Result<()> {
        let options = Options {
            name: Some("edge".to_owned()),
            trust_domain: Some(TRUST_DOMAIN.to_owned()),
            gateway: Some(gateway.to_owned()),
            bundle: Some(self.at("data/bundle.pem")),
            state: Some(self.at("agent")),
            tpm: Some(self.tpm.transport()),
            boot_log: Some(self.machine.boot_log_path()),
            ima_log: Some(self.machine.ima_log_path()),
            workload_api: Some(self.at("workload.sock")),
            ..Options::default()
        };
        let (clock, config) = (self.device_clock.clone(), options.merge()?.complete()?);
        self.agent = Some(Part::start(async move |stopped| {
            let stop = async move { drop(stopped.await) };
            Ok(assay_agent::run::run_by(clock, config, stop).await?)
        }));
        Ok(())
    }

    /// When the newest certificate of the gateway ends, in seconds from now.
    async fn gateway_has_left(&self) -> Result<u64> {
        let answer = self.ask(Method::GET, "/v1/gateways", String::new()).await?;
        let ends = answer.pointer("/gateways/0/not_after").and_then(Value::as_u64).context("a gateway")?;
        Ok(ends.saturating_sub(self.clock.seconds()))
    }

    /// The device is attached through the gateway and trusted by evidence of now.
    async fn device_is_trusted(&self) -> Result<()> {
        let answer = self.ask(Method::GET, "/v1/devices/edge", String::new()).await?;
        let device = answer.get("device").context("device")?;
        let until = device.get("valid_until").and_then(Value::as_u64).unwrap_or_default();
        ensure!(device.get("status") == Some(&json!("trusted")), "{device}");
        ensure!(device.get("attached") == Some(&json!(true)) && until > self.clock.seconds(), "{device}");
        Ok(())
    }

    /// The same in the end: whoever waits to try again is not waited for.
    async fn device_comes_back(&self) -> Result<()> {
        eventually(60, async || {
            self.advance(1);
            self.device_is_trusted().await
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn year_1_swtpm_a_gateway_lives_through_400_days() -> Result<()> {
    let site = Site::start().await?;
    eventually(30, async || site.device_is_trusted().await).await?;
    let issuing = |site: &Site| std::fs::read(site.at("data/keys/issuing.pem"));
    let first_issuing = issuing(&site)?;
    for day in 1..=400u32 {
        site.advance(DAY);
        // Renewed from half of its life: never a third of it left.
        eventually(10, async || {
            let left = site.gateway_has_left().await?;
            ensure!(left > 13 * DAY, "{left} s left of 30 days on day {day}");
            Ok(())
        })
        .await?;
        if day % 50 == 0 {
            site.device_comes_back().await.with_context(|| format!("day {day}"))?;
        }
    }
    // The authority that signs has a certificate of a year, and one start.
    ensure!(issuing(&site)? != first_issuing, "the issuing CA was not renewed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn year_1_swtpm_a_gateway_that_slept_past_its_end_says_so_and_is_repaired_in_place() -> Result<()> {
    let mut site = Site::start().await?;
    eventually(30, async || site.device_is_trusted().await).await?;
    site.advance(33 * DAY);
    // Past its end by days, nobody believes it, and that is said where health is asked for.
    eventually(10, async || {
        let health = site.ask(Method::GET, "/health", String::new()).await?;
        ensure!(health.get("status") == Some(&json!("degraded")), "{health}");
        ensure!(health.to_string().contains("enroll --name edge-1"), "{health}");
        Ok(())
    })
    .await?;
    // The next list that it hears ends its stream: by its clock as well, the gateway is nobody any more.
    eventually(10, async || {
        ensure!(site.device_is_trusted().await.is_err());
        Ok(())
    })
    .await?;
    // New credentials in the same folder are taken up by the gateway that runs, and the device comes back by itself.
    site.enroll_gateway().await?;
    site.device_comes_back().await?;
    let health = eventually(10, async || {
        site.advance(15);
        let health = site.ask(Method::GET, "/health", String::new()).await?;
        ensure!(health.get("status") == Some(&json!("ok")), "{health}");
        Ok(health)
    });
    health.await?;
    // One that starts on what has ended says what to do.
    site.gateway = None;
    site.advance(40 * DAY);
    let refused = assay_gateway::run_by(site.clock.clone(), site.gateway_config(), async {}).await;
    let said = refused.err().map(|error| format!("{:#}", anyhow::Error::from(error))).unwrap_or_default();
    ensure!(
        said.contains("it ended at") && said.contains("assay gateway enroll --name edge-1 --out"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn year_7_swtpm_a_device_whose_clock_is_two_hours_behind_is_told_of_at_both_ends() -> Result<()> {
    let site = Site::start().await?;
    eventually(30, async || site.device_is_trusted().await).await?;
    // All that the connection needs began long ago, by any clock.
    site.advance(3 * 3600);
    site.device_comes_back().await?;
    // Past that, the test's hands have let some time pass.
    let passed = site.clock.seconds() - Clock::system().seconds();
    site.device_hands.set_ahead(Duration::from_secs(passed - BEHIND));
    let uid = std::fs::metadata(site.folder.path())?.uid();
    let entry = json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/web"), "parent": "edge", "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }],
    });
    site.ask(Method::POST, "/v1/entries", entry.to_string()).await?;
    // To the operator it is trusted, and that its clock is off stands beside it, with what comes of that.
    eventually(30, async || {
        site.advance(1);
        site.device_is_trusted().await?;
        let answer = site.ask(Method::GET, "/v1/devices", String::new()).await?;
        let device = answer.pointer("/devices/0").context("a device")?;
        let offset = device.get("clock_offset_seconds").and_then(Value::as_i64).context("an offset")?;
        ensure!((BEHIND - 10..BEHIND + 10).contains(&offset.unsigned_abs()) && offset < 0, "{offset}");
        let said = device.get("clock").and_then(Value::as_str).unwrap_or_default();
        ensure!(said.starts_with("its clock is 2 h behind: to it, no certificate"), "{said}");
        Ok(())
    })
    .await?;
    // To a program on the device, that is why it has nothing.
    let socket = format!("unix://{}", site.at("workload.sock").display());
    let refused = assay_agent::fetch::x509(&socket).await.err().context("an SVID that has not begun")?;
    ensure!(
        refused.to_string() == "no identity yet: by the server's clock, this device's is 2 h behind",
        "{refused}"
    );
    // Once it is set, it goes on by itself.
    site.device_hands.set_ahead(Duration::from_secs(site.clock.seconds() - Clock::system().seconds()));
    eventually(30, async || {
        site.advance(1);
        let answer = site.ask(Method::GET, "/v1/devices/edge", String::new()).await?;
        ensure!(answer.pointer("/device/clock") == Some(&Value::Null), "{answer}");
        // It has one, though by the system's clock, which this looks at, it has yet to begin.
        let fetched = assay_agent::fetch::x509(&socket).await;
        ensure!(!matches!(fetched, Err(FetchError::Refused(_))), "{fetched:?}");
        Ok(())
    })
    .await
}

const DAY: u64 = 24 * 3600;
/// Two hours and some minutes.
const BEHIND: u64 = 2 * 3600 + 600;
