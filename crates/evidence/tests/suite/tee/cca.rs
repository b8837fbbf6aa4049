//! Arm CCA: tokens of both profiles, with the keys of their platforms.

use assay_evidence::Check;
use assay_evidence::tee::Verified;
use assay_evidence::tee::cca::{CcaClaims, CcaExpectation, PlatformKey, is_token, verify};
use proptest::prelude::*;

use super::{checks, recorded};

fn judged(token: &[u8], keys: &str, challenge: Option<[u8; 64]>) -> Verified<CcaClaims> {
    let keys = PlatformKey::from_json(&recorded(&format!("cca/{keys}.json")).unwrap()).unwrap();
    verify(token, &CcaExpectation { challenge, keys })
}

#[test]
fn tokens_hold_by_their_platforms_keys() {
    for (token, keys) in [
        ("token-tfrmm", "cpak"),
        ("token-tfrmm", "ta-tfa"),
        ("token-es256-sha512", "ta-02-ok"),
        ("token-draft-ffm-00", "cpak"),
    ] {
        let Some(bytes) = recorded(&format!("cca/{token}.cbor")) else { return };
        assert!(is_token(&bytes));
        let verified = judged(&bytes, keys, None);
        assert_eq!(checks(&verified.failures), [], "{token}: {:?}", verified.failures);
        let claims = verified.claims.unwrap();
        assert!(
            !claims.initial_measurement.is_empty() && claims.extensible_measurements.len() == 4,
            "{claims:?}"
        );
        let challenge: [u8; 64] = claims.challenge.as_slice().try_into().unwrap();
        assert_eq!(checks(&judged(&bytes, keys, Some(challenge)).failures), []);
        assert_eq!(checks(&judged(&bytes, keys, Some([1; 64])).failures), [Check::TeeReportData]);
        let none = verify(&bytes, &CcaExpectation::default());
        assert_eq!(checks(&none.failures), [Check::TeeChain]);
    }
}

#[test]
fn another_platforms_key_does_not_do() {
    let Some(token) = recorded("cca/token-es256-sha512.cbor") else { return };
    assert_eq!(checks(&judged(&token, "ta-02-bad", None).failures), [Check::TeeReportSignature]);
    // A key that is named for another machine is not even tried.
    assert_eq!(checks(&judged(&token, "ta-tfa", None).failures), [Check::TeeChain]);
}

/// The realm's part of one token with the platform's of another.
#[test]
fn no_part_can_be_anothers() {
    let Some(first) = recorded("cca/token-tfrmm.cbor") else { return };
    let second = recorded("cca/token-es256-sha512.cbor").unwrap();
    // A token is its tag, a map of two, and two byte strings; the realm's key stands last.
    let realm_key = [0x19, 0xac, 0xd1];
    let split = |token: &[u8]| token.windows(3).rposition(|window| window == realm_key).unwrap();
    let mixed = [&first[..split(&first)], &second[split(&second)..]].concat();
    let verified = judged(&mixed, "cpak", None);
    assert_eq!(checks(&verified.failures), [Check::TeeBinding], "{:?}", verified.failures);
}

/// The realm names the hash by which the platform knows its key.
#[test]
fn a_realm_cannot_choose_a_hash_that_collides() {
    let Some(mut token) = recorded("cca/token-tfrmm.cbor") else { return };
    let name = token.windows(7).rposition(|window| window == b"sha-256").unwrap();
    token[name..name + 7].copy_from_slice(b"sha-1--");
    assert_eq!(checks(&judged(&token, "cpak", None).failures), [Check::TeeParse]);
}

#[test]
fn tokens_cut_anywhere_are_refused() {
    let Some(token) = recorded("cca/token-draft-ffm-00.cbor") else { return };
    for length in 0..token.len() {
        assert_eq!(
            checks(&judged(&token[..length], "cpak", None).failures),
            [Check::TeeParse],
            "{length} bytes"
        );
    }
    let longer = [token.as_slice(), &[0]].concat();
    assert_eq!(checks(&judged(&longer, "cpak", None).failures), [Check::TeeParse]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_bit_of_a_token_can_be_another(position in any::<proptest::sample::Index>(), bit in 0_u32..8) {
        let Some(mut token) = recorded("cca/token-tfrmm.cbor") else { return Ok(()) };
        let good = judged(&token, "cpak", None).claims;
        let position = position.index(token.len());
        token[position] ^= 1 << bit;
        let changed = judged(&token, "cpak", None).claims;
        // What is not signed, such as how a length is written, may differ; what is claimed may not.
        prop_assert!(changed.is_none() || changed == good, "position {position}, bit {bit}");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [&[0xd9, 0x01, 0x8f], bytes.as_slice()].concat();
        prop_assert!(verify(&bytes, &CcaExpectation::default()).claims.is_none());
        prop_assert!(PlatformKey::from_json(&bytes).is_err());
    }
}
