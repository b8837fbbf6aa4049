//! Whoever asks for much takes it from themselves: streams, enrollments, bytes, connections.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use assay_identity::Crl;
use assay_testkit::edge::Door;
use assay_testkit::edge::protocol::{DeviceMessage, Hello, device_message};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::json;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::fixture::{Fixture, attach_trusted, code, learned};

const HERE: &str = "198.51.100.7";
const ATTACKER: &str = "203.0.113.9";

#[tokio::test]
async fn finding_7_silent_streams_of_one_address_keep_nobody_else_out() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.known_device(&edge, "press-1", "").await;
    let id = device.device_id.clone().unwrap();
    let attacker = edge.on_behalf_of(ATTACKER, None);
    let mut silent = Vec::new();
    for _ in 0..1100 {
        silent.push(attacker.attach_as(&id).await.unwrap());
    }
    let (_stream, grants) = attach_trusted(&edge.on_behalf_of(HERE, None), &mut device).await;
    // Where the attacker is as well, a device is known by the SVID that it shows.
    let mut other = fixture.device("press-2");
    edge.on_behalf_of(HERE, None).enroll(&mut other).await.unwrap();
    assert!(!grants.device_svid.is_empty());
    attach_trusted(&edge.on_behalf_of(ATTACKER, Some(&id)), &mut device).await;
    // The last of the attacker's were told when to come again.
    let (refused, reason) = loop {
        match silent.pop().unwrap().next().await {
            Ok(_) => {}
            Err(error) => break code(error),
        }
    };
    assert_eq!((refused, reason.as_str()), (Code::ResourceExhausted, "no-room"));
}

#[tokio::test]
async fn finding_7_whoever_begins_no_enrollment_takes_no_place_of_one() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let attacker = edge.on_behalf_of(ATTACKER, None);
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(attacker.open_enrollment().await.unwrap());
    }
    // Not even at the same address.
    attacker.enroll(&mut fixture.device("press-1")).await.unwrap();
    // Enrollments that were begun and are not proven take what is one address's, and no more.
    for number in 0..70 {
        let begin = fixture.device(&format!("none-{number}")).enroll_begin();
        let mut begun = attacker.begin_enrollment(begin).await.unwrap();
        let _ = begun.challenge().await;
        held.push(begun);
    }
    edge.on_behalf_of(HERE, None).enroll(&mut fixture.device("press-2")).await.unwrap();
}

#[tokio::test]
async fn finding_7_long_evidence_is_taken_in_once_its_quote_has_shown_whose_it_is() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.device("press-1");
    edge.enroll(&mut device).await.unwrap();
    for number in 0..4000 {
        device.run_program(&format!("/usr/lib/program-with-a-long-name-{number}"), b"program");
    }
    fixture.put("/v1/policy", &learned(&mut device, "")).await;
    let mut stream = edge.attach(&device).await.unwrap();
    let challenge = stream.challenge().await.unwrap();
    let mut evidence = device.evidence(&challenge).unwrap();
    assert!(evidence.encoded_len() > 256 << 10);
    let mut quote = evidence.quote.take().unwrap();
    *quote.signature.last_mut().unwrap() ^= 1;
    evidence.quote = Some(quote);
    stream.answer(evidence).await.unwrap();
    let refused = code(stream.verdict().await.unwrap_err());
    assert_eq!(refused, (Code::Unauthenticated, "quote-signature".to_owned()));

    attach_trusted(&edge, &mut device).await;
}

type Pieces = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// A connection to the edge as a gateway has one.
async fn gateway(fixture: &Fixture) -> SendRequest<Pieces> {
    let stream = fixture.door("edge-2").await.dial("h2").await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A request to the edge that is never whole: how it was answered, and how many bytes of it were let in.
async fn unfinished(
    mut sender: SendRequest<Pieces>,
    method: &'static str,
    sent: Vec<Bytes>,
) -> ((String, String), usize) {
    let (body, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let request = Request::post(format!("https://edge/assay.edge.v1.Edge/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .header("assay-peer-address", ATTACKER)
        .body(StreamBody::new(ReceiverStream::new(receiver)))
        .unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let sending = tokio::spawn(async move {
        for bytes in sent {
            counted.fetch_add(bytes.len(), Ordering::Relaxed);
            if body.send(Ok(Frame::data(bytes))).await.is_err() {
                return;
            }
        }
        // The rest does not come, and the request does not end.
        std::future::pending::<()>().await;
    });
    let answer = sender.send_request(request).await.unwrap();
    let headers = answer.headers().clone();
    let trailers = answer.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    sending.abort();
    let told = |name: &str| {
        let value = trailers.get(name).or(headers.get(name));
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    ((told("grpc-status"), told("assay-reason")), taken.load(Ordering::Relaxed))
}

/// The start of a message of so many bytes: its header, and some mebibytes of it, in small pieces.
fn begun(bytes: u32, mebibytes: usize) -> Vec<Bytes> {
    let header = [&[0], &bytes.to_be_bytes()[..]].concat();
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    std::iter::once(header.into())
        .chain(std::iter::repeat_n(piece, mebibytes * PIECES_OF_A_MEBIBYTE))
        .collect()
}

/// Attaches as a device and goes on with such a message.
fn attaching(device_id: &str) -> Vec<Bytes> {
    let hello = Hello {
        device_id: device_id.to_owned(),
        agent_version: String::new(),
        stream: vec![7; 32],
        tasks: None,
    };
    let hello = DeviceMessage { message: Some(device_message::Message::Hello(hello)) }.encode_to_vec();
    let framed = [&[0], &u32::try_from(hello.len()).unwrap().to_be_bytes()[..], &hello].concat();
    std::iter::once(framed.into()).chain(begun(31 << 20, 31)).collect()
}

const PIECE_BYTES: usize = 32 << 10;
const PIECES_OF_A_MEBIBYTE: usize = 32;

const EXHAUSTED: &str = "8";

#[tokio::test]
async fn finding_7_nobody_has_megabytes_kept_who_has_proven_nothing() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.known_device(&edge, "press-1", "").await;
    let id = device.device_id.clone().unwrap();
    let refused = (EXHAUSTED.to_owned(), "size".to_owned());
    let gateway = gateway(&fixture).await;
    let attack = async |method, sent| unfinished(gateway.clone(), method, sent).await.0;
    assert_eq!(attack("Attach", attaching(&id)).await, refused);
    assert_eq!(attack("Enroll", begun(31 << 20, 31)).await, refused);

    // As many at once as once took 1.3 GiB: each gets no further than the room that a stream has.
    let mut attacks = JoinSet::new();
    for number in 0..42 {
        let (method, sent) = match number % 2 {
            0 => ("Attach", attaching(&id)),
            _ => ("Enroll", begun(31 << 20, 31)),
        };
        attacks.spawn(unfinished(gateway.clone(), method, sent));
    }
    // Meanwhile the device comes and is served.
    attach_trusted(&edge.on_behalf_of(HERE, None), &mut device).await;
    for ((status, _), taken) in attacks.join_all().await {
        assert_eq!(status, EXHAUSTED);
        assert!(taken < 1 << 20, "{taken} bytes were let in");
    }
}

#[tokio::test]
async fn finding_7_bytes_that_wait_are_counted_against_whoever_sends_them() {
    // One mebibyte for strangers, a quarter of it for each.
    let fixture = Fixture::with(|config| config.limits.bytes_in_flight_max = 8 << 20).await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let refused = (EXHAUSTED.to_owned(), "bytes".to_owned());
    assert_eq!(unfinished(gateway(&fixture).await, "Submit", begun(4 << 20, 1)).await.0, refused);
    let id = device.device_id.clone().unwrap();
    let payload = vec![0; 1 << 20];
    let statement = device.statement(&payload, None);
    let submission = device.submit(&statement, &payload).unwrap();
    let accepted = edge.on_behalf_of(ATTACKER, Some(&id)).submit(submission).await.unwrap();
    assert!(accepted.accepted, "{accepted:?}");
}

/// Connections to the console that say nothing, some before TLS and some after it; as many again as there may be.
async fn idle_at_the_console(fixture: &Fixture) -> Vec<Box<dyn Send>> {
    let address = fixture.running().addresses().console;
    let door = Door { address: address.to_string(), ..fixture.door_showing(None) };
    let mut idle: Vec<Box<dyn Send>> = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        idle.push(Box::new(TcpStream::connect(address).await.unwrap()));
        // One that is told to make room before its handshake is over has made it.
        if let Ok(stream) = door.dial("http/1.1").await {
            idle.push(Box::new(stream));
        }
    }
    idle
}

const CONNECTIONS_MAX: usize = 32;

async fn with_few_connections() -> Fixture {
    Fixture::with(|config| config.limits.connections_max = CONNECTIONS_MAX).await
}

#[tokio::test]
async fn finding_8_idle_connections_keep_nobody_from_revoking_or_from_the_list() {
    let fixture = with_few_connections().await;
    let edge = fixture.edge().await;
    let (_device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let idle = idle_at_the_console(&fixture).await;
    assert!(idle.len() > 2 * CONNECTIONS_MAX);
    // From the same address, which is where an operator's programs are, too.
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    assert!(stream.grants().await.unwrap().withdrawn);
    let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    assert!(Crl::parse(crl.body()).is_ok());
    drop(idle);
}

#[tokio::test]
async fn finding_8_an_operators_connection_is_not_among_those_that_make_room() {
    let fixture = with_few_connections().await;
    let door =
        Door { address: fixture.running().addresses().console.to_string(), ..fixture.door_showing(None) };
    let stream = door.dial("http/1.1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let token = fixture.token();
    let ask = || {
        Request::get("/v1/devices")
            .header(header::HOST, "console")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(String::new())
            .unwrap()
    };
    assert_eq!(sender.send_request(ask()).await.unwrap().status(), 200);
    let idle = idle_at_the_console(&fixture).await;
    sender.ready().await.unwrap();
    assert_eq!(sender.send_request(ask()).await.unwrap().status(), 200);
    drop(idle);
}

#[tokio::test]
async fn finding_8_the_operator_has_a_door_that_the_public_does_not_reach() {
    let fixture = with_few_connections().await;
    let socket = fixture.data().join("operator.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let idle = idle_at_the_console(&fixture).await;
    let stream = UnixStream::connect(&socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let ask = |bearer: String| {
        Request::get("/v1/devices")
            .header(header::HOST, "operator")
            .header(header::AUTHORIZATION, bearer)
            .body(String::new())
            .unwrap()
    };
    assert_eq!(sender.send_request(ask("Bearer wrong".to_owned())).await.unwrap().status(), 401);
    let answer = sender.send_request(ask(format!("Bearer {}", fixture.token()))).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(idle);
}

#[tokio::test]
async fn finding_7_connections_that_show_no_gateway_keep_no_gateway_out() {
    let fixture = with_few_connections().await;
    let edge = fixture.edge().await;
    let address = fixture.running().addresses().edge;
    let mut silent = Vec::new();
    for _ in 0..4 * CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // The gateway that is connected stays, and another gets in.
    edge.enroll(&mut fixture.device("press-1")).await.unwrap();
    fixture.edge().await.enroll(&mut fixture.device("press-2")).await.unwrap();
}
