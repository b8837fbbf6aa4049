//! The demo's workload: an ordinary SPIFFE program that knows nothing of Assay but the Workload API.
//!
//! It holds the X.509-SVID stream open, serves mTLS with whatever the stream last said, and connects to others on
//! request. It speaks lines of JSON: `svid`, `gone` and `listening` by itself, `connected` or `refused` in answer to
//! `{"connect": "address"}`. A withdrawn SVID is kept and still presented when connecting, as a thief would.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use assay_clock::Clock;
use assay_identity::tls::{self, ClientIdentity, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, SpiffeId};
use assay_wire::workload::X509svidRequest;
use assay_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Arguments of the hidden verb `assay demo workload`.
#[derive(clap::Args)]
pub struct Args {
    /// The Workload API socket.
    #[arg(long)]
    socket: PathBuf,
}

/// What the stream last said; shared by the server and by connects.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Option<Identity>>>);

#[derive(Clone)]
struct Identity {
    key: Arc<CertifiedKey>,
    trust: Arc<TrustSource>,
}

impl Held {
    fn get(&self) -> Option<Identity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, identity: Identity) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }
}

/// Runs until standard input ends.
pub async fn run(args: Args) -> Result<()> {
    let held = Held::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&json!({ "event": "listening", "address": listener.local_addr()?.to_string() }));
    tokio::spawn(serve(listener, held.clone()));
    tokio::spawn(follow(args.socket, held.clone()));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line).context("a line of JSON")?;
        let address = request.get("connect").and_then(Value::as_str).context("a connect line")?;
        match connect(address, &held).await {
            Ok(peer) => say(&json!({ "event": "connected", "peer": peer })),
            Err(error) => say(&json!({ "event": "refused", "error": format!("{error:#}") })),
        }
    }
    Ok(())
}

fn say(value: &Value) {
    println!("{value}");
}

/// Follows the X.509-SVID stream for as long as the program lives; the API asks clients to come back after a refusal.
async fn follow(socket: PathBuf, held: Held) {
    let mut had = false;
    loop {
        let reason = match stream(&socket, &held, &mut had).await {
            Ok(()) => "the stream ended".to_owned(),
            Err(error) => match error.downcast_ref::<tonic::Status>() {
                Some(status) => format!("{:?}: {}", status.code(), status.message()),
                None => format!("{error:#}"),
            },
        };
        if std::mem::take(&mut had) {
            say(&json!({ "event": "gone", "reason": reason }));
        }
        tokio::time::sleep(COME_BACK_AFTER).await;
    }
}

async fn stream(socket: &std::path::Path, held: &Held, had: &mut bool) -> Result<()> {
    let path = socket.to_owned();
    let channel = tonic::transport::Endpoint::from_static("http://workload.api")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        }))
        .await?;
    let mut request = tonic::Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
    let mut stream = SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let Some(svid) = message.svids.first() else { return Ok(()) };
        let id = SpiffeId::parse(&svid.spiffe_id)?;
        let bundle = Bundle::from_der(id.trust_domain().clone(), &svid.bundle)?;
        let trust = TrustSource::new(Trust { bundle, crls: CrlSet::from_der(&message.crl)? });
        let key = tls::certified_key(split_der(&svid.x509_svid), &svid.x509_svid_key)?;
        held.set(Identity { key, trust });
        *had = true;
        say(&json!({ "event": "svid", "spiffe_id": svid.spiffe_id }));
    }
    Ok(())
}

/// Answers every peer of the trust domain whose SVID holds and is not on the CRL.
async fn serve(listener: TcpListener, held: Held) {
    while let Ok((tcp, _)) = listener.accept().await {
        let Some(identity) = held.get() else { continue };
        tokio::spawn(async move {
            let answered = answer(tcp, identity).await;
            if let Err(error) = answered {
                eprintln!("peer refused: {error:#}");
            }
        });
    }
}

async fn answer(tcp: TcpStream, identity: Identity) -> Result<()> {
    let config = tls::server_config(
        identity.key,
        identity.trust,
        ClientIdentity::Required(Arc::new(|_| true)),
        (&Clock::system()).into(),
    )?;
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
    stream.write_all(GREETING).await?;
    stream.shutdown().await?;
    Ok(())
}

async fn connect(address: &str, held: &Held) -> Result<String> {
    let identity = held.get().context("no SVID yet")?;
    let config = tls::client_config(
        Some(identity.key),
        identity.trust.clone(),
        Arc::new(|_| true),
        (&Clock::system()).into(),
    )?;
    let tcp = TcpStream::connect(address).await?;
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect("workload.invalid".try_into()?, tcp).await?;
    // In TLS 1.3 a server refuses a client's certificate after the client is done: only its data is an answer.
    let mut greeting = vec![0; GREETING.len()];
    stream.read_exact(&mut greeting).await.context("the peer refused the certificate")?;
    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().context("a peer certificate")?;
    Ok(identity.trust.verify(chain, Clock::system().unix_time())?.spiffe_id().to_string())
}

/// The certificates of a concatenated DER chain, by their outer length (each is a SEQUENCE with a long length).
fn split_der(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut certificates = Vec::new();
    while let [0x30, 0x82, high, low, ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])) + 4;
        let Some((certificate, rest)) = bytes.split_at_checked(length) else { break };
        certificates.push(certificate.to_vec());
        bytes = rest;
    }
    certificates
}

const GREETING: &[u8] = b"hello from a workload\n";
const COME_BACK_AFTER: std::time::Duration = std::time::Duration::from_millis(100);
