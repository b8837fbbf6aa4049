//! Nodes that attest: who is let in, as what, for how long, and what ends it.

use std::time::Duration;

use assay_identity::{PrivateKey, csr};
use assay_wire::spire::agent::agent_client::AgentClient;
use assay_wire::spire::agent::{
    AgentX509svidParams, BanAgentRequest, CountAgentsRequest, CreateJoinTokenRequest, DeleteAgentRequest,
    GetAgentRequest, ListAgentsRequest, PostStatusRequest, RenewAgentRequest,
};
use assay_wire::spire::bundle::GetBundleRequest;
use assay_wire::spire::entry::{BatchCreateEntryRequest, GetAuthorizedEntriesRequest};
use assay_wire::spire::svid::{BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams};
use assay_wire::spire::types::permission_denied_details::Reason;
use tonic::Code;

use super::client::{
    Node, agents, attest, connect, entries, entry, fixture, joined, parsed, reason, stranger, token,
};
use crate::fixture::{Fixture, TRUST_DOMAIN};

/// An entry of a node's, by the operator's hand; its id.
async fn entitled(fixture: &Fixture, node: &Node, path: &str, selector: &str) -> String {
    let create =
        BatchCreateEntryRequest { entries: vec![entry(&node.id, path, &[selector])], output_mask: None };
    let created = entries(fixture).await.batch_create_entry(create).await.unwrap().into_inner();
    let [created] = created.results.as_slice() else { panic!("{created:?}") };
    assert_eq!(created.status.as_ref().unwrap().code, 0, "{created:?}");
    created.entry.as_ref().unwrap().id.clone()
}

/// A workload's SVID, asked for by a node.
async fn svid(
    fixture: &Fixture,
    node: &Node,
    entry_id: &str,
    csr: Vec<u8>,
) -> (i32, String, Option<Vec<Vec<u8>>>) {
    let params = vec![NewX509svidParams { entry_id: entry_id.to_owned(), csr }];
    let mut svids = node.svids(fixture).await;
    let answer = svids.batch_new_x509svid(BatchNewX509svidRequest { params }).await.unwrap().into_inner();
    let [result] = answer.results.as_slice() else { panic!("{answer:?}") };
    let status = result.status.clone().unwrap();
    (status.code, status.message, result.svid.clone().map(|svid| svid.cert_chain))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_by_a_token_and_its_workloads_get_what_their_entries_say() {
    let fixture = fixture().await;
    let node = joined(&fixture).await;
    assert!(node.id.starts_with(&format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/")), "{}", node.id);

    let (_, mut bundles) = stranger(&fixture).await;
    let bundle = bundles.get_bundle(GetBundleRequest::default()).await.unwrap().into_inner();
    let authorities: Vec<Vec<u8>> = fixture.bundle().authorities().map(<[u8]>::to_vec).collect();
    assert_eq!(bundle.x509_authorities.iter().map(|one| one.asn1.clone()).collect::<Vec<_>>(), authorities);
    assert!(!bundle.jwt_authorities[0].key_id.is_empty());

    let id = entitled(&fixture, &node, "/web", "unix:uid:7").await;
    let mut asking = node.entries(&fixture).await;
    let told = asking.get_authorized_entries(GetAuthorizedEntriesRequest::default()).await.unwrap();
    let [told] = told.get_ref().entries.as_slice() else { panic!("{told:?}") };
    assert_eq!((told.id.as_str(), told.spiffe_id.clone().unwrap().path.as_str()), (id.as_str(), "/web"));

    let key = PrivateKey::generate().unwrap();
    let (code, message, chain) = svid(&fixture, &node, &id, csr::request(&key).unwrap()).await;
    assert_eq!((code, chain.as_ref().map(Vec::len)), (0, Some(2)), "{message}");
    let request = NewJwtsvidRequest { entry_id: id, audience: vec!["db".to_owned()] };
    let token = node.svids(&fixture).await.new_jwtsvid(request).await.unwrap().into_inner().svid.unwrap();
    assert_eq!(token.expires_at - token.issued_at, 300);

    // What it stands on is on record with every grant, and in the answer to who looks.
    let trail = fixture.get("/v1/audit?limit=1000").await;
    let of = |kind: &str, subject: &str| {
        let leaves = trail["leaves"].as_array().unwrap();
        let found = leaves.iter().find(|leaf| leaf["kind"] == kind && leaf["subject"] == subject);
        found.unwrap_or_else(|| panic!("{kind} {subject}: {trail:#}"))["detail"].clone()
    };
    let web = format!("spiffe://{TRUST_DOMAIN}/web");
    assert_eq!(of("spire-agent.attested", &node.id)["basis"], "join-token");
    for (kind, subject) in [("svid.issued", &node.id), ("svid.issued", &web), ("jwt.issued", &web)] {
        assert_eq!(of(kind, subject)["basis"], "join-token", "{kind} {subject}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_spent_by_its_first_use_and_worth_nothing_late() {
    let fixture = fixture().await;
    let request = || csr::request(&PrivateKey::generate().unwrap()).unwrap();
    let spent = token(&fixture, 600).await;
    attest(&fixture, ("join_token", spent.as_bytes()), request()).await.unwrap();
    for bad in [spent.as_bytes(), b"6f2a8b8e-0000-4000-8000-000000000000"] {
        let refused = attest(&fixture, ("join_token", bad), request()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("unknown, or was shown before"), "{refused:?}");
    }
    let late = token(&fixture, 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let refused = attest(&fixture, ("join_token", late.as_bytes()), request()).await.unwrap_err();
    assert!(refused.message().contains("expired"), "{refused:?}");
    assert_eq!(fixture.count("SELECT COUNT(*) AS n FROM join_tokens").await, 0);

    // A token that is chosen is one segment of an ID, and is made once.
    let longest = "a".repeat(257);
    for bad in ["a/b", "..", "a b", "%41", "é", &longest] {
        let create = CreateJoinTokenRequest { ttl: 60, token: bad.to_owned(), agent_id: None };
        let refused = agents(&fixture).await.create_join_token(create).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
        let refused = attest(&fixture, ("join_token", bad.as_bytes()), request()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
    }
    let create = || CreateJoinTokenRequest { ttl: 60, token: "mine".to_owned(), agent_id: None };
    agents(&fixture).await.create_join_token(create()).await.unwrap();
    let refused = agents(&fixture).await.create_join_token(create()).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    for ttl in [0, -1, i32::MAX] {
        let create = CreateJoinTokenRequest { ttl, ..Default::default() };
        let refused = agents(&fixture).await.create_join_token(create).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{ttl}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_certificate_proves_that_it_has_the_key() {
    let fixture = fixture().await;
    let (victim, thief) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let mut stolen = csr::request(&victim).unwrap();
    let last = stolen.len() - 1;
    stolen[last] ^= 1;
    let token = token(&fixture, 600).await;
    let attested = attest(&fixture, ("join_token", token.as_bytes()), stolen.clone()).await.unwrap_err();
    assert_eq!(attested.code(), Code::InvalidArgument);
    // The token is still good: what was asked for with it was nothing.
    let svid = attest(&fixture, ("join_token", token.as_bytes()), csr::request(&thief).unwrap()).await;
    let node = Node::of(&thief, svid.unwrap());
    let renew = RenewAgentRequest { params: Some(AgentX509svidParams { csr: stolen.clone() }) };
    let refused = node.agents(&fixture).await.renew_agent(renew).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let id = entitled(&fixture, &node, "/web", "unix:uid:7").await;
    let (code, message, chain) = self::svid(&fixture, &node, &id, stolen).await;
    assert_eq!((code, chain), (3, None), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_with_one_state_the_one_that_did_not_renew_is_not_active() {
    let fixture = fixture().await;
    let node = joined(&fixture).await;
    let copy = node.clone();
    let status = || PostStatusRequest { current_bundle_serial: 1, agent_version: "1".to_owned() };
    copy.agents(&fixture).await.post_status(status()).await.unwrap();

    let key = PrivateKey::generate().unwrap();
    let params = Some(AgentX509svidParams { csr: csr::request(&key).unwrap() });
    let renewed = node.agents(&fixture).await.renew_agent(RenewAgentRequest { params }).await.unwrap();
    let renewed = Node::of(&key, renewed.into_inner().svid.unwrap());
    // Until the new one is shown, the answer may have been lost.
    copy.agents(&fixture).await.post_status(status()).await.unwrap();
    renewed.agents(&fixture).await.post_status(status()).await.unwrap();
    let refused = copy.agents(&fixture).await.post_status(status()).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::AgentNotActive);
    renewed.agents(&fixture).await.post_status(status()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_node_is_told_so_on_its_connection_loses_all_and_is_forgotten_when_evicted() {
    let fixture = fixture().await;
    let node = joined(&fixture).await;
    let id = entitled(&fixture, &node, "/web", "unix:uid:7").await;
    let workload = csr::request(&PrivateKey::generate().unwrap()).unwrap();
    assert_eq!(svid(&fixture, &node, &id, workload).await.0, 0);
    let mut connected = node.agents(&fixture).await;
    let status = || PostStatusRequest { current_bundle_serial: 1, agent_version: "1".to_owned() };
    connected.post_status(status()).await.unwrap();

    let mut operator = agents(&fixture).await;
    operator.ban_agent(BanAgentRequest { id: Some(parsed(&node.id)) }).await.unwrap();
    assert_eq!(reason(&connected.post_status(status()).await.unwrap_err()), Reason::AgentBanned);
    // On a connection that it makes now, too: TLS is not what refuses it.
    let mut again = node.agents(&fixture).await;
    assert_eq!(reason(&again.post_status(status()).await.unwrap_err()), Reason::AgentBanned);
    let standing = "SELECT COUNT(*) AS n FROM svids WHERE device_id LIKE '%join_token%' AND withdrawn_at = 0";
    assert_eq!(fixture.count(standing).await, 0);
    let get = || GetAgentRequest { id: Some(parsed(&node.id)), output_mask: None };
    assert!(operator.get_agent(get()).await.unwrap().into_inner().banned);

    operator.delete_agent(DeleteAgentRequest { id: Some(parsed(&node.id)) }).await.unwrap();
    assert_eq!(reason(&connected.post_status(status()).await.unwrap_err()), Reason::AgentNotAttested);
    assert_eq!(operator.get_agent(get()).await.unwrap_err().code(), Code::NotFound);
    let gone = operator.delete_agent(DeleteAgentRequest { id: Some(parsed(&node.id)) }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_renew_in_time_loses_all() {
    let fixture = Fixture::with(|config| {
        config.spire = Some(assay_server::Spire {
            address: ([127, 0, 0, 1], 0).into(),
            agent_ttl_seconds: 10,
            ..Default::default()
        });
    })
    .await;
    let node = joined(&fixture).await;
    let id = entitled(&fixture, &node, "/web", "unix:uid:7").await;
    let workload = csr::request(&PrivateKey::generate().unwrap()).unwrap();
    assert_eq!(svid(&fixture, &node, &id, workload).await.0, 0);
    let mut connected = node.agents(&fixture).await;
    let status = || PostStatusRequest { current_bundle_serial: 1, agent_version: "1".to_owned() };
    connected.post_status(status()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(reason(&connected.post_status(status()).await.unwrap_err()), Reason::AgentExpired);
    let standing = "SELECT COUNT(*) AS n FROM svids WHERE entry_id <> '' AND withdrawn_at = 0";
    assert_eq!(fixture.count(standing).await, 0, "what its workloads had is withdrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_attest_and_get_the_bundle_and_nothing_else() {
    let fixture = fixture().await;
    let (mut nobody, _) = stranger(&fixture).await;
    let renew = RenewAgentRequest::default();
    assert_eq!(nobody.renew_agent(renew).await.unwrap_err().code(), Code::Unauthenticated);
    let node = joined(&fixture).await;
    let mut as_node = node.agents(&fixture).await;
    for asking in [&mut nobody, &mut as_node] {
        let refused = [
            asking.create_join_token(CreateJoinTokenRequest::default()).await.err(),
            asking.list_agents(ListAgentsRequest::default()).await.err(),
            asking.count_agents(CountAgentsRequest::default()).await.err(),
            asking.ban_agent(BanAgentRequest { id: Some(parsed(&node.id)) }).await.err(),
            asking.delete_agent(DeleteAgentRequest { id: Some(parsed(&node.id)) }).await.err(),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap().code(), Code::PermissionDenied);
        }
    }
    // A workload's certificate is no node's.
    let id = entitled(&fixture, &node, "/web", "unix:uid:7").await;
    let key = PrivateKey::generate().unwrap();
    let (_, _, chain) = svid(&fixture, &node, &id, csr::request(&key).unwrap()).await;
    let workload = Node { id: String::new(), key: key.pkcs8().to_vec(), chain: chain.unwrap() };
    let mut agents = AgentClient::new(connect(&fixture, Some(&workload)).await.unwrap());
    let refused = agents.post_status(PostStatusRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.details().len()), (Code::PermissionDenied, 0), "{refused:?}");
    // What nobody attests by is said.
    let refused = attest(&fixture, ("aws_iid", b"{}"), csr::request(&key).unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("join_token"), "{refused:?}");
}
