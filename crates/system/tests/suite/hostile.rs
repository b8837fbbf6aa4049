//! A gateway that was taken over: it has the gateway's real key, sits between a real agent on a real TPM and a real server,
//! and rewrites, repeats, exchanges and leaves out what the server says. It can delay, and nothing else.

#![expect(
    clippy::unwrap_used,
    reason = "what the attacker makes it can make, and what the server said decodes"
)]

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use assay_clock::Clock;
use assay_identity::authority::{AuthorityTemplate, sign_root};
use assay_identity::tls::{self, ClientIdentity, Trust, TrustSource};
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{Bundle, Crl, CrlSet, Issuer, PrivateKey, Serial, SpiffeId, TrustDomain, UnixTime, crl};
use assay_telemetry::pae;
use assay_testkit::edge::Door;
use assay_wire::binding::{DEVICE_STATEMENTS_TYPE, TRUST_STATEMENT_TYPE};
use assay_wire::edge::edge_client::EdgeClient;
use assay_wire::edge::edge_server::{Edge, EdgeServer};
use assay_wire::edge::{self, DeviceStatement, ServerMessage, Signed, device_statement, server_message};
use assay_wire::together;
use assay_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use assay_wire::workload::{X509svidRequest, X509svidResponse};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use prost::Message as _;
use serde_json::json;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status, Streaming};

use crate::agent::Device;
use crate::stage::{TRUST_DOMAIN, certificates, eventually, within};

#[tokio::test(flavor = "multi_thread")]
async fn finding_1_swtpm_a_hostile_gateway_can_delay_and_nothing_else() -> Result<()> {
    let mut device = Device::prepared().await?;
    let hostile = Hostile::start(&device).await?;
    let config = std::fs::read_to_string(device.stage.at("agent.toml"))?;
    let real = device.stage.gateway()?.door.address.clone();
    std::fs::write(device.stage.at("agent.toml"), config.replace(&real, &hostile.address))?;

    // With nothing but lies from the first moment on, the device enrolls and believes nothing.
    hostile.mode.send_replace(Mode::OwnRoot);
    device.start_agent()?;
    hostile.attaches_again().await?;
    ensure!(workload(&device).await.is_err(), "a workload got an identity of the gateway's");

    hostile.mode.send_replace(Mode::Honest);
    let trusted = device.is("trusted").await?;
    let id = trusted.get("id").and_then(|id| id.as_str()).context("id")?;
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?);
    let entry = json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/web"), "parent": id, "ttl_seconds": 3600,
        "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }], "dns_names": [],
    });
    device.stage.console()?.post("/v1/entries", &entry).await?;
    let held = eventually(30, async || workload(&device).await).await?;
    let roots = certificates(&std::fs::read_to_string(device.stage.at("data/bundle.pem"))?)?;
    let svid = held.svids.first().context("an SVID")?;
    ensure!(svid.bundle == roots.concat(), "another root");

    for mode in [
        Mode::OwnRoot,
        Mode::OwnWords,
        Mode::Flip,
        Mode::Unsigned,
        Mode::Repeat,
        Mode::LeaveOut,
        Mode::OtherStream,
        Mode::OtherPlace,
        Mode::Refuse,
    ] {
        hostile.mode.send_replace(mode);
        // It was heard, and not believed: the device comes again.
        hostile.attaches_again().await.with_context(|| format!("{mode:?}"))?;
        let now = within(5, workload(&device)).await??;
        ensure!(now.svids == held.svids, "{mode:?} changed what a workload holds");
        // A newer list of the server's may have come through, but none of the gateway's.
        let lists = now.crl.iter().map(|list| Crl::parse(list)).collect::<Result<Vec<_>, _>>()?;
        ensure!(
            lists.iter().all(|list| list.number() < u64::MAX) && !lists.is_empty(),
            "{mode:?}: another list"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_4_swtpm_an_agent_does_not_come_back_to_a_revoked_gateway() -> Result<()> {
    let mut device = Device::prepared().await?;
    let hostile = Hostile::start(&device).await?;
    let config = std::fs::read_to_string(device.stage.at("agent.toml"))?;
    let real = device.stage.gateway()?.door.address.clone();
    std::fs::write(device.stage.at("agent.toml"), config.replace(&real, &hostile.address))?;
    device.start_agent()?;
    device.is("trusted").await?;
    // What is revoked is the certificate, whoever has its key.
    let revoke = json!({ "reason": "taken over" });
    device.stage.console()?.post("/v1/gateways/test/revoke", &revoke).await?;
    hostile.is_turned_away(2).await?;
    // The agent knows it over a restart, although it can hear of no list any more.
    device.agent.take().context("the agent")?.kill()?;
    device.start_agent()?;
    hostile.is_turned_away(2).await
}

/// What the gateway does with what the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Honest,
    /// Announces a root, a list and a voice of its own, and grants by them.
    OwnRoot,
    /// Leaves the announcement and signs with a voice of its own root.
    OwnWords,
    Flip,
    Unsigned,
    Repeat,
    LeaveOut,
    /// What was said on an earlier stream.
    OtherStream,
    /// As another of what was signed together.
    OtherPlace,
    /// An unsigned status that would take everything.
    Refuse,
}

struct Hostile {
    address: String,
    mode: watch::Sender<Mode>,
    attached: Arc<AtomicU64>,
    doorbell: Arc<Doorbell>,
}

/// Handshakes that devices went through with, and those they broke off.
#[derive(Default)]
struct Doorbell {
    made: AtomicU64,
    broken_off: AtomicU64,
}

#[derive(Clone)]
struct Between {
    upstream: Door,
    mode: watch::Receiver<Mode>,
    attached: Arc<AtomicU64>,
    /// Statements of earlier streams.
    earlier: Arc<Mutex<Vec<Signed>>>,
    own: Arc<Stranger>,
}

impl Hostile {
    async fn start(device: &Device) -> Result<Hostile> {
        let read = |name: &str| std::fs::read_to_string(device.stage.at(name));
        let chain = certificates(&read("gateway/credentials.pem")?)?;
        let key = PrivateKey::from_pem(read("gateway/key.pem")?.as_bytes())?;
        let upstream =
            Door { identity: Some((chain.clone(), key.pkcs8().to_vec())), ..device.stage.door("edge")? };
        let bundle =
            Bundle::from_pem(TrustDomain::parse(TRUST_DOMAIN)?, read("data/bundle.pem")?.as_bytes())?;
        let trust = TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() });
        let anybody = ClientIdentity::Optional(Arc::new(|_: &SpiffeId| true));
        let config = tls::server_config(
            tls::certified_key(chain, key.pkcs8())?,
            trust,
            anybody,
            (&Clock::system()).into(),
        )?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (mode, modes) = watch::channel(Mode::Honest);
        let attached = Arc::new(AtomicU64::new(0));
        let (earlier, own) = (Arc::default(), Arc::new(Stranger::new()?));
        let between = Between { upstream, mode: modes, attached: attached.clone(), earlier, own };
        let (doorbell, acceptor) = (Arc::default(), tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(serve(listener, acceptor, between, Arc::clone(&doorbell)));
        Ok(Hostile { address, mode, attached, doorbell })
    }

    /// Waits until the device has broken off so many more handshakes; it has gone through with none.
    async fn is_turned_away(&self, times: u64) -> Result<()> {
        let (made, before) = (&self.doorbell.made, self.doorbell.broken_off.load(Ordering::Relaxed));
        let went_through = made.load(Ordering::Relaxed);
        eventually(60, async || {
            let now = self.doorbell.broken_off.load(Ordering::Relaxed);
            ensure!(now >= before + times, "the device does not turn away");
            Ok(())
        })
        .await?;
        ensure!(made.load(Ordering::Relaxed) == went_through, "the device came in");
        Ok(())
    }

    /// Waits until the device has attached and, after what it heard, attached again.
    async fn attaches_again(&self) -> Result<()> {
        let before = self.attached.load(Ordering::Relaxed);
        eventually(60, async || {
            ensure!(self.attached.load(Ordering::Relaxed) >= before + 2, "the device does not come again");
            Ok(())
        })
        .await
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    between: Between,
    doorbell: Arc<Doorbell>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, between, doorbell) = (acceptor.clone(), between.clone(), doorbell.clone());
        tokio::spawn(async move {
            let accepted = acceptor.accept(tcp).await;
            let counter = if accepted.is_ok() { &doorbell.made } else { &doorbell.broken_off };
            counter.fetch_add(1, Ordering::Relaxed);
            let Ok(stream) = accepted else { return };
            let service = EdgeServer::new(between).max_decoding_message_size(64 << 20);
            let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
        });
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Edge for Between {
    type EnrollStream = Answers<edge::EnrollResponse>;
    type AttachStream = Answers<ServerMessage>;

    async fn enroll(
        &self,
        request: Request<Streaming<edge::EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let requests = request.into_inner().map_while(Result::ok);
        let answers = self.client().await?.enroll(requests).await?.into_inner();
        Ok(Response::new(Box::pin(answers)))
    }

    async fn attach(
        &self,
        request: Request<Streaming<edge::DeviceMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let requests = request.into_inner().map_while(Result::ok);
        let mut answers = self.client().await?.attach(requests).await?.into_inner();
        self.attached.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(16);
        let mut between = self.clone();
        tokio::spawn(async move {
            let mode = *between.mode.borrow_and_update();
            let (mut statements, mut of_this_stream) = (0, Vec::new());
            loop {
                let answer = tokio::select! {
                    answer = answers.next() => answer,
                    // Whoever lies begins with the device's next stream.
                    _ = between.mode.changed() => None,
                };
                let Some(Ok(ServerMessage { message: Some(message) })) = answer else { break };
                if let server_message::Message::Statement(signed) = &message {
                    statements += 1;
                    of_this_stream.push(signed.clone());
                }
                for lie in between.lie(mode, message, statements) {
                    let lie = lie.map(|message| ServerMessage { message: Some(message) });
                    if sender.send(lie).await.is_err() {
                        break;
                    }
                }
            }
            if mode == Mode::Honest {
                between.earlier.lock().unwrap().append(&mut of_this_stream);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn submit(
        &self,
        request: Request<edge::SubmitRequest>,
    ) -> Result<Response<edge::SubmitResponse>, Status> {
        self.client().await?.submit(request.into_inner()).await
    }
}

impl Between {
    async fn client(&self) -> Result<EdgeClient<Channel>, Status> {
        let door = self.upstream.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let door = door.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(door.dial("h2").await?)) }
        });
        let channel = Endpoint::from_static("http://server").connect_with_connector(dial).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(EdgeClient::new(channel).max_encoding_message_size(64 << 20))
    }

    /// What the device hears instead.
    fn lie(
        &self,
        mode: Mode,
        message: server_message::Message,
        statements: u64,
    ) -> Vec<Result<server_message::Message, Status>> {
        use server_message::Message::{Challenge, Statement, Trust};
        match (mode, message) {
            (Mode::Honest, message) | (_, message @ Challenge(_)) => vec![Ok(message)],
            (Mode::OwnRoot, Trust(_)) => vec![Ok(Trust(self.own.trust()))],
            (Mode::OwnRoot | Mode::OwnWords, Statement(signed)) => {
                vec![Ok(Statement(self.own.words(&signed)))]
            }
            (Mode::Flip, Statement(mut signed)) => {
                let mut bytes = signed.statement.to_vec();
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
                signed.statement = bytes.into();
                vec![Ok(Statement(signed))]
            }
            (Mode::Unsigned, Statement(signed)) => {
                vec![Ok(Statement(Signed { signature: Vec::new().into(), ..signed }))]
            }
            (Mode::Repeat, Statement(signed)) => {
                vec![Ok(Statement(signed.clone())), Ok(Statement(signed))]
            }
            (Mode::LeaveOut, Statement(_)) if statements == 1 => Vec::new(),
            (Mode::OtherStream, Statement(signed)) => {
                let earlier = self.earlier.lock().unwrap().last().cloned();
                vec![Ok(Statement(earlier.unwrap_or(signed)))]
            }
            (Mode::OtherPlace, Statement(signed)) => {
                vec![Ok(Statement(Signed { size: signed.size + 1, ..signed }))]
            }
            (Mode::Refuse, Statement(_)) => vec![Err(Status::unauthenticated("no"))],
            (_, message) => vec![Ok(message)],
        }
    }
}

/// An authority of the same name that nobody was installed with.
struct Stranger {
    issuer: Issuer,
    voice: PrivateKey,
    chain: Vec<Vec<u8>>,
}

impl Stranger {
    fn new() -> Result<Stranger> {
        let trust_domain = TrustDomain::parse(TRUST_DOMAIN)?;
        let (key, voice) = (PrivateKey::generate()?, PrivateKey::generate()?);
        let template = AuthorityTemplate {
            trust_domain: trust_domain.clone(),
            name: "stranger".into(),
            serial: Serial::from_random([1; 16]),
            not_before: from_now(-60),
            not_after: from_now(7200),
        };
        let issuer = Issuer::new(sign_root(&template, &key)?, key)?;
        let template = SvidTemplate {
            spiffe_id: SpiffeId::statements(&trust_domain),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            spki: voice.spki(),
            serial: Serial::from_random([2; 16]),
            not_before: from_now(-60),
            not_after: from_now(3600),
        };
        let chain = vec![issue(&template, &issuer)?.der().to_vec()];
        Ok(Stranger { issuer, voice, chain })
    }

    fn signed(&self, kind: &str, (body, size): (&[u8], u32), statement: &[u8]) -> Signed {
        let signature = self.voice.sign_message(&pae(kind, body)).unwrap().into();
        let signer = self.chain.iter().cloned().map(Into::into).collect();
        Signed { statement: statement.to_vec().into(), signature, signer, size, ..Signed::default() }
    }

    fn trust(&self) -> Signed {
        let crl = crl::sign(&[], u64::MAX, from_now(-60), from_now(3600), &self.issuer).unwrap();
        let bundle = self.issuer.certificate().to_vec().into();
        let statement =
            edge::TrustStatement { number: u64::MAX, bundle, crl: crl.into(), ..Default::default() };
        let statement = statement.encode_to_vec();
        self.signed(TRUST_STATEMENT_TYPE, (&statement, 0), &statement)
    }

    /// The same place in the same stream, with nothing in it.
    fn words(&self, said: &Signed) -> Signed {
        let mut statement = DeviceStatement::decode(said.statement.clone()).unwrap();
        statement.state_version = u64::MAX;
        statement.body = Some(device_statement::Body::Grants(edge::Grants::default()));
        let statement = statement.encode_to_vec();
        let root = together::root(&statement, 0, 1, &[]).unwrap();
        self.signed(DEVICE_STATEMENTS_TYPE, (&root, 1), &statement)
    }
}

/// What a workload of this user gets from the agent.
async fn workload(device: &Device) -> Result<X509svidResponse> {
    let socket = device.stage.at("workload.sock");
    let dial = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { std::io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(dial).await?;
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", "true".parse()?);
    let mut answers = SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?.into_inner();
    answers.message().await?.context("an answer")
}

fn from_now(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs().saturating_add_signed(seconds)))
}
