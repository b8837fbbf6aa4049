//! Signed tokens and the keys that verify them: compact JWS (RFC 7515) with ES256 only, JWK sets (RFC 7517).
//!
//! What a token says is for its reader; here it is bytes. The algorithm is ours to say, never the token's.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use data_encoding::BASE64URL_NOPAD;
use rcgen::PublicKeyData as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::key::{KeyError, PrivateKey};

/// Signs `payload` as a token of this type; its `kid` is the key's thumbprint.
pub fn sign(key: &PrivateKey, typ: &str, payload: &[u8]) -> Result<String, KeyError> {
    let header = Header {
        alg: ES256.to_owned(),
        typ: Some(typ.to_owned()),
        kid: Some(VerifyingKey::of(key).kid()),
        crit: None,
    };
    let header = serde_json::to_vec(&header).map_err(|_| KeyError::Unreadable)?;
    let mut token = format!("{}.{}", BASE64URL_NOPAD.encode(&header), BASE64URL_NOPAD.encode(payload));
    let signature = es256(key, token.as_bytes())?;
    token.push('.');
    token.push_str(&BASE64URL_NOPAD.encode(&signature));
    Ok(token)
}

/// ECDSA P-256 with SHA-256, both numbers one after the other (RFC 7518, 3.4).
pub(crate) fn es256(key: &PrivateKey, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.pkcs8())
        .map_err(|_| KeyError::Unreadable)?;
    let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Generation)?;
    Ok(signature.as_ref().to_vec())
}

/// A P-256 public key that verifies tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    x: [u8; COORDINATE_BYTES],
    y: [u8; COORDINATE_BYTES],
}

impl VerifyingKey {
    /// The public half of a key.
    pub fn of(key: &PrivateKey) -> Self {
        // SEC 1 §2.3.3: 0x04, then both coordinates; a `PrivateKey` is always P-256.
        let coordinates = key.0.der_bytes().get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        VerifyingKey { x: x.try_into().unwrap_or_default(), y: y.try_into().unwrap_or_default() }
    }

    /// The key's name: its thumbprint (RFC 7638).
    pub fn kid(&self) -> String {
        // RFC 7638 §3.2: the required members only, in lexical order, without white space.
        let (x, y) = (BASE64URL_NOPAD.encode(&self.x), BASE64URL_NOPAD.encode(&self.y));
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    }

    /// The key as a JWK.
    pub fn to_jwk(&self, usage: Usage) -> Value {
        json!({
            "kty": "EC",
            "crv": P256,
            "x": BASE64URL_NOPAD.encode(&self.x),
            "y": BASE64URL_NOPAD.encode(&self.y),
            "kid": self.kid(),
            "use": usage.name(),
            "alg": ES256,
        })
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = [&[0x04], self.x.as_slice(), &self.y].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
    }
}

/// What a key is for (RFC 7517 §4.2): a set may hold keys of both kinds, and each is good for its own alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Signatures of any kind; also of a key that does not say.
    Signature,
    /// JWT-SVIDs (SPIFFE trust domain and bundle §4.2.2); the key has to say so.
    JwtSvid,
}

impl Usage {
    fn name(self) -> &'static str {
        match self {
            Usage::Signature => "sig",
            Usage::JwtSvid => "jwt-svid",
        }
    }

    fn is(self, stated: Option<&str>) -> bool {
        stated.map_or(self == Usage::Signature, |stated| stated == self.name())
    }
}

/// The keys that somebody signs with, each under its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwkSet(Vec<(String, VerifyingKey)>);

impl JwkSet {
    /// A set of these keys.
    pub fn new(keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        JwkSet(keys.into_iter().map(|key| (key.kid(), key)).collect())
    }

    /// Reads a JWK set. Keys of other kinds and for other uses are passed over (RFC 7517 §5).
    pub fn from_json(json: &[u8], usage: Usage) -> Result<Self, JwsError> {
        let document: Document = serde_json::from_slice(json).map_err(|_| JwsError::KeySet)?;
        if document.keys.len() > KEYS_MAX {
            return Err(JwsError::KeySet);
        }
        let keys: Vec<_> = document.keys.iter().filter_map(|key| named_key(key, usage)).collect();
        if keys.is_empty() { Err(JwsError::NoKey) } else { Ok(JwkSet(keys)) }
    }

    /// The set as a JSON document.
    pub fn to_json(&self, usage: Usage) -> Value {
        json!({ "keys": self.0.iter().map(|(_, key)| key.to_jwk(usage)).collect::<Vec<_>>() })
    }

    /// The payload of a token of this type that one of these keys signed.
    pub fn verify(&self, token: &str, typ: &str) -> Result<Vec<u8>, JwsError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwsError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Form)?;
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwsError::Form);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| JwsError::Form)?;
        // A token that could name its algorithm could name `none`, or an HMAC keyed with our public key.
        if header.alg != ES256 || header.crit.is_some() {
            return Err(JwsError::Algorithm);
        }
        if !header.typ.is_some_and(|stated| stated.eq_ignore_ascii_case(typ)) {
            return Err(JwsError::Type);
        }
        let mut named = self.0.iter().filter(|(kid, _)| Some(kid) == header.kid.as_ref()).peekable();
        if named.peek().is_none() {
            return Err(JwsError::UnknownKey);
        }
        match named.any(|(_, key)| key.verifies(signed.as_bytes(), &signature)) {
            true => Ok(payload),
            false => Err(JwsError::Signature),
        }
    }
}

/// Why a token or a set of keys is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JwsError {
    /// Not a JWK set.
    #[error("not a JWK set")]
    KeySet,
    /// No key that could have signed a token of ours.
    #[error("the JWK set has no P-256 key for signatures")]
    NoKey,
    /// Longer than any token.
    #[error("longer than a token may be")]
    TooLong,
    /// Not three parts of base64url with a header of JSON.
    #[error("not a signed token in compact form")]
    Form,
    /// Not ES256, or with extensions that must be understood.
    #[error("not signed with ES256")]
    Algorithm,
    /// A token of another kind.
    #[error("a token of another type")]
    Type,
    /// Signed with a key that is not in the set, or that it does not name.
    #[error("signed with a key that is not in the JWK set")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the signature does not verify: the token was altered, or another key signed it")]
    Signature,
}

/// RFC 7515 §4.1: what we write and what we look at.
#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
}

fn named_key(value: &Value, usage: Usage) -> Option<(String, VerifyingKey)> {
    let jwk = Jwk::deserialize(value).ok()?;
    let fits = jwk.kty == "EC"
        && jwk.crv == P256
        && usage.is(jwk.usage.as_deref())
        && jwk.alg.is_none_or(|alg| alg == ES256);
    let coordinate = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok();
    let key = VerifyingKey { x: coordinate(&jwk.x)?, y: coordinate(&jwk.y)? };
    fits.then(|| (jwk.kid.unwrap_or_else(|| key.kid()), key))
}

const ES256: &str = "ES256";
const P256: &str = "P-256";
const COORDINATE_BYTES: usize = 32;
/// A key per server and rotation.
const KEYS_MAX: usize = 256;
/// Findings of one result, with room: a reader's bound on what strangers send.
const TOKEN_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "eat+jwt";

    fn parts(token: &str) -> Vec<String> {
        token.split('.').map(str::to_owned).collect()
    }

    fn check(keys: &JwkSet, token: &str, expected: JwsError) {
        assert_eq!(keys.verify(token, TYPE), Err(expected), "{token}");
    }

    #[test]
    fn every_way_to_lie_is_refused_for_its_own_reason() {
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let keys = JwkSet::new([VerifyingKey::of(&key)]);
        let token = sign(&key, TYPE, b"{}").unwrap();
        assert_eq!(keys.verify(&token, TYPE).unwrap(), b"{}");
        check(&keys, &sign(&other, TYPE, b"{}").unwrap(), JwsError::UnknownKey);
        check(&keys, &sign(&key, "jwt", b"{}").unwrap(), JwsError::Type);
        let [header, payload, signature] = parts(&token)[..].to_vec().try_into().unwrap();
        let altered = BASE64URL_NOPAD.encode(br#"{"a":1}"#);
        check(&keys, &format!("{header}.{altered}.{signature}"), JwsError::Signature);
        check(&keys, &format!("{header}.{payload}."), JwsError::Signature);
        check(&keys, &format!("{header}.{payload}"), JwsError::Form);
        check(&keys, &format!("{header}.{payload}.{signature}="), JwsError::Form);
        check(&keys, &format!("{header}.{payload}.{signature}.{signature}"), JwsError::Form);
        check(&keys, &"a".repeat(TOKEN_BYTES_MAX + 1), JwsError::TooLong);
        let kid = VerifyingKey::of(&key).kid();
        let with_header = |header: Value| {
            format!("{}.{payload}.{signature}", BASE64URL_NOPAD.encode(header.to_string().as_bytes()))
        };
        check(&keys, &with_header(json!({ "alg": "none", "typ": TYPE, "kid": kid })), JwsError::Algorithm);
        check(&keys, &with_header(json!({ "alg": "HS256", "typ": TYPE, "kid": kid })), JwsError::Algorithm);
        let critical = json!({ "alg": "ES256", "typ": TYPE, "kid": kid, "crit": ["b64"], "b64": false });
        check(&keys, &with_header(critical), JwsError::Algorithm);
        check(&keys, &with_header(json!({ "alg": "ES256", "typ": TYPE })), JwsError::UnknownKey);
        // The right name on another key does not help.
        let mut renamed = JwkSet::new([VerifyingKey::of(&other)]);
        renamed.0[0].0 = kid;
        check(&renamed, &token, JwsError::Signature);
    }

    #[test]
    fn a_key_set_survives_its_document_and_strange_neighbours() {
        let keys = JwkSet::new([VerifyingKey::of(&PrivateKey::generate().unwrap())]);
        assert_eq!(
            JwkSet::from_json(keys.to_json(Usage::Signature).to_string().as_bytes(), Usage::Signature),
            Ok(keys.clone())
        );
        let mut document = keys.to_json(Usage::Signature);
        let mut encryption = document["keys"][0].clone();
        encryption["use"] = json!("enc");
        let neighbours = document["keys"].as_array_mut().unwrap();
        neighbours.extend([json!({ "kty": "RSA", "n": "AQ", "e": "AQAB" }), encryption.clone(), json!(7)]);
        assert_eq!(JwkSet::from_json(document.to_string().as_bytes(), Usage::Signature), Ok(keys.clone()));
        // A key for one use is none for another.
        let for_svids = keys.to_json(Usage::JwtSvid).to_string();
        assert_eq!(JwkSet::from_json(for_svids.as_bytes(), Usage::Signature), Err(JwsError::NoKey));
        assert_eq!(JwkSet::from_json(for_svids.as_bytes(), Usage::JwtSvid), Ok(keys.clone()));
        assert_eq!(JwkSet::from_json(document.to_string().as_bytes(), Usage::JwtSvid), Err(JwsError::NoKey));
        let none = json!({ "keys": [encryption] }).to_string();
        assert_eq!(JwkSet::from_json(none.as_bytes(), Usage::Signature), Err(JwsError::NoKey));
        assert_eq!(JwkSet::from_json(b"[]", Usage::Signature), Err(JwsError::KeySet));
    }

    /// RFC 7515, appendix A.3: somebody else's ES256 signature.
    #[test]
    fn the_example_of_the_standard_verifies() {
        let jwk = json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        let (_, key) = named_key(&jwk, Usage::Signature).unwrap();
        let signed = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                      cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature =
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        assert!(key.verifies(signed.as_bytes(), &signature));
        assert!(!key.verifies(&signed.as_bytes()[1..], &signature));
    }

    proptest! {
        #[test]
        fn what_was_signed_verifies_and_any_changed_character_does_not(
            payload in prop::collection::vec(any::<u8>(), 0..64),
            place in any::<prop::sample::Index>(),
        ) {
            let key = PrivateKey::generate().unwrap();
            let keys = JwkSet::new([VerifyingKey::of(&key)]);
            let token = sign(&key, TYPE, &payload).unwrap();
            prop_assert_eq!(keys.verify(&token, TYPE), Ok(payload));
            let mut altered = token.into_bytes();
            let place = place.index(altered.len());
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            prop_assert!(keys.verify(std::str::from_utf8(&altered).unwrap(), TYPE).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(token in "[A-Za-z0-9_.=-]{0,80}|.{0,40}", json in ".{0,60}") {
            prop_assert!(JwkSet::default().verify(&token, TYPE).is_err());
            prop_assert!(JwkSet::from_json(json.as_bytes(), Usage::Signature).is_err());
        }
    }
}
