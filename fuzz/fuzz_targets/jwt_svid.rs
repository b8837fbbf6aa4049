//! A token that somebody shows as a JWT-SVID.
#![no_main]

use std::time::Duration;

use assay_identity::jws::{JwkSet, Usage};
use assay_identity::{TrustDomain, UnixTime, jwt_svid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(token) = std::str::from_utf8(data) else { return };
    let keys = JwkSet::from_json(KEYS.as_bytes(), Usage::JwtSvid).expect("a good set");
    let trust_domain = TrustDomain::parse("example.org").expect("a good name");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let found = jwt_svid::verify(token, (&trust_domain, &keys), Some("db"), now);
    assert!(found.is_err(), "nobody has that key's other half");
});

/// The base point of P-256, whose private key is one; no token of it is in the corpus.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"jwt-svid","kid":"1",
    "x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;
