//! A restart without a server: what was granted is served again from what only this TPM gives back, for as long as the policy
//! says and no longer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assay_agent::config::Config;
use assay_clock::{Clock, Hands};
use assay_testkit::{Bank, Machine};
use assay_wire::workload::{X509svid, X509svidRequest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::Code;

use crate::bench::Bench;
use crate::counterpart::{Counterpart, Mood, Seen};
use crate::run::{Agent, config};
use crate::workload_api::{connect, mine, with_header};

const GRACE: Duration = Duration::from_secs(1800);

/// A device that was granted something with grace, whose agent was stopped after it was sealed.
struct Device {
    bench: Bench,
    _machine: Machine,
    counterpart: Counterpart,
    config: Config,
    svid: X509svid,
}

impl Device {
    async fn granted() -> Device {
        let bench = Bench::new();
        let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
        let mut counterpart = Counterpart::start_with_grace(mine(), GRACE).await;
        let mut config = config(&bench, &machine, &counterpart);
        config.telemetry_interval = None;
        let agent = Agent::start(config.clone());
        counterpart.sees(|seen| *seen == Seen::SvidAsked).await;
        let svid = served(&config.workload_api).await.unwrap();
        sealed_with(&file(&config), &[]).await;
        agent.stop().await;
        Device { bench, _machine: machine, counterpart, config, svid }
    }

    /// An agent that reaches no server.
    fn start_alone(&self) -> (Agent, Hands) {
        let (clock, hands) = Clock::with_hands();
        (self.start_alone_by(clock), hands)
    }

    fn start_alone_by(&self, clock: Clock) -> Agent {
        Agent::start_by(clock, Config { gateway: "127.0.0.1:1".into(), ..self.config.clone() })
    }

    async fn is_unavailable(&self) {
        assert_eq!(served(&self.config.workload_api).await.unwrap_err(), Code::Unavailable);
    }
}

fn file(config: &Config) -> PathBuf {
    config.state.join("offline.sealed")
}

/// Waits until the file is another than it was.
async fn sealed_with(file: &Path, before: &[u8]) {
    let waiting = async {
        while std::fs::read(file).map_or(true, |now| now == before) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.expect("was not sealed in time");
}

/// What the Workload API says to this process within a while.
async fn served(socket: &Path) -> Result<X509svid, Code> {
    let until = Instant::now() + Duration::from_secs(4);
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        let mut client = connect(socket).await;
        let mut stream = client.fetch_x509svid(with_header(X509svidRequest {})).await.unwrap().into_inner();
        match timeout(Duration::from_secs(60), stream.message()).await.unwrap() {
            Ok(Some(mut answer)) => return Ok(answer.svids.remove(0)),
            Ok(None) => panic!("the stream ended without saying why"),
            Err(status) if status.code() != Code::Unavailable || Instant::now() > until => {
                return Err(status.code());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_what_was_granted_is_served_again_without_a_server_and_is_on_the_disk_sealed_alone() {
    let mut device = Device::granted().await;
    let (agent, hands) = device.start_alone();
    assert_eq!(served(&device.config.workload_api).await.unwrap(), device.svid);
    for kept in std::fs::read_dir(&device.config.state).unwrap() {
        let path = kept.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let in_text = data_encoding::BASE64.encode(&device.svid.x509_svid_key);
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        // The secret scalar of a P-256 key in PKCS#8.
        assert!(
            !holds(&device.svid.x509_svid_key[36..68]) && !holds(&in_text.as_bytes()[48..80]),
            "{}",
            path.display()
        );
    }
    // Its grace ends while it is served.
    let mut client = connect(&device.config.workload_api).await;
    let mut stream = client.fetch_x509svid(with_header(X509svidRequest {})).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    hands.advance(GRACE + Duration::from_secs(1));
    let ended = timeout(Duration::from_secs(30), stream.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
    agent.stop().await;
    // With a server everything is as ever.
    let agent = Agent::start(device.config.clone());
    device.counterpart.sees(|seen| *seen == Seen::SvidAsked).await;
    assert_ne!(served(&device.config.workload_api).await.unwrap().x509_svid_key, device.svid.x509_svid_key);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_another_boot_gets_nothing() {
    let device = Device::granted().await;
    device
        .bench
        .soft
        .connect()
        .unwrap()
        .pcr_extend(4, &[(Bank::Sha256, Bank::Sha256.hash(b"another loader"))])
        .unwrap();
    let (agent, _hands) = device.start_alone();
    device.is_unavailable().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_past_its_grace_it_gets_nothing_and_before_it_was_sealed_neither() {
    let device = Device::granted().await;
    let (clock, hands) = Clock::with_hands();
    hands.set_ahead(GRACE + Duration::from_secs(60));
    let agent = device.start_alone_by(clock);
    device.is_unavailable().await;
    agent.stop().await;
    let (clock, hands) = Clock::with_hands();
    hands.set_behind(Duration::from_secs(3600));
    let agent = device.start_alone_by(clock);
    device.is_unavailable().await;
    agent.stop().await;
    // Within it, it does.
    let (agent, _hands) = device.start_alone();
    assert_eq!(served(&device.config.workload_api).await.unwrap(), device.svid);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_what_is_withdrawn_is_sealed_no_longer_and_a_damaged_file_is_nothing() {
    let device = Device::granted().await;
    let kept = std::fs::read(file(&device.config)).unwrap();
    for cut in [kept.len() / 2, kept.len() - 3] {
        std::fs::write(file(&device.config), &kept[..cut]).unwrap();
        let (agent, _hands) = device.start_alone();
        device.is_unavailable().await;
        agent.stop().await;
    }
    // Another's words under the same key.
    let mut changed: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    changed["clock_until_ms"] = u64::MAX.into();
    std::fs::write(file(&device.config), changed.to_string()).unwrap();
    let (agent, _hands) = device.start_alone();
    device.is_unavailable().await;
    agent.stop().await;

    std::fs::write(file(&device.config), &kept).unwrap();
    device.counterpart.mood.send_replace(Mood::Withdrawing);
    let agent = Agent::start(device.config.clone());
    let gone = async {
        while file(&device.config).exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), gone).await.expect("it is still sealed");
    agent.stop().await;
    let (agent, _hands) = device.start_alone();
    device.is_unavailable().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_a_server_that_refuses_the_device_is_not_one_that_is_away() {
    let device = Device::granted().await;
    device.counterpart.mood.send_replace(Mood::Refusing);
    let agent = Agent::start(device.config.clone());
    device.is_unavailable().await;
    agent.stop().await;

    // A line that is down at first: what was granted is served until the server is reached, and refuses.
    let line = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = line.local_addr().unwrap().to_string();
    let (up, is_up) = tokio::sync::watch::channel(false);
    let server = device.counterpart.address.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = line.accept().await.unwrap();
            if *is_up.borrow() {
                let server = server.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
                });
            }
        }
    });
    let agent = Agent::start(Config { gateway, ..device.config.clone() });
    assert_eq!(served(&device.config.workload_api).await.unwrap(), device.svid);
    let mut client = connect(&device.config.workload_api).await;
    let mut stream = client.fetch_x509svid(with_header(X509svidRequest {})).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    up.send_replace(true);
    let ended = timeout(Duration::from_secs(120), stream.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
    // Workloads are told and the file is taken away by two tasks.
    let gone = async {
        while file(&device.config).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.expect("it is sealed no longer");
    agent.stop().await;
}
