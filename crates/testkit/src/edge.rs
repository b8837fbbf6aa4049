//! A device's end of the edge protocol, over real TLS: step by step, so that any step can be a wrong one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use crate::SoftwareDevice;
use crate::software_device::DeviceError;
use crate::software_device::lie::Lie;
use crate::spiffe_server::SpiffeServer;
use protocol::edge_client::EdgeClient;
use protocol::{
    Challenge, DeviceMessage, EnrollBegin, EnrollProof, EnrollRequest, EnrollResponse, EnrollResult,
    Evidence, EvidenceChanged, Hello, JwtSvidRequest, ServerMessage, SubmitRequest, SubmitResponse,
    Unanswered, WorkloadSvidRequest, device_message, device_statement, enroll_request, enroll_response,
    server_message,
};

/// The messages of `assay.edge.v1`.
#[expect(missing_docs, reason = "generated; documented in edge.proto")]
pub mod protocol {
    tonic::include_proto!("assay.edge.v1");
}

/// Where a server or gateway is, and how to recognise it.
#[derive(Clone, Debug)]
pub struct Door {
    /// Host and port.
    pub address: String,
    /// The SPIFFE ID its certificate must have.
    pub spiffe_id: String,
    /// The trusted roots, DER.
    pub roots: Vec<Vec<u8>>,
    /// Certificate chain and PKCS#8 key to show, where the door asks for them.
    pub identity: Option<(Vec<Vec<u8>>, Vec<u8>)>,
}

/// A connection to a door.
#[derive(Clone, Debug)]
pub struct Edge {
    client: EdgeClient<Channel>,
    /// For whom this gateway speaks: an address, and the SPIFFE ID that was shown.
    peer: Option<(String, Option<String>)>,
}

/// An enrollment under way.
#[derive(Debug)]
pub struct Enrollment {
    requests: mpsc::Sender<EnrollRequest>,
    responses: Streaming<EnrollResponse>,
}

/// A device's standing connection.
#[derive(Debug)]
pub struct Attachment {
    messages: mpsc::Sender<DeviceMessage>,
    answers: Streaming<ServerMessage>,
    /// The device's name of the stream, and how many statements were heard on it.
    stream: Vec<u8>,
    heard: u64,
    /// The server's name of the stream, and how many SVIDs were asked for on it.
    asks_on: Vec<u8>,
    asked: u64,
    trust: protocol::TrustStatement,
    grants: Option<protocol::Grants>,
}

/// What the server says, out of its envelope.
#[derive(Clone, Debug)]
pub enum Message {
    /// Asks for evidence.
    Challenge(Challenge),
    /// Judges evidence.
    Verdict(protocol::Verdict),
    /// Everything the device holds now.
    Grants(Grants),
    /// Answers a request for an SVID.
    WorkloadSvid(protocol::WorkloadSvidResponse),
    /// Answers a request for a token.
    JwtSvid(protocol::JwtSvidResponse),
    /// Answers a request for a certificate of an RSA key.
    Classic(protocol::ClassicResponse),
    /// A secret, or why there is none.
    Secret(protocol::SecretResponse),
    /// A piece of a task's image or input.
    TaskContent(protocol::TaskContent),
    /// What became of a task's result.
    TaskAnswer(protocol::TaskAnswer),
}

/// What the device holds, and whom it believes.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "as in edge.proto: Grants and TrustStatement")]
pub struct Grants {
    pub withdrawn: bool,
    pub reason: String,
    pub device_svid: Vec<Vec<u8>>,
    pub entries: Vec<protocol::WorkloadEntry>,
    pub version: u64,
    pub policy: String,
    pub bundle: Vec<u8>,
    pub crl: Vec<u8>,
    pub restart_offline: Option<protocol::RestartOffline>,
    pub node: Option<u32>,
    pub secrets: Vec<protocol::SecretRef>,
    pub foreign_bundles: Vec<protocol::ForeignBundle>,
    pub ak_certificate: Vec<Vec<u8>>,
    pub ak_denied: String,
}

/// Where a request for an SVID is made: good for one.
#[derive(Clone, Debug)]
pub struct RequestPlace {
    /// The server's name of the stream.
    pub stream: Vec<u8>,
    /// The request's number on it.
    pub number: u64,
}

/// Why something did not work over the edge protocol.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[from] tonic::transport::Error),
    /// The TLS configuration is unusable.
    #[error("the TLS configuration is unusable")]
    Tls(#[from] rustls::Error),
    /// The server refused.
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(#[from] Status),
    /// The server ended the stream where an answer was due.
    #[error("the stream ended where an answer was due")]
    Ended,
    /// The server said something else than what was due.
    #[error("the server said something else than what was due")]
    Unexpected,
    /// The device could not answer.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl EdgeError {
    /// The reason code the server gave, if it refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            EdgeError::Refused(status) => status.metadata().get("assay-reason")?.to_str().ok(),
            _ => None,
        }
    }

    /// The gRPC code, if the server refused.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            EdgeError::Refused(status) => Some(status.code()),
            _ => None,
        }
    }
}

impl Door {
    /// Connects with TLS and speaks `protocol` (ALPN) behind it.
    pub async fn dial(&self, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = tls_config(self).map_err(std::io::Error::other)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        // The verifier looks at the SPIFFE ID; rustls wants a name all the same.
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

impl Edge {
    /// Connects.
    pub async fn connect(door: &Door) -> Result<Edge, EdgeError> {
        let door = door.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let door = door.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(door.dial("h2").await?)) }
        });
        // The URI only fills HTTP/2's authority; the dialler above decides where to and how.
        let endpoint = Endpoint::from_static("http://edge.assay");
        let channel = endpoint.connect_with_connector(dial).await?;
        let client = EdgeClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Edge { client, peer: None })
    }

    /// The same connection, as the gateway that it is speaks for a peer at this address with this SVID.
    pub fn on_behalf_of(&self, address: &str, identity: Option<&str>) -> Edge {
        let peer = Some((address.to_owned(), identity.map(str::to_owned)));
        Edge { client: self.client.clone(), peer }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some((address, identity)) = &self.peer {
            let said = [("assay-peer-address", Some(address)), ("assay-peer-identity", identity.as_ref())];
            for (name, value) in said {
                if let Some(value) = value.and_then(|value| value.parse().ok()) {
                    request.metadata_mut().insert(name, value);
                }
            }
        }
        request
    }

    /// Enrolls honestly, from beginning to end.
    pub async fn enroll(&self, device: &mut SoftwareDevice) -> Result<EnrollResult, EdgeError> {
        let mut enrollment = self.begin_enrollment(device.enroll_begin()).await?;
        let challenge = enrollment.challenge().await?;
        let result = enrollment.prove(device.enroll_proof(&challenge)?).await?;
        device.device_id = Some(result.device_id.clone());
        Ok(result)
    }

    /// Opens an enrollment without saying anything yet.
    pub async fn open_enrollment(&self) -> Result<Enrollment, EdgeError> {
        let (requests, receiver) = mpsc::channel(STREAM_MESSAGES);
        let responses =
            self.client.clone().enroll(self.request(ReceiverStream::new(receiver))).await?.into_inner();
        Ok(Enrollment { requests, responses })
    }

    /// Opens an enrollment and sends its first message.
    pub async fn begin_enrollment(&self, begin: EnrollBegin) -> Result<Enrollment, EdgeError> {
        let enrollment = self.open_enrollment().await?;
        let request = EnrollRequest { step: Some(enroll_request::Step::Begin(begin)) };
        enrollment.requests.send(request).await.map_err(|_| EdgeError::Ended)?;
        Ok(enrollment)
    }

    /// Attaches the device under the identity it enrolled with.
    pub async fn attach(&self, device: &SoftwareDevice) -> Result<Attachment, EdgeError> {
        let device_id = device.device_id.clone().unwrap_or_default();
        self.attach_as(&device_id).await
    }

    /// The same of a device that runs tasks.
    pub async fn attach_with_room(
        &self,
        device: &SoftwareDevice,
        room: protocol::TaskRoom,
    ) -> Result<Attachment, EdgeError> {
        let device_id = device.device_id.clone().unwrap_or_default();
        self.attach_saying(&device_id, Some(room)).await
    }

    /// Attaches under any identity.
    pub async fn attach_as(&self, device_id: &str) -> Result<Attachment, EdgeError> {
        self.attach_saying(device_id, None).await
    }

    async fn attach_saying(
        &self,
        device_id: &str,
        tasks: Option<protocol::TaskRoom>,
    ) -> Result<Attachment, EdgeError> {
        let (messages, receiver) = mpsc::channel(STREAM_MESSAGES);
        let mut stream = vec![0; 32];
        aws_lc_rs::rand::fill(&mut stream).map_err(|_| EdgeError::Unexpected)?;
        let hello = Hello {
            device_id: device_id.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            stream: stream.clone(),
            tasks,
        };
        let _ = messages.try_send(DeviceMessage { message: Some(device_message::Message::Hello(hello)) });
        let answers =
            self.client.clone().attach(self.request(ReceiverStream::new(receiver))).await?.into_inner();
        let (asks_on, trust, grants) = (Vec::new(), protocol::TrustStatement::default(), None);
        Ok(Attachment { messages, answers, stream, heard: 0, asks_on, asked: 0, trust, grants })
    }

    /// Hands in telemetry.
    pub async fn submit(&self, request: SubmitRequest) -> Result<SubmitResponse, EdgeError> {
        Ok(self.client.clone().submit(self.request(request)).await?.into_inner())
    }
}

impl Enrollment {
    /// Waits for the server's challenge.
    pub async fn challenge(&mut self) -> Result<protocol::EnrollChallenge, EdgeError> {
        match self.next().await? {
            enroll_response::Step::Challenge(challenge) => Ok(challenge),
            enroll_response::Step::Result(_) => Err(EdgeError::Unexpected),
        }
    }

    /// Sends the proof and waits for the result.
    pub async fn prove(&mut self, proof: EnrollProof) -> Result<EnrollResult, EdgeError> {
        let request = EnrollRequest { step: Some(enroll_request::Step::Proof(proof)) };
        // When the server has already ended the stream, its status says why.
        let _ = self.requests.send(request).await;
        match self.next().await? {
            enroll_response::Step::Result(result) => Ok(result),
            enroll_response::Step::Challenge(_) => Err(EdgeError::Unexpected),
        }
    }

    async fn next(&mut self) -> Result<enroll_response::Step, EdgeError> {
        let response = self.responses.message().await?.ok_or(EdgeError::Ended)?;
        response.step.ok_or(EdgeError::Unexpected)
    }
}

impl Attachment {
    /// The server's next message.
    pub async fn next(&mut self) -> Result<Message, EdgeError> {
        loop {
            let answer = self.answers.message().await?.ok_or(EdgeError::Ended)?;
            match answer.message.ok_or(EdgeError::Unexpected)? {
                server_message::Message::Challenge(challenge) => {
                    self.asks_on.clone_from(&challenge.stream);
                    return Ok(Message::Challenge(challenge));
                }
                server_message::Message::Statement(signed) => return self.stated(&signed.statement),
                server_message::Message::TaskContent(content) => return Ok(Message::TaskContent(content)),
                server_message::Message::Trust(signed) => {
                    self.trust = decode(&signed.statement)?;
                    if let Some(grants) = self.grants.clone() {
                        return Ok(Message::Grants(self.with_trust(grants)));
                    }
                }
            }
        }
    }

    /// The place of the next request for an SVID.
    pub fn place(&mut self) -> RequestPlace {
        self.asked += 1;
        RequestPlace { stream: self.asks_on.clone(), number: self.asked }
    }

    fn stated(&mut self, statement: &[u8]) -> Result<Message, EdgeError> {
        let statement: protocol::DeviceStatement = decode(statement)?;
        self.heard += 1;
        if statement.stream != self.stream || statement.number != self.heard {
            return Err(EdgeError::Unexpected);
        }
        match statement.body.ok_or(EdgeError::Unexpected)? {
            device_statement::Body::Verdict(verdict) => Ok(Message::Verdict(verdict)),
            device_statement::Body::WorkloadSvid(answer) => Ok(Message::WorkloadSvid(answer)),
            device_statement::Body::JwtSvid(answer) => Ok(Message::JwtSvid(answer)),
            device_statement::Body::Classic(answer) => Ok(Message::Classic(answer)),
            device_statement::Body::Secret(answer) => Ok(Message::Secret(answer)),
            device_statement::Body::TaskAnswer(answer) => Ok(Message::TaskAnswer(answer)),
            device_statement::Body::Grants(grants) => {
                self.grants = Some(grants.clone());
                Ok(Message::Grants(self.with_trust(grants)))
            }
        }
    }

    fn with_trust(&self, grants: protocol::Grants) -> Grants {
        let protocol::Grants {
            withdrawn,
            reason,
            device_svid,
            entries,
            version,
            policy,
            restart_offline,
            node,
            secrets,
            foreign_bundles,
            ak_certificate,
            ak_denied,
            ..
        } = grants;
        let (bundle, crl) = (self.trust.bundle.clone(), self.trust.crl.clone());
        Grants {
            withdrawn,
            reason,
            device_svid,
            entries,
            version,
            policy,
            bundle,
            crl,
            restart_offline,
            node,
            secrets,
            foreign_bundles,
            ak_certificate,
            ak_denied,
        }
    }

    /// Waits for a challenge, passing over everything else.
    pub async fn challenge(&mut self) -> Result<Challenge, EdgeError> {
        loop {
            if let Message::Challenge(challenge) = self.next().await? {
                return Ok(challenge);
            }
        }
    }

    /// Waits for a verdict, passing over everything else.
    pub async fn verdict(&mut self) -> Result<protocol::Verdict, EdgeError> {
        loop {
            if let Message::Verdict(verdict) = self.next().await? {
                return Ok(verdict);
            }
        }
    }

    /// The tasks that it had when it was last told.
    pub fn tasks(&self) -> impl Iterator<Item = &protocol::TaskGrant> {
        self.grants.iter().flat_map(|grants| &grants.tasks)
    }

    /// Asks for a piece of a task's image or input, and waits for it.
    pub async fn task_content(
        &mut self,
        request: protocol::TaskContentRequest,
    ) -> Result<protocol::TaskContent, EdgeError> {
        self.send(device_message::Message::TaskContent(request)).await?;
        loop {
            if let Message::TaskContent(content) = self.next().await? {
                return Ok(content);
            }
        }
    }

    /// Hands in what came of a task, and waits for what becomes of that.
    pub async fn hand_in(&mut self, result: protocol::TaskResult) -> Result<protocol::TaskAnswer, EdgeError> {
        self.send(device_message::Message::TaskResult(result)).await?;
        loop {
            if let Message::TaskAnswer(answer) = self.next().await? {
                return Ok(answer);
            }
        }
    }

    /// What it was entitled to when it was last told.
    pub fn entries(&self) -> impl Iterator<Item = &protocol::WorkloadEntry> {
        self.grants.iter().flat_map(|grants| &grants.entries)
    }

    /// Waits for grants, passing over everything else.
    pub async fn grants(&mut self) -> Result<Grants, EdgeError> {
        loop {
            if let Message::Grants(grants) = self.next().await? {
                return Ok(grants);
            }
        }
    }

    /// Sends evidence.
    pub async fn answer(&mut self, evidence: Evidence) -> Result<(), EdgeError> {
        self.send(device_message::Message::Evidence(evidence)).await
    }

    /// Answers honestly until there is a verdict; a new boot or a new policy may be asked twice.
    pub async fn attest(&mut self, device: &mut SoftwareDevice) -> Result<protocol::Verdict, EdgeError> {
        loop {
            match self.next().await? {
                Message::Challenge(challenge) => {
                    self.answer(device.evidence(&challenge)?).await?;
                }
                Message::Verdict(verdict) => return Ok(verdict),
                _ => {}
            }
        }
    }

    /// Answers with a lie until there is a verdict; a list that may be short is asked for again.
    pub async fn lie(
        &mut self,
        device: &mut SoftwareDevice,
        lie: Lie,
    ) -> Result<protocol::Verdict, EdgeError> {
        loop {
            match self.next().await? {
                Message::Challenge(challenge) => {
                    self.answer(lie.tell(device, &challenge)?).await?;
                }
                Message::Verdict(verdict) => return Ok(verdict),
                _ => {}
            }
        }
    }

    /// Asks to be challenged now.
    pub async fn changed(&mut self) -> Result<(), EdgeError> {
        self.send(device_message::Message::Changed(EvidenceChanged {})).await
    }

    /// Says that a challenge cannot be answered.
    pub async fn cannot_answer(&mut self, challenge: &protocol::Challenge) -> Result<(), EdgeError> {
        let reason = "the PCRs changed during each of 8 quotes".to_owned();
        let unanswered = Unanswered { nonce: challenge.nonce.clone(), reason };
        self.send(device_message::Message::Unanswered(unanswered)).await
    }

    /// Asks for a workload's SVID.
    pub async fn request_svid(&mut self, request: WorkloadSvidRequest) -> Result<(), EdgeError> {
        self.send(device_message::Message::WorkloadSvid(request)).await
    }

    /// Asks for a secret.
    pub async fn request_secret(&mut self, request: protocol::SecretRequest) -> Result<(), EdgeError> {
        self.send(device_message::Message::Secret(request)).await
    }

    /// Asks for a certificate of an RSA key.
    pub async fn request_classic(&mut self, request: protocol::ClassicRequest) -> Result<(), EdgeError> {
        self.send(device_message::Message::Classic(request)).await
    }

    /// Asks for a workload's token.
    pub async fn request_token(&mut self, request: JwtSvidRequest) -> Result<(), EdgeError> {
        self.send(device_message::Message::JwtSvid(request)).await
    }

    /// The JWK set that was announced last.
    pub fn jwt_keys(&self) -> &[u8] {
        &self.trust.jwt_keys
    }

    async fn send(&mut self, message: device_message::Message) -> Result<(), EdgeError> {
        let message = DeviceMessage { message: Some(message) };
        self.messages.send(message).await.map_err(|_| EdgeError::Ended)
    }
}

fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, EdgeError> {
    M::decode(bytes).map_err(|_| EdgeError::Unexpected)
}

fn tls_config(door: &Door) -> Result<ClientConfig, rustls::Error> {
    let verifier = SpiffeServer::new(&door.roots, &door.spiffe_id)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &door.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = chain.iter().cloned().map(CertificateDer::from).collect();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone()));
            builder.with_client_auth_cert(chain, key)
        }
    }
}

/// Messages a device may have under way on one stream.
const STREAM_MESSAGES: usize = 16;
const MESSAGE_BYTES_MAX: usize = 32 << 20;
