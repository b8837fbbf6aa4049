//! How a node keeps its entries as the server has them: whole where there are few, and where there are many by their revisions
//! first, of which it asks for those that it lacks.

use std::collections::HashMap;
use std::sync::Arc;

use assay_wire::spire::entry::{EntryRevision, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse};
use assay_wire::spire::types::EntryMask;
use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};

use super::convert;
use super::status::{malformed, refused};
use crate::store::EntryRecord;

/// Tells a node what entries it has, until it has asked for all that it wants.
pub(super) async fn sync(
    entries: &[Arc<EntryRecord>],
    inbound: &mut Streaming<SyncAuthorizedEntriesRequest>,
    answers: &Sender<Result<SyncAuthorizedEntriesResponse, Status>>,
) -> Result<(), Status> {
    let begin = inbound.message().await?.ok_or_else(|| refused(malformed("nothing was asked for")))?;
    if !begin.ids.is_empty() {
        return Err(refused(malformed("ids: they are asked for once their revisions are known")));
    }
    let mask = begin.output_mask.unwrap_or(EntryMask { revision_number: true, ..whole() });
    if !mask.revision_number {
        return Err(refused(malformed("output_mask: revision_number has to be in it")));
    }
    if entries.len() <= PAGE {
        let entries = entries.iter().map(|entry| convert::entry(entry, Some(&mask))).collect();
        return say(answers, SyncAuthorizedEntriesResponse { entries, ..Default::default() }).await;
    }
    let pages = entries.chunks(PAGE);
    let last = pages.len().saturating_sub(1);
    for (number, page) in pages.enumerate() {
        let entry_revisions = page.iter().map(|entry| revision(entry)).collect();
        let more = number < last;
        say(answers, SyncAuthorizedEntriesResponse { entry_revisions, more, ..Default::default() }).await?;
    }
    let by_id: HashMap<&str, &Arc<EntryRecord>> =
        entries.iter().map(|entry| (entry.id.as_str(), entry)).collect();
    while let Some(asked) = inbound.message().await? {
        let found: Vec<_> = asked.ids.iter().filter_map(|id| by_id.get(id.as_str())).collect();
        let mut pages = found.chunks(PAGE).peekable();
        if pages.peek().is_none() {
            say(answers, SyncAuthorizedEntriesResponse::default()).await?;
        }
        while let Some(page) = pages.next() {
            let entries = page.iter().map(|entry| convert::entry(entry, Some(&mask))).collect();
            let more = pages.peek().is_some();
            say(answers, SyncAuthorizedEntriesResponse { entries, more, ..Default::default() }).await?;
        }
    }
    Ok(())
}

fn revision(entry: &EntryRecord) -> EntryRevision {
    EntryRevision {
        id: entry.id.clone(),
        revision_number: convert::revision(entry),
        created_at: convert::seconds(entry.created_at),
    }
}

fn whole() -> EntryMask {
    EntryMask {
        spiffe_id: true,
        parent_id: true,
        selectors: true,
        x509_svid_ttl: true,
        expires_at: true,
        dns_names: true,
        jwt_svid_ttl: true,
        hint: true,
        created_at: true,
        ..EntryMask::default()
    }
}

async fn say(
    answers: &Sender<Result<SyncAuthorizedEntriesResponse, Status>>,
    answer: SyncAuthorizedEntriesResponse,
) -> Result<(), Status> {
    answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the node is gone"))
}

/// As SPIRE's pages.
const PAGE: usize = 500;
