//! The whole agent, with a real TPM, over real TLS: from enrollment to withdrawal and back.

use std::time::{Duration, Instant};

use assay_agent::config::{Config, Sources};
use assay_agent::place::Whereabouts;
use assay_agent::tpm::keys::AkKind;
use assay_agent::workload::Engines;
use assay_clock::Clock;
use assay_testkit::Machine;
use assay_wire::workload::{JwtsvidRequest, X509svidRequest};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Code;

use crate::authority::trust_domain;
use crate::bench::Bench;
use crate::counterpart::{Counterpart, Mood, Seen};
use crate::workload_api::{connect, mine, with_header};

pub struct Agent {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), assay_agent::run::RunError>>,
}

impl Agent {
    pub fn start(config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(assay_agent::run::run(config, async move { drop(stopped.await) }));
        Agent { stop, ended }
    }

    /// Starts it by a clock.
    pub fn start_by(clock: Clock, config: Config) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let ended = tokio::spawn(assay_agent::run::run_by(clock, config, stopped));
        Agent { stop, ended }
    }

    /// Stops it, within the two seconds it has.
    pub async fn stop(self) {
        let told = Instant::now();
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
        assert!(told.elapsed() < Duration::from_secs(2));
    }
}

pub fn config(bench: &Bench, machine: &Machine, counterpart: &Counterpart) -> Config {
    let bundle = bench.path("bundle.pem");
    std::fs::write(&bundle, counterpart.authority.bundle().to_pem()).unwrap();
    Config {
        name: "box".into(),
        trust_domain: trust_domain(),
        gateway: counterpart.address.clone(),
        bundle,
        attestation_key: AkKind::default(),
        state: bench.path("state"),
        sources: Sources {
            tpm: bench.target(),
            boot_log: machine.boot_log_path(),
            ima_log: machine.ima_log_path(),
            measure_log: bench.path("tpm2-measure.log"),
        },
        workload_api: bench.path("workload.sock"),
        engines: Engines::default(),
        telemetry_interval: Some(Duration::from_secs(1)),
        telemetry_flush: Duration::from_millis(100),
        spool_bytes_max: 16 << 20,
        otlp_grpc: None,
        otlp_http: None,
        json_protocol: None,
        secrets: None,
        actions: None,
        identity: None,
        tasks: None,
        location: Some(Whereabouts { country: "DE".into(), ..Whereabouts::default() }),
        gpsd: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn year_2_swtpm_what_became_due_while_away_is_asked_for_after_the_evidence() {
    let bench = Bench::new();
    let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
    let mut counterpart = Counterpart::start(mine()).await;
    let mut config = config(&bench, &machine, &counterpart);
    config.telemetry_interval = None;
    let (clock, hands) = Clock::with_hands();
    let socket = config.workload_api.clone();
    let agent = Agent::start_by(clock, config);
    counterpart.sees(|seen| *seen == Seen::SvidAsked).await;
    // One that came only after the clock was moved would be a fresh one.
    let mut client = connect(&socket).await;
    let mut stream = client.fetch_x509svid(with_header(X509svidRequest {})).await.unwrap().into_inner();
    timeout(Duration::from_secs(10), stream.message()).await.unwrap().unwrap().unwrap();
    // It lives for an hour: by now it is to be renewed, and the stream is gone.
    counterpart.mood.send_replace(Mood::Leaving(mine()));
    counterpart.sees(|seen| *seen == Seen::Left).await;
    hands.advance(Duration::from_secs(2400));
    let first = counterpart.sees(|seen| !matches!(seen, Seen::Connected { .. })).await;
    assert!(matches!(first, Seen::Evidence { .. }), "{first:?}");
    let next = counterpart.sees(|_| true).await;
    assert_eq!(next, Seen::SvidAsked);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_device_enrolls_attests_serves_loses_and_recovers() {
    let bench = Bench::new();
    let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
    let mut counterpart = Counterpart::start(mine()).await;
    let config = config(&bench, &machine, &counterpart);
    let socket = config.workload_api.clone();
    let agent = Agent::start(config.clone());

    assert_eq!(counterpart.sees(|_| true).await, Seen::Connected { svid: false });
    assert_eq!(counterpart.sees(|_| true).await, Seen::Enrolled { name: "box".into() });
    let first = counterpart.sees(|seen| matches!(seen, Seen::Evidence { .. })).await;
    let Seen::Evidence { entries, boot_log: true } = first else { panic!("{first:?}") };
    assert!(entries > 1);
    counterpart.sees(|seen| *seen == Seen::SvidAsked).await;

    let mut client = connect(&socket).await;
    let mut stream = client.fetch_x509svid(with_header(X509svidRequest {})).await.unwrap().into_inner();
    let svids = timeout(Duration::from_secs(10), stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(svids.svids[0].spiffe_id, "spiffe://example.org/web");
    counterpart.sees(|seen| matches!(seen, Seen::Batch { .. })).await;

    // A token is asked for when one is, and once for its audience.
    let asked = JwtsvidRequest { audience: vec!["db".into()], spiffe_id: String::new() };
    let first = client.fetch_jwtsvid(with_header(asked.clone())).await.unwrap().into_inner();
    counterpart.sees(|seen| *seen == Seen::TokenAsked).await;
    assert_eq!(client.fetch_jwtsvid(with_header(asked)).await.unwrap().into_inner(), first);
    assert_eq!(first.svids[0].spiffe_id, "spiffe://example.org/web");

    // A program runs: told of by itself, and only what is new is sent.
    machine.run_program("/usr/bin/new", b"program").unwrap();
    counterpart.sees(|seen| *seen == Seen::Changed).await;
    let second = counterpart.sees(|seen| matches!(seen, Seen::Evidence { .. })).await;
    assert_eq!(second, Seen::Evidence { entries: 1, boot_log: false });

    let told = Instant::now();
    counterpart.mood.send_replace(Mood::Withdrawing);
    let gone = loop {
        match timeout(Duration::from_secs(5), stream.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without saying why"),
            Err(status) => break status,
        }
    };
    assert_eq!(gone.code(), Code::PermissionDenied);
    assert!(told.elapsed() < Duration::from_secs(1));

    counterpart.mood.send_replace(Mood::Granting(mine()));
    counterpart.sees(|seen| *seen == Seen::SvidAsked).await;
    agent.stop().await;
    assert!(!socket.exists());

    // The next run has its keys, its enrollment and its place in the chain of statements.
    let agent = Agent::start(config);
    assert_eq!(
        counterpart.sees(|seen| !matches!(seen, Seen::Batch { .. })).await,
        Seen::Connected { svid: false }
    );
    let whole = counterpart.sees(|seen| matches!(seen, Seen::Evidence { .. } | Seen::Enrolled { .. })).await;
    assert_eq!(whole, Seen::Evidence { entries: entries + 1, boot_log: true });
    let Seen::Batch { sequence } = counterpart.sees(|seen| matches!(seen, Seen::Batch { .. })).await else {
        panic!()
    };
    assert!(sequence > 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_device_comes_back_after_its_server_forgot_it_and_after_its_tpm_was_reset() {
    let mut bench = Bench::new();
    let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
    let mut counterpart = Counterpart::start(mine()).await;
    let agent = Agent::start(config(&bench, &machine, &counterpart));
    counterpart.sees(|seen| *seen == Seen::SvidAsked).await;

    // A reset takes the loaded keys; the agent loads them again and says so in a new stream, as a known device.
    bench.soft.reset().unwrap();
    let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
    machine.run_program("/usr/bin/new", b"program").unwrap();
    counterpart.sees(|seen| *seen == Seen::Connected { svid: true }).await;
    let whole = counterpart.sees(|seen| matches!(seen, Seen::Evidence { .. })).await;
    assert!(matches!(whole, Seen::Evidence { boot_log: true, .. }));

    counterpart.forget();
    bench.soft.reset().unwrap();
    let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
    machine.run_program("/usr/bin/newer", b"program").unwrap();
    counterpart.sees(|seen| matches!(seen, Seen::Enrolled { .. })).await;
    counterpart.sees(|seen| matches!(seen, Seen::Evidence { .. })).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_can_never_work_is_an_error_at_once() {
    let bench = tempfile::tempdir().unwrap();
    let path = |name: &str| bench.path().join(name);
    let config = Config {
        identity: None,
        name: "box".into(),
        trust_domain: trust_domain(),
        gateway: "127.0.0.1:1".into(),
        bundle: path("none.pem"),
        attestation_key: AkKind::default(),
        state: path("state"),
        sources: Sources {
            tpm: "/dev/none".parse().unwrap(),
            boot_log: path("boot"),
            ima_log: path("ima"),
            measure_log: "/none".into(),
        },
        workload_api: path("workload.sock"),
        engines: Engines::default(),
        telemetry_interval: None,
        telemetry_flush: Duration::from_secs(1),
        spool_bytes_max: 16 << 20,
        otlp_grpc: None,
        otlp_http: None,
        json_protocol: None,
        secrets: None,
        actions: None,
        tasks: None,
        location: None,
        gpsd: None,
    };
    let check = async |config: Config, says: &str| {
        let error = assay_agent::run::run(config, std::future::pending()).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    check(config.clone(), "none.pem").await;
    std::fs::write(path("none.pem"), "no PEM").unwrap();
    check(config.clone(), "none.pem").await;
    let bundle = crate::authority::Authority::new().bundle().to_pem();
    std::fs::write(path("none.pem"), bundle).unwrap();
    std::fs::write(path("workload.sock"), "a file").unwrap();
    check(config, "no socket").await;
}
