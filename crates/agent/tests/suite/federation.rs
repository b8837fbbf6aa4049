//! Bundles of other trust domains: for callers whose entry federates with them, over each door, and for nobody else.

use std::sync::Arc;

use assay_agent::holding::{Entry, Foreign, Holding, JwtKeys, Workload};
use assay_identity::authority::{AuthorityTemplate, sign_root};
use assay_identity::jws::{JwkSet, Usage, VerifyingKey};
use assay_identity::jwt_svid::JwtSvid;
use assay_identity::{PrivateKey, Serial, SpiffeId, TrustDomain, UnixTime};
use assay_wire::envoy::secret::Type;
use assay_wire::workload::{JwtBundlesRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest};
use tonic::Code;

use crate::authority::{Authority, after};
use crate::envoy_sds;
use crate::workload_api::{Api, connect, holding, mine, with_header, workload};

const OTHER: &str = "spiffe://other.example";

/// Another trust domain: what signs its tokens, and its bundle.
fn other() -> (PrivateKey, Foreign) {
    let (root, tokens) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let trust_domain = TrustDomain::parse("other.example").unwrap();
    let template = AuthorityTemplate {
        trust_domain: trust_domain.clone(),
        name: "other root".into(),
        serial: Serial::from_random([1; 16]),
        not_before: UnixTime::now(),
        not_after: after(3600),
    };
    let certificate = sign_root(&template, &root).unwrap().to_vec();
    let keys = JwkSet::new([VerifyingKey::of(&tokens)]).to_json(Usage::JwtSvid).to_string().into_bytes();
    (tokens, Foreign::read(trust_domain, certificate, keys).unwrap())
}

/// A workload of this program with an entry that federates with these.
fn federating(with: &[&str]) -> Workload {
    let workload = workload("web", &mine(), Some(1));
    let entry = Entry {
        federates_with: with.iter().map(|one| (*one).to_owned()).collect(),
        ..(*workload.entry).clone()
    };
    Workload { entry: Arc::new(entry), ..workload }
}

fn held(workload: Workload, foreign: &Foreign, authority: &Authority) -> Holding {
    Holding {
        bundle: authority.bundle().to_der(),
        jwt_keys: JwtKeys::parse(&authority.jwt_keys()).unwrap(),
        foreign: vec![Arc::new(foreign.clone())],
        ..holding(vec![workload])
    }
}

#[tokio::test]
async fn a_caller_believes_those_that_its_entry_federates_with_each_by_its_own_bundle() {
    let (api, authority, (tokens, foreign)) = (Api::serve(), Authority::new(), other());
    api.held.send_replace(held(federating(&["other.example"]), &foreign, &authority));
    let mut client = connect(&api.socket).await;
    let mut svids = client.fetch_x509svid(with_header(X509svidRequest {})).await.unwrap().into_inner();
    let answer = svids.message().await.unwrap().unwrap();
    assert_eq!(answer.federated_bundles, [(OTHER.to_owned(), foreign.bundle.clone())].into());
    assert_eq!(answer.svids[0].bundle, authority.bundle().to_der(), "they are never put together");
    let mut bundles =
        client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap().into_inner();
    let answer = bundles.message().await.unwrap().unwrap().bundles;
    assert_eq!((answer.len(), &answer[OTHER]), (2, &foreign.bundle));
    let mut keys = client.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await.unwrap().into_inner();
    assert_eq!(keys.message().await.unwrap().unwrap().bundles[OTHER], foreign.jwt_json);

    let now = UnixTime::now().as_secs();
    let token = |id: &str, key: &PrivateKey| {
        let spiffe_id = SpiffeId::parse(id).unwrap();
        let audience = vec!["web".to_owned()];
        JwtSvid { spiffe_id, audience, issued_at: now, expires_at: now + 60 }.sign(key).unwrap()
    };
    let validate = |svid: String| with_header(ValidateJwtsvidRequest { audience: "web".into(), svid });
    let good = token("spiffe://other.example/db", &tokens);
    let valid = client.validate_jwtsvid(validate(good.clone())).await.unwrap().into_inner();
    assert_eq!(valid.spiffe_id, "spiffe://other.example/db");
    // Neither signs for the other, and who is in no bundle signs for nobody.
    for bad in [
        token("spiffe://example.org/db", &tokens),
        token("spiffe://third.example/db", &tokens),
        token("spiffe://other.example/db", &PrivateKey::generate().unwrap()),
    ] {
        let refused = client.validate_jwtsvid(validate(bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    // An entry that does not federate gives none of it, at once.
    api.held.send_replace(held(federating(&[]), &foreign, &authority));
    let answer = svids.message().await.unwrap().unwrap();
    assert!(answer.federated_bundles.is_empty());
    assert_eq!(bundles.message().await.unwrap().unwrap().bundles.len(), 1);
    assert_eq!(keys.message().await.unwrap().unwrap().bundles.len(), 1);
    let refused = client.validate_jwtsvid(validate(good)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_proxy_gets_the_authorities_of_another_trust_domain_under_its_name_alone() {
    let (api, authority, (_, foreign)) = (Api::serve(), Authority::new(), other());
    api.held.send_replace(held(federating(&["other.example"]), &foreign, &authority));
    let mut client = envoy_sds::connect(&api).await;
    let context = |secret: assay_wire::envoy::Secret| match secret.r#type {
        Some(Type::ValidationContext(context)) => context,
        other => panic!("{other:?}"),
    };
    let mut of = [OTHER, "spiffe://example.org", "ALL"].into_iter();
    let mut anchors = Vec::new();
    for name in of.by_ref() {
        let answer = client.fetch_secrets(envoy_sds::ask(&[name], "")).await.unwrap().into_inner();
        let context = context(envoy_sds::secrets(&answer).remove(0));
        // No standard says where the list of another trust domain is.
        assert_eq!(context.crl.is_none(), name == OTHER);
        anchors.push(context.trusted_ca.unwrap());
    }
    assert_ne!(anchors[0], anchors[1]);
    assert_eq!(anchors[1], anchors[2], "nobody else's are among them");
    api.held.send_replace(held(federating(&[]), &foreign, &authority));
    let refused = client.fetch_secrets(envoy_sds::ask(&[OTHER], "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}

#[test]
fn a_bundle_is_of_its_trust_domain() {
    let (_, foreign) = other();
    let third = TrustDomain::parse("third.example").unwrap();
    assert!(Foreign::read(third.clone(), foreign.bundle.clone(), Vec::new()).is_err());
    assert!(Foreign::read(third.clone(), Vec::new(), b"{".to_vec()).is_err());
    // Of keys that this agent does not know programs may know what they are.
    let unknown = br#"{"keys":[{"kty":"RSA","use":"jwt-svid","kid":"1","n":"AQ","e":"AQAB"}]}"#;
    assert_eq!(Foreign::read(third, Vec::new(), unknown.to_vec()).unwrap().jwt_json, unknown);
}
