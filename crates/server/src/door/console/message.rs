//! Who speaks by a signed message: the headers, the bytes that they are about, and what was heard.

use std::str::FromStr as _;
use std::sync::Arc;

use assay_identity::signed_message::{Accept, MESSAGE_BYTES_MAX, NodeId, Request as OfRequest, Signed};
use assay_identity::tls::Trust;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use http::HeaderMap;
use serde_json::Value;

use super::access::{known, may_view};
use super::public::turn;
use super::trust::switched_on;
use crate::config::TrustApi;
use crate::door::listen::Caller;
use crate::message::{self, Hearing};
use crate::metrics::Stopwatch;
use crate::metrics::trust::Fate;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::security::{Cause, Refused};
use crate::store::Profile;

/// A message that was heard with the request.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub from: NodeId,
    pub data: Value,
}

/// Lets through viewers, operators, and nodes by a signed message.
pub(super) async fn node_or_viewer(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if may_view(&server, request.headers()) {
        known(&request)?;
        return Ok(next.run(request).await);
    }
    let is_open = server.config.trust_api.as_ref().is_some_and(|api| api.dangerous_open_verify);
    if is_open && !is_signed(request.headers()) {
        return Ok(next.run(request).await);
    }
    heard(&server, request, next).await
}

/// Lets through nodes alone, by a signed message.
pub(super) async fn node(
    State(server): State<Arc<Server>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    heard(&server, request, next).await
}

/// Whether these headers are of a message.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key(FROM) && headers.contains_key(SIGNED) && headers.contains_key(SIGNATURE)
}

async fn heard(server: &Server, request: Request, next: Next) -> Result<Response, Refusal> {
    let (mut request, heard) = hear_request(server, request).await?;
    known(&request)?;
    request.extensions_mut().insert(heard);
    Ok(next.run(request).await)
}

/// Hears the message that a request is signed with; the request is given back whole.
pub(super) async fn hear_request(server: &Server, request: Request) -> Result<(Request, Heard), Refusal> {
    let api = switched_on(server)?;
    if !is_signed(request.headers()) {
        let message = "show the operator's token, or sign the request: X-From-Node, X-Node-Auth, X-Signature";
        return Err(Refusal::new(Kind::Unauthenticated, "no-message", message));
    }
    let address = request.extensions().get::<Caller>().map(|caller| caller.address().to_string());
    let at = request.uri().path().to_owned();
    let heard = hear_signed(server, api, request).await;
    heard.inspect_err(|refusal| {
        if refusal.kind == Kind::Unauthenticated {
            let from = address.unwrap_or_default();
            let why = format!("{} at {at}: {}", refusal.code(), refusal.message);
            server.refused(Refused { cause: Cause::Message, who: String::new(), from, why });
        }
    })
}

async fn hear_signed(server: &Server, api: &TrustApi, request: Request) -> Result<(Request, Heard), Refusal> {
    let (parts, body) = request.into_parts();
    let too_long = |_| Refusal::new(Kind::Malformed, "body", "a signed request has at most 1 MiB");
    let body = to_bytes(body, SIGNED_BODY_BYTES_MAX).await.map_err(too_long)?;
    let from = text(&parts.headers, FROM)?;
    let from = NodeId::from_str(from).map_err(|error| malformed(error.to_string()))?;
    let bytes = hex(&parts.headers, SIGNED, MESSAGE_BYTES_MAX)?;
    let signature = hex(&parts.headers, SIGNATURE, SIGNATURE_BYTES_MAX)?;
    let certificate = match brought(&parts.headers)? {
        Some(certificate) => certificate,
        None => {
            let _turn = turn(server, &parts.headers).await?;
            // A signature of RSA is longer than any other.
            let profile = if signature.len() >= RSA_BYTES { Profile::Classic } else { Profile::Svid };
            message::certificate(&server.store, from, profile).await?
        }
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let of = OfRequest { audience: &api.audience, method: parts.method.as_str(), path, body: &body };
    let (trust, above) = verifying(server, &certificate);
    let hearing = Hearing {
        store: &server.store,
        messages: &server.messages,
        trust: &trust,
        above: &above,
        accept: accept(api),
    };
    let signed = Signed { from, bytes: &bytes, signature: &signature };
    let watch = Stopwatch::start();
    let heard = message::hear(hearing, signed, certificate, &of, server.now()).await;
    let fate = match &heard {
        Ok(_) => Some(Fate::Heard),
        Err(error) => error.fate(),
    };
    if let Some((metrics, fate)) = server.metrics.trust.as_ref().zip(fate) {
        metrics.message(from, api.node_id, fate, watch);
    }
    let opened = heard?;
    Ok((Request::from_parts(parts, Body::from(body)), Heard { from: opened.from, data: opened.data }))
}

/// What verifies a certificate: its own root's is for classic ones, and for nothing else.
fn verifying(server: &Server, certificate: &[u8]) -> (Arc<Trust>, Vec<Vec<u8>>) {
    let classic = server.granting.classic.as_ref().filter(|authority| authority.is_named_by(certificate));
    match classic.and_then(|_| server.revocations.classic()) {
        Some((_, trust)) => (trust.current(), Vec::new()),
        None => (server.revocations.trust().current(), vec![server.authority.issuing_certificate()]),
    }
}

fn accept(api: &TrustApi) -> Accept {
    if api.accept_seed_messages { Accept::SeedToo } else { Accept::Strict }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().and_then(|value| value.to_str().ok());
    // Of two, readers differ in which one counts.
    match (value, values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(malformed(format!("{name}: one value of plain text"))),
    }
}

fn hex(headers: &HeaderMap, name: &str, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let text = text(headers, name)?;
    let bytes = (text.len() <= 2 * bytes_max).then(|| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok());
    bytes.flatten().ok_or_else(|| malformed(format!("{name}: hex of at most {bytes_max} bytes")))
}

/// RFC 9440, 2.2: the DER in base64 between colons.
fn brought(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    if !headers.contains_key(CERTIFICATE) {
        return Ok(None);
    }
    let text = text(headers, CERTIFICATE)?;
    let inner = text.strip_prefix(':').and_then(|text| text.strip_suffix(':'));
    let der = inner.and_then(|inner| BASE64.decode(inner.as_bytes()).ok());
    der.map(Some).ok_or_else(|| malformed(format!("{CERTIFICATE}: base64 of the DER between colons")))
}

fn malformed(message: String) -> Refusal {
    Refusal::new(Kind::Unauthenticated, "message", message)
}

const FROM: &str = "x-from-node";
const SIGNED: &str = "x-node-auth";
const SIGNATURE: &str = "x-signature";
const CERTIFICATE: &str = "x-node-certificate";
/// RSA of 4096 bits.
const SIGNATURE_BYTES_MAX: usize = 512;
/// Of a signature of RSA-2048.
const RSA_BYTES: usize = 256;
const SIGNED_BODY_BYTES_MAX: usize = 1 << 20;
