//! `assay-agent fetch`: what a program on this device is given, for scripts and for whoever looks why it is not.
//!
//! A client of the Workload API like any other: it gets what this process, with its user and groups, is entitled to.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assay_clock::Clock;
use assay_identity::bundle::{pem, pem_certificates, split_certificates};
use assay_identity::{Bundle, CrlSet, SpiffeId, SvidError, UnixTime, verify_svid};
use assay_wire::WORKLOAD_API_HEADER;
use assay_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use assay_wire::workload::{JwtsvidRequest, X509svid, X509svidRequest, X509svidResponse};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::config::WORKLOAD_API;
use crate::files::Beside;

/// Nothing could be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The endpoint's address is none that is served here.
    #[error("{0:?} is no socket: write unix:///PATH")]
    Address(String),
    /// Nobody serves there.
    #[error("{socket}: no Workload API answers: is the agent running, and may this user reach its socket?")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        source: tonic::transport::Error,
    },
    /// The agent said no.
    #[error("{}", .0.message())]
    Refused(Status),
    /// The agent does not answer.
    #[error("the agent does not answer within {ANSWER_WITHIN:?}")]
    Silent,
    /// An answer is no SVID.
    #[error("what the agent sent does not read")]
    Unreadable,
    /// The agent has ended the stream.
    #[error("the agent ended the stream")]
    Ended,
    /// An SVID does not hold by what came with it.
    #[error("the SVID for {spiffe_id} does not verify")]
    Svid {
        /// Whose it is said to be.
        spiffe_id: String,
        /// What is wrong with it.
        source: SvidError,
    },
    /// A file cannot be written.
    #[error("{path}: cannot be written")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FetchError {
    /// Whether the answer is no, and not that there is none.
    pub fn is_no(&self) -> bool {
        matches!(self, FetchError::Refused(status) if status.code() == Code::PermissionDenied)
    }
}

impl From<Status> for FetchError {
    fn from(status: Status) -> Self {
        FetchError::Refused(status)
    }
}

/// An X.509-SVID as it was given.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FetchedSvid {
    /// Whose.
    pub spiffe_id: SpiffeId,
    /// To tell it from others of the same workload.
    pub hint: String,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
    /// PEM, leaf first.
    pub certificates: String,
    /// PEM. Not in reports: it goes to files that only their owner reads.
    #[serde(skip)]
    key: String,
    /// Whom to believe, PEM.
    pub bundle: String,
    /// Whom not to, PEM.
    pub revocation_list: String,
}

/// What this process is entitled to, each checked by what came with it.
pub async fn x509(socket: &str) -> Result<Vec<FetchedSvid>, FetchError> {
    let first = async { x509_stream(socket).await?.message().await?.ok_or(FetchError::Ended) };
    let message = timeout(ANSWER_WITHIN, first).await.map_err(|_| FetchError::Silent)??;
    FetchedSvid::read_all(message)
}

/// Everything that this process is entitled to, at once and after every change.
pub(crate) async fn x509_stream(socket: &str) -> Result<Streaming<X509svidResponse>, FetchError> {
    let mut client = connect(socket).await?;
    Ok(client.fetch_x509svid(with_header(X509svidRequest {})).await?.into_inner())
}

/// A token for each identity of this process, or for the one that is named.
pub async fn jwt(socket: &str, audience: &[String], spiffe_id: &str) -> Result<Vec<String>, FetchError> {
    let mut client = connect(socket).await?;
    let request = JwtsvidRequest { audience: audience.to_vec(), spiffe_id: spiffe_id.to_owned() };
    let answer = timeout(ANSWER_WITHIN, client.fetch_jwtsvid(with_header(request))).await;
    let answer = answer.map_err(|_| FetchError::Silent)??.into_inner();
    Ok(answer.svids.into_iter().map(|svid| svid.svid).collect())
}

impl FetchedSvid {
    /// Reads a complete state.
    pub(crate) fn read_all(message: X509svidResponse) -> Result<Vec<FetchedSvid>, FetchError> {
        let X509svidResponse { svids, crl, .. } = message;
        svids.into_iter().map(|svid| FetchedSvid::read(svid, &crl)).collect()
    }

    fn read(svid: X509svid, crl: &[Vec<u8>]) -> Result<FetchedSvid, FetchError> {
        let spiffe_id = SpiffeId::parse(&svid.spiffe_id).map_err(|_| FetchError::Unreadable)?;
        let chain = split_certificates(&svid.x509_svid).map_err(|_| FetchError::Unreadable)?;
        let bundle = Bundle::from_der(spiffe_id.trust_domain().clone(), &svid.bundle);
        let bundle = bundle.map_err(|_| FetchError::Unreadable)?;
        let lists = CrlSet::from_der(crl).map_err(|_| FetchError::Unreadable)?;
        let since = Clock::system().now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let peer = verify_svid(&chain, &bundle, &lists, UnixTime::since_unix_epoch(since))
            .map_err(|source| FetchError::Svid { spiffe_id: svid.spiffe_id.clone(), source })?;
        Ok(FetchedSvid {
            spiffe_id,
            hint: svid.hint,
            not_after: peer.not_after().as_secs(),
            certificates: pem_certificates(&chain),
            key: pem("PRIVATE KEY", &svid.x509_svid_key),
            bundle: bundle.to_pem(),
            revocation_list: crl.iter().map(|list| pem("X509 CRL", list)).collect(),
        })
    }

    /// The private key, PEM.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let mut line = format!("{} until {}", self.spiffe_id, self.not_after);
        if !self.hint.is_empty() {
            let _ = write!(line, " ({})", self.hint);
        }
        line
    }

    /// Puts it into files of a folder, each whole or not at all, and says which. SPIRE's names for them.
    pub fn write(&self, folder: &Path, number: usize) -> Result<Vec<PathBuf>, FetchError> {
        let files = [
            (format!("svid.{number}.key"), &self.key, 0o600),
            (format!("svid.{number}.pem"), &self.certificates, 0o644),
            (format!("bundle.{number}.pem"), &self.bundle, 0o644),
            (format!("crl.{number}.pem"), &self.revocation_list, 0o644),
        ];
        let write = |(name, text, mode): (String, &String, u32)| {
            let path = folder.join(name);
            let written = Beside::write(&path, text.as_bytes(), mode, None).and_then(Beside::put);
            match written {
                Ok(()) => Ok(path),
                Err(source) => Err(FetchError::Write { path, source }),
            }
        };
        files.into_iter().map(write).collect()
    }
}

/// The socket that a client is told of, or the agent's own.
pub fn socket_or_default(socket: Option<String>) -> String {
    socket.unwrap_or_else(|| format!("unix://{WORKLOAD_API}"))
}

/// Where a socket is, by the address of it.
pub(crate) fn socket_path(address: &str) -> Option<PathBuf> {
    // SPIFFE Workload Endpoint, 4: a URI; a bare path is what people write.
    let path = address.strip_prefix("unix:").map_or(address, |path| path.strip_prefix("//").unwrap_or(path));
    path.starts_with('/').then(|| PathBuf::from(path))
}

async fn connect(address: &str) -> Result<SpiffeWorkloadApiClient<Channel>, FetchError> {
    let socket = socket_path(address).ok_or_else(|| FetchError::Address(address.to_owned()))?;
    let to = socket.clone();
    let connector = tower::service_fn(move |_| {
        let to = to.clone();
        async move { io::Result::Ok(TokioIo::new(UnixStream::connect(to).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(ANSWER_WITHIN);
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map(SpiffeWorkloadApiClient::new).map_err(|source| FetchError::Unreachable { socket, source })
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(WORKLOAD_API_HEADER, tonic::metadata::MetadataValue::from_static("true"));
    request
}

/// The agent waits ten seconds for an SVID that is being signed.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_no_socket_is_told_as_such() {
        for address in ["tcp://127.0.0.1:1", "relative.sock", ""] {
            assert!(matches!(x509(address).await, Err(FetchError::Address(_))), "{address}");
        }
        for address in ["unix:///nowhere/a.sock", "unix:/nowhere/a.sock", "/nowhere/a.sock"] {
            let Err(FetchError::Unreachable { socket, .. }) = x509(address).await else {
                panic!("{address}")
            };
            assert_eq!(socket, Path::new("/nowhere/a.sock"));
        }
    }
}
