//! No bytes make a parser panic, and every text that parses reads back the same.

use assay_identity::{Bundle, Crl, CrlSet, Csr, PrivateKey, SpiffeId, TrustDomain, csr, verify_svid};
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
    fn any_text_is_answered(text in ".{0,80}") {
        let _ = SpiffeId::parse(&text);
        let _ = TrustDomain::parse(&text);
    }
}
