//! Who signed in: an ID token, held against the attempt that it is the answer to (Core §3.1.3.7).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::OidcError;

/// What a token has to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Whose.
    pub issuer: &'a str,
    /// For whom.
    pub client_id: &'a str,
    /// Of which attempt.
    pub nonce: &'a str,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// A token that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdToken {
    /// Who, for as long as the issuer is the same.
    pub subject: String,
    claims: Map<String, Value>,
}

/// The keys that a provider signs with.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    alg: Option<String>,
    public: Public,
}

#[derive(Clone, Debug)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point of P-256 or P-384, as SEC 1 writes it.
    Ec {
        curve: &'static str,
        point: Vec<u8>,
    },
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Keys {
    /// Reads a JWK set. Keys of other kinds and for other uses are passed over (RFC 7517 §5).
    pub fn read(json: &[u8]) -> Result<Keys, OidcError> {
        let document: Document = serde_json::from_slice(json).map_err(|_| OidcError::NoKey)?;
        let keys: Vec<Key> = document.keys.iter().take(KEYS_MAX).filter_map(Key::read).collect();
        if keys.is_empty() { Err(OidcError::NoKey) } else { Ok(Keys(keys)) }
    }

    /// The claims of a token that one of these keys signed.
    fn verify(&self, token: &str) -> Result<Map<String, Value>, OidcError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(OidcError::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(OidcError::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(OidcError::Form)?;
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| OidcError::Form);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| OidcError::Form)?;
        let Some(method) = Method::named(&header.alg).filter(|_| header.crit.is_none()) else {
            return Err(OidcError::Algorithm {
                found: header.alg.chars().take(WORD_CHARACTERS_MAX).collect(),
            });
        };
        let mut fitting = self.0.iter().filter(|key| key.fits(&header)).peekable();
        if fitting.peek().is_none() {
            return Err(OidcError::UnknownKey);
        }
        match fitting.any(|key| method.verifies(&key.public, signed.as_bytes(), &signature)) {
            true => serde_json::from_slice(&payload).map_err(|_| OidcError::Form),
            false => Err(OidcError::Signature),
        }
    }
}

impl Key {
    fn read(value: &Value) -> Option<Key> {
        let jwk = Jwk::deserialize(value).ok()?;
        let is_for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
        let bytes = |text: Option<String>| BASE64URL_NOPAD.decode(text?.as_bytes()).ok();
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: bytes(jwk.n)?, e: bytes(jwk.e)? },
            ("EC", Some(curve)) => {
                let (curve, width) = CURVES.into_iter().find(|(name, _)| *name == curve)?;
                let (x, y) = (bytes(jwk.x)?, bytes(jwk.y)?);
                let point = [&[0x04], x.as_slice(), &y].concat();
                Public::Ec { curve, point: Some(point).filter(|_| x.len() == width && y.len() == width)? }
            }
            _ => return None,
        };
        Some(Key { kid: jwk.kid, alg: jwk.alg, public }).filter(|_| is_for_signatures)
    }

    /// Whether a token that says this may be of it: by name, where both have one.
    fn fits(&self, header: &Header) -> bool {
        let by_name = match (&self.kid, &header.kid) {
            (Some(kid), Some(named)) => kid == named,
            _ => true,
        };
        by_name && self.alg.as_ref().is_none_or(|alg| *alg == header.alg)
    }
}

/// How a token may be signed: by public keys, with no hash that is too weak (RFC 7518 §3.1).
#[derive(Clone, Copy)]
enum Method {
    Rsa(&'static RsaParameters),
    Ec { curve: &'static str, algorithm: &'static EcdsaVerificationAlgorithm },
}

impl Method {
    fn named(name: &str) -> Option<Method> {
        Some(match name {
            "RS256" => Method::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Method::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Method::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Method::Rsa(&RSA_PSS_2048_8192_SHA256),
            "PS384" => Method::Rsa(&RSA_PSS_2048_8192_SHA384),
            "PS512" => Method::Rsa(&RSA_PSS_2048_8192_SHA512),
            "ES256" => Method::Ec { curve: "P-256", algorithm: &ECDSA_P256_SHA256_FIXED },
            "ES384" => Method::Ec { curve: "P-384", algorithm: &ECDSA_P384_SHA384_FIXED },
            _ => return None,
        })
    }

    fn verifies(self, key: &Public, message: &[u8], signature: &[u8]) -> bool {
        match (self, key) {
            (Method::Rsa(parameters), Public::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Method::Ec { curve, algorithm }, Public::Ec { curve: of, point }) if curve == *of => {
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

impl IdToken {
    /// Verifies one.
    pub fn verify(token: &str, keys: &Keys, expected: Expected<'_>) -> Result<IdToken, OidcError> {
        let claims = keys.verify(token)?;
        let text = |claim| claims.get(claim).and_then(Value::as_str);
        let is = |claim: &'static str, wanted: &str| match text(claim) {
            Some(found) if found == wanted => Ok(()),
            Some(_) => Err(OidcError::Foreign { claim }),
            None => Err(OidcError::Missing { claim }),
        };
        is("iss", expected.issuer)?;
        is("nonce", expected.nonce)?;
        let audience = audience(claims.get("aud").ok_or(OidcError::Missing { claim: "aud" })?);
        if !audience.contains(&expected.client_id) {
            return Err(OidcError::Foreign { claim: "aud" });
        }
        // Core §3.1.3.7, 4 and 5: with several audiences it says to whom it was issued.
        if audience.len() > 1 || claims.contains_key("azp") {
            is("azp", expected.client_id)?;
        }
        let seconds = |claim| {
            claims
                .get(claim)
                .and_then(Value::as_f64)
                .filter(|at| *at >= 0.0)
                .ok_or(OidcError::Missing { claim })
        };
        let now = seconds_of(expected.now);
        let in_time = seconds("exp")? > now - LEEWAY_SECONDS && seconds("iat")? < now + LEEWAY_SECONDS;
        if !in_time {
            return Err(OidcError::Time);
        }
        let subject = text("sub").filter(|subject| !subject.is_empty() && subject.len() <= SUBJECT_BYTES_MAX);
        let subject = subject.ok_or(OidcError::Missing { claim: "sub" })?.to_owned();
        Ok(IdToken { subject, claims })
    }

    /// A claim that is text.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// Whether a claim is this text, or a list that has it.
    pub fn says(&self, claim: &str, value: &str) -> bool {
        match self.claims.get(claim) {
            Some(Value::Array(values)) => values.iter().any(|one| one.as_str() == Some(value)),
            Some(Value::String(one)) => one == value,
            _ => false,
        }
    }

    /// Whether the provider says that the address is theirs, or says nothing of it.
    pub fn may_go_by_email(&self) -> bool {
        !matches!(self.claims.get("email_verified"), Some(Value::Bool(false)))
    }
}

fn audience(claim: &Value) -> Vec<&str> {
    match claim {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().take(AUDIENCES_MAX).filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Exact until long after 1970.
#[expect(clippy::cast_precision_loss, reason = "seconds of the next million years are exact in 53 bits")]
fn seconds_of(seconds: u64) -> f64 {
    seconds as f64
}

const CURVES: [(&str, usize); 2] = [("P-256", 32), ("P-384", 48)];
const KEYS_MAX: usize = 64;
const TOKEN_BYTES_MAX: usize = 64 << 10;
const AUDIENCES_MAX: usize = 16;
/// Core §2: no longer than 255 characters.
const SUBJECT_BYTES_MAX: usize = 255;
const WORD_CHARACTERS_MAX: usize = 16;
/// How far the provider's clock may be from ours.
const LEEWAY_SECONDS: f64 = 60.0;

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::jws::{Usage, VerifyingKey};
    use crate::key::PrivateKey;

    const NOW: u64 = 1_800_000_000;
    const EXPECTED: Expected<'static> =
        Expected { issuer: "https://id.example.org", client_id: "assay", nonce: "n", now: NOW };

    fn claims() -> Value {
        json!({
            "iss": "https://id.example.org", "sub": "248289761001", "aud": "assay", "nonce": "n",
            "exp": NOW + 300, "iat": NOW - 1, "email": "ada@example.org", "groups": ["edge", "admins"],
        })
    }

    struct Signer(RsaKeyPair);

    impl Signer {
        fn new() -> Signer {
            Signer(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
        }

        fn keys(&self, kid: &str) -> Keys {
            let public = self.0.public_key();
            let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
            let n = part(public.modulus().big_endian_without_leading_zero());
            let e = part(public.exponent().big_endian_without_leading_zero());
            let set = json!({ "keys": [{ "kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": e }] });
            Keys::read(set.to_string().as_bytes()).unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value, encoding: &'static dyn RsaEncoding) -> String {
            let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
            let signed = format!("{}.{}", part(header), part(claims));
            let mut signature = vec![0; self.0.public_modulus_len()];
            self.0.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
            format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
        }
    }

    #[test]
    fn who_signed_in_is_read_from_a_token_of_each_kind() {
        let signer = Signer::new();
        for (alg, encoding) in
            [("RS256", &RSA_PKCS1_SHA256 as &'static dyn RsaEncoding), ("PS256", &RSA_PSS_SHA256)]
        {
            let token = signer.sign(&json!({ "alg": alg, "kid": "a" }), &claims(), encoding);
            let read = IdToken::verify(&token, &signer.keys("a"), EXPECTED).unwrap();
            assert_eq!(
                (read.subject.as_str(), read.text("email")),
                ("248289761001", Some("ada@example.org"))
            );
            assert!(
                read.says("groups", "admins") && !read.says("groups", "adm") && read.says("aud", "assay")
            );
        }
        let key = PrivateKey::generate().unwrap();
        let token = crate::jws::sign(&key, "JWT", claims().to_string().as_bytes()).unwrap();
        let set = json!({ "keys": [VerifyingKey::of(&key).to_jwk(Usage::Signature)] });
        let keys = Keys::read(set.to_string().as_bytes()).unwrap();
        assert_eq!(IdToken::verify(&token, &keys, EXPECTED).unwrap().subject, "248289761001");
    }

    #[test]
    fn every_token_of_another_is_refused_for_its_own_reason() {
        let (signer, other) = (Signer::new(), Signer::new());
        let header = json!({ "alg": "RS256", "kid": "a" });
        let with = |claim: &str, value: Value| {
            let mut claims = claims();
            claims[claim] = value;
            IdToken::verify(&signer.sign(&header, &claims, &RSA_PKCS1_SHA256), &signer.keys("a"), EXPECTED)
        };
        let foreign = |claim| Err(OidcError::Foreign { claim });
        assert_eq!(with("iss", json!("https://id.example.com")), foreign("iss"));
        assert_eq!(with("nonce", json!("m")), foreign("nonce"));
        assert_eq!(with("nonce", Value::Null), Err(OidcError::Missing { claim: "nonce" }));
        assert_eq!(with("aud", json!("grafana")), foreign("aud"));
        assert_eq!(with("aud", json!(["assay", "grafana"])), Err(OidcError::Missing { claim: "azp" }));
        assert_eq!(with("azp", json!("grafana")), foreign("azp"));
        assert_eq!(with("exp", json!(NOW - 61)), Err(OidcError::Time));
        assert_eq!(with("iat", json!(NOW + 61)), Err(OidcError::Time));
        assert_eq!(with("exp", json!("soon")), Err(OidcError::Missing { claim: "exp" }));
        assert_eq!(with("sub", json!("")), Err(OidcError::Missing { claim: "sub" }));
        assert!(with("exp", json!(NOW - 59)).is_ok());

        let verify = |token: &str, keys: &Keys| IdToken::verify(token, keys, EXPECTED).unwrap_err();
        let token = signer.sign(&header, &claims(), &RSA_PKCS1_SHA256);
        assert_eq!(verify(&token, &other.keys("a")), OidcError::Signature);
        assert_eq!(verify(&token, &signer.keys("b")), OidcError::UnknownKey);
        for alg in ["none", "HS256", "RS1", "ES256K"] {
            let token = signer.sign(&json!({ "alg": alg, "kid": "a" }), &claims(), &RSA_PKCS1_SHA256);
            assert_eq!(verify(&token, &signer.keys("a")), OidcError::Algorithm { found: alg.to_owned() });
        }
        // An RSA key under the name of an elliptic one's method, and extensions that have to be understood.
        let confused = signer.sign(&json!({ "alg": "ES256", "kid": "a" }), &claims(), &RSA_PKCS1_SHA256);
        assert_eq!(verify(&confused, &signer.keys("a")), OidcError::Signature);
        let critical = json!({ "alg": "RS256", "kid": "a", "crit": ["b64"] });
        let critical = signer.sign(&critical, &claims(), &RSA_PKCS1_SHA256);
        assert!(matches!(verify(&critical, &signer.keys("a")), OidcError::Algorithm { .. }));
    }

    #[test]
    fn keys_that_sign_nothing_are_passed_over() {
        let set = |key: Value| Keys::read(json!({ "keys": [key] }).to_string().as_bytes()).err();
        assert_eq!(
            set(json!({ "kty": "RSA", "use": "enc", "n": "AQ", "e": "AQAB" })),
            Some(OidcError::NoKey)
        );
        assert_eq!(set(json!({ "kty": "oct", "k": "AQ" })), Some(OidcError::NoKey));
        assert_eq!(set(json!({ "kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ" })), Some(OidcError::NoKey));
        assert!(Keys::read(b"[]").is_err() && Keys::read(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(token in "[A-Za-z0-9_.=-]{0,80}|.{0,40}", json in ".{0,60}") {
            prop_assert!(IdToken::verify(&token, &Keys::default(), EXPECTED).is_err());
            prop_assert!(Keys::read(json.as_bytes()).is_err());
        }
    }
}
