//! Tokens for verifiers that know no SPIFFE, and the bundle for those that do.

use assay_identity::jws::{JwkSet, Usage};
use assay_identity::{Bundle, TrustDomain, jwt_svid};
use hyper::Method;
use serde_json::json;

use crate::assignment::refusal;
use crate::fixture::Fixture;
use crate::workloads::ask_token;

const ISSUER: &str = "https://tokens.assay.example/fleet";

#[tokio::test]
async fn tokens_bear_an_issuer_whose_keys_are_found_by_openid_connect() {
    let fixture = Fixture::with(|config| config.jwt_issuer = Some(ISSUER.to_owned())).await;
    let edge = fixture.edge().await;
    let (device, mut stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let entry = json!({
        "spiffe_id": "spiffe://test.assay.example/web", "parent": "press-1",
        "selectors": [{ "type": "unix", "value": "uid:7" }],
    });
    let id = fixture.post("/v1/entries", &entry).await["id"].as_str().unwrap().to_owned();
    let request = device.token_request(stream.place(), &id, &["cloud"]).unwrap();
    let token = ask_token(&mut stream, request).await.token;

    let found = fixture.get("/.well-known/openid-configuration").await;
    assert_eq!((&found["issuer"], &found["jwks_uri"]), (&json!(ISSUER), &json!(format!("{ISSUER}/keys"))));
    assert_eq!(found["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = fixture.get("/keys").await;
    assert_eq!(keys["keys"][0]["use"], "sig");
    let keys = JwkSet::from_json(keys.to_string().as_bytes(), Usage::Signature).unwrap();
    let (domain, now) = (TrustDomain::parse("test.assay.example").unwrap(), assay_identity::UnixTime::now());
    let verified = jwt_svid::verify(&token, (&domain, &keys), Some("cloud"), now).unwrap();
    assert_eq!((&verified.claims["iss"], &verified.claims["sub"]), (&json!(ISSUER), &entry["spiffe_id"]));

    // The bundle for another trust domain has both kinds of keys.
    let bundle = fixture.get("/spiffe-bundle").await.to_string();
    let tokens = JwkSet::from_json(bundle.as_bytes(), Usage::JwtSvid).unwrap();
    jwt_svid::verify(&token, (&domain, &tokens), Some("cloud"), now).unwrap();
    let certificates = Bundle::from_jwks(domain, bundle.as_bytes()).unwrap();
    assert!(certificates.authorities().eq(fixture.bundle().authorities()));
}

#[tokio::test]
async fn without_an_issuer_there_is_none_to_be_found() {
    let fixture = Fixture::start().await;
    for path in ["/.well-known/openid-configuration", "/keys"] {
        assert_eq!(refusal(&fixture, Method::GET, path, "").await.1, "no-issuer");
    }
    for issuer in [
        "http://a",
        "https://",
        "https://a/",
        "https://a?b",
        "https://a#b",
        "https://u@a",
        "https:///a",
        "https://a b",
        "a",
    ] {
        let config = assay_server::Config::from_toml(&format!("jwt_issuer = {issuer:?}"));
        assert!(config.unwrap_err().to_string().contains("jwt_issuer"), "{issuer}");
    }
}
