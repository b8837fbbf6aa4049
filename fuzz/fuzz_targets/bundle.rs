//! A trust bundle in each of its forms: DER, PEM, JWKS, and as another trust domain serves it.
#![no_main]

use assay_identity::{Bundle, ForeignBundle, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let trust_domain = TrustDomain::parse("example.org").expect("a trust domain");
    for read in [Bundle::from_der, Bundle::from_pem, Bundle::from_jwks] {
        if let Ok(bundle) = read(trust_domain.clone(), data) {
            let again = Bundle::from_der(trust_domain.clone(), &bundle.to_der());
            assert!(again.is_ok(), "what was read can be written and read again");
        }
    }
    if let Ok(bundle) = ForeignBundle::from_document(trust_domain.clone(), data) {
        let again = ForeignBundle::from_document(trust_domain, bundle.to_document().as_bytes());
        let again = again.expect("what was read can be written and read again");
        assert_eq!(again.jwt_authorities(), bundle.jwt_authorities());
    }
});
