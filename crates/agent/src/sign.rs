//! `assay-agent sign-message`: a client of the agent's door for signed messages, for scripts and for whoever looks how it is done.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use assay_wire::WORKLOAD_API_HEADER;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::door::MESSAGE_PATH;
use crate::fetch::socket_path;

/// The request that a message is for.
#[derive(Clone, Debug)]
pub struct Message {
    /// Whom it is for, as they call themselves.
    pub audience: String,
    /// In capitals.
    pub method: String,
    /// With the query.
    pub path: String,
    /// As it will be sent.
    pub body: Vec<u8>,
    /// What is said, JSON; `None`: the body, which is JSON then, and `null` where there is none.
    pub data: Option<String>,
    /// By the RSA key, for receivers that verify no other.
    pub classic: bool,
}

/// What to send with the request.
#[derive(Debug, Deserialize, Serialize)]
pub struct SignedMessage {
    /// The device's number.
    pub from_node: u32,
    /// Headers by their names.
    pub headers: serde_json::Map<String, serde_json::Value>,
}

/// Nothing was signed.
#[derive(Debug, Error)]
pub enum SignError {
    /// The endpoint's address is none that is served here.
    #[error("{0:?} is no socket: write unix:///PATH")]
    Address(String),
    /// What is to be said is not JSON.
    #[error("the data is not JSON: give --data where the body is something else")]
    Data(#[source] serde_json::Error),
    /// Nobody serves there.
    #[error("{socket}: no agent answers: is it running, and may this user reach its socket?")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The exchange broke.
    #[error("the agent does not answer as HTTP does: is it older than this program?")]
    Http(#[from] hyper::Error),
    /// The agent does not answer.
    #[error("the agent does not answer within {ANSWER_WITHIN:?}")]
    Silent,
    /// Its answer is none.
    #[error("what the agent sent does not read")]
    Unreadable,
    /// The agent said no.
    #[error("{message}")]
    Refused {
        /// HTTP's word for it.
        status: StatusCode,
        /// Why.
        message: String,
    },
}

impl SignError {
    /// Whether the answer is no, and not that there is none.
    pub fn is_no(&self) -> bool {
        matches!(self, SignError::Refused { status: StatusCode::FORBIDDEN, .. })
    }
}

impl SignedMessage {
    /// A line for each header, as `curl -H @-` reads them.
    pub fn lines(&self) -> Vec<String> {
        let line = |(name, value): (&String, &serde_json::Value)| {
            format!("{name}: {}", value.as_str().unwrap_or_default())
        };
        self.headers.iter().map(line).collect()
    }
}

/// Has a message signed by the agent at a socket.
pub async fn sign(socket: &str, message: &Message) -> Result<SignedMessage, SignError> {
    let path = socket_path(socket).ok_or_else(|| SignError::Address(socket.to_owned()))?;
    let asked = timeout(ANSWER_WITHIN, exchange(path, asking(message)?)).await;
    let (status, body) = asked.map_err(|_| SignError::Silent)??;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|_| SignError::Unreadable);
    }
    #[derive(Deserialize)]
    struct Answer {
        error: Told,
    }
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    let Answer { error } = serde_json::from_slice(&body).map_err(|_| SignError::Unreadable)?;
    Err(SignError::Refused { status, message: error.message })
}

fn asking(message: &Message) -> Result<Vec<u8>, SignError> {
    #[derive(Serialize)]
    struct Asked<'a> {
        audience: &'a str,
        method: &'a str,
        path: &'a str,
        body_sha256: String,
        profile: &'a str,
        data: &'a RawValue,
    }
    let Message { audience, method, path, body, data, classic } = message;
    let data = match data {
        Some(data) => data.as_bytes(),
        None if body.is_empty() => b"null",
        None => body,
    };
    let asked = Asked {
        audience,
        method,
        path,
        body_sha256: HEXLOWER.encode(digest(&SHA256, body).as_ref()),
        profile: if *classic { "classic" } else { "" },
        data: serde_json::from_slice(data).map_err(SignError::Data)?,
    };
    serde_json::to_vec(&asked).map_err(SignError::Data)
}

async fn exchange(socket: PathBuf, body: Vec<u8>) -> Result<(StatusCode, Bytes), SignError> {
    let stream = UnixStream::connect(&socket).await;
    let stream = stream.map_err(|source| SignError::Unreachable { socket, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let request = Request::post(MESSAGE_PATH)
            .header(header::HOST, "agent")
            .header(header::CONTENT_TYPE, "application/json")
            .header(WORKLOAD_API_HEADER, "true")
            .body(Full::new(Bytes::from(body)));
        let request = request.map_err(|_| SignError::Unreadable)?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|_| SignError::Unreadable)?.to_bytes()))
    };
    tokio::pin!(asking, connection);
    tokio::select! {
        answer = &mut asking => answer,
        ended = &mut connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// Others may be before it, and a TPM signs within a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Twice the longest message in hex, and a certificate.
const ANSWER_BYTES_MAX: usize = 256 << 10;
