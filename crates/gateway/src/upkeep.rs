//! What the gateway asks a server for itself: every new revocation list, and its next certificate at half of the life of
//! the one it has.

use std::sync::Arc;
use std::time::Duration;

use assay_clock::Backoff;
use assay_identity::crl::{CRL_BYTES_MAX, CrlError};
use assay_identity::csr::{self, CsrError};
use assay_identity::key::KeyError;
use assay_identity::{PrivateKey, Stage};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use thiserror::Error;

use crate::body::RequestBody;
use crate::credentials::{CredentialSource, CredentialsError, Pair, certificates};
use crate::servers::{SERVER_NAME, SendError, Servers};

/// Why a server did not give what the gateway asked for.
#[derive(Debug, Error)]
pub(crate) enum UpkeepError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the server did not answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("the server answered {0}")]
    Refused(StatusCode),
    #[error("the server's answer cannot be read")]
    Answer,
    #[error("the revocation list cannot be used")]
    List(#[from] CrlError),
    #[error("no key could be made")]
    Key(#[from] KeyError),
    #[error("no certificate request could be made")]
    Csr(#[from] CsrError),
    #[error("the renewed certificate cannot be used")]
    Credentials(#[from] CredentialsError),
    #[error("the renewed certificate names another gateway")]
    AnotherGateway,
}

/// Has every new list as soon as there is one; never ends.
pub(crate) async fn follow_list(servers: Arc<Servers>, credentials: Arc<CredentialSource>) {
    let mut backoff = Backoff::between(RETRY_FIRST, RETRY_LONGEST);
    loop {
        let before = credentials.list_number();
        match next_list(&servers, &credentials).await {
            Ok(()) => backoff.succeeded(),
            // It is said where it is found out, and news are wanted as soon as there is one.
            Err(UpkeepError::Send(SendError::NoServer)) if servers.healthy() == 0 => {
                servers.connected().await
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no news of the revocation list");
                credentials.clock().sleep(backoff.wait()).await;
            }
        }
        if credentials.list_number() > before {
            servers.part_with_revoked();
        }
    }
}

async fn next_list(servers: &Servers, credentials: &CredentialSource) -> Result<(), UpkeepError> {
    let request = list_request(credentials, true);
    let (answer, _lease) = tokio::time::timeout(NEWS_WITHIN, servers.send(request)).await??;
    take_list(answer, credentials).await
}

/// Asks for the list if there is a newer one than the gateway has; with patience, once there is.
pub(crate) fn list_request(credentials: &CredentialSource, wait: bool) -> Request<RequestBody> {
    let than = credentials.list_number();
    request(Method::GET, &format!("/gateway/crl?than={than}&wait={wait}"), Vec::new())
}

/// Takes the list that was answered, if there was a newer one.
pub(crate) async fn take_list(
    answer: http::Response<Incoming>,
    credentials: &CredentialSource,
) -> Result<(), UpkeepError> {
    credentials.ledger().take(answer.headers());
    match answer.status() {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::OK => Ok(credentials.take_list(&content(answer, CRL_BYTES_MAX).await?)?),
        status => Err(UpkeepError::Refused(status)),
    }
}

/// Renews the certificate at half of its life; never ends.
pub(crate) async fn keep_renewed(servers: Arc<Servers>, credentials: Arc<CredentialSource>) {
    let clock = credentials.clock();
    let mut backoff = Backoff::between(RETRY_FIRST, RETRY_LONGEST);
    loop {
        let (life, now) = (credentials.current().own.life(), clock.unix_time());
        if life.stage(now) == Stage::Young {
            let wait = life.renew_at().as_secs().saturating_sub(now.as_secs());
            // Files may bring another certificate meanwhile.
            clock.sleep(Duration::from_secs(wait).min(LOOK_AGAIN)).await;
            continue;
        }
        match renew(&servers, &credentials).await {
            Ok(()) => backoff.succeeded(),
            Err(error) => {
                warn(&error, life.stage(now), &credentials);
                clock.sleep(backoff.wait()).await;
            }
        }
    }
}

/// Says that the certificate was not renewed: the louder, the less of its life is left.
fn warn(error: &UpkeepError, stage: Stage, credentials: &CredentialSource) {
    let (error, advice) = (error as &dyn std::error::Error, credentials.advice());
    match stage {
        Stage::Young | Stage::Due => tracing::info!(error, "the certificate was not renewed yet"),
        Stage::Late => tracing::warn!(
            error,
            advice,
            "the certificate is past two thirds of its life and was not renewed"
        ),
        Stage::Ended => {
            tracing::error!(error, advice, "the certificate has ended: nobody believes this gateway")
        }
    }
}

#[derive(Deserialize)]
struct Renewed {
    certificate: String,
}

async fn renew(servers: &Servers, credentials: &CredentialSource) -> Result<(), UpkeepError> {
    let key = PrivateKey::generate()?;
    let asking = servers.send(request(Method::POST, "/gateway/renew", csr::request(&key)?));
    let (answer, _lease) = tokio::time::timeout(ANSWER_WITHIN, asking).await??;
    if answer.status() != StatusCode::OK {
        return Err(UpkeepError::Refused(answer.status()));
    }
    let content = content(answer, CERTIFICATE_BYTES_MAX).await?;
    let Renewed { certificate } = serde_json::from_slice(&content).map_err(|_| UpkeepError::Answer)?;
    let chain = certificates(certificate.as_bytes())?;
    let named = chain.first().and_then(|leaf| assay_identity::x509_svid::presented_id(leaf).ok());
    if named.as_ref() != Some(credentials.current().own.spiffe_id()) {
        return Err(UpkeepError::AnotherGateway);
    }
    Ok(credentials.renew(Pair { chain, key })?)
}

async fn content(answer: http::Response<Incoming>, bytes_max: usize) -> Result<Bytes, UpkeepError> {
    let collecting = Limited::new(answer.into_body(), bytes_max).collect();
    let collected = tokio::time::timeout(ANSWER_WITHIN, collecting).await?;
    Ok(collected.map_err(|_| UpkeepError::Answer)?.to_bytes())
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::own(body));
    *request.method_mut() = method;
    *request.uri_mut() = format!("https://{SERVER_NAME}{path}").parse().unwrap_or_else(|_| Uri::default());
    request
}

/// Longer than a server waits for a new list.
const NEWS_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// Two P-256 certificates have some 2,000 bytes.
const CERTIFICATE_BYTES_MAX: usize = 64 << 10;
