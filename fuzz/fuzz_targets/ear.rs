//! A signed attestation result, as a relying party reads it: part 0 is the token, part 1 the key set, part 2 claims whose
//! signature held.
#![no_main]

use assay_evidence::time::UnixTime;
use assay_fuzz::part;
use assay_identity::jws::{JwkSet, Usage};
use assay_trust::ear::{EarClaims, TOKEN_TYPE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 3);
    match number {
        0 => {
            let keys = JwkSet::from_json(KEYS.as_bytes(), Usage::Signature).expect("a good set");
            if let Ok(token) = std::str::from_utf8(bytes) {
                assert!(keys.verify(token, TOKEN_TYPE).is_err(), "nobody has that key's other half");
            }
        }
        1 => {
            if let Ok(keys) = JwkSet::from_json(bytes, Usage::Signature) {
                let written = keys.to_json(Usage::Signature);
                let again = JwkSet::from_json(written.to_string().as_bytes(), Usage::Signature)
                    .expect("what was written is read");
                assert_eq!(again, keys);
            }
        }
        _ => drop(EarClaims::read(bytes, UnixTime(1_800_000_000))),
    }
});

/// The base point of P-256, whose private key is one; no token of it is in the corpus.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"1",
    "x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;
