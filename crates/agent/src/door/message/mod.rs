//! Messages that programs of this device have signed in its name, by the key in the TPM: `POST /sign-message`, JSON.
//!
//! For workloads of an entry that says so, and for nobody else; who calls is found out by [`crate::workload`]. What is signed is a
//! message and nothing else: the form is made here, so that no program gets a signature over bytes of its own. Where the device has
//! fallen, or the server is not reached, nothing is signed.

mod request;

use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use assay_identity::UnixTime;
use assay_identity::signed_message::{OnceBy, Outgoing};
use assay_wire::WORKLOAD_API_HEADER;
use aws_lc_rs::rand;
use data_encoding::{BASE64, HEXLOWER};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tonic::Code;
use tonic::body::Body;

use self::request::{Refused, Wanted};
use super::workload_api::entitled;
use crate::holding::Holding;
use crate::link::Linked;
use crate::workload::Caller;

/// Signs for callers; one for the whole agent. Clones share its turns.
#[derive(Clone)]
pub(super) struct Signing {
    holding: watch::Receiver<Holding>,
    linked: Linked,
    clock: Clock,
    /// The TPM signs one message at a time, so that what the server asks for is never behind a crowd of them.
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Signing {
    pub(super) fn new(holding: watch::Receiver<Holding>, linked: Linked, clock: Clock) -> Self {
        let (turn, waiting) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(WAITING_MAX)));
        Signing { holding, linked, clock, turn, waiting }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, caller: &Caller, request: Request<Incoming>) -> Response<Body> {
        match self.sign(caller, request).await {
            Ok(signed) => json_response(StatusCode::OK, &signed),
            Err(refused) => refused.response(),
        }
    }

    async fn sign(&self, caller: &Caller, request: Request<Incoming>) -> Result<Value, Refused> {
        check(&request)?;
        // Before a byte of the body is kept: a caller without an entry has no place here.
        self.speaks(caller).await?;
        let _waiting = self.waiting.try_acquire().map_err(|_| Refused::Busy)?;
        let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect();
        // Who sends nothing keeps no place from others.
        let body = timeout(BODY_WITHIN, body).await.map_err(|_| Refused::Body)?;
        let body = body.map_err(|_| Refused::Body)?.to_bytes();
        let wanted = Wanted::read(&body)?;
        let _turn = self.turn.acquire().await.map_err(|_| Refused::Busy)?;
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|_| Refused::NoRandomness)?;
        let (device, held) = {
            let device = self.linked.borrow().as_ref().map(|link| link.device.clone());
            (device.ok_or(Refused::NotAttached)?, self.holding.borrow().clone())
        };
        let from = held.node.ok_or(Refused::NoNumber)?;
        let is_classic = wanted.is_classic();
        let certificate = match (is_classic, &held.classic) {
            (false, _) => held.device_svid.first().ok_or(Refused::NotAttached)?,
            (true, Some(classic)) => &classic.certificate,
            (true, None) => return Err(Refused::NoClassic),
        };
        let since = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(since);
        let once = OnceBy::Nonce(&nonce);
        let message = Outgoing { from, at, data: wanted.data(), about: wanted.about(), once }.bytes();
        let message = message.map_err(Refused::Message)?;
        let signed = message.clone();
        let signature = device.run(move |device| match is_classic {
            true => device.sign_classic(&signed),
            false => device.key.sign_message(&signed),
        });
        let signature = signature.await;
        let signature = signature.map_err(|error| {
            tracing::error!(%error, "a message could not be signed");
            Refused::Tpm
        })?;
        // A TPM takes its time, and the device may have fallen meanwhile.
        self.speaks(caller).await?;
        Ok(json!({ "from_node": from.get(), "headers": {
            "X-From-Node": from.to_string(),
            "X-Node-Auth": HEXLOWER.encode(&message),
            "X-Signature": HEXLOWER.encode(&signature),
            "X-Node-Certificate": format!(":{}:", BASE64.encode(certificate)),
        }}))
    }

    /// Whether an entry of the caller's lets it speak for the device now.
    async fn speaks(&self, caller: &Caller) -> Result<(), Refused> {
        let holding = self.holding.borrow().clone();
        let mine = entitled(&holding, caller).await.map_err(|status| match status.code() {
            Code::PermissionDenied => Refused::Denied(status.message().to_owned()),
            _ => Refused::Unavailable(status.message().to_owned()),
        })?;
        let mut entries = mine.iter().filter_map(|index| holding.workloads.get(*index));
        match entries.any(|workload| workload.entry.speaks_for_node) {
            true => Ok(()),
            false => Err(Refused::Denied("no entry of this process lets it speak for the device".to_owned())),
        }
    }
}

fn check(request: &Request<Incoming>) -> Result<(), Refused> {
    if request.uri().path() != PATH {
        return Err(Refused::Path);
    }
    if request.method() != Method::POST {
        return Err(Refused::Method);
    }
    // As at the Workload API: whoever is tricked into a request does not set it.
    match request.headers().get(WORKLOAD_API_HEADER).map(|value| value.as_bytes()) {
        Some(b"true") => Ok(()),
        _ => Err(Refused::Header),
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    let media_type = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// Where a message is asked for.
pub(crate) const PATH: &str = "/sign-message";
/// Messages that wait for the TPM, which makes a few signatures a second.
const WAITING_MAX: usize = 32;
/// What is signed has 64 KiB at most, of which this is the most part.
const REQUEST_BYTES_MAX: usize = 80 << 10;
/// A request is there as soon as it is asked for.
const BODY_WITHIN: Duration = Duration::from_secs(5);
const NONCE_BYTES: usize = 16;
