//! JWT-SVIDs: an identity for those behind a proxy that ends TLS, good for its audience and a few minutes.
//!
//! Form and rules: SPIFFE JWT-SVID. A bearer token cannot be taken back, so its life is short; whoever issues one sees to
//! that.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::jws::{self, JwkSet, JwsError};
use crate::key::{KeyError, PrivateKey};
use crate::{SpiffeId, TrustDomain, UnixTime};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSvid {
    /// Who bears it (`sub`).
    pub spiffe_id: SpiffeId,
    /// For whom it is (`aud`); at least one.
    pub audience: Vec<String>,
    /// When it was made (`iat`), in seconds.
    pub issued_at: u64,
    /// From when on it is worth nothing (`exp`), in seconds.
    pub expires_at: u64,
}

impl JwtSvid {
    /// Signs it.
    pub fn sign(&self, key: &PrivateKey) -> Result<String, KeyError> {
        self.sign_as(key, None)
    }

    /// The same with a name of the issuer (`iss`), for verifiers that look for its keys by that.
    pub fn sign_as(&self, key: &PrivateKey, issuer: Option<&str>) -> Result<String, KeyError> {
        let mut claims = json!({
            "sub": self.spiffe_id.as_str(),
            "aud": self.audience,
            "iat": self.issued_at,
            "exp": self.expires_at,
        });
        if let (Some(claims), Some(issuer)) = (claims.as_object_mut(), issuer) {
            claims.insert("iss".to_owned(), issuer.into());
        }
        jws::sign(key, TOKEN_TYPE, claims.to_string().as_bytes())
    }
}

/// A token that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedJwt {
    /// What every such token says.
    pub svid: JwtSvid,
    /// Everything it says, as it says it.
    pub claims: Map<String, Value>,
}

/// Verifies a token of a trust domain at a time: signed by one of its authorities, for an identity of it, not ended, and,
/// if somebody is named, for them.
pub fn verify(
    token: &str,
    (trust_domain, authorities): (&TrustDomain, &JwkSet),
    audience: Option<&str>,
    now: UnixTime,
) -> Result<VerifiedJwt, JwtSvidError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtSvidError::TooLong);
    }
    let payload = authorities.verify(token, TOKEN_TYPE)?;
    let claims: Map<String, Value> = serde_json::from_slice(&payload).map_err(|_| JwtSvidError::Claims)?;
    let stated = Stated::deserialize(&claims).map_err(|_| JwtSvidError::Claims)?;
    let spiffe_id = SpiffeId::parse(&stated.sub).map_err(|_| JwtSvidError::Subject)?;
    if spiffe_id.trust_domain() != trust_domain || spiffe_id.path().is_empty() {
        return Err(JwtSvidError::Subject);
    }
    let stated_audience = match stated.aud {
        Audience::One(one) => vec![one],
        Audience::Several(several) => several,
    };
    let is_for = |wanted: &str| stated_audience.iter().any(|one| one == wanted);
    if stated_audience.is_empty() || !audience.is_none_or(is_for) {
        return Err(JwtSvidError::Audience);
    }
    if stated.exp <= now.as_secs() {
        return Err(JwtSvidError::Ended);
    }
    if stated.nbf.is_some_and(|from| from > now.as_secs()) {
        return Err(JwtSvidError::NotYet);
    }
    let svid = JwtSvid {
        spiffe_id,
        audience: stated_audience,
        issued_at: stated.iat.unwrap_or_default(),
        expires_at: stated.exp,
    };
    Ok(VerifiedJwt { svid, claims })
}

/// The trust domain that a token says its subject is of. Nothing of it is verified: it says whose keys it is to be held against.
pub fn claimed_domain(token: &str) -> Option<TrustDomain> {
    #[derive(Deserialize)]
    struct Subject {
        sub: SpiffeId,
    }
    let payload = token.split('.').nth(1).filter(|_| token.len() <= TOKEN_BYTES_MAX)?;
    let payload = data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?;
    let Subject { sub } = serde_json::from_slice(&payload).ok()?;
    Some(sub.trust_domain().clone())
}

/// Whether a token may be asked for, for these: few, and together short enough that the token is one that verifiers read
/// whatever has to be escaped in it, and that it can be told in a line of a log.
pub fn is_audience(audience: &[String]) -> bool {
    let is_name = |one: &String| !one.is_empty() && !one.chars().any(char::is_control);
    (1..=AUDIENCES_MAX).contains(&audience.len())
        && audience.iter().all(is_name)
        && audience.iter().map(String::len).sum::<usize>() <= AUDIENCE_BYTES_MAX
}

/// The claims that count (RFC 7519 §4.1).
#[derive(Deserialize)]
struct Stated {
    sub: String,
    aud: Audience,
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Why a token is not worth anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JwtSvidError {
    /// Longer than an identity and its audience can be.
    #[error("longer than a JWT-SVID may be")]
    TooLong,
    /// Not signed by an authority of the trust domain.
    #[error(transparent)]
    Signature(#[from] JwsError),
    /// Not the claims of a JWT-SVID.
    #[error("sub, aud and exp are not those of a JWT-SVID")]
    Claims,
    /// The subject is no identity of the trust domain.
    #[error("sub is not an identity of the trust domain that signed")]
    Subject,
    /// It is for others.
    #[error("aud does not name this audience")]
    Audience,
    /// It has ended.
    #[error("it has expired")]
    Ended,
    /// It has not begun.
    #[error("it is not valid yet")]
    NotYet,
}

/// SPIFFE JWT-SVID §2.3: if there is one it is this or `JOSE`; ours is this.
const TOKEN_TYPE: &str = "JWT";
/// Names of an audience.
pub const AUDIENCES_MAX: usize = 16;
/// Bytes of them together: a SPIFFE ID fits, a page does not.
pub const AUDIENCE_BYTES_MAX: usize = 2048;
/// An ID of 2,048 bytes and an audience, each character of it escaped, in base64.
const TOKEN_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::VerifyingKey;
    use std::time::Duration;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    struct Domain {
        key: PrivateKey,
        name: TrustDomain,
        authorities: JwkSet,
    }

    impl Domain {
        fn new() -> Self {
            let key = PrivateKey::generate().unwrap();
            let authorities = JwkSet::new([VerifyingKey::of(&key)]);
            Domain { key, name: TrustDomain::parse("example.org").unwrap(), authorities }
        }

        fn verify(&self, token: &str, audience: Option<&str>, now: u64) -> Result<VerifiedJwt, JwtSvidError> {
            verify(token, (&self.name, &self.authorities), audience, at(now))
        }

        fn refuses(&self, claims: &Value, reason: JwtSvidError) {
            let token = jws::sign(&self.key, TOKEN_TYPE, claims.to_string().as_bytes()).unwrap();
            assert_eq!(self.verify(&token, Some("db"), 1000), Err(reason), "{claims}");
        }
    }

    #[test]
    fn a_token_says_who_bears_it_for_whom_and_until_when() {
        let domain = Domain::new();
        let svid = JwtSvid {
            spiffe_id: SpiffeId::parse("spiffe://example.org/web").unwrap(),
            audience: vec!["db".to_owned(), "cache".to_owned()],
            issued_at: 900,
            expires_at: 1200,
        };
        let token = svid.sign(&domain.key).unwrap();
        let verified = domain.verify(&token, Some("cache"), 1199).unwrap();
        assert_eq!(verified.svid, svid);
        assert_eq!(verified.claims["aud"], json!(["db", "cache"]));
        assert_eq!(domain.verify(&token, Some("queue"), 1000), Err(JwtSvidError::Audience));
        assert_eq!(domain.verify(&token, Some("db"), 1200), Err(JwtSvidError::Ended));
        assert!(domain.verify(&token, None, 1000).is_ok());
        let unknown = Domain::new().verify(&token, Some("db"), 1000);
        assert_eq!(unknown, Err(JwtSvidError::Signature(JwsError::UnknownKey)));
    }

    #[test]
    fn a_token_for_the_longest_audience_is_read() {
        let domain = Domain::new();
        let spiffe_id = format!("spiffe://example.org/{}", "a".repeat(2048 - 21));
        let spiffe_id = SpiffeId::parse(&spiffe_id).unwrap();
        let issued = |audience: Vec<String>| {
            assert!(is_audience(&audience));
            let svid = JwtSvid { spiffe_id: spiffe_id.clone(), audience, issued_at: 1, expires_at: 1001 };
            domain.verify(&svid.sign(&domain.key).unwrap(), None, 1000).unwrap()
        };
        // A quotation mark is two characters in JSON, and nothing that may be in a name is more.
        issued(vec!["\"".repeat(AUDIENCE_BYTES_MAX)]);
        issued(vec!["\"".repeat(AUDIENCE_BYTES_MAX / AUDIENCES_MAX); AUDIENCES_MAX]);
        let refused =
            [vec![], vec![""], vec!["a", ""], vec!["a\nb"], vec!["\u{7f}"], vec!["\u{85}"], vec!["a"; 17]];
        for audience in refused {
            assert!(
                !is_audience(&audience.iter().map(ToString::to_string).collect::<Vec<_>>()),
                "{audience:?}"
            );
        }
        assert!(!is_audience(&["a".repeat(AUDIENCE_BYTES_MAX + 1)]));
        assert!(!is_audience(&["a".repeat(AUDIENCE_BYTES_MAX), "b".to_owned()]));
    }

    #[test]
    fn whatever_a_standard_forbids_is_refused_although_it_is_signed() {
        let domain = Domain::new();
        let good = json!({ "sub": "spiffe://example.org/web", "aud": "db", "exp": 1001 });
        let token = jws::sign(&domain.key, TOKEN_TYPE, good.to_string().as_bytes()).unwrap();
        assert_eq!(domain.verify(&token, Some("db"), 1000).unwrap().svid.audience, ["db"]);
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        for name in ["sub", "aud", "exp"] {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(name);
            domain.refuses(&claims, JwtSvidError::Claims);
        }
        domain.refuses(&with("aud", json!([])), JwtSvidError::Audience);
        domain.refuses(&with("aud", json!([1])), JwtSvidError::Claims);
        domain.refuses(&with("sub", json!("web")), JwtSvidError::Subject);
        domain.refuses(&with("sub", json!("spiffe://example.org")), JwtSvidError::Subject);
        domain.refuses(&with("sub", json!("spiffe://other.org/web")), JwtSvidError::Subject);
        domain.refuses(&with("exp", json!("1001")), JwtSvidError::Claims);
        domain.refuses(&with("exp", json!(-1)), JwtSvidError::Claims);
        domain.refuses(&with("nbf", json!(1001)), JwtSvidError::NotYet);
        domain.refuses(&json!([good]), JwtSvidError::Claims);
        // A token of another kind that the same key signed.
        let other = jws::sign(&domain.key, "eat+jwt", good.to_string().as_bytes()).unwrap();
        assert_eq!(domain.verify(&other, None, 1000), Err(JwtSvidError::Signature(JwsError::Type)));
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(domain.verify(&long, None, 1000), Err(JwtSvidError::TooLong));
    }
}
