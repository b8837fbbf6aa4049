//! Envoy's secret discovery over a real socket, by a client that keeps to the protocol or does not.

use assay_agent::holding::{Holding, Workload};
use assay_wire::envoy::secret::Type;
use assay_wire::envoy::secret_discovery_service_client::SecretDiscoveryServiceClient;
use assay_wire::envoy::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Secret,
    Status as Nack,
};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use crate::authority::Authority;
use crate::workload_api::{Api, holding, mine, workload};

pub async fn connect(api: &Api) -> SecretDiscoveryServiceClient<Channel> {
    let socket = api.socket.clone();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { std::io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    SecretDiscoveryServiceClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

/// What a device holds with these workloads, under authorities that read.
fn held(workloads: Vec<Workload>) -> Holding {
    Holding { bundle: Authority::new().bundle().to_der(), ..holding(workloads) }
}

pub fn ask(names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

pub fn secrets(answer: &DiscoveryResponse) -> Vec<Secret> {
    answer.resources.iter().map(|any| Secret::decode(any.value.as_slice()).unwrap()).collect()
}

fn names(answer: &DiscoveryResponse) -> Vec<String> {
    secrets(answer).into_iter().map(|secret| secret.name).collect()
}

struct Talk {
    asks: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
}

impl Talk {
    async fn start(api: &Api, first: DiscoveryRequest) -> Talk {
        let (asks, receiver) = mpsc::channel(8);
        asks.send(first).await.unwrap();
        let call = connect(api).await.stream_secrets(ReceiverStream::new(receiver)).await;
        Talk { asks, answers: call.unwrap().into_inner() }
    }

    async fn next(&mut self) -> Result<DiscoveryResponse, tonic::Status> {
        timeout(Duration::from_secs(10), self.answers.message()).await.unwrap().map(Option::unwrap)
    }
}

#[tokio::test]
async fn every_name_is_answered_and_one_that_is_not_the_callers_is_refused() {
    let api = Api::serve();
    let other = format!("{} gid:4294967294", mine());
    let workloads = vec![workload("web", &mine(), Some(1)), workload("other", &other, Some(2))];
    api.held.send_replace(held(workloads));
    let mut client = connect(&api).await;
    let own = "spiffe://example.org/web";
    for name in [own, "default", "spiffe://example.org", "ROOTCA", "ALL"] {
        let answer = client.fetch_secrets(ask(&[name], "")).await.unwrap().into_inner();
        assert_eq!(names(&answer), [name]);
        match secrets(&answer).remove(0).r#type.unwrap() {
            Type::TlsCertificate(_) => assert!(name == own || name == "default"),
            Type::ValidationContext(context) => {
                assert!(
                    context.crl.is_some()
                        && context.trusted_ca.is_some()
                        && context.only_verify_leaf_cert_crl
                );
            }
        }
    }
    let all = client.fetch_secrets(ask(&[], "")).await.unwrap().into_inner();
    assert_eq!(names(&all), ["spiffe://example.org", own]);
    for name in ["spiffe://example.org/other", "spiffe://elsewhere.org", "", "none"] {
        let refused = client.fetch_secrets(ask(&[name], "")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
    }
    let certificates =
        DiscoveryRequest { type_url: "type.googleapis.com/envoy.Cluster".into(), ..ask(&[], "") };
    assert_eq!(client.fetch_secrets(certificates).await.unwrap_err().code(), Code::InvalidArgument);
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(client.fetch_secrets(ask(&many, "")).await.unwrap_err().code(), Code::InvalidArgument);
    api.held.send_replace(held(vec![workload("other", &other, Some(2))]));
    assert_eq!(client.fetch_secrets(ask(&[], "")).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn without_a_revocation_list_nobody_is_to_be_believed() {
    let api = Api::serve();
    let without = Holding { crl: Vec::new(), ..held(vec![workload("web", &mine(), Some(1))]) };
    api.held.send_replace(without);
    let mut talk = Talk::start(&api, ask(&["ROOTCA"], "")).await;
    assert!(timeout(Duration::from_millis(300), talk.answers.message()).await.is_err(), "no context yet");
    api.held.send_replace(held(vec![workload("web", &mine(), Some(1))]));
    assert_eq!(names(&talk.next().await.unwrap()), ["ROOTCA"]);
}

#[tokio::test]
async fn a_stream_says_what_changes_and_nothing_twice() {
    let api = Api::serve();
    let web = || workload("web", &mine(), Some(1));
    api.held.send_replace(held(vec![web()]));
    let mut talk = Talk::start(&api, ask(&["default", "ROOTCA"], "")).await;
    let first = talk.next().await.unwrap();
    assert_eq!(names(&first), ["default", "ROOTCA"]);
    // An acknowledgement, a refusal and a request of before the last answer are nothing to answer.
    talk.asks.send(ask(&["default", "ROOTCA"], &first.nonce)).await.unwrap();
    let refused = Nack { code: 3, message: "cannot use it".into() };
    let nack = DiscoveryRequest { error_detail: Some(refused), ..ask(&["default", "ROOTCA"], &first.nonce) };
    talk.asks.send(nack).await.unwrap();
    talk.asks.send(ask(&["none"], "an earlier one")).await.unwrap();
    // A new list is said at once.
    let now = api.held.borrow().clone();
    api.held.send_replace(Holding { crl: vec![8, 8], ..now });
    let second = talk.next().await.unwrap();
    assert_ne!(first.nonce, second.nonce);
    assert!(second.version_info > first.version_info);
    // Other names are answered at once.
    talk.asks.send(ask(&["spiffe://example.org/web"], &second.nonce)).await.unwrap();
    let third = talk.next().await.unwrap();
    assert_eq!(names(&third), ["spiffe://example.org/web"]);
    // Another list is no news to whoever has an identity alone; a new identity is.
    let now = api.held.borrow().clone();
    api.held.send_replace(Holding { crl: vec![8, 8, 8], ..now });
    api.held.send_replace(held(vec![workload("web", &mine(), Some(5))]));
    let fourth = talk.next().await.unwrap();
    assert_ne!(secrets(&fourth), secrets(&third));
    assert_eq!(fourth.version_info, "4", "nothing was said in between");
    api.held.send_replace(Holding::withdrawn("fell".into(), vec![8]));
    assert_eq!(talk.next().await.unwrap_err().code(), Code::PermissionDenied);
}

fn delta(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    DeltaDiscoveryRequest {
        resource_names_subscribe: owned(subscribe),
        resource_names_unsubscribe: owned(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

fn changed(answer: &DeltaDiscoveryResponse) -> (Vec<&str>, &[String]) {
    let resources = answer.resources.iter().map(|resource| resource.name.as_str()).collect();
    (resources, &answer.removed_resources)
}

#[tokio::test]
async fn deltas_name_what_became_another_and_what_went() {
    let api = Api::serve();
    let both = || vec![workload("web", &mine(), Some(1)), workload("db", &mine(), Some(2))];
    api.held.send_replace(held(both()));
    let (asks, receiver) = mpsc::channel(8);
    let (web, db, root) = ("spiffe://example.org/web", "spiffe://example.org/db", "spiffe://example.org");
    asks.send(delta(&[web, db], &[])).await.unwrap();
    let mut answers =
        connect(&api).await.delta_secrets(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut next =
        async || timeout(Duration::from_secs(10), answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(changed(&next().await), (vec![db, web], &[][..]));
    asks.send(delta(&[root], &[db])).await.unwrap();
    assert_eq!(changed(&next().await), (vec![root], &[][..]));
    // What was let go of is no news.
    let now = api.held.borrow().clone();
    api.held.send_replace(Holding { workloads: vec![workload("web", &mine(), Some(3))], ..now });
    assert_eq!(changed(&next().await), (vec![web], &[][..]));
    let now = api.held.borrow().clone();
    api.held.send_replace(Holding { workloads: vec![workload("db", &mine(), Some(2))], ..now });
    assert_eq!(changed(&next().await), (vec![], &[web.to_owned()][..]));
    // What is asked for again is said again.
    asks.send(delta(&[root], &[])).await.unwrap();
    assert_eq!(changed(&next().await).0, [root]);
}
