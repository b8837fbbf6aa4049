//! The provider that people sign in with: what it says of itself, and what a code becomes.
//!
//! Nothing is kept of an attempt: the browser's cookie has a secret, out of which state, nonce and PKCE's verifier are made with a
//! key of this process. So a flood of attempts costs no memory, and an answer is good for the browser that asked.

mod config;

use std::time::Duration;

use assay_evidence::time::UnixTime;
use assay_identity::oidc::{Attempt, Expected, IdToken, Keys, OidcError, Provider, TokenAnswer};
use aws_lc_rs::hmac;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use thiserror::Error;
use tokio::sync::Mutex;

pub(crate) use config::BACK;
use config::Loaded;
pub use config::{OidcConfig, OidcConfigError, RoleRule};

use super::outward::{AskError, Connection, Place, Url};
use crate::keys::{KeysError, random};
use crate::outcome::{Kind, Outcome};
use crate::principal::Principal;

/// The provider.
pub(crate) struct Oidc {
    config: OidcConfig,
    loaded: Loaded,
    name: String,
    /// Makes what binds an answer to an attempt.
    key: hmac::Key,
    known: Mutex<Known>,
}

/// What the provider said of itself, and when it was asked.
#[derive(Default)]
struct Known {
    said: Option<(Provider, Keys, UnixTime)>,
    failed_at: Option<UnixTime>,
}

/// Somebody whom the provider vouches for.
pub(crate) struct Vouched {
    pub principal: Principal,
    pub issuer: String,
    pub subject: String,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Oidc").field("issuer", &self.config.issuer).finish_non_exhaustive()
    }
}

impl Oidc {
    /// Reads what it needs. The provider is asked once somebody signs in.
    pub(crate) fn load(config: &OidcConfig) -> Result<Oidc, OidcLoadError> {
        Ok(Oidc {
            loaded: config.load()?,
            name: config.shown_name(),
            config: config.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()?),
            known: Mutex::default(),
        })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Begins an attempt: what the browser's cookie has to have, and where it goes.
    pub(crate) async fn begin(&self, now: UnixTime) -> Result<(String, String), SignInError> {
        let (provider, _) = self.known(now, false).await?;
        let secret = format!("{}.{}", now.0, BASE64URL_NOPAD.encode(&random::<32>()?));
        let url =
            provider.authorization_url(&self.loaded.client, &self.attempt(&secret), &self.loaded.scopes);
        Ok((secret, url))
    }

    /// Takes an answer back: who signed in, and as what.
    pub(crate) async fn finish(
        &self,
        secret: &str,
        (state, code, iss): (&str, &str, Option<&str>),
        now: UnixTime,
    ) -> Result<Vouched, SignInError> {
        let begun = secret.split_once('.').and_then(|(begun, _)| begun.parse().ok()).map(UnixTime);
        let attempt = self.attempt(secret);
        let is_in_time = begun.is_some_and(|begun| begun <= now && now < begun.plus(ATTEMPT_SECONDS));
        if attempt.state != state || !is_in_time {
            return Err(SignInError::OtherAttempt);
        }
        let (provider, _) = self.known(now, false).await?;
        // RFC 9207 §2.4: an answer of another provider, mixed up with ours.
        if iss.map_or(provider.names_itself, |iss| iss != provider.issuer) {
            return Err(OidcError::Foreign { claim: "iss" }.into());
        }
        let token = self.exchange(&provider, &attempt, code).await?;
        let expected = Expected {
            issuer: &provider.issuer,
            client_id: &self.loaded.client.id,
            nonce: &attempt.nonce,
            now: now.0,
        };
        let person = self.verified(&token, expected, now).await?;
        let principal = self.loaded.principal(&person, &self.config.name_claim);
        let Some(principal) = principal else {
            return Err(SignInError::NoRole { subject: person.subject });
        };
        Ok(Vouched { principal, issuer: provider.issuer, subject: person.subject })
    }

    /// A key that is not known may have been published meanwhile: it is looked once more.
    async fn verified(
        &self,
        token: &str,
        expected: Expected<'_>,
        now: UnixTime,
    ) -> Result<IdToken, SignInError> {
        let (_, keys) = self.known(now, false).await?;
        match IdToken::verify(token, &keys, expected) {
            Err(OidcError::UnknownKey) => {
                let (_, keys) = self.known(now, true).await?;
                Ok(IdToken::verify(token, &keys, expected)?)
            }
            verified => Ok(verified?),
        }
    }

    async fn exchange(
        &self,
        provider: &Provider,
        attempt: &Attempt,
        code: &str,
    ) -> Result<String, SignInError> {
        let (body, authorization) = provider.token_request(&self.loaded.client, attempt, code);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form);
        if let Some(mut authorization) = authorization.and_then(|text| HeaderValue::from_str(&text).ok()) {
            authorization.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
        }
        let answer = self.ask(&provider.token_endpoint, request).await?;
        match answer.status().is_success() {
            true => Ok(TokenAnswer::read(answer.body())?.id_token),
            false => Err(SignInError::Refused { status: answer.status().as_u16() }),
        }
    }

    /// What the provider says of itself, not older than some minutes.
    async fn known(&self, now: UnixTime, anew: bool) -> Result<(Provider, Keys), SignInError> {
        let mut known = self.known.lock().await;
        let age = if anew { AGAIN_SECONDS } else { KNOWN_SECONDS };
        if let Some((provider, keys, _)) = known.said.as_ref().filter(|(_, _, at)| now < at.plus(age)) {
            return Ok((provider.clone(), keys.clone()));
        }
        if known.failed_at.is_some_and(|at| now < at.plus(AGAIN_SECONDS)) {
            return Err(SignInError::Away);
        }
        let said = self.look().await;
        known.failed_at = said.is_err().then_some(now);
        let (provider, keys) = said?;
        known.said = Some((provider.clone(), keys.clone(), now));
        Ok((provider, keys))
    }

    async fn look(&self) -> Result<(Provider, Keys), SignInError> {
        let get = || Request::new(Full::default());
        let document = self.ask(&self.config.document_url(), get()).await?;
        let provider = Provider::read(&self.config.issuer, document.body())?;
        let keys = self.ask(&provider.jwks_uri, get()).await?;
        Ok((provider, Keys::read(keys.body())?))
    }

    async fn ask(
        &self,
        url: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, SignInError> {
        let unusable = OidcError::Configuration { why: "one of its URLs is none" };
        let Url { host, port, is_https, path } = Url::read(url).ok_or(unusable)?;
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        // A provider of this machine that goes on to another's https is recognised as one that was https from the start.
        let tls = if is_https { Some(self.loaded.tls.clone().ok_or(SignInError::Away)?) } else { None };
        *request.uri_mut() = path.into();
        let accept = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::ACCEPT, accept);
        Ok(Connection::to(Place { host, port, tls }).ask(request, WITHIN, ANSWER_BYTES_MAX).await?)
    }

    /// What belongs to a browser's secret.
    fn attempt(&self, secret: &str) -> Attempt {
        let mut bytes = [0; 96];
        for (part, purpose) in bytes.chunks_mut(32).zip(["state ", "nonce ", "verifier "]) {
            let tag = hmac::sign(&self.key, [purpose, secret].concat().as_bytes());
            part.copy_from_slice(tag.as_ref());
        }
        Attempt::new(&bytes)
    }
}

/// Why nobody is signed in.
#[derive(Debug, Error)]
pub(crate) enum SignInError {
    #[error("the provider's answer is to another attempt, or to one of long ago: try once more")]
    OtherAttempt,
    #[error("{subject} is known to the provider, and no rule of [[oidc.role]] says what they may do here")]
    NoRole { subject: String },
    #[error("the provider refused the code with status {status}")]
    Refused { status: u16 },
    #[error("the provider is not there now: sign in with an access token, or try again")]
    Away,
    #[error("the provider is not there now: sign in with an access token, or try again")]
    Ask(#[from] AskError),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for SignInError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            SignInError::OtherAttempt => (Kind::Unauthenticated, "other-attempt"),
            SignInError::NoRole { .. } => (Kind::Forbidden, "no-role"),
            SignInError::Refused { .. } | SignInError::Oidc(_) => (Kind::Unauthenticated, "provider"),
            SignInError::Away | SignInError::Ask(_) => (Kind::Unavailable, "provider-away"),
            SignInError::Keys(error) => error.told(),
        }
    }
}

/// The provider cannot be used as it is configured.
#[derive(Debug, Error)]
pub enum OidcLoadError {
    /// What the configuration says.
    #[error(transparent)]
    Config(#[from] OidcConfigError),
    /// No randomness.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// From leaving for the provider to coming back.
const ATTEMPT_SECONDS: u64 = 600;
/// How long it is believed what the provider said of itself, and how soon it is asked again.
const KNOWN_SECONDS: u64 = 300;
const AGAIN_SECONDS: u64 = 5;
const WITHIN: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 256 << 10;
