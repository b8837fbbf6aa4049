//! Workloads' tokens: what the trust domain signed for one identity and one audience, kept until half of its life.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_identity::jws::{JwkSet, JwsError, Usage};
use assay_identity::jwt_svid::{self, JwtSvidError, VerifiedJwt};
use assay_identity::{SpiffeId, TrustDomain};
use thiserror::Error;

use super::Entry;
use super::bundle::unix_time;

/// A JWT-SVID.
#[derive(Clone)]
pub struct Token {
    /// For whom it is.
    pub audience: Arc<[String]>,
    /// The token, as it is borne; never logged, never written.
    pub compact: Arc<str>,
    /// From then on a new one is asked for.
    pub renew_at: SystemTime,
    /// From then on it is worth nothing.
    pub not_after: SystemTime,
}

/// The keys that the trust domain signs tokens with.
#[derive(Clone, Debug, Default)]
pub struct JwtKeys {
    json: Arc<[u8]>,
    set: Arc<JwkSet>,
}

impl JwtKeys {
    /// Reads a JWK set; of a server that signs no tokens it is empty.
    pub fn parse(json: &[u8]) -> Result<Self, JwsError> {
        if json.is_empty() {
            return Ok(JwtKeys::default());
        }
        let set = JwkSet::from_json(json, Usage::JwtSvid)?;
        Ok(JwtKeys { json: json.into(), set: Arc::new(set) })
    }

    /// The set as it was announced, JSON; empty if there is none.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Verifies somebody's token for an audience.
    pub fn verify(
        &self,
        token: &str,
        trust_domain: &TrustDomain,
        audience: &str,
        now: SystemTime,
    ) -> Result<VerifiedJwt, JwtSvidError> {
        jwt_svid::verify(token, (trust_domain, &self.set), Some(audience), unix_time(now))
    }
}

/// A token that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It does not hold.
    #[error("the token does not verify: {0}")]
    Jwt(#[from] JwtSvidError),
    /// It is somebody else's, or for others.
    #[error("the token is for another identity or audience")]
    Other,
    /// Nobody asked for it any more.
    #[error("the token is of an entry that is gone")]
    NoEntry,
}

impl Token {
    /// Refuses to hand a workload anything but a verified token for its identity and audience.
    pub(super) fn inspect(
        compact: &str,
        (entry, audience): (&Entry, &[String]),
        (trust_domain, keys): (&TrustDomain, &JwtKeys),
        now: SystemTime,
    ) -> Result<Token, TokenError> {
        let verified = jwt_svid::verify(compact, (trust_domain, &keys.set), None, unix_time(now))?;
        let is_its = SpiffeId::parse(&entry.spiffe_id).as_ref() == Ok(&verified.svid.spiffe_id);
        if !is_its || verified.svid.audience != audience {
            return Err(TokenError::Other);
        }
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(verified.svid.expires_at);
        let life = not_after.duration_since(now).unwrap_or_default();
        Ok(Token { audience: audience.into(), compact: compact.into(), renew_at: now + life / 2, not_after })
    }

    /// Whether it serves an audience for a while.
    pub(crate) fn serves(&self, audience: &[String], now: SystemTime) -> bool {
        *self.audience == *audience && now < self.renew_at
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Token { audience, not_after, .. } = self;
        f.debug_struct("Token")
            .field("audience", audience)
            .field("not_after", not_after)
            .finish_non_exhaustive()
    }
}
