//! What a provider of OpenID Connect answers: of itself, its keys, and who signed in. Nothing that nobody signed names anybody.
#![no_main]

use assay_fuzz::part;
use assay_identity::oidc::{Expected, IdToken, Keys, Provider, TokenAnswer, is_safe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 4);
    match number {
        0 => {
            if let Ok(provider) = Provider::read("https://id.example.org", bytes) {
                let Provider { authorization_endpoint, token_endpoint, jwks_uri, .. } = provider;
                assert!([authorization_endpoint, token_endpoint, jwks_uri].iter().all(|url| is_safe(url)));
            }
        }
        1 => drop(Keys::read(bytes)),
        2 => drop(TokenAnswer::read(bytes)),
        _ => {
            // Keys in the first line, the token in the rest.
            let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
            let (keys, token) = bytes.split_at(at);
            let keys = Keys::read(keys).unwrap_or_default();
            let expected = Expected {
                issuer: "https://id.example.org",
                client_id: "assay",
                nonce: "n",
                now: 1_800_000_000,
            };
            let token = String::from_utf8_lossy(token);
            let _ = IdToken::verify(token.trim(), &keys, expected);
        }
    }
});
