//! Entries: an operator's at the socket, a node's by pages, and what none of them gives to a node without quotes.

use std::collections::HashSet;

use assay_wire::spire::agent::CreateJoinTokenRequest;
use assay_wire::spire::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, CountEntriesRequest,
    GetAuthorizedEntriesRequest, ListEntriesRequest, SyncAuthorizedEntriesRequest, list_entries_request,
};
use assay_wire::spire::types::selector_match::MatchBehavior;
use assay_wire::spire::types::{Entry, EntryMask, SelectorMatch};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::client::{Node, agents, attest, entries, entry, fixture, joined, spiffe_id};
use crate::fixture::{Fixture, TRUST_DOMAIN};

/// Makes entries; what is said of each.
async fn create(fixture: &Fixture, list: Vec<Entry>) -> Vec<(i32, String, Option<Entry>)> {
    let create = BatchCreateEntryRequest { entries: list, output_mask: None };
    let answer = entries(fixture).await.batch_create_entry(create).await.unwrap().into_inner();
    let told = |result: assay_wire::spire::entry::batch_create_entry_response::Result| {
        let status = result.status.unwrap();
        (status.code, status.message, result.entry)
    };
    answer.results.into_iter().map(told).collect()
}

async fn authorized(fixture: &Fixture, node: &Node) -> Vec<String> {
    let request = GetAuthorizedEntriesRequest::default();
    let answer = node.entries(fixture).await.get_authorized_entries(request).await.unwrap().into_inner();
    let mut paths: Vec<_> = answer.entries.into_iter().map(|entry| entry.spiffe_id.unwrap().path).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_made_changed_found_and_removed_at_the_socket() {
    let fixture = fixture().await;
    let node = joined(&fixture).await;
    let web = entry(&node.id, "/web", &["unix:uid:7", "unix:gid:8"]);
    let made = create(&fixture, vec![web.clone(), web.clone()]).await;
    let [(0, _, Some(first)), (6, _, Some(there))] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!((first.id.as_str(), first.x509_svid_ttl), (there.id.as_str(), 3600));

    let changed =
        Entry { id: first.id.clone(), hint: "main".to_owned(), x509_svid_ttl: 60, ..Entry::default() };
    let input_mask = Some(EntryMask { hint: true, ..EntryMask::default() });
    let update = BatchUpdateEntryRequest { entries: vec![changed], input_mask, output_mask: None };
    let updated = entries(&fixture).await.batch_update_entry(update).await.unwrap().into_inner();
    let updated = updated.results[0].entry.clone().unwrap();
    assert_eq!((updated.hint.as_str(), updated.x509_svid_ttl, updated.revision_number), ("main", 3600, 1));

    let found = async |selectors: &[&str], behavior: MatchBehavior| {
        let selectors = entry(&node.id, "/x", selectors).selectors;
        let by_selectors = Some(SelectorMatch { selectors, r#match: behavior.into() });
        let filter = Some(list_entries_request::Filter { by_selectors, ..Default::default() });
        let list = ListEntriesRequest { filter, ..Default::default() };
        entries(&fixture).await.list_entries(list).await.unwrap().into_inner().entries.len()
    };
    assert_eq!(found(&["unix:uid:7"], MatchBehavior::MatchExact).await, 0);
    assert_eq!(found(&["unix:uid:7"], MatchBehavior::MatchSuperset).await, 1);
    assert_eq!(found(&["unix:uid:7"], MatchBehavior::MatchSubset).await, 0);
    assert_eq!(found(&["unix:uid:7", "unix:gid:8", "unix:gid:9"], MatchBehavior::MatchSubset).await, 1);
    assert_eq!(found(&["unix:uid:9", "unix:gid:8"], MatchBehavior::MatchAny).await, 1);

    let delete = BatchDeleteEntryRequest { ids: vec![first.id.clone(), "none".to_owned()] };
    let deleted = entries(&fixture).await.batch_delete_entry(delete).await.unwrap().into_inner().results;
    let codes: Vec<i32> = deleted.iter().map(|result| result.status.as_ref().unwrap().code).collect();
    assert_eq!(codes, [0, 5]);
    let count = entries(&fixture).await.count_entries(CountEntriesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_none_and_what_is_not_offered_are_refused_with_a_sentence() {
    let fixture = fixture().await;
    let node = joined(&fixture).await;
    let good = || entry(&node.id, "/web", &["unix:uid:7"]);
    let with_path = |path: &str| Entry { spiffe_id: Some(spiffe_id(path)), ..good() };
    let mut foreign = good();
    foreign.spiffe_id.as_mut().unwrap().trust_domain = "other.example".to_owned();
    let mut port = good();
    port.spiffe_id.as_mut().unwrap().trust_domain = format!("{TRUST_DOMAIN}:80");
    let pcr = format!("tpm:pcr:7:{}", "ab".repeat(32));
    let bad = [
        with_path(&format!("/{}", "a".repeat(2049 - "spiffe://".len() - TRUST_DOMAIN.len() - 1))),
        with_path("/a/../b"),
        with_path("/a//b"),
        with_path("/a/"),
        with_path("/%41"),
        with_path("/a?b"),
        with_path("web"),
        with_path(""),
        with_path("/spire/agent/join_token/x"),
        with_path("/assay/gateway/x"),
        foreign,
        port,
        Entry { spiffe_id: None, ..good() },
        Entry { parent_id: None, ..good() },
        Entry { selectors: Vec::new(), ..good() },
        Entry { x509_svid_ttl: -1, ..good() },
        Entry { jwt_svid_ttl: 301, ..good() },
        Entry { expires_at: 1, ..good() },
        Entry { admin: true, ..good() },
        Entry { downstream: true, ..good() },
        Entry { store_svid: true, ..good() },
        Entry { federates_with: vec!["other.example".to_owned()], ..good() },
        Entry { dns_names: vec!["no name".to_owned()], ..good() },
        entry(&node.id, "/web", &["unix:usr:7"]),
        entry(&node.id, "/web", &["unix:path:/bin/sh"]),
        entry(&node.id, "/web", &["unix:uid:7", &pcr]),
    ];
    for (sent, (code, message, _)) in bad.clone().into_iter().zip(create(&fixture, bad.to_vec()).await) {
        assert_eq!(code, 3, "{sent:?}: {message}");
        assert!(!message.is_empty(), "{sent:?}");
    }
    let count = entries(&fixture).await.count_entries(CountEntriesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_chooses_nodes_and_an_entry_reaches_further() {
    let fixture = fixture().await;
    let (alias, mut operator) = (spiffe_id("/edge"), agents(&fixture).await);
    let request = CreateJoinTokenRequest { ttl: 60, token: String::new(), agent_id: Some(alias) };
    let token = operator.create_join_token(request).await.unwrap().into_inner().value;
    let key = assay_identity::PrivateKey::generate().unwrap();
    let csr = assay_identity::csr::request(&key).unwrap();
    let svid = attest(&fixture, ("join_token", token.as_bytes()), csr).await.unwrap();
    let (node, other) = (Node::of(&key, svid), joined(&fixture).await);
    let server = format!("spiffe://{TRUST_DOMAIN}/spire/server");
    let edge = format!("spiffe://{TRUST_DOMAIN}/edge");
    let group = format!("spiffe://{TRUST_DOMAIN}/group");
    let chosen = format!("spiffe_id:{}", other.id);
    let made = create(
        &fixture,
        vec![
            entry(&edge, "/web", &["unix:uid:7"]),
            entry(&server, "/group", &[&chosen]),
            entry(&group, "/db", &["unix:uid:8"]),
            // A process is nothing that an alias chooses by, and a node none that a workload has.
            entry(&server, "/all", &["unix:uid:7"]),
            entry(&edge, "/none", &["unix:uid:7", &chosen]),
        ],
    )
    .await;
    let codes: Vec<i32> = made.iter().map(|(code, ..)| *code).collect();
    assert_eq!(codes, [0, 0, 0, 3, 3], "{made:?}");
    assert_eq!(authorized(&fixture, &node).await, ["/edge", "/web"]);
    assert_eq!(authorized(&fixture, &other).await, ["/db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_gives_a_node_without_quotes_nothing_unless_it_says_so() {
    let fixture = fixture().await;
    let node = joined(&fixture).await;
    let body = |more: serde_json::Value| {
        let mut body = json!({
            "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/web"), "parent": node.id,
            "selectors": [{ "type": "unix", "value": "uid:7" }],
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let bearer = format!("Bearer {}", fixture.token());
    let post = async |fixture: &Fixture, more| {
        fixture.ask(hyper::Method::POST, "/v1/entries", &bearer, body(more)).await
    };
    assert_eq!(post(&fixture, json!({})).await, 400, "the console asks for the word");
    assert_eq!(post(&fixture, json!({ "unquoted": true })).await, 200);
    assert_eq!(authorized(&fixture, &node).await, ["/web"]);

    // Where no such node is let in, no entry is for one.
    let closed = Fixture::start().await;
    let device = format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{}", "ab".repeat(32));
    let bearer = format!("Bearer {}", closed.token());
    for parent in [&node.id, &device] {
        let body = body(json!({ "unquoted": true, "parent": parent }));
        assert_eq!(closed.ask(hyper::Method::POST, "/v1/entries", &bearer, body).await, 400, "{parent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_entries_than_a_page_are_told_by_their_revisions_first() {
    let fixture = fixture().await;
    let node = joined(&fixture).await;
    let list: Vec<Entry> =
        (0..1000).map(|uid| entry(&node.id, &format!("/w/{uid}"), &[&format!("unix:uid:{uid}")])).collect();
    assert!(create(&fixture, list).await.iter().all(|(code, ..)| *code == 0));
    create(&fixture, vec![entry(&node.id, "/w/last", &["unix:uid:2000"])]).await;

    let (ask, asked) = tokio::sync::mpsc::channel(4);
    let mask = EntryMask { spiffe_id: true, selectors: true, revision_number: true, ..Default::default() };
    ask.send(SyncAuthorizedEntriesRequest { output_mask: Some(mask), ids: Vec::new() }).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut answers =
        node.entries(&fixture).await.sync_authorized_entries(stream).await.unwrap().into_inner();
    let mut revisions = Vec::new();
    loop {
        let page = answers.next().await.unwrap().unwrap();
        assert!(page.entries.is_empty() && page.entry_revisions.len() <= 500);
        revisions.extend(page.entry_revisions);
        if !page.more {
            break;
        }
    }
    let ids: HashSet<&str> = revisions.iter().map(|one| one.id.as_str()).collect();
    assert_eq!((revisions.len(), ids.len()), (1001, 1001));
    let wanted: Vec<String> = revisions.iter().take(700).map(|one| one.id.clone()).collect();
    let asked_for = SyncAuthorizedEntriesRequest { output_mask: None, ids: wanted.clone() };
    ask.send(asked_for).await.unwrap();
    let mut whole = Vec::new();
    loop {
        let page = answers.next().await.unwrap().unwrap();
        whole.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert_eq!(whole.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>(), wanted);
    assert!(whole.iter().all(|entry| entry.spiffe_id.is_some() && entry.parent_id.is_none()));
    drop(ask);
    assert!(answers.next().await.is_none());

    // The operator gets them by pages, each once.
    let mut operator = entries(&fixture).await;
    let (mut found, mut page_token) = (HashSet::new(), String::new());
    loop {
        let list = ListEntriesRequest { page_size: 300, page_token, ..Default::default() };
        let page = operator.list_entries(list).await.unwrap().into_inner();
        assert!(page.entries.len() <= 300);
        found.extend(page.entries.into_iter().map(|entry| entry.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found.len(), 1001);

    // Whoever begins otherwise is told so.
    for begin in [
        SyncAuthorizedEntriesRequest { output_mask: Some(EntryMask::default()), ids: Vec::new() },
        SyncAuthorizedEntriesRequest { output_mask: None, ids: wanted },
    ] {
        let stream = tokio_stream::iter([begin]);
        let mut answers =
            node.entries(&fixture).await.sync_authorized_entries(stream).await.unwrap().into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    }
}
