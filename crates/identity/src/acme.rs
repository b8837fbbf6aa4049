//! What a client says to an authority that speaks ACME: requests signed by an account's key (RFC 8555, 6.2, flattened JWS with ES256),
//! key authorizations (8.1), the binding to an account elsewhere (7.3.4), and the request for a certificate of a TPM
//! (draft-ietf-acme-device-attest, 3).

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::ak_certificate::permanent_identifier_name;
use crate::csr::{self, CsrError};
use crate::jws::{self, VerifyingKey};
use crate::key::{KeyError, PrivateKey};

/// By what the authority finds the key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// The key itself, where it is not known yet.
    Key,
    /// The address of the account.
    Account(&'a str),
}

/// A request to `url` with a nonce of the authority's; an empty payload asks for what is there (POST-as-GET).
pub fn request(
    key: &PrivateKey,
    by: By<'_>,
    (nonce, url): (&str, &str),
    payload: &str,
) -> Result<String, KeyError> {
    let mut header = json!({ "alg": "ES256", "nonce": nonce, "url": url });
    match by {
        By::Key => header["jwk"] = jwk(key),
        By::Account(account) => header["kid"] = account.into(),
    }
    let (protected, payload) = encoded(&header, payload);
    let signature = jws::es256(key, format!("{protected}.{payload}").as_bytes())?;
    let signature = BASE64URL_NOPAD.encode(&signature);
    Ok(json!({ "protected": protected, "payload": payload, "signature": signature }).to_string())
}

/// What a challenge's answer has to show that it knows.
pub fn key_authorization(key: &PrivateKey, token: &str) -> String {
    format!("{token}.{}", VerifyingKey::of(key).kid())
}

/// The account's key, signed by a key that the authority gave out under `kid`, for a request to `url`.
pub fn external_binding(key: &PrivateKey, (kid, secret): (&str, &[u8]), url: &str) -> Value {
    let header = json!({ "alg": "HS256", "kid": kid, "url": url });
    let (protected, payload) = encoded(&header, &jwk(key).to_string());
    let signed = format!("{protected}.{payload}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    json!({ "protected": protected, "payload": payload, "signature": BASE64URL_NOPAD.encode(tag.as_ref()) })
}

/// A certificate request that names a TPM by its permanent identifier, for a P-256 key in it; `sign` returns a DER ECDSA-SHA-256
/// signature.
pub fn certificate_request<E>(
    spki: &[u8],
    identifier: &str,
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, CsrError> {
    csr::request_naming(spki, permanent_identifier_name(identifier), sign)
}

fn encoded(header: &Value, payload: &str) -> (String, String) {
    let header = header.to_string();
    (BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(payload.as_bytes()))
}

fn jwk(key: &PrivateKey) -> Value {
    let mut jwk = VerifyingKey::of(key).to_jwk(jws::Usage::Signature);
    // The members that make the key, and no other: an authority compares them.
    if let Some(members) = jwk.as_object_mut() {
        members.retain(|name, _| matches!(name.as_str(), "kty" | "crv" | "x" | "y"));
    }
    jwk
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(signed: &Value, name: &str) -> Vec<u8> {
        BASE64URL_NOPAD.decode(signed[name].as_str().unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn a_request_is_bound_to_its_address_and_nonce_and_signed_by_the_account() {
        let key = PrivateKey::generate().unwrap();
        for (by, named) in [(By::Key, "jwk"), (By::Account("https://ca/acct/1"), "kid")] {
            let text = request(&key, by, ("n0", "https://ca/new"), "{}").unwrap();
            let signed: Value = serde_json::from_str(&text).unwrap();
            let header: Value = serde_json::from_slice(&part(&signed, "protected")).unwrap();
            assert_eq!((&header["nonce"], &header["url"]), (&json!("n0"), &json!("https://ca/new")));
            assert!(header.get(named).is_some() && header.as_object().unwrap().len() == 4, "{header}");
            assert_eq!(part(&signed, "payload"), b"{}");
            // The signature is over what stands there, by a verifier that knows no ACME.
            let over = ["protected", "payload"].map(|name| signed[name].as_str().unwrap()).join(".");
            assert!(VerifyingKey::of(&key).verifies(over.as_bytes(), &part(&signed, "signature")));
        }
    }

    #[test]
    fn a_binding_is_the_accounts_key_under_the_secret() {
        let key = PrivateKey::generate().unwrap();
        let bound = external_binding(&key, ("press", b"0123456789abcdef"), "https://ca/new-account");
        let payload: Value = serde_json::from_slice(&part(&bound, "payload")).unwrap();
        assert_eq!(payload, jwk(&key));
        assert_eq!(payload.as_object().unwrap().len(), 4);
        let signed = [bound["protected"].as_str().unwrap(), bound["payload"].as_str().unwrap()].join(".");
        let secret = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        hmac::verify(&secret, signed.as_bytes(), &part(&bound, "signature")).unwrap();
        // RFC 8555, 8.1, with RFC 7638.
        let authorization = key_authorization(&key, "t0");
        assert_eq!(authorization, format!("t0.{}", VerifyingKey::of(&key).kid()));
    }
}
