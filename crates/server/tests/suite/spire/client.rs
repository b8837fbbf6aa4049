//! What asks as SPIRE's agents and command line do: over TLS with or without a certificate, and over the socket.

use std::sync::Arc;

use assay_clock::Clock;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{CrlSet, PrivateKey, csr};
use assay_wire::spire::agent::agent_client::AgentClient;
use assay_wire::spire::agent::attest_agent_request::{Params, Step};
use assay_wire::spire::agent::attest_agent_response::Step as Answered;
use assay_wire::spire::agent::{AgentX509svidParams, AttestAgentRequest, CreateJoinTokenRequest};
use assay_wire::spire::bundle::bundle_client::BundleClient;
use assay_wire::spire::entry::entry_client::EntryClient;
use assay_wire::spire::svid::svid_client::SvidClient;
use assay_wire::spire::types::permission_denied_details::Reason;
use assay_wire::spire::types::{
    AttestationData, Entry, PermissionDeniedDetails, Selector, Spiffeid, X509svid,
};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::fixture::{Fixture, TRUST_DOMAIN};

/// A server with the doors open.
pub async fn fixture() -> Fixture {
    Fixture::with(|config| {
        let spire = assay_server::Spire { address: ([127, 0, 0, 1], 0).into(), ..Default::default() };
        config.spire = Some(spire);
    })
    .await
}

/// A node: its key, and what it was given for it.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: String,
    pub key: Vec<u8>,
    pub chain: Vec<Vec<u8>>,
}

impl Node {
    pub fn of(key: &PrivateKey, svid: X509svid) -> Node {
        let id = svid.id.unwrap();
        assert_eq!(id.trust_domain, TRUST_DOMAIN);
        Node {
            id: format!("spiffe://{}{}", id.trust_domain, id.path),
            key: key.pkcs8().to_vec(),
            chain: svid.cert_chain,
        }
    }

    pub async fn channel(&self, fixture: &Fixture) -> Channel {
        connect(fixture, Some(self)).await.unwrap()
    }

    pub async fn agents(&self, fixture: &Fixture) -> AgentClient<Channel> {
        AgentClient::new(self.channel(fixture).await)
    }

    pub async fn entries(&self, fixture: &Fixture) -> EntryClient<Channel> {
        EntryClient::new(self.channel(fixture).await)
    }

    pub async fn svids(&self, fixture: &Fixture) -> SvidClient<Channel> {
        SvidClient::new(self.channel(fixture).await)
    }
}

/// Over TLS, as a node or as nobody.
pub async fn connect(fixture: &Fixture, node: Option<&Node>) -> Result<Channel, tonic::transport::Error> {
    let trust = TrustSource::new(Trust { bundle: fixture.bundle(), crls: CrlSet::bootstrapping() });
    let key = node.map(|node| tls::certified_key(node.chain.clone(), &node.key).unwrap());
    // SPIRE's agents know servers by this name.
    let accept: tls::AcceptPeer = Arc::new(|id| id.path() == "/spire/server");
    let config = Arc::new(tls::client_config(key, trust, accept, (&Clock::system()).into()).unwrap());
    let address = fixture.running().addresses().spire.unwrap();
    let connector = tower::service_fn(move |_| {
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(
                connector.connect("localhost".try_into().unwrap(), stream).await?,
            ))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

/// Over the socket.
pub async fn operator(fixture: &Fixture) -> Channel {
    let path = fixture.data().join("spire.sock");
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

pub async fn agents(fixture: &Fixture) -> AgentClient<Channel> {
    AgentClient::new(operator(fixture).await)
}

pub async fn entries(fixture: &Fixture) -> EntryClient<Channel> {
    EntryClient::new(operator(fixture).await)
}

/// What anybody may ask for.
pub async fn stranger(fixture: &Fixture) -> (AgentClient<Channel>, BundleClient<Channel>) {
    let channel = connect(fixture, None).await.unwrap();
    (AgentClient::new(channel.clone()), BundleClient::new(channel))
}

pub async fn token(fixture: &Fixture, ttl: i32) -> String {
    let request = CreateJoinTokenRequest { ttl, ..Default::default() };
    agents(fixture).await.create_join_token(request).await.unwrap().into_inner().value
}

/// Attests by this with a request for this key.
pub async fn attest(
    fixture: &Fixture,
    (kind, payload): (&str, &[u8]),
    csr: Vec<u8>,
) -> Result<X509svid, Status> {
    let data = AttestationData { r#type: kind.to_owned(), payload: payload.to_vec() };
    let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr }) };
    let begin = AttestAgentRequest { step: Some(Step::Params(params)) };
    let (mut agents, _) = stranger(fixture).await;
    let mut answers = agents.attest_agent(tokio_stream::iter([begin])).await?.into_inner();
    match answers.message().await?.and_then(|answer| answer.step) {
        Some(Answered::Result(result)) => Ok(result.svid.unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Attests by this, and answers the one challenge.
pub async fn attest_answering(
    fixture: &Fixture,
    (kind, payload): (&str, &[u8]),
    answer: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<(PrivateKey, X509svid), Status> {
    let key = PrivateKey::generate().unwrap();
    let data = AttestationData { r#type: kind.to_owned(), payload: payload.to_vec() };
    let csr = csr::request(&key).unwrap();
    let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr }) };
    let (say, said) = tokio::sync::mpsc::channel(2);
    say.send(AttestAgentRequest { step: Some(Step::Params(params)) }).await.unwrap();
    let (mut agents, _) = stranger(fixture).await;
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let mut answers = agents.attest_agent(said).await?.into_inner();
    let Some(Answered::Challenge(challenge)) = answers.message().await?.and_then(|answer| answer.step) else {
        panic!("no challenge")
    };
    let step = Step::ChallengeResponse(answer(&challenge));
    say.send(AttestAgentRequest { step: Some(step) }).await.unwrap();
    match answers.message().await?.and_then(|answer| answer.step) {
        Some(Answered::Result(result)) => {
            assert!(result.reattestable);
            Ok((key, result.svid.unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

/// A node that joined by a token.
pub async fn joined(fixture: &Fixture) -> Node {
    let (key, token) = (PrivateKey::generate().unwrap(), token(fixture, 600).await);
    let svid = attest(fixture, ("join_token", token.as_bytes()), csr::request(&key).unwrap()).await.unwrap();
    Node::of(&key, svid)
}

pub fn spiffe_id(path: &str) -> Spiffeid {
    Spiffeid { trust_domain: TRUST_DOMAIN.to_owned(), path: path.to_owned() }
}

/// An ID of the trust domain, as SPIRE sends it.
pub fn parsed(id: &str) -> Spiffeid {
    spiffe_id(id.strip_prefix(&format!("spiffe://{TRUST_DOMAIN}")).unwrap())
}

pub fn entry(parent: &str, path: &str, selectors: &[&str]) -> Entry {
    let selector = |text: &&str| {
        let (kind, value) = text.split_once(':').unwrap();
        Selector { r#type: kind.to_owned(), value: value.to_owned() }
    };
    Entry {
        spiffe_id: Some(spiffe_id(path)),
        parent_id: Some(parsed(parent)),
        selectors: selectors.iter().map(selector).collect(),
        ..Default::default()
    }
}

/// Why a node is refused, as its details say.
pub fn reason(status: &Status) -> Reason {
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    #[derive(Clone, PartialEq, Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Rich {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let rich = Rich::decode(status.details()).unwrap();
    assert_eq!((rich.code, rich.message.as_str()), (7, status.message()));
    let [detail] = rich.details.as_slice() else { panic!("{rich:?}") };
    assert_eq!(detail.type_url, "type.googleapis.com/spire.api.types.PermissionDeniedDetails");
    PermissionDeniedDetails::decode(detail.value.as_slice()).unwrap().reason()
}
