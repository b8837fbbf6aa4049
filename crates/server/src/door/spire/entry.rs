//! Registration entries: an operator's to change, a node's to follow.

use std::sync::Arc;
use std::time::Duration;

use assay_identity::selector::Written;
use assay_wire::spire::entry::entry_server::Entry;
use assay_wire::spire::entry::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchDeleteEntryRequest, BatchDeleteEntryResponse,
    BatchUpdateEntryRequest, BatchUpdateEntryResponse, CountEntriesRequest, CountEntriesResponse,
    GetAuthorizedEntriesRequest, GetAuthorizedEntriesResponse, GetEntryRequest, ListEntriesRequest,
    ListEntriesResponse, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
    batch_create_entry_response, batch_delete_entry_response, batch_update_entry_response,
    list_entries_request,
};
use assay_wire::spire::types;
use assay_wire::spire::types::selector_match::MatchBehavior;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{self, own_id};
use super::status::{good, malformed, part, refused};
use super::{sync, who};
use crate::actor::Actor;
use crate::entry::{self, EntryError, NewEntry};
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::store::EntryRecord;

pub(super) struct EntryService(pub Arc<Server>);

#[tonic::async_trait]
impl Entry for EntryService {
    type SyncAuthorizedEntriesStream = ReceiverStream<Result<SyncAuthorizedEntriesResponse, Status>>;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        let entries = self.authorized(request.extensions()).await?;
        let (answers, stream) = mpsc::channel(1);
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            let synced = timeout(SYNC_WITHIN, sync::sync(&entries, &mut inbound, &answers)).await;
            let late = || refused(Refusal::new(Kind::Late, "deadline", "the synchronisation took too long"));
            if let Err(status) = synced.unwrap_or_else(|_| Err(late())) {
                answers.send(Err(status)).await.ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<GetAuthorizedEntriesRequest>,
    ) -> Result<Response<GetAuthorizedEntriesResponse>, Status> {
        let entries = self.authorized(request.extensions()).await?;
        let mask = request.into_inner().output_mask;
        let entries = entries.iter().map(|entry| convert::entry(entry, mask.as_ref())).collect();
        Ok(Response::new(GetAuthorizedEntriesResponse { entries }))
    }

    async fn count_entries(
        &self,
        request: Request<CountEntriesRequest>,
    ) -> Result<Response<CountEntriesResponse>, Status> {
        who::operator(request.extensions())?;
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = Wanted::of(list_entries_request::Filter {
            by_spiffe_id: filter.by_spiffe_id,
            by_parent_id: filter.by_parent_id,
            by_selectors: filter.by_selectors,
            by_federates_with: filter.by_federates_with,
            by_hint: filter.by_hint,
            by_downstream: filter.by_downstream,
        })?;
        let count = self.0.entries.all().iter().filter(|entry| wanted.is(entry)).count();
        Ok(Response::new(CountEntriesResponse { count: convert::count(count) }))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        who::operator(request.extensions())?;
        let ListEntriesRequest { filter, output_mask, page_size, page_token } = request.into_inner();
        let size = convert::page_size(page_size)?;
        let wanted = Wanted::of(filter.unwrap_or_default())?;
        let after = after(&page_token)?;
        let place = |entry: &EntryRecord| (entry.created_at.0, entry.id.clone());
        let all = self.0.entries.all();
        let mut rest = all
            .iter()
            .skip_while(|entry| after.as_ref().is_some_and(|after| place(entry) <= *after))
            .filter(|entry| wanted.is(entry));
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let next = page.last().filter(|_| rest.next().is_some());
        let next_page_token = next.map(|last| format!("{}-{}", last.created_at.0, last.id));
        Ok(Response::new(ListEntriesResponse {
            entries: page.iter().map(|entry| convert::entry(entry, output_mask.as_ref())).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }

    async fn get_entry(&self, request: Request<GetEntryRequest>) -> Result<Response<types::Entry>, Status> {
        who::operator(request.extensions())?;
        let GetEntryRequest { id, output_mask } = request.into_inner();
        let entry = self.0.entries.get(&id).ok_or_else(|| refused(unknown(&id)))?;
        Ok(Response::new(convert::entry(&entry, output_mask.as_ref())))
    }

    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Result<Response<BatchCreateEntryResponse>, Status> {
        who::operator(request.extensions())?;
        let BatchCreateEntryRequest { entries, output_mask } = request.into_inner();
        let mut results = Vec::with_capacity(entries.len());
        for sent in bounded(entries)? {
            let created = self.create(sent).await;
            let shown = |entry: &EntryRecord| convert::entry(entry, output_mask.as_ref());
            results.push(match created {
                Ok(entry) => {
                    batch_create_entry_response::Result { status: Some(good()), entry: Some(shown(&entry)) }
                }
                Err((refusal, there)) => batch_create_entry_response::Result {
                    status: Some(part(refusal)),
                    entry: there.as_deref().map(shown),
                },
            });
        }
        Ok(Response::new(BatchCreateEntryResponse { results }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<BatchUpdateEntryRequest>,
    ) -> Result<Response<BatchUpdateEntryResponse>, Status> {
        who::operator(request.extensions())?;
        let BatchUpdateEntryRequest { entries, input_mask, output_mask } = request.into_inner();
        let mut results = Vec::with_capacity(entries.len());
        for sent in bounded(entries)? {
            results.push(match self.update(sent, input_mask.as_ref()).await {
                Ok(entry) => batch_update_entry_response::Result {
                    status: Some(good()),
                    entry: Some(convert::entry(&entry, output_mask.as_ref())),
                },
                Err(refusal) => {
                    batch_update_entry_response::Result { status: Some(part(refusal)), entry: None }
                }
            });
        }
        Ok(Response::new(BatchUpdateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<BatchDeleteEntryRequest>,
    ) -> Result<Response<BatchDeleteEntryResponse>, Status> {
        who::operator(request.extensions())?;
        let mut results = Vec::new();
        for id in bounded(request.into_inner().ids)? {
            let removed = entry::remove(&self.0.store, &id, Actor::Operator, self.0.now()).await;
            let status = removed.map_or_else(|error| part(Refusal::from(error)), |_| good());
            results.push(batch_delete_entry_response::Result { status: Some(status), id });
        }
        Ok(Response::new(BatchDeleteEntryResponse { results }))
    }
}

impl EntryService {
    /// What the node that asks may hand out.
    async fn authorized(&self, extensions: &http::Extensions) -> Result<Vec<Arc<EntryRecord>>, Status> {
        let agent = who::node(&self.0, extensions).await?;
        let now = self.0.now();
        let mut entries = self.0.entries.reached_by(&agent.id, &agent.selectors());
        // What no node of its kind gets, it is not told of.
        entries.retain(|entry| {
            entry.unquoted && !entry.is_over(now) && agent.state.unmet(&entry.selectors).is_none()
        });
        Ok(entries)
    }

    async fn create(&self, sent: types::Entry) -> Result<EntryRecord, (Refusal, Option<Arc<EntryRecord>>)> {
        let new = self.read(sent).await.map_err(|refusal| (refusal, None))?;
        match entry::create(&self.0.store, self.0.entry_rules(), new, Actor::Operator, self.0.now()).await {
            Ok(entry) => Ok(entry),
            Err(EntryError::Exists { id }) => {
                let there = self.0.entries.get(&id);
                Err((EntryError::Exists { id }.into(), there))
            }
            Err(error) => Err((error.into(), None)),
        }
    }

    async fn update(
        &self,
        sent: types::Entry,
        mask: Option<&types::EntryMask>,
    ) -> Result<EntryRecord, Refusal> {
        let id = sent.id.clone();
        let there = self.0.entries.get(&id).ok_or_else(|| unknown(&id))?;
        let new = self.read(masked(convert::entry(&there, None), sent, mask)).await?;
        // What SPIRE has no word for stays as it is.
        let (speaks_for_node, unquoted) = (there.speaks_for_node, there.unquoted || new.unquoted);
        let new = NewEntry { speaks_for_node, unquoted, ..new };
        Ok(entry::update(&self.0.store, self.0.entry_rules(), (id, new), Actor::Operator, self.0.now())
            .await?)
    }

    /// An entry as SPIRE sends it. Nothing in it says whether it is for nodes that do not quote: it is, unless its parent is a
    /// device that does.
    async fn read(&self, sent: types::Entry) -> Result<NewEntry, Refusal> {
        let attributes = sent.additional_attributes.unwrap_or_default();
        for (is_said, what) in [
            (sent.admin, "admin: no SVID makes anybody an operator here"),
            (sent.downstream, "downstream: no intermediate authorities are signed here"),
            (sent.store_svid, "store_svid: SVIDs are not handed to stores here"),
            (attributes.jwt_svid_include_jti, "jwt_svid_include_jti: tokens bear none here"),
        ] {
            if is_said {
                return Err(malformed(what));
            }
        }
        let trust_domain = &self.0.config.trust_domain;
        let spiffe_id = own_id("spiffe_id", sent.spiffe_id, trust_domain)?;
        let parent = own_id("parent_id", sent.parent_id, trust_domain)?;
        let selectors: Vec<Written> = sent.selectors.into_iter().map(convert::written).collect();
        let seconds =
            |what: &str, of: i32| u64::try_from(of).map_err(|_| malformed(format!("{what}: it is below 0")));
        let quotes = self.0.store.device(parent.as_str()).await?.is_some();
        let new = NewEntry::of(spiffe_id, parent, selectors);
        Ok(NewEntry {
            ttl_seconds: match seconds("x509_svid_ttl", sent.x509_svid_ttl)? {
                0 => new.ttl_seconds,
                said => said,
            },
            jwt_ttl_seconds: seconds("jwt_svid_ttl", sent.jwt_svid_ttl)?,
            expires_at: u64::try_from(sent.expires_at).map_err(|_| malformed("expires_at: it is below 0"))?,
            dns_names: sent.dns_names,
            hint: sent.hint,
            federates_with: sent.federates_with,
            unquoted: !quotes,
            ..new
        })
    }
}

/// An entry with those parts of another that are meant.
fn masked(there: types::Entry, sent: types::Entry, mask: Option<&types::EntryMask>) -> types::Entry {
    let Some(mask) = mask else { return sent };
    macro_rules! one_of {
        ($($field:ident),*) => {
            types::Entry {
                id: there.id,
                revision_number: 0,
                created_at: 0,
                $($field: if mask.$field { sent.$field } else { there.$field },)*
            }
        };
    }
    one_of!(
        spiffe_id,
        parent_id,
        selectors,
        x509_svid_ttl,
        federates_with,
        admin,
        downstream,
        expires_at,
        dns_names,
        store_svid,
        jwt_svid_ttl,
        hint,
        additional_attributes
    )
}

/// Which entries a filter means.
struct Wanted {
    spiffe_id: Option<String>,
    parent: Option<String>,
    selectors: Option<(Vec<Written>, MatchBehavior)>,
    hint: Option<String>,
    federates_with: Option<(Vec<String>, MatchBehavior)>,
    /// Nobody has what only others offer.
    none: bool,
}

impl Wanted {
    fn of(filter: list_entries_request::Filter) -> Result<Wanted, Status> {
        let id = |what, sent: Option<types::Spiffeid>| {
            let read = sent.map(|sent| convert::read_id(what, Some(sent))).transpose();
            read.map(|id| id.map(|id| id.to_string())).map_err(refused)
        };
        let selectors = filter.by_selectors.map(|wanted| {
            let behavior = wanted.r#match();
            (wanted.selectors.into_iter().map(convert::written).collect(), behavior)
        });
        Ok(Wanted {
            spiffe_id: id("by_spiffe_id", filter.by_spiffe_id)?,
            parent: id("by_parent_id", filter.by_parent_id)?,
            selectors,
            hint: filter.by_hint,
            federates_with: filter.by_federates_with.map(|wanted| {
                // Both are numbered alike.
                let behavior = MatchBehavior::try_from(wanted.r#match).unwrap_or_default();
                (wanted.trust_domains, behavior)
            }),
            none: filter.by_downstream == Some(true),
        })
    }

    fn is(&self, entry: &EntryRecord) -> bool {
        !self.none
            && self.spiffe_id.as_ref().is_none_or(|id| *id == entry.spiffe_id)
            && self.parent.as_ref().is_none_or(|id| *id == entry.parent)
            && self.hint.as_ref().is_none_or(|hint| *hint == entry.hint)
            && self.selectors.as_ref().is_none_or(|(wanted, behavior)| {
                let has: Vec<Written> = entry.selectors.iter().cloned().map(Written::from).collect();
                matches(&has, wanted, *behavior)
            })
            && self
                .federates_with
                .as_ref()
                .is_none_or(|(wanted, behavior)| matches(&entry.federates_with, wanted, *behavior))
    }
}

fn matches<T: PartialEq>(has: &[T], wanted: &[T], behavior: MatchBehavior) -> bool {
    let all_wanted = || wanted.iter().all(|one| has.contains(one));
    let all_had = || has.iter().all(|one| wanted.contains(one));
    match behavior {
        MatchBehavior::MatchExact => all_wanted() && all_had(),
        MatchBehavior::MatchSubset => all_had(),
        MatchBehavior::MatchSuperset => all_wanted(),
        MatchBehavior::MatchAny => wanted.iter().any(|one| has.contains(one)),
    }
}

fn after(page_token: &str) -> Result<Option<(u64, String)>, Status> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let place = page_token.split_once('-').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
    place.map(Some).ok_or_else(|| refused(malformed("page_token: it is not what a page ended with")))
}

fn bounded<T>(list: Vec<T>) -> Result<Vec<T>, Status> {
    match list.len() <= BATCH_MAX {
        true => Ok(list),
        false => Err(refused(malformed(format!("give at most {BATCH_MAX} at a time")))),
    }
}

fn unknown(id: &str) -> Refusal {
    let shown: String = id.chars().take(ID_CHARACTERS_SHOWN).collect();
    Refusal::new(Kind::NotFound, "unknown-entry", format!("there is no entry {shown}"))
}

/// Each is a transaction of its own.
const BATCH_MAX: usize = 1000;
const ID_CHARACTERS_SHOWN: usize = 64;
/// As SPIRE's agents wait.
const SYNC_WITHIN: Duration = Duration::from_secs(30);
