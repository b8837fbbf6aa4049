//! The other end of the edge protocol, as strict as the real one about proofs and free in what it grants.
//!
//! It verifies with the product's own verifier and tells the test what it has seen.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_clock::Clock;
use assay_evidence::tpm::banks::BankStatement;
use assay_evidence::tpm::certify::verify_certify;
use assay_evidence::tpm::credential::make_credential;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::verify::{Baseline, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_identity::tls::{self, ClientIdentity, Trust, TrustSource};
use assay_identity::{CrlSet, Csr, PrivateKey, SpiffeId};
use assay_telemetry::otlp::{OtlpBatch, Part};
use assay_telemetry::verify_device_signature;
use assay_wire::binding::{
    JWT_SVID_TYPE, WORKLOAD_SVID_TYPE, enroll_proof_body, jwt_svid_body, workload_svid_body,
};
use assay_wire::edge::edge_server::{Edge, EdgeServer};
use assay_wire::edge::{
    self, device_message, device_statement, enroll_request, enroll_response, server_message,
};
use assay_wire::pcr::values_from_wire;
use aws_lc_rs::{digest, hmac};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::authority::{Authority, trust_domain};

/// What was seen of the device.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// A TLS connection, with or without the device's SVID.
    Connected { svid: bool },
    /// An enrollment with every proof.
    Enrolled { name: String },
    /// Evidence that verifies, with so many new IMA entries, with a boot log or without.
    Evidence { entries: usize, boot_log: bool },
    /// Something was measured.
    Changed,
    /// A stream was ended from this side.
    Left,
    /// Something was asked for before there was evidence.
    OutOfTurn,
    /// A workload's request, signed by the device.
    SvidAsked,
    /// A workload's request for a token, signed by the device.
    TokenAsked,
    /// A batch, signed by the device.
    Batch { sequence: u64 },
}

/// What the server has to say at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Grants one entry for these selectors, with spaces between them.
    Granting(String),
    /// Takes everything back.
    Withdrawing,
    /// Takes no device.
    Refusing,
    /// Ends the streams that there are; new ones are granted what was granted before.
    Leaving(String),
}

/// What becomes of batches at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collecting {
    /// They are taken in.
    #[default]
    Takes,
    /// Nobody is there.
    Away,
    /// They are taken in, and the device does not hear of it.
    Mute,
    /// The device is not trusted.
    Denies,
}

/// What was taken in.
#[derive(Debug, Default)]
pub struct Collected {
    pub collecting: Collecting,
    /// Everything in the batches, in order.
    pub parts: Vec<Part>,
    /// The statements of these.
    pub statements: Vec<Bytes>,
    /// Batches that were handed in, taken or not.
    pub attempts: usize,
}

pub struct Counterpart {
    pub address: String,
    pub collected: Arc<Mutex<Collected>>,
    pub authority: Arc<Authority>,
    pub seen: mpsc::UnboundedReceiver<Seen>,
    pub mood: watch::Sender<Mood>,
    server: Server,
}

#[derive(Clone)]
struct Server {
    authority: Arc<Authority>,
    seen: mpsc::UnboundedSender<Seen>,
    mood: watch::Receiver<Mood>,
    /// For a restart without it; zero: none.
    grace: Duration,
    device: Arc<Mutex<Option<Device>>>,
    collected: Arc<Mutex<Collected>>,
}

#[derive(Clone)]
struct Device {
    id: String,
    ak: Vec<u8>,
    spki: Vec<u8>,
}

impl Counterpart {
    pub async fn start(selector: String) -> Self {
        Self::start_with_grace(selector, Duration::ZERO).await
    }

    /// One that lets the device serve what it was granted after a restart without it.
    pub async fn start_with_grace(selector: String, grace: Duration) -> Self {
        let authority = Arc::new(Authority::new());
        let (sender, seen) = mpsc::unbounded_channel();
        let (mood, moods) = watch::channel(Mood::Granting(selector));
        let collected = Arc::<Mutex<Collected>>::default();
        let (device, taken) = (Arc::default(), collected.clone());
        let server = Server { authority, seen: sender, mood: moods, grace, device, collected: taken };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(serve(listener, server.clone()));
        Counterpart { address, collected, authority: server.authority.clone(), seen, mood, server }
    }

    /// Forgets the device, as a server with a new database does.
    pub fn forget(&self) {
        *self.server.device.lock().unwrap() = None;
    }

    /// Waits until `wanted` was seen, whatever else is.
    pub async fn sees(&mut self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let wait = async {
            loop {
                let seen = self.seen.recv().await.unwrap();
                if wanted(&seen) {
                    return seen;
                }
            }
        };
        // A software TPM on a busy machine takes its time.
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("was not seen in time")
    }
}

async fn serve(listener: TcpListener, server: Server) {
    tls::install_crypto_provider();
    let key = PrivateKey::generate().unwrap();
    let (svid, _) = server.authority.svid("/assay/gateway/test", &key.spki(), 3600);
    let certified = tls::certified_key(vec![svid], key.pkcs8()).unwrap();
    let trust = TrustSource::new(Trust { bundle: server.authority.bundle(), crls: CrlSet::bootstrapping() });
    let clients = ClientIdentity::Optional(Arc::new(|_| true));
    let config = tls::server_config(certified, trust, clients, (&Clock::system()).into()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            server.tell(Seen::Connected { svid: stream.get_ref().1.peer_certificates().is_some() });
            let service = TowerToHyperService::new(EdgeServer::new(server));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Edge for Server {
    type EnrollStream = Answers<edge::EnrollResponse>;
    type AttachStream = Answers<edge::ServerMessage>;

    async fn enroll(
        &self,
        request: Request<Streaming<edge::EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(self.clone().enroll_steps(request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn attach(
        &self,
        request: Request<Streaming<edge::DeviceMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut messages = request.into_inner();
        let hello = messages.message().await?.and_then(|message| message.message);
        let Some(device_message::Message::Hello(hello)) = hello else { panic!("{hello:?}") };
        if *self.mood.borrow() == Mood::Refusing {
            return Err(Status::permission_denied("revoked"));
        }
        let known = self.device.lock().unwrap().clone().filter(|device| device.id == hello.device_id);
        let device = known.ok_or_else(|| Status::not_found("unknown device"))?;
        let (sender, receiver) = mpsc::channel(8);
        tokio::spawn(self.clone().stream(device, hello.stream, messages, sender));
        Ok(Response::new(Box::pin(
            ReceiverStream::new(receiver).map(|message| Ok(edge::ServerMessage { message: Some(message) })),
        )))
    }

    async fn submit(
        &self,
        request: Request<edge::SubmitRequest>,
    ) -> Result<Response<edge::SubmitResponse>, Status> {
        let edge::SubmitRequest { statement, signature, payload } = request.into_inner();
        // A batch may be on its way while the device is forgotten.
        let known = self.device.lock().unwrap().clone();
        let spki = known.ok_or_else(|| Status::not_found("unknown device"))?.spki;
        let batch = assay_telemetry::open(&statement, &signature, &payload, &spki).unwrap();
        let sequence = batch.statement().sequence;
        let parts = OtlpBatch::read(payload).unwrap().parts;
        let mut collected = self.collected.lock().unwrap();
        collected.attempts += 1;
        if collected.statements.last() == Some(&statement) {
            return Err(Status::already_exists("taken before"));
        }
        match collected.collecting {
            Collecting::Away => return Err(Status::unavailable("away")),
            Collecting::Denies => {
                let reason = "not-trusted: suspect".to_owned();
                return Ok(Response::new(edge::SubmitResponse { reason, ..Default::default() }));
            }
            Collecting::Takes | Collecting::Mute => {}
        }
        collected.parts.extend(parts);
        collected.statements.push(statement);
        self.tell(Seen::Batch { sequence });
        match collected.collecting {
            Collecting::Mute => Err(Status::unavailable("the answer was lost")),
            _ => Ok(Response::new(edge::SubmitResponse { accepted: true, ..Default::default() })),
        }
    }
}

impl Server {
    fn tell(&self, seen: Seen) {
        let _ = self.seen.send(seen);
    }

    async fn enroll_steps(
        self,
        mut requests: Streaming<edge::EnrollRequest>,
        answers: mpsc::Sender<Result<edge::EnrollResponse, Status>>,
    ) {
        let step = requests.message().await.unwrap().unwrap().step;
        let Some(enroll_request::Step::Begin(begin)) = step else { panic!("{step:?}") };
        let [ek, ak, key] = [&begin.ek_public, &begin.ak_public, &begin.device_key_public]
            .map(|public| PublicArea::parse_tpm2b(public).unwrap());
        let credential = make_credential(&ek, &ak.name(), &[3; 32]).unwrap();
        let challenge = edge::EnrollChallenge {
            credential_blob: credential.blob.into(),
            encrypted_secret: credential.encrypted_secret.into(),
            nonce: vec![4; 32].into(),
        };
        let step = Some(enroll_response::Step::Challenge(challenge));
        answers.send(Ok(edge::EnrollResponse { step })).await.unwrap();

        let step = requests.message().await.unwrap().unwrap().step;
        let Some(enroll_request::Step::Proof(proof)) = step else { panic!("{step:?}") };
        let certified =
            verify_certify(&ak, &proof.certify_info, &proof.certify_signature, &[4; 32], &key).unwrap();
        let body =
            enroll_proof_body(&[4; 32], &begin.ak_public, &begin.device_key_public, &proof.csr, &begin.name);
        let hash = digest::digest(&digest::SHA256, &body);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &[3; 32]), hash.as_ref(), &proof.proof).unwrap();
        assert_eq!(Csr::parse(&proof.csr).unwrap().spki_der(), certified.spki_der());
        assert!(begin.ek_certificate.len() > 500);

        let ek_sha256 = assay_telemetry::sha256(&ek.spki_der());
        let id = SpiffeId::device(&trust_domain(), &ek_sha256).to_string();
        let device =
            Device { id: id.clone(), ak: begin.ak_public.to_vec(), spki: certified.spki_der().to_vec() };
        *self.device.lock().unwrap() = Some(device);
        self.tell(Seen::Enrolled { name: begin.name });
        let result = edge::EnrollResult { device_id: id, ..edge::EnrollResult::default() };
        let step = Some(enroll_response::Step::Result(result));
        let _ = answers.send(Ok(edge::EnrollResponse { step })).await;
    }

    async fn stream(
        self,
        device: Device,
        stream: Bytes,
        mut messages: Streaming<edge::DeviceMessage>,
        answers: mpsc::Sender<server_message::Message>,
    ) {
        let mut baseline: Option<Baseline> = None;
        let mut moods = self.mood.clone();
        // What was said before this stream is in what it is told first.
        moods.mark_unchanged();
        let mut said = 0;
        let _ = answers.send(challenge(baseline.as_ref())).await;
        loop {
            let message = tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => message.message.unwrap(),
                    _ => return,
                },
                _ = moods.changed() => {
                    if matches!(*moods.borrow(), Mood::Leaving(_)) {
                        return self.tell(Seen::Left);
                    }
                    let grants = self.say(&device, &stream, &mut said, self.grants(&device));
                    let _ = answers.send(grants).await;
                    continue;
                }
            };
            let asks = matches!(
                message,
                device_message::Message::WorkloadSvid(_) | device_message::Message::JwtSvid(_)
            );
            if asks && said == 0 {
                return self.tell(Seen::OutOfTurn);
            }
            let answer = match message {
                device_message::Message::Evidence(evidence) => {
                    baseline = Some(self.verify(&device, &evidence, baseline.as_ref()));
                    if said == 0 {
                        let _ = answers.send(self.trust()).await;
                    }
                    self.say(&device, &stream, &mut said, self.grants(&device))
                }
                device_message::Message::Changed(_) => {
                    self.tell(Seen::Changed);
                    challenge(baseline.as_ref())
                }
                device_message::Message::WorkloadSvid(request) => {
                    self.say(&device, &stream, &mut said, self.svid(&device, request))
                }
                device_message::Message::JwtSvid(request) => {
                    self.say(&device, &stream, &mut said, self.token(&device, request))
                }
                other @ (device_message::Message::Hello(_)
                | device_message::Message::Classic(_)
                | device_message::Message::Secret(_)
                | device_message::Message::Unanswered(_)
                | device_message::Message::TaskContent(_)
                | device_message::Message::TaskResult(_)) => {
                    panic!("{other:?}")
                }
            };
            let _ = answers.send(answer).await;
        }
    }

    fn verify(&self, device: &Device, evidence: &edge::Evidence, baseline: Option<&Baseline>) -> Baseline {
        let quote = evidence.quote.as_ref().unwrap();
        let evidence = Evidence {
            ak_public: &device.ak,
            quotes: vec![QuoteEvidence {
                label: "quote",
                message: &quote.message,
                signature: &quote.signature,
                pcrs: values_from_wire(&quote.pcrs).unwrap(),
                nonce: &[5; 32],
                ak_public: None,
            }],
            boot_log: evidence.boot_log.as_deref(),
            measure_log: evidence.measure_log.as_deref(),
            ima_log: Some(ImaLog::Binary(&evidence.ima_log)),
            ima_from_entry: evidence.ima_from_entry,
            banks: evidence.banks.as_ref().map(|banks| BankStatement {
                capability: &banks.capability,
                message: &banks.message,
                signature: &banks.signature,
                nonce: &[5; 32],
            }),
        };
        let verification =
            verify(&evidence, &Expectation { baseline, banks_wanted: true, ..Expectation::default() });
        let claims = verification.claims.unwrap_or_else(|| panic!("{:?}", verification.failures));
        let ima = claims.ima().unwrap();
        let entries = ima.entries().count();
        self.tell(Seen::Evidence { entries, boot_log: evidence.boot_log.is_some() });
        claims.baseline(ima.attested_total())
    }

    fn trust(&self) -> server_message::Message {
        let statement = edge::TrustStatement {
            number: 1,
            bundle: self.authority.bundle().to_der().into(),
            crl: self.authority.crl(&[], 1).into(),
            jwt_keys: self.authority.jwt_keys().into(),
            ledger_key: String::new(),
        };
        server_message::Message::Trust(signed(self.authority.trust(&statement.encode_to_vec())))
    }

    fn say(
        &self,
        device: &Device,
        stream: &Bytes,
        said: &mut u64,
        body: device_statement::Body,
    ) -> server_message::Message {
        *said += 1;
        let statement = edge::DeviceStatement {
            device_id: device.id.clone(),
            stream: stream.clone(),
            number: *said,
            state_version: 1,
            body: Some(body),
            ledger_head: String::new(),
        };
        server_message::Message::Statement(signed(self.authority.signed(&statement.encode_to_vec())))
    }

    fn grants(&self, device: &Device) -> device_statement::Body {
        let (Mood::Granting(selector) | Mood::Leaving(selector)) = self.mood.borrow().clone() else {
            let reason = "an unknown program ran".to_owned();
            return device_statement::Body::Grants(edge::Grants {
                withdrawn: true,
                reason,
                ..Default::default()
            });
        };
        let path = device.id.strip_prefix("spiffe://example.org").unwrap();
        let entry = edge::WorkloadEntry {
            id: "web".into(),
            spiffe_id: "spiffe://example.org/web".into(),
            selectors: selector
                .split(' ')
                .map(|value| edge::Selector { r#type: "unix".into(), value: value.into() })
                .collect(),
            ..edge::WorkloadEntry::default()
        };
        device_statement::Body::Grants(edge::Grants {
            device_svid: vec![self.authority.svid(path, &device.spki, 3600).0.into()],
            entries: vec![entry],
            policy: "test v1".into(),
            restart_offline: (!self.grace.is_zero()).then(|| edge::RestartOffline {
                seconds: self.grace.as_secs(),
                pcrs: Some(edge::PcrSelection { bank: "sha256".into(), pcrs: (0..8).collect() }),
            }),
            ..edge::Grants::default()
        })
    }

    fn svid(&self, device: &Device, request: edge::WorkloadSvidRequest) -> device_statement::Body {
        let body = workload_svid_body(&[6; 32], request.number, &request.entry_id, &request.csr);
        verify_device_signature(&device.spki, WORKLOAD_SVID_TYPE, &body, &request.device_signature).unwrap();
        self.tell(Seen::SvidAsked);
        let csr = Csr::parse(&request.csr).unwrap();
        device_statement::Body::WorkloadSvid(edge::WorkloadSvidResponse {
            request_id: request.request_id,
            entry_id: request.entry_id,
            svid: vec![self.authority.svid("/web", csr.spki_der(), 3600).0.into()],
            ..edge::WorkloadSvidResponse::default()
        })
    }

    fn token(&self, device: &Device, request: edge::JwtSvidRequest) -> device_statement::Body {
        let edge::JwtSvidRequest { request_id, entry_id, audience, device_signature, number } = request;
        let body = jwt_svid_body(&[6; 32], number, &entry_id, &audience);
        verify_device_signature(&device.spki, JWT_SVID_TYPE, &body, &device_signature).unwrap();
        self.tell(Seen::TokenAsked);
        let audience: Vec<&str> = audience.iter().map(String::as_str).collect();
        let token = self.authority.token("/web", &audience, 300);
        let denied = String::new();
        device_statement::Body::JwtSvid(edge::JwtSvidResponse { request_id, entry_id, token, denied })
    }
}

fn challenge(baseline: Option<&Baseline>) -> server_message::Message {
    server_message::Message::Challenge(edge::Challenge {
        watched: Vec::new(),
        time_seconds: 0,
        nonce: vec![5; 32].into(),
        expires_in_seconds: 30,
        selection: vec![edge::PcrSelection { bank: "sha256".into(), pcrs: (0..16).collect() }],
        boot_log_wanted: baseline.is_none_or(|baseline| !baseline.has_boot_log()),
        ima_from_entry: baseline.map_or(0, Baseline::ima_entries),
        stream: vec![6; 32].into(),
        banks_wanted: baseline.is_none(),
    })
}

fn signed(signed: assay_agent::holding::Signed) -> edge::Signed {
    let (index, size) = signed.place;
    edge::Signed {
        statement: signed.statement.into(),
        signature: signed.signature.into(),
        signer: signed.signer.into_iter().map(Into::into).collect(),
        index,
        size,
        path: signed.path.into(),
    }
}
