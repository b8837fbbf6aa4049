//! Bundles in their three forms.

use assay_identity::bundle::BundleError;
use assay_identity::{Bundle, PrivateKey};

use crate::authority::Domain;

#[test]
fn every_form_reads_back() {
    let (old, new) = (Domain::new("example.org"), Domain::new("example.org"));
    let authorities = [old.root.certificate(), new.root.certificate(), old.root.certificate()];
    let bundle = Bundle::new(old.name.clone(), authorities).unwrap();
    assert_eq!(bundle.authorities().count(), 2);
    let name = || old.name.clone();
    let forms = [
        Bundle::from_der(name(), &bundle.to_der()),
        Bundle::from_pem(name(), bundle.to_pem().as_bytes()),
        Bundle::from_jwks(name(), bundle.to_jwks(3, 60).as_bytes()),
    ];
    for form in forms {
        assert!(form.unwrap().authorities().eq(bundle.authorities()));
    }
}

#[test]
fn the_document_is_the_standards() {
    let domain = Domain::new("example.org");
    let document: serde_json::Value = serde_json::from_str(&domain.bundle().to_jwks(3, 60)).unwrap();
    assert_eq!((&document["spiffe_sequence"], &document["spiffe_refresh_hint"]), (&3.into(), &60.into()));
    let key = &document["keys"][0];
    assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some("EC"), Some("P-256")));
    assert_eq!(key["use"], "x509-svid");
    assert_eq!(key["x"].as_str().map(str::len), Some(43));
    assert_eq!(key["x5c"].as_array().map(Vec::len), Some(1));
    assert!(key.get("kid").is_none() && key.get("n").is_none());
}

#[test]
fn documents_of_others_are_read_as_the_standard_says() {
    let domain = Domain::new("example.org");
    let check = |json: &str, expected: Result<usize, BundleError>| {
        let bundle = Bundle::from_jwks(domain.name.clone(), json.as_bytes());
        assert_eq!(bundle.map(|bundle| bundle.authorities().count()), expected, "{json}");
    };
    check(r#"{"keys":[]}"#, Ok(0));
    check(r#"{"keys":[{"kty":"future","use":"jwt-svid","kid":"a"},{"kty":"EC"}],"new":1}"#, Ok(0));
    check(r#"{}"#, Err(BundleError::Document));
    check(r#"{"keys":[{"kty":"EC","use":"x509-svid"}]}"#, Err(BundleError::Document));
    check(r#"{"keys":[{"kty":"EC","use":"x509-svid","x5c":["AA==","AA=="]}]}"#, Err(BundleError::Document));
    check(r#"{"keys":[{"use":"x509-svid","x5c":["AA=="]}]}"#, Err(BundleError::NotAnAuthority { index: 0 }));
}

#[test]
fn only_authorities_of_the_trust_domain_are_taken() {
    let (domain, foreign) = (Domain::new("example.org"), Domain::new("example.com"));
    let leaf = domain.svid("/a", &PrivateKey::generate().unwrap());
    let refused = Bundle::new(domain.name.clone(), [domain.root.certificate(), leaf.der()]);
    assert_eq!(refused.unwrap_err(), BundleError::NotAnAuthority { index: 1 });
    let refused = Bundle::new(domain.name.clone(), [foreign.root.certificate()]);
    assert_eq!(refused.unwrap_err(), BundleError::TrustDomain { index: 0 });
    let torn = domain.bundle().to_der();
    let refused = Bundle::from_der(domain.name.clone(), &torn[..torn.len() - 1]);
    assert_eq!(refused.unwrap_err(), BundleError::NotAnAuthority { index: 0 });
    let many = vec![domain.root.certificate(); 257];
    assert_eq!(Bundle::new(domain.name.clone(), many).unwrap_err(), BundleError::TooLarge);
    assert_eq!(
        Bundle::from_pem(domain.name, b"-----BEGIN CERTIFICATE-----\n!").unwrap_err(),
        BundleError::Pem
    );
}
