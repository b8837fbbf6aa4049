//! Federation at SPIRE's door: bundles and relationships as `spire-server` has them, and what a node may fetch.

use assay_wire::spire::bundle::batch_delete_federated_bundle_request::Mode;
use assay_wire::spire::bundle::bundle_client::BundleClient;
use assay_wire::spire::bundle::{
    BatchCreateFederatedBundleRequest, BatchDeleteFederatedBundleRequest, BatchSetFederatedBundleRequest,
    BatchUpdateFederatedBundleRequest, CountBundlesRequest, GetFederatedBundleRequest,
    ListFederatedBundlesRequest,
};
use assay_wire::spire::entry::{BatchCreateEntryRequest, GetAuthorizedEntriesRequest};
use assay_wire::spire::trustdomain::trust_domain_client::TrustDomainClient;
use assay_wire::spire::trustdomain::{
    BatchCreateFederationRelationshipRequest, BatchDeleteFederationRelationshipRequest,
    BatchUpdateFederationRelationshipRequest, GetFederationRelationshipRequest,
    ListFederationRelationshipsRequest, RefreshBundleRequest,
};
use assay_wire::spire::types::federation_relationship::BundleEndpointProfile;
use assay_wire::spire::types::{
    Bundle, Entry, FederationRelationship, FederationRelationshipMask, HttpsWebProfile, HttpsspiffeProfile,
    JwtKey, X509Certificate,
};
use tonic::Code;

use super::client::{entries, entry, fixture, joined, operator, stranger};

const OTHER: &str = "other.example";

fn bundle(domain: &str) -> Bundle {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let id = format!("spiffe://{domain}");
    params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().unwrap())];
    let asn1 = params.self_signed(&key).unwrap().der().to_vec();
    let public_key = rcgen::PublicKeyData::subject_public_key_info(&key);
    Bundle {
        trust_domain: domain.to_owned(),
        x509_authorities: vec![X509Certificate { asn1, tainted: false }],
        jwt_authorities: vec![JwtKey { public_key, key_id: "one".to_owned(), ..JwtKey::default() }],
        refresh_hint: 60,
        sequence_number: 7,
    }
}

fn codes(statuses: impl IntoIterator<Item = Option<assay_wire::spire::types::Status>>) -> Vec<i32> {
    statuses.into_iter().map(|status| status.unwrap().code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_others_are_set_shown_and_removed_and_nodes_fetch_them() {
    let fixture = fixture().await;
    let mut bundles = BundleClient::new(operator(&fixture).await);
    let own = bundle(crate::fixture::TRUST_DOMAIN);
    let lying = Bundle { trust_domain: "third.example".to_owned(), ..bundle(OTHER) };
    let nobody = Bundle { x509_authorities: Vec::new(), ..bundle(OTHER) };
    let set =
        BatchSetFederatedBundleRequest { bundle: vec![bundle(OTHER), own, lying, nobody], output_mask: None };
    let answer = bundles.batch_set_federated_bundle(set).await.unwrap().into_inner().results;
    assert_eq!(codes(answer.into_iter().map(|one| one.status)), [0, 3, 3, 3]);
    let other = bundle(OTHER);
    let create = BatchCreateFederatedBundleRequest {
        bundle: vec![other.clone(), bundle("third.example")],
        output_mask: None,
    };
    let answer = bundles.batch_create_federated_bundle(create).await.unwrap().into_inner().results;
    assert_eq!(codes(answer.into_iter().map(|one| one.status)), [6, 0]);
    let update = BatchUpdateFederatedBundleRequest {
        bundle: vec![other.clone(), bundle("fourth.example")],
        ..Default::default()
    };
    let answer = bundles.batch_update_federated_bundle(update).await.unwrap().into_inner().results;
    assert_eq!(codes(answer.into_iter().map(|one| one.status)), [0, 5]);
    assert_eq!(bundles.count_bundles(CountBundlesRequest {}).await.unwrap().into_inner().count, 3);
    let list = |page_token: &str| ListFederatedBundlesRequest {
        page_size: 1,
        page_token: page_token.to_owned(),
        output_mask: None,
    };
    let first = bundles.list_federated_bundles(list("")).await.unwrap().into_inner();
    assert_eq!((first.bundles, first.next_page_token.as_str()), (vec![other.clone()], OTHER));
    let second = bundles.list_federated_bundles(list(OTHER)).await.unwrap().into_inner();
    assert_eq!(
        (second.bundles[0].trust_domain.as_str(), second.next_page_token.as_str()),
        ("third.example", "")
    );

    // A node fetches it, and its entries say whom they federate with. Nobody else does.
    let node = joined(&fixture).await;
    let get = |trust_domain: &str| GetFederatedBundleRequest {
        trust_domain: trust_domain.to_owned(),
        output_mask: None,
    };
    let mut as_node = BundleClient::new(node.channel(&fixture).await);
    assert_eq!(as_node.get_federated_bundle(get(OTHER)).await.unwrap().into_inner(), other);
    assert_eq!(as_node.get_federated_bundle(get("fourth.example")).await.unwrap_err().code(), Code::NotFound);
    let (_, mut anybody) = stranger(&fixture).await;
    assert_eq!(anybody.get_federated_bundle(get(OTHER)).await.unwrap_err().code(), Code::Unauthenticated);
    let set = BatchSetFederatedBundleRequest { bundle: vec![other.clone()], output_mask: None };
    assert_eq!(as_node.batch_set_federated_bundle(set).await.unwrap_err().code(), Code::PermissionDenied);
    let federates_with = vec![format!("spiffe://{OTHER}"), "third.example".to_owned()];
    let web = Entry { federates_with, ..entry(&node.id, "/web", &["unix:uid:7"]) };
    let create = BatchCreateEntryRequest { entries: vec![web], output_mask: None };
    let made = entries(&fixture).await.batch_create_entry(create).await.unwrap().into_inner().results;
    assert_eq!(made[0].entry.as_ref().unwrap().federates_with, [OTHER, "third.example"]);
    let mine = GetAuthorizedEntriesRequest::default();
    let mine = node.entries(&fixture).await.get_authorized_entries(mine).await.unwrap().into_inner();
    assert_eq!(mine.entries[0].federates_with, [OTHER, "third.example"]);

    let remove = |mode: Mode, domain: &str| BatchDeleteFederatedBundleRequest {
        trust_domains: vec![domain.to_owned()],
        mode: mode.into(),
    };
    for (mode, domain, code, entries) in [
        (Mode::Restrict, OTHER, 9, Some(2)),
        (Mode::Dissociate, OTHER, 0, Some(1)),
        (Mode::Dissociate, OTHER, 5, Some(1)),
        (Mode::Delete, "third.example", 0, None),
    ] {
        let answer = bundles.batch_delete_federated_bundle(remove(mode, domain)).await.unwrap().into_inner();
        assert_eq!(codes(answer.results.into_iter().map(|one| one.status)), [code], "{mode:?}");
        let left = GetAuthorizedEntriesRequest::default();
        let left = node.entries(&fixture).await.get_authorized_entries(left).await.unwrap().into_inner();
        assert_eq!(left.entries.first().map(|entry| entry.federates_with.len()), entries, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relationships_are_made_changed_and_ended() {
    let fixture = fixture().await;
    let mut domains = TrustDomainClient::new(operator(&fixture).await);
    let relationship = |url: &str, profile: BundleEndpointProfile| FederationRelationship {
        trust_domain: OTHER.to_owned(),
        bundle_endpoint_url: url.to_owned(),
        bundle_endpoint_profile: Some(profile),
        trust_domain_bundle: None,
    };
    let web = BundleEndpointProfile::HttpsWeb(HttpsWebProfile {});
    let spiffe = |id: &str| {
        BundleEndpointProfile::HttpsSpiffe(HttpsspiffeProfile { endpoint_spiffe_id: id.to_owned() })
    };
    let good = FederationRelationship {
        trust_domain_bundle: Some(bundle(OTHER)),
        ..relationship("https://127.0.0.1:1/bundle", spiffe("spiffe://other.example/spire/server"))
    };
    let none = FederationRelationship { bundle_endpoint_profile: None, ..good.clone() };
    let list = vec![
        good.clone(),
        good.clone(),
        relationship("http://127.0.0.1/", web.clone()),
        relationship("https://127.0.0.1/", spiffe("other")),
        none,
    ];
    let create =
        BatchCreateFederationRelationshipRequest { federation_relationships: list, output_mask: None };
    let answer = domains.batch_create_federation_relationship(create).await.unwrap().into_inner().results;
    assert_eq!(answer[0].federation_relationship, Some(good.clone()));
    assert_eq!(codes(answer.into_iter().map(|one| one.status)), [0, 6, 3, 3, 3]);
    let get =
        || GetFederationRelationshipRequest { trust_domain: format!("spiffe://{OTHER}"), output_mask: None };
    assert_eq!(domains.get_federation_relationship(get()).await.unwrap().into_inner(), good);
    let all =
        domains.list_federation_relationships(ListFederationRelationshipsRequest::default()).await.unwrap();
    assert_eq!(all.into_inner().federation_relationships, std::slice::from_ref(&good));
    // Nobody is there.
    let refresh = |domain: &str| RefreshBundleRequest { trust_domain: domain.to_owned() };
    assert_eq!(domains.refresh_bundle(refresh(OTHER)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(domains.refresh_bundle(refresh("third.example")).await.unwrap_err().code(), Code::NotFound);

    let input_mask = Some(FederationRelationshipMask { bundle_endpoint_profile: true, ..Default::default() });
    let changed = BatchUpdateFederationRelationshipRequest {
        federation_relationships: vec![relationship("", web)],
        input_mask,
        output_mask: None,
    };
    let answer = domains.batch_update_federation_relationship(changed).await.unwrap().into_inner().results;
    let now = answer[0].federation_relationship.clone().unwrap();
    assert_eq!(now.bundle_endpoint_url, "https://127.0.0.1:1/bundle");
    assert_eq!(now.bundle_endpoint_profile, Some(BundleEndpointProfile::HttpsWeb(HttpsWebProfile {})));
    assert_eq!(now.trust_domain_bundle, good.trust_domain_bundle, "what is not meant stays");
    let end = || BatchDeleteFederationRelationshipRequest { trust_domains: vec![OTHER.to_owned()] };
    for code in [0, 5] {
        let answer = domains.batch_delete_federation_relationship(end()).await.unwrap().into_inner().results;
        assert_eq!(codes(answer.into_iter().map(|one| one.status)), [code]);
    }
    let node = joined(&fixture).await;
    let mut as_node = TrustDomainClient::new(node.channel(&fixture).await);
    assert_eq!(as_node.refresh_bundle(refresh(OTHER)).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(as_node.get_federation_relationship(get()).await.unwrap_err().code(), Code::PermissionDenied);
}
