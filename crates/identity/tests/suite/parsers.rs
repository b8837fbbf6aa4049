//! No bytes make a parser panic, and every text that parses reads back the same.

use assay_identity::{
    Bundle, Crl, CrlSet, Csr, PrivateKey, Selector, SpiffeId, TrustDomain, csr, verify_svid,
};
use proptest::prelude::*;

use crate::authority::{Domain, NOW};

/// Hands arbitrary bytes to every parser.
fn parse_all(bytes: &[u8]) {
    let domain = Domain::new("example.org");
    let _ = Csr::parse(bytes);
    let _ = Crl::parse(bytes);
    let _ = Bundle::from_der(domain.name.clone(), bytes);
    let _ = Bundle::from_pem(domain.name.clone(), bytes);
    let _ = Bundle::from_jwks(domain.name.clone(), bytes);
    let _ = PrivateKey::from_pkcs8(bytes);
    let chain = [bytes, domain.issuing.certificate()];
    assert!(verify_svid(&chain, &domain.bundle(), &CrlSet::bootstrapping(), NOW).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parsers_answer_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        parse_all(&bytes);
    }

    #[test]
    fn parsers_answer_damaged_certificates(cut in 0usize..700, at in 0usize..700, byte: u8) {
        let domain = Domain::new("example.org");
        let key = PrivateKey::generate().unwrap();
        for mut der in [domain.chain("/a", &key).remove(0), csr::request(&key).unwrap(), domain.crl(1, &[])] {
            let at = at % der.len();
            der[at] = byte;
            parse_all(&der);
            der.truncate(cut);
            parse_all(&der);
        }
    }

    #[test]
    fn ids_read_back(text in "(spiffe|SPIFFE)://[a-zA-Z0-9.]{0,20}(/[a-zA-Z0-9._-]{0,8}){0,4}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(SpiffeId::parse(id.as_str()), Ok(id.clone()));
            let rebuilt = TrustDomain::parse(id.trust_domain().as_str()).and_then(|td| td.with_path(id.path()));
            prop_assert_eq!(rebuilt, Ok(id));
        }
    }

    #[test]
    fn selectors_read_back(text in "unix:(uid|gid|user|path|sha256|supplementary_g(id|roup)):(/?[a-z0-9:]{0,12}|[0-9a-fA-F]{64})") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
            prop_assert_eq!(Selector::parse(selector.kind(), &selector.value()), Ok(selector));
        }
    }

    #[test]
    fn what_is_near_to_a_selector_is_one_but_for_the_place_of_its_value(text in "(unix|Unix|unx):[a-zA-Z_]{0,8}:?.{0,40}") {
        let near = text.parse::<Selector>().err().and_then(|refused| refused.nearest);
        if let Some(near) = near.filter(|near| !near.ends_with('…')) {
            // Another slip may be in the value; but the same one is not made twice.
            let again = near.parse::<Selector>().err().and_then(|refused| refused.nearest);
            prop_assert_ne!(again, Some(near));
        }
    }

    #[test]
    fn any_text_is_answered(text in ".{0,80}") {
        let _ = SpiffeId::parse(&text);
        let _ = TrustDomain::parse(&text);
        let _ = text.parse::<Selector>();
    }
}
